"""Signature schemes: the table, verification, and what is signed in TLS 1.3.

Theory of operation
-------------------
A SignatureScheme is one 16-bit code in both versions (RFC 8446 section 4.2.3).  In TLS 1.3 an ECDSA code names its curve;
in TLS 1.2 the same code is only a hash beside "ecdsa", with any curve (RFC 8446 section 4.2.3, RFC 5246 section 7.4.1.4.1).
Which of these holds follows from the content: TLS 1.3 puts 64 spaces in front, so that it can never be mistaken for
TLS 1.2's (RFC 8446 section 4.4.3).

Nothing here makes a signature: private keys are elsewhere.  SHA-1 and MD5 are not in the table, so no setting brings them back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

from tlspool_core.tls.alerts import BadSignature, InsufficientSecurity, InternalError, WrongScheme
from tlspool_core.tls.enums import NamedGroup, SchemeCode
from tlspool_core.tls.seams import CertificateEntry, PeerCredential, SignatureScheme
from tlspool_core.tls.settings import TLS12, TLS13, Settings

MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192  # the work of a verification is a peer's to choose, so it needs a bound
MAX_RSA_EXPONENT_BITS: Final = 64

_ANY: Final = frozenset((TLS12, TLS13))
_ONLY_12: Final = frozenset((TLS12,))
_ONLY_13: Final = frozenset((TLS13,))

_HASHES: Final[Mapping[int, HashAlgorithm]] = {256: SHA256(), 384: SHA384(), 512: SHA512()}


@dataclass(frozen=True, slots=True)
class _Maker:
    """How one scheme is verified. `curve` is what TLS 1.3 demands of an ECDSA key."""

    row: SignatureScheme
    key_kind: type[Any]
    verify: Callable[[Any, bytes, bytes], None]
    curve: str = ""
    pss_key: bool = False


def _ecdsa(code: SchemeCode, bits: int, curve: str) -> _Maker:
    algorithm = ec.ECDSA(_HASHES[bits])
    row = SignatureScheme(int(code), code.name.lower(), _ANY, "ecdsa")
    return _Maker(row, ec.EllipticCurvePublicKey, lambda key, content, sig: key.verify(sig, content, algorithm), curve)


def _pss(code: SchemeCode, bits: int, *, pss_key: bool) -> _Maker:
    algorithm = _HASHES[bits]
    salted = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)  # RFC 8446: the salt is as long as the digest
    row = SignatureScheme(int(code), code.name.lower(), _ANY, "rsa")
    return _Maker(row, rsa.RSAPublicKey, lambda key, content, sig: key.verify(sig, content, salted, algorithm), pss_key=pss_key)


def _pkcs1(code: SchemeCode, bits: int) -> _Maker:
    algorithm = _HASHES[bits]
    row = SignatureScheme(int(code), code.name.lower(), _ONLY_12, "rsa")
    return _Maker(row, rsa.RSAPublicKey, lambda key, content, sig: key.verify(sig, content, padding.PKCS1v15(), algorithm))


def _plain(code: SchemeCode, key_kind: type[Any], versions: frozenset[int], authentication: str) -> _Maker:
    row = SignatureScheme(int(code), code.name.lower(), versions, authentication, quantum_safe=authentication == "mldsa")
    return _Maker(row, key_kind, lambda key, content, sig: key.verify(sig, content))


# In the order in which we offer them when settings say nothing. EdDSA goes with ECDHE_ECDSA suites in TLS 1.2 (RFC 8422
# section 5.4); ML-DSA is for TLS 1.3 alone (draft-ietf-tls-mldsa).
_MAKERS: Final[Mapping[int, _Maker]] = {
    maker.row.code: maker
    for maker in (
        _ecdsa(SchemeCode.ECDSA_SECP256R1_SHA256, 256, "secp256r1"),
        _plain(SchemeCode.ED25519, Ed25519PublicKey, _ANY, "ecdsa"),
        _pss(SchemeCode.RSA_PSS_RSAE_SHA256, 256, pss_key=False),
        _ecdsa(SchemeCode.ECDSA_SECP384R1_SHA384, 384, "secp384r1"),
        _pss(SchemeCode.RSA_PSS_RSAE_SHA384, 384, pss_key=False),
        _ecdsa(SchemeCode.ECDSA_SECP521R1_SHA512, 512, "secp521r1"),
        _plain(SchemeCode.ED448, Ed448PublicKey, _ANY, "ecdsa"),
        _pss(SchemeCode.RSA_PSS_RSAE_SHA512, 512, pss_key=False),
        _pss(SchemeCode.RSA_PSS_PSS_SHA256, 256, pss_key=True),
        _pss(SchemeCode.RSA_PSS_PSS_SHA384, 384, pss_key=True),
        _pss(SchemeCode.RSA_PSS_PSS_SHA512, 512, pss_key=True),
        _plain(SchemeCode.MLDSA65, mldsa.MLDSA65PublicKey, _ONLY_13, "mldsa"),
        _plain(SchemeCode.MLDSA44, mldsa.MLDSA44PublicKey, _ONLY_13, "mldsa"),
        _plain(SchemeCode.MLDSA87, mldsa.MLDSA87PublicKey, _ONLY_13, "mldsa"),
        _pkcs1(SchemeCode.RSA_PKCS1_SHA256, 256),
        _pkcs1(SchemeCode.RSA_PKCS1_SHA384, 384),
        _pkcs1(SchemeCode.RSA_PKCS1_SHA512, 512),
    )
}

CORE_SCHEMES: Final[Mapping[int, SignatureScheme]] = {code: maker.row for code, maker in _MAKERS.items()}
DEFAULT_SCHEMES: Final = tuple(CORE_SCHEMES)
_CURVE_GROUPS: Final = {"secp256r1": NamedGroup.SECP256R1, "secp384r1": NamedGroup.SECP384R1, "secp521r1": NamedGroup.SECP521R1}
# the curve of an ECDSA key by the scheme of TLS 1.3 that it makes
CURVES: Final[Mapping[int, int]] = {
    SchemeCode.ECDSA_SECP256R1_SHA256: NamedGroup.SECP256R1,
    SchemeCode.ECDSA_SECP384R1_SHA384: NamedGroup.SECP384R1,
    SchemeCode.ECDSA_SECP521R1_SHA512: NamedGroup.SECP521R1,
}


def schemes_for(settings: Settings) -> Mapping[int, SignatureScheme]:
    """All schemes that the connection knows, by code. Raises InternalError where a plugin's row collides with another."""
    if not settings.extra_schemes:
        return CORE_SCHEMES
    table = dict(CORE_SCHEMES)
    for scheme in settings.extra_schemes:
        if table.setdefault(scheme.code, scheme) != scheme:
            raise InternalError(f"two rows for signature scheme {scheme.code:#06x}")
    return table


def accepted_schemes(settings: Settings, version: int | None = None) -> Sequence[int]:
    """What we let the peer sign with, best first; in one version, or in any of those that the settings allow."""
    versions = frozenset(settings.versions if version is None else (version,))
    if not settings.extra_schemes:
        return _accepted_core_schemes(tuple(settings.signature_schemes), versions)
    table = schemes_for(settings)
    codes = settings.signature_schemes or table
    return [code for code in codes if code in table and table[code].versions & versions]


@lru_cache(maxsize=64)
def _accepted_core_schemes(codes: tuple[int, ...], versions: frozenset[int]) -> tuple[int, ...]:
    """What most settings come to; a configuration knows only a few of them."""
    return tuple([code for code in codes or CORE_SCHEMES if code in CORE_SCHEMES and CORE_SCHEMES[code].versions & versions])


def schemes_for_key(key: object, *, pss: bool = False) -> tuple[int, ...]:
    """Codes of what a public key of `cryptography` can verify in TLS 1.3 and 1.2, best first.

    `pss` says that the key is of the kind id-RSASSA-PSS (RFC 8017 appendix A.2.3), which `cryptography` does not tell apart.
    """
    return tuple([code for code, maker in _MAKERS.items() if _fits(key, maker, pss)])


def _fits(key: object, maker: _Maker, pss: bool) -> bool:
    if not isinstance(key, maker.key_kind):
        return False
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.curve.name == maker.curve
    return not isinstance(key, rsa.RSAPublicKey) or maker.pss_key is pss


def _check_rsa(key: rsa.RSAPublicKey) -> None:
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise InsufficientSecurity(f"RSA key of {key.key_size} bits; allowed are {MIN_RSA_BITS} to {MAX_RSA_BITS}")
    if key.public_numbers().e.bit_length() > MAX_RSA_EXPONENT_BITS:
        raise InsufficientSecurity("RSA key with an exponent of absurd size")


def verify(key: object, scheme: int, content: bytes, signature: bytes, *, version: int = TLS13, pss: bool = False) -> None:
    """Verify a signature with a public key of `cryptography`.

    Raises WrongScheme if the scheme does not go with the key in this version, InsufficientSecurity for a weak key, BadSignature.
    """
    maker = _MAKERS.get(scheme)
    if maker is None or version not in maker.row.versions or not isinstance(key, maker.key_kind):
        raise WrongScheme(f"signature scheme {scheme:#06x} does not go with this key")
    if isinstance(key, rsa.RSAPublicKey):
        if maker.pss_key is not pss:
            raise WrongScheme(f"signature scheme {scheme:#06x} does not go with this kind of RSA key")
        _check_rsa(key)
    if isinstance(key, ec.EllipticCurvePublicKey):
        _check_curve(key.curve.name, maker, version)
    try:
        maker.verify(key, content, signature)
    except (InvalidSignature, ValueError):
        raise BadSignature(f"signature of scheme {maker.row.name} does not verify") from None


_CURVE_NAMES: Final = frozenset(maker.curve for maker in _MAKERS.values() if maker.curve)


def _check_curve(curve: str, maker: _Maker, version: int) -> None:
    if curve not in _CURVE_NAMES or (version >= TLS13 and curve != maker.curve):
        raise WrongScheme(f"{maker.row.name} does not go with a key on {curve}")


# --- what is signed in TLS 1.3 -------------------------------------------------------------------------------------------------

_SPACES: Final = b" " * 64
_CONTEXTS: Final = {role: _SPACES + f"TLS 1.3, {role} CertificateVerify".encode() + b"\0" for role in ("client", "server")}


def certificate_verify_content(role: str, transcript_hash: bytes) -> bytes:
    """What the CertificateVerify of `role` ("client" or "server") signs in TLS 1.3, RFC 8446 section 4.4.3."""
    return _CONTEXTS[role] + transcript_hash


def content_version(content: bytes) -> int:
    """The version in which `content` is signed: TLS 1.2's begins with a random of ours, or with a message header."""
    return TLS13 if content.startswith(_SPACES) else TLS12


@dataclass(frozen=True, slots=True)
class PublicKeyCredential:
    """A PeerCredential over a public key of `cryptography`; credential types use it, or derive from it."""

    certificate_type: int
    entries: Sequence[CertificateEntry]
    public_key: object
    pss: bool = False

    def verify(self, scheme: int, content: bytes, signature: bytes) -> None:
        """See PeerCredential. Raises WrongScheme, InsufficientSecurity, BadSignature."""
        verify(self.public_key, scheme, content, signature, version=content_version(content), pss=self.pss)


def curve_of(peer: PeerCredential) -> int | None:
    """The named group of an ECDSA key's curve, 0 for a curve that is none; None for another kind of key, or one that is not shown."""
    key = getattr(peer, "public_key", None)
    return _CURVE_GROUPS.get(key.curve.name, 0) if isinstance(key, ec.EllipticCurvePublicKey) else None
