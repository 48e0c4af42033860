"""The cipher suite table, and what a connection has of it.

Theory of operation
-------------------
The rows below are all that the engine offers of its own: authenticated encryption, and in TLS 1.2 an ephemeral key exchange
signed by a certificate's key.  Plugins bring further TLS 1.2 rows with the settings of a connection.  A plugin's row may use
CBC, and is then only negotiated with encrypt_then_mac (RFC 7366).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from tlspool_core.tls.alerts import InternalError
from tlspool_core.tls.seams import CipherSuite, Version
from tlspool_core.tls.settings import TLS12, TLS13, Settings

ECDHE: Final = "ECDHE"


def _tls13(code: int, name: str, cipher: str, hash_name: str) -> CipherSuite:
    """RFC 8446 appendix B.4."""
    return CipherSuite(code, name, TLS13, "", "", cipher, hash_name)


def _ecdhe(code: int, authentication: str, name: str, cipher: str, hash_name: str) -> CipherSuite:
    """RFC 5289 and RFC 7905."""
    full_name = f"TLS_ECDHE_{authentication.upper()}_WITH_{name}"
    return CipherSuite(code, full_name, TLS12, ECDHE, authentication, cipher, hash_name)


# in the order in which we offer them when settings say nothing
CORE_SUITES: Final[Mapping[int, CipherSuite]] = {
    suite.code: suite
    for suite in (
        _tls13(0x1301, "TLS_AES_128_GCM_SHA256", "AES-128-GCM", "sha256"),
        _tls13(0x1302, "TLS_AES_256_GCM_SHA384", "AES-256-GCM", "sha384"),
        _tls13(0x1303, "TLS_CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305", "sha256"),
        _ecdhe(0xC02B, "ecdsa", "AES_128_GCM_SHA256", "AES-128-GCM", "sha256"),
        _ecdhe(0xC02F, "rsa", "AES_128_GCM_SHA256", "AES-128-GCM", "sha256"),
        _ecdhe(0xC02C, "ecdsa", "AES_256_GCM_SHA384", "AES-256-GCM", "sha384"),
        _ecdhe(0xC030, "rsa", "AES_256_GCM_SHA384", "AES-256-GCM", "sha384"),
        _ecdhe(0xCCA9, "ecdsa", "CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305", "sha256"),
        _ecdhe(0xCCA8, "rsa", "CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305", "sha256"),
    )
}


def suites_for(settings: Settings) -> Mapping[int, CipherSuite]:
    """All suites that the connection knows, by code. Raises InternalError where a plugin's row collides with another."""
    if not settings.extra_suites:
        return CORE_SUITES
    table = dict(CORE_SUITES)
    for suite in settings.extra_suites:
        if table.setdefault(suite.code, suite) != suite:
            raise InternalError(f"two rows for cipher suite {suite.code:#06x}")
    return table


def enabled_suites(settings: Settings) -> Sequence[CipherSuite]:
    """What the settings allow, of the versions they allow, best first: `cipher_suites`, else plugins' suites and then our own."""
    if not settings.extra_suites:
        return _enabled_core_suites(tuple(settings.cipher_suites), tuple(settings.versions))
    table = suites_for(settings)
    codes = settings.cipher_suites or (*(suite.code for suite in settings.extra_suites), *CORE_SUITES)
    return [table[code] for code in codes if code in table and table[code].version in settings.versions]


@lru_cache(maxsize=64)
def _enabled_core_suites(codes: tuple[int, ...], versions: tuple[Version, ...]) -> tuple[CipherSuite, ...]:
    """What most settings come to; a configuration knows only a few of them."""
    return tuple([suite for code in codes or CORE_SUITES if (suite := CORE_SUITES.get(code)) and suite.version in versions])
