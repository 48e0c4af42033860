"""What a certificate calls its subject: subjectAltName as identities of the pool.

Theory of operation
-------------------
A dNSName is a domain, an rfc822Name or SmtpUTF8Mailbox (RFC 9598) a user at a domain.  Addresses and URIs are no identities here,
and the common name never is.  What is not a well-formed identity is passed over: it can name nobody.

A wildcard is a pattern, so it is no identity either; it can only confirm one that is wanted.  Following RFC 9525 section 6.3 it is
the whole left-most label and stands for exactly one label.  Two labels at least must follow, so nobody speaks for a whole top-level
domain.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID

from tlspool_core.api import DoNAI, InvalidIdentity

SMTP_UTF8_MAILBOX = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9")  # RFC 9598 section 3
MAX_IDENTITIES = 100  # of one certificate; those beyond are not looked at

_ADDRESS_LIKE = re.compile(r"0[xX][0-9A-Fa-f]+|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*|[0-9]+(?:\.[0-9]+){3}")
_DOMAIN_LIKE = re.compile(r"[^\s@/]+\.[^\s@/]*[^\s@/.]")


@dataclass(frozen=True, slots=True)
class Names:
    """The names of subjectAltName that matter, as written. Mailboxes of both kinds are in one list."""

    hosts: tuple[str, ...] = ()
    mailboxes: tuple[str, ...] = ()

    @classmethod
    def of(cls, certificate: x509.Certificate) -> Names:
        """From a certificate; empty if there is no subjectAltName."""
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return cls()
        mailboxes = [*names.get_values_for_type(x509.RFC822Name), *_utf8_mailboxes(names)]
        return cls(tuple(names.get_values_for_type(x509.DNSName)), tuple(mailboxes))

    def identities(self, *, user_case_counts: bool = False) -> tuple[DoNAI, ...]:
        """Users first, then domains; never a wildcard. At most MAX_IDENTITIES."""
        texts = [*((text, True) for text in self.mailboxes), *((text, False) for text in self.hosts)][:MAX_IDENTITIES]
        found = [_identity(text, is_user, user_case_counts) for text, is_user in texts]
        return tuple(dict.fromkeys(identity for identity in found if identity is not None))

    def name(self, wanted: DoNAI, *, user_case_counts: bool = False) -> bool:
        """Whether they name exactly the wanted identity, be it through a wildcard."""
        if wanted.user is not None:
            return wanted in self.identities(user_case_counts=user_case_counts)
        hosts = {host.lower() for host in self.hosts if host.isascii()}
        return wanted.domain in hosts or _wildcard_for(wanted.domain) in hosts


def _identity(text: str, is_user: bool, case_counts: bool) -> DoNAI | None:
    """None unless the text is well formed for its kind: a host is no user, and a mailbox is one."""
    try:
        identity = DoNAI.parse(text, user_case_counts=case_counts)
    except InvalidIdentity:
        return None
    # domains are A-labels in both kinds (RFC 5280 section 7.2, RFC 9598 section 3)
    fits = text.rpartition("@")[2].isascii() and (identity.user is not None) is is_user
    return identity if fits else None


def _wildcard_for(domain: str) -> str | None:
    """The only wildcard that stands for a domain; None for domains that have none."""
    _, _, parent = domain.partition(".")
    return f"*.{parent}" if "." in parent else None


def _utf8_mailboxes(names: x509.SubjectAlternativeName) -> list[str]:
    others = names.get_values_for_type(x509.OtherName)
    found = [_utf8_text(other.value) for other in others if other.type_id == SMTP_UTF8_MAILBOX]
    # RFC 9598 section 3: only for a local part beyond ASCII, so that there is one way to write each mailbox
    return [text for text in found if not text.rpartition("@")[0].isascii()]


def _utf8_text(der: bytes) -> str:
    """Content of a DER UTF8String of up to 65,535 bytes; "" for anything else."""
    if len(der) < 2 or der[0] != 0x0C:
        return ""
    octets = {0x81: 1, 0x82: 2}.get(der[1], 0)
    if der[1] >= 0x80 and not octets:
        return ""
    length = int.from_bytes(der[2 : 2 + octets], "big") if octets else der[1]
    content = der[2 + octets :]
    try:
        return content.decode() if len(content) == length else ""
    except UnicodeDecodeError:
        return ""


# --- as text ------------------------------------------------------------------------------------------------------------------


def alternative_names(certificate: x509.Certificate) -> str | None:
    """`dns:example.com, email:john@example.com`: what an application may check a name against; None if there is no such name."""
    names = Names.of(certificate)
    return ", ".join([*(f"dns:{host}" for host in names.hosts), *(f"email:{mailbox}" for mailbox in names.mailboxes)]) or None


def encoded_names(certificate: x509.Certificate) -> tuple[bytes, ...]:
    """The DER of each GeneralName of subjectAltName; none without the extension."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(_without_header(x509.SubjectAlternativeName([name]).public_bytes()) for name in names)


def _without_header(der: bytes) -> bytes:
    """The content of one DER value with a tag of one byte (X.690 section 8.1.3)."""
    return der[2 + (der[1] & 0x7F if der[1] & 0x80 else 0) :]


def title(certificate: x509.Certificate) -> str:
    """The subject in a few words, for reasons and lists."""
    return _shortened(certificate.subject.rfc4514_string()) or "a certificate without subject name"


def _shortened(text: str, limit: int = 120) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def common_name_fault(certificate: x509.Certificate) -> str:
    """Why the common name contradicts subjectAltName; "" if it does not.

    It names nobody here, but other software and people still go by it. So one that reads as an address has to be the text of an
    address that is an alternative name, and one that reads as a domain has to be an alternative name or a parent of one (after
    the CA/Browser Forum's requirements, section 7.1.4.3, which are stricter). A certificate without domains may call itself what
    it likes.
    """
    for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        value = attribute.value
        if isinstance(value, str) and not _agrees(value, certificate):
            return f"the common name {_shortened(value)} reads as a host, but is not among the alternative names"
    return ""


def _agrees(value: str, certificate: x509.Certificate) -> bool:
    if _ADDRESS_LIKE.fullmatch(value):
        return value in _addresses(certificate)
    hosts = [host.lower() for host in Names.of(certificate).hosts]
    if not hosts or not _DOMAIN_LIKE.fullmatch(value):
        return True
    value = value.lower()
    return any(host == value or host.endswith(f".{value}") for host in hosts)


def _addresses(certificate: x509.Certificate) -> list[str]:
    """Addresses of subjectAltName in their canonical text (RFC 5952)."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(address) for address in names.get_values_for_type(x509.IPAddress)]
