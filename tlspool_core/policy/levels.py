"""Security levels: how strong suites, groups, signatures and keys must be for the predicates L and l.

Theory of operation
-------------------
A chain is as strong as its weakest link, so each part of a session is given its strength in bits (NIST SP 800-57 part 1, table 2), and the
least must reach the level's.  Parts that the engine brings are in the tables here; a key, and an exchange that a plugin brings, are
the credential type's to rate.  What nobody rates is not strong enough.
"""

from __future__ import annotations

from dataclasses import dataclass

from tlspool_core.tls.enums import NamedGroup, SchemeCode, name_of
from tlspool_core.tls.questions import HandshakeFacts

__all__ = ["LENIENT", "STRICT", "SecurityLevel", "shortfall"]


@dataclass(frozen=True, slots=True)
class SecurityLevel:
    """Demands on every part: `bits` of strength; with `aead` no cipher that is authenticated apart from encryption.

    `suites`: names of the only cipher suites that will do; empty: any that fulfils the rest.
    """

    bits: int
    aead: bool
    suites: frozenset[str] = frozenset()


STRICT = SecurityLevel(128, aead=True)
LENIENT = SecurityLevel(112, aead=False)  # RSA-2048 is worth this much

_GROUPS = {
    NamedGroup.SECP256R1: 128,
    NamedGroup.SECP384R1: 192,
    NamedGroup.SECP521R1: 256,
    NamedGroup.X25519: 128,
    NamedGroup.SECP256R1MLKEM768: 128,
    NamedGroup.X25519MLKEM768: 128,
    NamedGroup.SECP384R1MLKEM1024: 192,
}
# by what they hash and sign with; the size of an RSA key is rated with the key
_SCHEMES = {
    SchemeCode.RSA_PKCS1_SHA256: 128,
    SchemeCode.RSA_PKCS1_SHA384: 192,
    SchemeCode.RSA_PKCS1_SHA512: 256,
    SchemeCode.ECDSA_SECP256R1_SHA256: 128,
    SchemeCode.ECDSA_SECP384R1_SHA384: 192,
    SchemeCode.ECDSA_SECP521R1_SHA512: 256,
    SchemeCode.RSA_PSS_RSAE_SHA256: 128,
    SchemeCode.RSA_PSS_RSAE_SHA384: 192,
    SchemeCode.RSA_PSS_RSAE_SHA512: 256,
    SchemeCode.ED25519: 128,
    SchemeCode.ED448: 224,
    SchemeCode.RSA_PSS_PSS_SHA256: 128,
    SchemeCode.RSA_PSS_PSS_SHA384: 192,
    SchemeCode.RSA_PSS_PSS_SHA512: 256,
    SchemeCode.MLDSA44: 128,
    SchemeCode.MLDSA65: 192,
    SchemeCode.MLDSA87: 256,
}
_AEAD_MODES = ("_GCM_", "_CCM", "_POLY1305_")
_CIPHERS = (("AES_256", 256), ("CHACHA20", 256), ("AES_128", 128), ("CAMELLIA_256", 256), ("CAMELLIA_128", 128))


def _cipher_bits(suite: str) -> int | None:
    return next((bits for word, bits in _CIPHERS if word in suite), None)


def shortfall(level: SecurityLevel, facts: HandshakeFacts, peer_shown: bool, peer_strength: int | None) -> str:
    """What keeps a session from a level, in words; "" if it reaches it.

    `peer_strength` is what the credential type says of a peer that has shown something (`peer_shown`).
    """
    suite = facts.cipher_suite_name
    if level.aead and not any(mode in suite for mode in _AEAD_MODES):
        return f"{suite} is no authenticated encryption"
    if level.suites and suite not in level.suites:
        return f"{suite} is not among the cipher suites of this level"
    parts = [(suite, _cipher_bits(suite))]
    if facts.group:
        parts.append((f"group {name_of(NamedGroup, facts.group)}", _GROUPS.get(facts.group)))  # type: ignore[call-overload]
    if facts.peer_signature_scheme:
        scheme = facts.peer_signature_scheme
        parts.append((f"signature {name_of(SchemeCode, scheme)}", _SCHEMES.get(scheme)))  # type: ignore[call-overload]
    if peer_shown:
        parts.append(("the peer's key", peer_strength))
    for what, bits in parts:
        if bits is None:
            return f"the strength of {what} is not known"
        if bits < level.bits:
            return f"{what} has {bits} bits of strength, less than {level.bits}"
    return ""
