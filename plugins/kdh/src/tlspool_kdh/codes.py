"""Code points of TLS-KDH, all of them private, in one table; and the rows that they add to the engine's tables.

Source: draft-vanrein-tls-kdh for TLS 1.2, and its successor "Quantum Relief with TLS and Kerberos" for TLS 1.3.
"""

from __future__ import annotations

from typing import Final

from tlspool_core.api import CertificateEntry, CertificateForm, CipherSuite, DecodeError, SignatureScheme

TLS12: Final = 0x0303
TLS13: Final = 0x0304
TICKET_TYPE: Final = 224  # certificate type, and ClientCertificateType in TLS 1.2's CertificateRequest
KEY_USAGE: Final = 11  # RFC 4120 section 7.5.1: AP-REQ Authenticator
KDH_NAME: Final = "ECDHE_KRB"
QUANTUM_RELIEF: Final = 0xFF0D  # extension, unless configured otherwise
METHOD_KDH: Final = 1

# checksum type of an Authenticator, by signature scheme, with the hash
CHECKSUMS: Final = {0x04E0: (-2, "sha256"), 0x05E0: (-3, "sha384"), 0x06E0: (-4, "sha512")}

_BOTH: Final = frozenset((TLS12, TLS13))

SCHEMES: Final = tuple(
    SignatureScheme(code, f"kerberos_{name}", _BOTH, "kerberos", quantum_safe=True) for code, (_, name) in CHECKSUMS.items()
)

SUITES: Final = tuple(
    CipherSuite(code, name, TLS12, KDH_NAME, "", cipher, digest, verify_data_length=length, client_certificate_type=TICKET_TYPE)
    for code, name, cipher, digest, length in (
        (0xFFA2, "TLS_ECDHE_KRB_WITH_AES_256_GCM_SHA384", "AES-256-GCM", "sha384", 48),
        (0xFFA1, "TLS_ECDHE_KRB_WITH_AES_128_GCM_SHA256", "AES-128-GCM", "sha256", 32),
    )
)


def parse_ticket(body: bytes) -> tuple[CertificateEntry, ...]:
    """TLS 1.2's Certificate: one ticket behind its length, in one layer; no bytes for none."""
    if len(body) < 3 or int.from_bytes(body[:3], "big") != len(body) - 3:
        raise DecodeError("a Certificate of this type is one ticket behind its length")
    return (CertificateEntry(body[3:]),) if len(body) > 3 else ()


def build_ticket(entries: object) -> bytes:
    """The reverse of `parse_ticket`."""
    assert isinstance(entries, list | tuple)
    ticket = entries[0].data if entries else b""
    return len(ticket).to_bytes(3, "big") + ticket


FORM: Final = CertificateForm(
    TICKET_TYPE, "Kerberos", _BOTH, parse_ticket, build_ticket, entries13_max=1, client_certificate_types=(TICKET_TYPE,)
)
