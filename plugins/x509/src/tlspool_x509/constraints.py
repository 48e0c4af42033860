"""Name constraints on mailboxes (RFC 5280 section 4.2.1.10, RFC 9598 section 5), where the path's verifier does not look.

Theory of operation
-------------------
The verifier holds dNSName and rfc822Name against the constraints of their own kinds.  Two things are missing.  An SmtpUTF8Mailbox
is an otherName, so the constraints on rfc822Name would not reach it, although RFC 9598 wants them to.  And an issuer that may only
name hosts below example.com is free to name any mailbox; since a user's domain is a domain here, that would let it speak for
every domain.  So a mailbox is held against the constraints on mailboxes and, if an issuer has none of those, its domain against
the constraints on hosts.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509

from tlspool_x509.names import Names


def constraint_fault(chain: Sequence[x509.Certificate]) -> str:
    """Why an issuer of the path may not vouch for a mailbox of the end certificate; "" if all may."""
    mailboxes = Names.of(chain[0]).mailboxes
    if not mailboxes:
        return ""
    for issuer in chain[1:]:
        try:
            constraints = issuer.extensions.get_extension_for_class(x509.NameConstraints).value
        except x509.ExtensionNotFound:
            continue
        for mailbox in mailboxes:
            if not _allowed(mailbox, constraints):
                return f"name constraints of {issuer.subject.rfc4514_string()} do not allow it to name {mailbox}"
    return ""


def _allowed(mailbox: str, constraints: x509.NameConstraints) -> bool:
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
