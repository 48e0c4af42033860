"""Name constraints (RFC 5280 section 4.2.1.10) on the names that the path's verifier does not look at.

Theory of operation
-------------------
The verifier holds dNSName, iPAddress and rfc822Name against the constraints of their own kinds.  Three things are missing.

Directory names: the subject of every certificate below the issuer, and alternative names of this kind, have to be in the subtree.

An SmtpUTF8Mailbox is an otherName, so the constraints on rfc822Name would not reach it, although RFC 9598 section 5 wants them to.

And an issuer that may only name hosts below example.com is free to name any mailbox; since a user's domain is a domain here, that
would let it speak for every domain.  So a mailbox is held against the constraints on mailboxes and, if an issuer has none of
those, its domain against the constraints on hosts.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509

from tlspool_x509.names import Names, title


def constraint_fault(chain: Sequence[x509.Certificate]) -> str:
    """Why an issuer of a path may not vouch for a name below it; "" if all may. The end certificate comes first."""
    for position, issuer in enumerate(chain):
        try:
            constraints = issuer.extensions.get_extension_for_class(x509.NameConstraints).value
        except x509.ExtensionNotFound:
            continue
        fault = _directory_fault(chain[:position], constraints) or _mailbox_fault(chain[0], constraints)
        if fault:
            return f"name constraints of {title(issuer)} do not allow it to name {fault}"
    return ""


# --- directory names ----------------------------------------------------------------------------------------------------------


def _directory_fault(below: Sequence[x509.Certificate], constraints: x509.NameConstraints) -> str:
    permitted = _directory_subtrees(constraints.permitted_subtrees)
    excluded = _directory_subtrees(constraints.excluded_subtrees)
    if not permitted and not excluded:
        return ""
    for position, certificate in enumerate(below):
        if position and certificate.issuer == certificate.subject:
            continue  # RFC 5280 section 6.1.3 (b): self-issued certificates that are not the last one
        for name in _directory_names(certificate):
            if any(_is_within(name, subtree) for subtree in excluded):
                return name.rfc4514_string()
            if permitted and not any(_is_within(name, subtree) for subtree in permitted):
                return name.rfc4514_string()
    return ""


def _directory_subtrees(subtrees: list[x509.GeneralName] | None) -> list[x509.Name]:
    return [subtree.value for subtree in subtrees or () if isinstance(subtree, x509.DirectoryName)]


def _directory_names(certificate: x509.Certificate) -> list[x509.Name]:
    names = [certificate.subject] if len(certificate.subject.rdns) else []
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return names
    return [*names, *alternatives.get_values_for_type(x509.DirectoryName)]


def _is_within(name: x509.Name, subtree: x509.Name) -> bool:
    """Whether the subtree's RDNs are the first ones of the name (RFC 5280 section 7.1 on how to compare)."""
    wanted = [_comparable(rdn) for rdn in subtree.rdns]
    return [_comparable(rdn) for rdn in name.rdns[: len(wanted)]] == wanted


def _comparable(rdn: x509.RelativeDistinguishedName) -> frozenset[tuple[str, str | bytes]]:
    return frozenset((attribute.oid.dotted_string, _folded(attribute.value)) for attribute in rdn)


def _folded(value: str | bytes) -> str | bytes:
    return " ".join(value.casefold().split()) if isinstance(value, str) else value


# --- mailboxes ----------------------------------------------------------------------------------------------------------------


def _mailbox_fault(leaf: x509.Certificate, constraints: x509.NameConstraints) -> str:
    return next((mailbox for mailbox in Names.of(leaf).mailboxes if not _mailbox_allowed(mailbox, constraints)), "")


def _mailbox_allowed(mailbox: str, constraints: x509.NameConstraints) -> bool:
    permitted = _texts(constraints.permitted_subtrees, x509.RFC822Name)
    excluded = _texts(constraints.excluded_subtrees, x509.RFC822Name)
    if permitted or excluded:
        return not _any_mailbox(mailbox, excluded) and (not permitted or _any_mailbox(mailbox, permitted))
    domain = mailbox.rpartition("@")[2]
    permitted = _texts(constraints.permitted_subtrees, x509.DNSName)
    excluded = _texts(constraints.excluded_subtrees, x509.DNSName)
    return not _any_host(domain, excluded) and (not permitted or _any_host(domain, permitted))


def _texts(subtrees: list[x509.GeneralName] | None, kind: type[x509.RFC822Name] | type[x509.DNSName]) -> list[str]:
    return [subtree.value for subtree in subtrees or () if isinstance(subtree, kind)]


def _any_mailbox(mailbox: str, subtrees: list[str]) -> bool:
    return any(_mailbox_within(mailbox, subtree) for subtree in subtrees)


def _mailbox_within(mailbox: str, subtree: str) -> bool:
    """`john@example.com` is that mailbox, `example.com` all at that host, `.example.com` all at hosts below it."""
    user, _, domain = mailbox.rpartition("@")
    domain = domain.lower()
    if "@" in subtree:
        subtree_user, _, subtree_domain = subtree.rpartition("@")
        return user == subtree_user and domain == subtree_domain.lower()
    if subtree.startswith("."):
        return domain.endswith(subtree.lower())
    return domain == subtree.lower()


def _any_host(domain: str, subtrees: list[str]) -> bool:
    return any(_host_within(domain.lower(), subtree.lower().removeprefix(".")) for subtree in subtrees)


def _host_within(domain: str, subtree: str) -> bool:
    return not subtree or domain == subtree or domain.endswith(f".{subtree}")
