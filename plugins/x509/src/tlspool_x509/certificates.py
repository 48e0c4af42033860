"""Certificates as files and chains hold them: reading, key identifiers, who issued whom.

Theory of operation
-------------------
Everything that comes from outside passes `parse_certificate`: one certificate, exactly, with all its extensions readable.  What
`cryptography` finds wrong only on access is so found at once, and nothing but `Malformed` leaves this module.

An issuer is known by its key identifier: the subjectKeyIdentifier of the issuer, repeated as authorityKeyIdentifier in what it
issues (RFC 5280 sections 4.2.1.1 and 4.2.1.2).  This is the key under which the trust database keeps it.  Issuers without key
identifier are kept under a hash of their name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from tlspool_core.api import Role

MAX_CERTIFICATE = 65_535  # bytes; larger ones are no end or CA certificates that anyone uses
MAX_KEY_ID = 64  # bytes; a key of the trust database cannot be long, and hashes are not
MAX_CHAIN = 10

EKU_OF_ROLE = {Role.SERVER: ExtendedKeyUsageOID.SERVER_AUTH, Role.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH}

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


class Malformed(ValueError):
    """The bytes are no certificate, or none that can be understood; says why."""


def parse_certificate(der: bytes) -> x509.Certificate:
    """One DER certificate and nothing else, with readable extensions. Raises Malformed."""
    if len(der) > MAX_CERTIFICATE:
        raise Malformed(f"a certificate of {len(der)} bytes")
    try:
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.extensions, certificate.subject, certificate.issuer
    except Exception as error:  # the classes of extensions raise what they like on contents that make no sense
        raise Malformed(f"not a certificate that can be read: {error}") from None
    return certificate


def der_of(certificate: x509.Certificate) -> bytes:
    """The certificate's own bytes."""
    return certificate.public_bytes(Encoding.DER)


def spki_of(certificate: x509.Certificate) -> bytes:
    """DER SubjectPublicKeyInfo; the caller knows already that the key can be read."""
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


# --- files --------------------------------------------------------------------------------------------------------------------


def pem_blocks(data: bytes) -> list[tuple[str, bytes]]:
    """Label and whole text of each PEM block, in order."""
    return [(match[1].decode("ascii"), match[0]) for match in _PEM.finditer(data)]


def split_der(data: bytes) -> list[bytes]:
    """DER elements that follow each other without a gap (RFC 5280's certificates are SEQUENCEs). Raises Malformed."""
    elements = []
    while data:
        length = _element_length(data)
        elements.append(data[:length])
        data = data[length:]
    return elements


def _element_length(data: bytes) -> int:
    """Bytes of the SEQUENCE in front, header included. Raises Malformed."""
    if len(data) < 2 or data[0] != 0x30:
        raise Malformed("neither PEM nor DER")
    size = data[1]
    if size < 0x80:
        end = 2 + size
    else:
        octets = size & 0x7F
        if not 1 <= octets <= 4 or len(data) < 2 + octets:
            raise Malformed("not DER: bad length")
        end = 2 + octets + int.from_bytes(data[2 : 2 + octets], "big")
    if end > len(data):
        raise Malformed("not DER: cut short")
    return end


def read_certificates(data: bytes) -> list[x509.Certificate]:
    """Certificates of a file, PEM or DER, in its order. Raises Malformed, also for a file with anything else in it."""
    blocks = pem_blocks(data)
    if not blocks:
        return [parse_certificate(der) for der in split_der(data)]
    found = []
    for label, text in blocks:
        if "PRIVATE KEY" in label:
            raise Malformed("the file holds a private key: put that into a token, and give the certificates alone")
        if label not in ("CERTIFICATE", "X509 CERTIFICATE"):
            raise Malformed(f"the file holds a {label}, not only certificates")
        try:
            found.append(parse_certificate(der_of(x509.load_pem_x509_certificate(text))))
        except (ValueError, x509.InvalidVersion) as error:
            raise Malformed(f"a PEM block cannot be read: {error}") from None
    return found


# --- who issued whom ----------------------------------------------------------------------------------------------------------


def subject_key_id(certificate: x509.Certificate) -> bytes | None:
    """The subjectKeyIdentifier, None if there is none of reasonable size."""
    try:
        digest = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return None
    return digest if 1 <= len(digest) <= MAX_KEY_ID else None


def authority_key_id(extensions: x509.Extensions) -> bytes | None:
    """The keyIdentifier of authorityKeyIdentifier, of a certificate or a revocation list."""
    try:
        identifier = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        return None
    return identifier if identifier and 1 <= len(identifier) <= MAX_KEY_ID else None


def name_key(name: x509.Name) -> bytes:
    """Key of the trust database for an issuer without key identifier."""
    return b"x509:name:" + sha256(name.public_bytes()).digest()


def issuer_key(certificate: x509.Certificate) -> bytes:
    """Key of the trust database under which this certificate is kept as an issuer."""
    return subject_key_id(certificate) or name_key(certificate.subject)


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether names chain and the signature is the issuer's. Says nothing of the issuer's right to sign."""
    if certificate.issuer != issuer.subject:
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def ordered_chain(certificates: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """End certificate first, each followed by its issuer. Raises Malformed naming a certificate that does not belong.

    The end certificate is the one that issued none of the others.
    """
    unique = list({der_of(certificate): certificate for certificate in certificates}.values())
    if not 1 <= len(unique) <= MAX_CHAIN:
        raise Malformed("there is no certificate" if not unique else f"{len(unique)} certificates are more than a chain has")
    ends = [one for one in unique if not any(issued_by(other, one) for other in unique if other is not one)]
    if len(ends) != 1:
        names = ", ".join(one.subject.rfc4514_string() or "(no name)" for one in ends)
        raise Malformed(f"these certificates are no chain; each of these would be its end: {names or 'none'}")
    chain = [ends[0]]
    rest = [one for one in unique if one is not ends[0]]
    while issuer := next((one for one in rest if issued_by(chain[-1], one)), None):
        chain.append(issuer)
        rest.remove(issuer)
    if rest:
        raise Malformed(f"{rest[0].subject.rfc4514_string()} does not belong to the chain of {chain[0].subject.rfc4514_string()}")
    return chain


# --- what it may be used for --------------------------------------------------------------------------------------------------


def roles_of(certificate: x509.Certificate) -> Role:
    """Roles in TLS that extendedKeyUsage allows; both if it is absent (RFC 5280 section 4.2.1.12)."""
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return Role.BOTH
    allowed = Role(0)
    for role, usage in EKU_OF_ROLE.items():
        if usage in usages:
            allowed |= role
    return allowed


def validity_fault(certificate: x509.Certificate, now: datetime) -> str:
    """Why the certificate is not valid at `now`; "" if it is."""
    if now < certificate.not_valid_before_utc:
        return f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    # notAfter is inclusive and counts whole seconds (RFC 5280 section 4.1.2.5)
    if now.replace(microsecond=0) > certificate.not_valid_after_utc:
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    return ""


def serial_fault(certificate: x509.Certificate) -> str:
    """RFC 5280 section 4.1.2.2 wants a positive serial number."""
    return "" if certificate.serial_number > 0 else "a serial number that is not positive"


def utc_now() -> datetime:
    """Now, with its time zone."""
    return datetime.now(UTC)
