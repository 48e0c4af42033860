"""Everything that a plugin may import from the core (beside `tlspool_core.testing`, in its tests)."""

from __future__ import annotations

from tlspool_core.hookspecs import hookimpl
from tlspool_core.identity import DoNAI, InvalidIdentity
from tlspool_core.interfaces import *  # noqa: F403 - every public name of the interfaces is API
from tlspool_core.secret import Secret, forbid_dumps, locking_fault
from tlspool_core.tls.alerts import (
    AccessDenied,
    AlertDescription,
    BadCertificate,
    BadRecordMac,
    CertificateExpired,
    CertificateRevoked,
    CertificateUnknown,
    DecodeError,
    DecryptError,
    HandshakeFailure,
    IllegalParameter,
    InsufficientSecurity,
    InternalError,
    TlsError,
    UnexpectedMessage,
    UnknownCA,
    UnknownPskIdentity,
    UnsupportedCertificate,
    UserCanceled,
)
from tlspool_core.tls.questions import HandshakeFacts
from tlspool_core.tls.seams import (
    CertificateEntry,
    CertificateForm,
    CipherSuite,
    Credential,
    HandshakeExtension,
    KeyExchange,
    KeyExchangeContext,
    KeyExchangeRun,
    PeerCredential,
    SignatureScheme,
)
from tlspool_core.tls.signatures import PublicKeyCredential, schemes_for_key, verify

__all__ = [
    "AccessDenied",
    "AlertDescription",
    "BadCertificate",
    "BadRecordMac",
    "CertificateEntry",
    "CertificateExpired",
    "CertificateForm",
    "CertificateRevoked",
    "CertificateUnknown",
    "CipherSuite",
    "Credential",
    "DecodeError",
    "DecryptError",
    "DoNAI",
    "HandshakeExtension",
    "HandshakeFacts",
    "HandshakeFailure",
    "IllegalParameter",
    "InsufficientSecurity",
    "InternalError",
    "InvalidIdentity",
    "KeyExchange",
    "KeyExchangeContext",
    "KeyExchangeRun",
    "PeerCredential",
    "PublicKeyCredential",
    "Secret",
    "SignatureScheme",
    "TlsError",
    "UnexpectedMessage",
    "UnknownCA",
    "UnknownPskIdentity",
    "UnsupportedCertificate",
    "UserCanceled",
    "forbid_dumps",
    "hookimpl",
    "locking_fault",
    "schemes_for_key",
    "verify",
]
