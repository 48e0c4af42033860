"""Code points of the IANA TLS registries, as far as the engine has a use for them.

What a peer sends may be outside these; it then stays a plain int, and `name_of` shows it as hexadecimal.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class ContentType(IntEnum):
    """Record content types, RFC 8446 section 5.1."""

    CHANGE_CIPHER_SPEC = 20
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23


class HandshakeType(IntEnum):
    """RFC 8446 section 4, RFC 5246 section 7.4, RFC 6066, RFC 8879."""

    HELLO_REQUEST = 0
    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    NEW_SESSION_TICKET = 4
    END_OF_EARLY_DATA = 5
    ENCRYPTED_EXTENSIONS = 8
    CERTIFICATE = 11
    SERVER_KEY_EXCHANGE = 12
    CERTIFICATE_REQUEST = 13
    SERVER_HELLO_DONE = 14
    CERTIFICATE_VERIFY = 15
    CLIENT_KEY_EXCHANGE = 16
    FINISHED = 20
    CERTIFICATE_STATUS = 22
    KEY_UPDATE = 24
    COMPRESSED_CERTIFICATE = 25
    MESSAGE_HASH = 254


class ExtensionType:
    """IANA registry "TLS ExtensionType Values".

    Plain integers, as a handshake names dozens of them: a member of an enumeration takes five times as long to look up in Python 3.11.
    """

    SERVER_NAME: Final = 0
    MAX_FRAGMENT_LENGTH: Final = 1
    STATUS_REQUEST: Final = 5
    CERT_TYPE: Final = 9
    SUPPORTED_GROUPS: Final = 10
    EC_POINT_FORMATS: Final = 11
    SRP: Final = 12
    SIGNATURE_ALGORITHMS: Final = 13
    USE_SRTP: Final = 14
    HEARTBEAT: Final = 15
    ALPN: Final = 16
    SIGNED_CERTIFICATE_TIMESTAMP: Final = 18
    CLIENT_CERTIFICATE_TYPE: Final = 19
    SERVER_CERTIFICATE_TYPE: Final = 20
    PADDING: Final = 21
    ENCRYPT_THEN_MAC: Final = 22
    EXTENDED_MASTER_SECRET: Final = 23
    COMPRESS_CERTIFICATE: Final = 27
    RECORD_SIZE_LIMIT: Final = 28
    SESSION_TICKET: Final = 35
    PRE_SHARED_KEY: Final = 41
    EARLY_DATA: Final = 42
    SUPPORTED_VERSIONS: Final = 43
    COOKIE: Final = 44
    PSK_KEY_EXCHANGE_MODES: Final = 45
    CERTIFICATE_AUTHORITIES: Final = 47
    OID_FILTERS: Final = 48
    POST_HANDSHAKE_AUTH: Final = 49
    SIGNATURE_ALGORITHMS_CERT: Final = 50
    KEY_SHARE: Final = 51
    RENEGOTIATION_INFO: Final = 0xFF01


# extensions from 0xff00 on are for private use, but for renegotiation_info
SYMMETRY: Final = 0xFF50  # docs/reference/symmetric-tls.md


class NamedGroup(IntEnum):
    """RFC 8446 section 4.2.7 and draft-ietf-tls-ecdhe-mlkem."""

    SECP256R1 = 0x0017
    SECP384R1 = 0x0018
    SECP521R1 = 0x0019
    X25519 = 0x001D
    SECP256R1MLKEM768 = 0x11EB
    X25519MLKEM768 = 0x11EC
    SECP384R1MLKEM1024 = 0x11ED


class SchemeCode(IntEnum):
    """SignatureScheme, RFC 8446 section 4.2.3 and draft-ietf-tls-mldsa; the SHA-1 forms are known only to refuse them."""

    RSA_PKCS1_SHA1 = 0x0201
    ECDSA_SHA1 = 0x0203
    RSA_PKCS1_SHA256 = 0x0401
    ECDSA_SECP256R1_SHA256 = 0x0403
    RSA_PKCS1_SHA384 = 0x0501
    ECDSA_SECP384R1_SHA384 = 0x0503
    RSA_PKCS1_SHA512 = 0x0601
    ECDSA_SECP521R1_SHA512 = 0x0603
    RSA_PSS_RSAE_SHA256 = 0x0804
    RSA_PSS_RSAE_SHA384 = 0x0805
    RSA_PSS_RSAE_SHA512 = 0x0806
    ED25519 = 0x0807
    ED448 = 0x0808
    RSA_PSS_PSS_SHA256 = 0x0809
    RSA_PSS_PSS_SHA384 = 0x080A
    RSA_PSS_PSS_SHA512 = 0x080B
    MLDSA44 = 0x0904
    MLDSA65 = 0x0905
    MLDSA87 = 0x0906


class CertificateType(IntEnum):
    """RFC 7250, RFC 6091."""

    X509 = 0
    OPENPGP = 1
    RAW_PUBLIC_KEY = 2


class PskMode(IntEnum):
    """RFC 8446 section 4.2.9."""

    PSK_KE = 0
    PSK_DHE_KE = 1


class CompressionAlgorithm(IntEnum):
    """RFC 8879 section 3."""

    ZLIB = 1
    BROTLI = 2
    ZSTD = 3


# RFC 5746 and RFC 7507: signalling values among the cipher suites
EMPTY_RENEGOTIATION_INFO_SCSV = 0x00FF
FALLBACK_SCSV = 0x5600


def is_grease(code: int) -> bool:
    """Reserved values that only serve to test tolerance (RFC 8701)."""
    return code & 0x0F0F == 0x0A0A and code >> 8 == code & 0xFF


def name_of(registry: type[IntEnum], code: int) -> str:
    """A name for logs."""
    try:
        return registry(code).name.lower()
    except ValueError:
        return f"0x{code:04x}"
