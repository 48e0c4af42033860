"""Everything that a plugin may import from the core (beside `tlspool_core.testing`, in its tests)."""

from __future__ import annotations

from tlspool_core.hookspecs import hookimpl
from tlspool_core.identity import DoNAI, InvalidIdentity
from tlspool_core.interfaces import *  # noqa: F403 - every public name of the interfaces is API
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

__all__ = [
    "CertificateEntry",
    "CertificateForm",
    "CipherSuite",
    "Credential",
    "DoNAI",
    "HandshakeExtension",
    "HandshakeFacts",
    "InvalidIdentity",
    "KeyExchange",
    "KeyExchangeContext",
    "KeyExchangeRun",
    "PeerCredential",
    "SignatureScheme",
    "hookimpl",
]
