"""Public keys as tokens hold them, made into SubjectPublicKeyInfo.

Theory of operation
-------------------
A token keeps the public half of a key in up to four places: in the private key object itself (RSA modulus; the curve; by the
newer standard CKA_PUBLIC_KEY_INFO), in a public key object with the same CKA_ID, or in a certificate with the same CKA_ID.
Whichever is there first is taken.  If nothing gives the whole key, what is known - the curve - still tells which signature
schemes are possible.

CKA_EC_PARAMS is DER of a curve's OID, or for Edwards curves also of a name as PrintableString (PKCS #11 v3.0); CKA_EC_POINT is
DER of an OCTET STRING by the standard, and the bare point in the practice of several tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa

from tlspool_pkcs11.protocol import ObjectRecord

CKK_RSA: Final = 0x00
CKK_EC: Final = 0x03
CKK_EC_EDWARDS: Final = 0x40
CKK_ML_DSA: Final = 0x4A

_PublicKey = (
    rsa.RSAPublicKey
    | ec.EllipticCurvePublicKey
    | ed25519.Ed25519PublicKey
    | ed448.Ed448PublicKey
    | mldsa.MLDSA44PublicKey
    | mldsa.MLDSA65PublicKey
    | mldsa.MLDSA87PublicKey
)

# DER of CKA_EC_PARAMS: kind, bits
_CURVES: Final[dict[bytes, tuple[str, int]]] = {
    bytes.fromhex("06082a8648ce3d030107"): ("ec-secp256r1", 256),
    bytes.fromhex("06052b81040022"): ("ec-secp384r1", 384),
    bytes.fromhex("06052b81040023"): ("ec-secp521r1", 521),
    bytes.fromhex("06032b6570"): ("ed25519", 256),
    bytes.fromhex("06032b6571"): ("ed448", 456),
    b"\x13\x0cedwards25519": ("ed25519", 256),
    b"\x13\x0aedwards448": ("ed448", 456),
}
_NAMED: Final[dict[str, ec.EllipticCurve]] = {
    "ec-secp256r1": ec.SECP256R1(),
    "ec-secp384r1": ec.SECP384R1(),
    "ec-secp521r1": ec.SECP521R1(),
}
# CKA_PARAMETER_SET (PKCS #11 v3.2: CKP_ML_DSA_44 and so on)
_ML_DSA_SETS: Final = {1: "mldsa44", 2: "mldsa65", 3: "mldsa87"}
_ML_DSA_LOADERS: Final[dict[str, Callable[[bytes], _PublicKey]]] = {
    "mldsa44": mldsa.MLDSA44PublicKey.from_public_bytes,
    "mldsa65": mldsa.MLDSA65PublicKey.from_public_bytes,
    "mldsa87": mldsa.MLDSA87PublicKey.from_public_bytes,
}


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What is known of a key. `kind` is a word of `mechanisms.Scheme`; `spki` is None if only the kind is known."""

    kind: str
    bits: int
    spki: bytes | None

    @property
    def algorithm(self) -> str:
        """For people: "RSA-2048", "EC secp256r1", "ed25519"."""
        return f"RSA-{self.bits}" if self.kind == "rsa" else self.kind.replace("ec-", "EC ")


def public_key(key: ObjectRecord, others: Sequence[ObjectRecord], certificates: Sequence[ObjectRecord]) -> PublicKey | None:
    """Public half of a private key object, with the help of the public keys and certificates that have its CKA_ID.

    None if neither the key nor those tell its kind.
    """
    records = [key, *others]
    made = [_from_info(record.public_key_info) for record in records if record.public_key_info]
    made += [_from_material(record) for record in records]
    made += [_from_certificate(certificate.material_first) for certificate in certificates]
    known = [candidate for candidate in made if candidate is not None and _agrees(candidate, key)]
    return next((candidate for candidate in known if candidate.spki), known[0] if known else None)


def _agrees(candidate: PublicKey, key: ObjectRecord) -> bool:
    """CKA_ID alone proves nothing: another kind of key, or another modulus, belongs to another key."""
    own = _from_material(key)
    if own is None:
        return True
    return (own.kind, own.bits) == (candidate.kind, candidate.bits) and (
        None in (own.spki, candidate.spki) or own.spki == candidate.spki
    )


def describe(key: _PublicKey) -> PublicKey | None:
    """Kind and size of a key object; None for one that TLS has no use for."""
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    match key:
        case rsa.RSAPublicKey():
            return PublicKey("rsa", key.key_size, spki)
        case ec.EllipticCurvePublicKey():
            kind = f"ec-{key.curve.name}"
            return PublicKey(kind, key.key_size, spki) if kind in _NAMED else None
        case ed25519.Ed25519PublicKey():
            return PublicKey("ed25519", 256, spki)
        case ed448.Ed448PublicKey():
            return PublicKey("ed448", 456, spki)
        case mldsa.MLDSA44PublicKey():
            return PublicKey("mldsa44", 0, spki)
        case mldsa.MLDSA65PublicKey():
            return PublicKey("mldsa65", 0, spki)
        case mldsa.MLDSA87PublicKey():
            return PublicKey("mldsa87", 0, spki)
    return None


def from_spki(spki: bytes) -> PublicKey | None:
    """Kind and size of a SubjectPublicKeyInfo; None if it is malformed or of a kind that TLS has no use for."""
    return _from_info(spki)


def _from_info(spki: bytes) -> PublicKey | None:
    try:
        return describe(serialization.load_der_public_key(spki))  # type: ignore[arg-type]
    except (ValueError, UnsupportedAlgorithm, AttributeError):
        return None


def _from_certificate(der: bytes) -> PublicKey | None:
    try:
        return describe(x509.load_der_x509_certificate(der).public_key())  # type: ignore[arg-type]
    except (ValueError, UnsupportedAlgorithm):
        return None


def _from_material(record: ObjectRecord) -> PublicKey | None:
    first, second = record.material_first, record.material_second
    if record.key_type == CKK_RSA and first:
        return _rsa(first, second)
    if record.key_type in (CKK_EC, CKK_EC_EDWARDS) and first in _CURVES:
        return _curve(*_CURVES[first], second)
    if record.key_type == CKK_ML_DSA and first:
        return _ml_dsa(_ML_DSA_SETS.get(int.from_bytes(first, "big"), ""), second)
    return None


def _rsa(modulus: bytes, exponent: bytes) -> PublicKey | None:
    n = int.from_bytes(modulus, "big")
    if not exponent:
        return PublicKey("rsa", n.bit_length(), None)
    try:
        return describe(rsa.RSAPublicNumbers(int.from_bytes(exponent, "big"), n).public_key())
    except ValueError:
        return None


def _curve(kind: str, bits: int, point: bytes) -> PublicKey:
    for encoded in _points(point):
        try:
            if kind in _NAMED:
                made = describe(ec.EllipticCurvePublicKey.from_encoded_point(_NAMED[kind], encoded))
            elif kind == "ed25519":
                made = describe(ed25519.Ed25519PublicKey.from_public_bytes(encoded))
            else:
                made = describe(ed448.Ed448PublicKey.from_public_bytes(encoded))
        except (ValueError, UnsupportedAlgorithm):
            continue
        if made is not None:
            return made
    return PublicKey(kind, bits, None)


def _points(point: bytes) -> Sequence[bytes]:
    """The point out of its OCTET STRING, and as it is."""
    if len(point) > 2 and point[0] == 4 and point[1] == len(point) - 2 < 0x80:
        return point[2:], point
    if len(point) > 3 and point[:2] == b"\x04\x81" and point[2] == len(point) - 3:
        return point[3:], point
    return (point,) if point else ()


def _ml_dsa(kind: str, value: bytes) -> PublicKey | None:
    if not kind:
        return None
    try:
        return describe(_ML_DSA_LOADERS[kind](value)) if value else PublicKey(kind, 0, None)
    except (ValueError, UnsupportedAlgorithm):
        return PublicKey(kind, 0, None)
