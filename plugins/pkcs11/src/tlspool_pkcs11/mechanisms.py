"""From TLS signature schemes to what a token can do.

Theory of operation
-------------------
A TLS signature scheme (RFC 8446 section 4.2.3) fixes algorithm, hash and padding.  A token offers mechanisms, and few offer
all: some hash by themselves, some sign a digest that we hash, some have nothing but raw RSA, for which we also make the
padding.  For each scheme `ways` lists these possibilities, best first; `schemes` keeps those that the mechanism list has.  A
way says what goes to the token and what is done with the answer:

    content --prepare--> data --token, mechanism, parameters--> raw signature --finish--> signature in TLS's encoding

Where the token hashes, its policy sees what is signed, so that comes first; the result is the same.
No secret passes through here: hashing and padding treat public data.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tlspool_pkcs11.publickeys import PublicKey

# PKCS #11 v3.1 section 6, and v3.2 for ML-DSA
MECHANISMS: Final[Mapping[str, int]] = {
    "CKM_RSA_PKCS": 0x0001,
    "CKM_RSA_X_509": 0x0003,
    "CKM_RSA_PKCS_PSS": 0x000D,
    "CKM_ML_DSA": 0x001D,
    "CKM_SHA256_RSA_PKCS": 0x0040,
    "CKM_SHA384_RSA_PKCS": 0x0041,
    "CKM_SHA512_RSA_PKCS": 0x0042,
    "CKM_SHA256_RSA_PKCS_PSS": 0x0043,
    "CKM_SHA384_RSA_PKCS_PSS": 0x0044,
    "CKM_SHA512_RSA_PKCS_PSS": 0x0045,
    "CKM_ECDSA": 0x1041,
    "CKM_ECDSA_SHA256": 0x1044,
    "CKM_ECDSA_SHA384": 0x1045,
    "CKM_ECDSA_SHA512": 0x1046,
    "CKM_EDDSA": 0x1057,
}
# CK_RSA_PKCS_PSS_PARAMS: hashAlg and mgf
_PSS_HASH: Final = {"sha256": (0x250, 2), "sha384": (0x260, 3), "sha512": (0x270, 4)}

_HASHES: Final = {"sha256": hashlib.sha256, "sha384": hashlib.sha384, "sha512": hashlib.sha512}

# RFC 8017 section 9.2 note 1: DER of DigestInfo up to the digest
_DIGEST_INFO: Final = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}


@dataclass(frozen=True, slots=True)
class Scheme:
    """A row of TLS's signature schemes; `kind` is what the public key must be, no `hash_name`: the algorithm hashes by itself."""

    code: int
    name: str
    kind: str
    family: str
    hash_name: str = ""


# best first, for one kind of key
SCHEMES: Final = (
    Scheme(0x0403, "ecdsa_secp256r1_sha256", "ec-secp256r1", "ecdsa", "sha256"),
    Scheme(0x0503, "ecdsa_secp384r1_sha384", "ec-secp384r1", "ecdsa", "sha384"),
    Scheme(0x0603, "ecdsa_secp521r1_sha512", "ec-secp521r1", "ecdsa", "sha512"),
    Scheme(0x0807, "ed25519", "ed25519", "eddsa"),
    Scheme(0x0808, "ed448", "ed448", "eddsa"),
    Scheme(0x0904, "mldsa44", "mldsa44", "mldsa"),
    Scheme(0x0905, "mldsa65", "mldsa65", "mldsa"),
    Scheme(0x0906, "mldsa87", "mldsa87", "mldsa"),
    Scheme(0x0804, "rsa_pss_rsae_sha256", "rsa", "pss", "sha256"),
    Scheme(0x0805, "rsa_pss_rsae_sha384", "rsa", "pss", "sha384"),
    Scheme(0x0806, "rsa_pss_rsae_sha512", "rsa", "pss", "sha512"),
    Scheme(0x0809, "rsa_pss_pss_sha256", "rsa", "pss", "sha256"),
    Scheme(0x080A, "rsa_pss_pss_sha384", "rsa", "pss", "sha384"),
    Scheme(0x080B, "rsa_pss_pss_sha512", "rsa", "pss", "sha512"),
    Scheme(0x0401, "rsa_pkcs1_sha256", "rsa", "pkcs1", "sha256"),
    Scheme(0x0501, "rsa_pkcs1_sha384", "rsa", "pkcs1", "sha384"),
    Scheme(0x0601, "rsa_pkcs1_sha512", "rsa", "pkcs1", "sha512"),
)
BY_CODE: Final = {scheme.code: scheme for scheme in SCHEMES}


class BadSignature(Exception):
    """The token's answer has not the form that its mechanism prescribes."""


def scheme_name(code: int) -> str:
    """RFC 8446's name of a scheme, or its number."""
    return BY_CODE[code].name if code in BY_CODE else f"0x{code:04x}"


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """One way to make a signature of a scheme with a key. Two of them are equal if they are the same object."""

    mechanism: int
    parameters: tuple[int, ...]
    prepare: Callable[[bytes], bytes]
    finish: Callable[[bytes], bytes]


def schemes(key: PublicKey, mechanisms: Collection[int]) -> Mapping[int, Sequence[Way]]:
    """The schemes that a key can make with these mechanisms, best first, with the ways to make them."""
    found: dict[int, Sequence[Way]] = {}
    for scheme in SCHEMES:
        if scheme.kind == key.kind and _fits(scheme, key):
            usable = [way for way in ways(scheme, key) if way.mechanism in mechanisms]
            if usable:
                found[scheme.code] = usable
    return found


def _fits(scheme: Scheme, key: PublicKey) -> bool:
    """RFC 8017: the encoded message must have room for the hash, and in PSS for a salt of the same length."""
    if key.kind != "rsa":
        return True
    digest = _HASHES[scheme.hash_name]().digest_size
    octets = (key.bits + 7) // 8
    if scheme.family == "pss":
        return (key.bits + 6) // 8 >= 2 * digest + 2
    return octets >= len(_DIGEST_INFO[scheme.hash_name]) + digest + 11


def ways(scheme: Scheme, key: PublicKey) -> Sequence[Way]:
    """All ways to make a scheme's signature, best first, whether or not the token has them."""
    return _FAMILIES[scheme.family](scheme, key)


def _as_it_is(data: bytes) -> bytes:
    return data


def _digest(hash_name: str, content: bytes) -> bytes:
    return _HASHES[hash_name](content).digest()


def _ecdsa(scheme: Scheme, key: PublicKey) -> Sequence[Way]:
    finish = partial(ecdsa_to_der, (key.bits + 7) // 8)
    return (
        Way(MECHANISMS[f"CKM_ECDSA_{scheme.hash_name.upper()}"], (), _as_it_is, finish),
        Way(MECHANISMS["CKM_ECDSA"], (), partial(_digest, scheme.hash_name), finish),
    )


def ecdsa_to_der(size: int, raw: bytes) -> bytes:
    """ECDSA-Sig-Value (RFC 3279 section 2.2.3) of the token's r and s, which lie one behind the other with `size` octets each."""
    if len(raw) == 2 * size:
        return encode_dss_signature(int.from_bytes(raw[:size], "big"), int.from_bytes(raw[size:], "big"))
    # several libraries strip leading zero octets of both, equally many
    if 0 < len(raw) < 2 * size and len(raw) % 2 == 0:
        return ecdsa_to_der(len(raw) // 2, raw)
    raise BadSignature(f"an ECDSA signature of {len(raw)} octets, not {2 * size}")


def _eddsa(scheme: Scheme, key: PublicKey) -> Sequence[Way]:
    # PKCS #11 v3.1 section 6.3.9: Ed25519 takes no parameters, Ed448 always CK_EDDSA_PARAMS {phFlag, context length, context};
    # some tokens want the respective other
    without = Way(MECHANISMS["CKM_EDDSA"], (), _as_it_is, partial(_of_size, 64 if scheme.name == "ed25519" else 114))
    parameters = Way(without.mechanism, (0, 0, 0), without.prepare, without.finish)
    return (without, parameters) if scheme.name == "ed25519" else (parameters, without)


_MLDSA_SIZES: Final = {"mldsa44": 2420, "mldsa65": 3309, "mldsa87": 4627}


def _mldsa(scheme: Scheme, key: PublicKey) -> Sequence[Way]:
    # FIPS 204: pure ML-DSA with an empty context, which is what the mechanism does without parameters
    return (Way(MECHANISMS["CKM_ML_DSA"], (), _as_it_is, partial(_of_size, _MLDSA_SIZES[scheme.kind])),)


def _of_size(size: int, raw: bytes) -> bytes:
    if len(raw) != size:
        raise BadSignature(f"a signature of {len(raw)} octets, not {size}")
    return raw


def _pss(scheme: Scheme, key: PublicKey) -> Sequence[Way]:
    name = scheme.hash_name
    # RFC 8446 section 4.2.3: the salt is as long as the digest
    parameters = (*_PSS_HASH[name], _HASHES[name]().digest_size)
    finish = partial(_of_size, (key.bits + 7) // 8)
    return (
        Way(MECHANISMS[f"CKM_{name.upper()}_RSA_PKCS_PSS"], parameters, _as_it_is, finish),
        Way(MECHANISMS["CKM_RSA_PKCS_PSS"], parameters, partial(_digest, name), finish),
        Way(MECHANISMS["CKM_RSA_X_509"], (), partial(emsa_pss, name, key.bits), finish),
    )


def _pkcs1(scheme: Scheme, key: PublicKey) -> Sequence[Way]:
    name = scheme.hash_name
    finish = partial(_of_size, (key.bits + 7) // 8)
    return (
        Way(MECHANISMS[f"CKM_{name.upper()}_RSA_PKCS"], (), _as_it_is, finish),
        Way(MECHANISMS["CKM_RSA_PKCS"], (), partial(digest_info, name), finish),
        Way(MECHANISMS["CKM_RSA_X_509"], (), partial(emsa_pkcs1, name, key.bits), finish),
    )


_FAMILIES: Final[Mapping[str, Callable[[Scheme, PublicKey], Sequence[Way]]]] = {
    "ecdsa": _ecdsa,
    "eddsa": _eddsa,
    "mldsa": _mldsa,
    "pss": _pss,
    "pkcs1": _pkcs1,
}


def digest_info(hash_name: str, content: bytes) -> bytes:
    """DER of DigestInfo (RFC 8017 section 9.2)."""
    return _DIGEST_INFO[hash_name] + _digest(hash_name, content)


def emsa_pkcs1(hash_name: str, bits: int, content: bytes) -> bytes:
    """EMSA-PKCS1-v1_5 (RFC 8017 section 9.2) for a modulus of `bits`."""
    info = digest_info(hash_name, content)
    return b"\0\1" + b"\xff" * ((bits + 7) // 8 - len(info) - 3) + b"\0" + info


def emsa_pss(hash_name: str, bits: int, content: bytes) -> bytes:
    """EMSA-PSS (RFC 8017 section 9.1.1) for a modulus of `bits`, filled to the modulus's length; MGF1 with the same hash."""
    size = _HASHES[hash_name]().digest_size
    length = (bits + 6) // 8  # emLen, for emBits = bits - 1
    salt = secrets.token_bytes(size)
    hashed = _digest(hash_name, bytes(8) + _digest(hash_name, content) + salt)
    block = bytes(length - 2 * size - 2) + b"\1" + salt
    masked = bytearray(a ^ b for a, b in zip(block, _mgf1(hash_name, hashed, len(block)), strict=True))
    # the leftmost 8 emLen - emBits bits are zero
    masked[0] &= 0xFF >> (8 * length - (bits - 1))
    return bytes((bits + 7) // 8 - length) + bytes(masked) + hashed + b"\xbc"


def _mgf1(hash_name: str, seed: bytes, length: int) -> bytes:
    """MGF1 (RFC 8017 appendix B.2.1)."""
    size = _HASHES[hash_name]().digest_size
    blocks = range((length + size - 1) // size)
    return b"".join(_digest(hash_name, seed + counter.to_bytes(4, "big")) for counter in blocks)[:length]
