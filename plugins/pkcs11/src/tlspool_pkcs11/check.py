"""Test signatures: what a token promises, and what a verifier says to it.

Theory of operation
-------------------
For each key, every signature scheme that TLS could use with it is tried: the token signs a text in the form of TLS 1.3's
CertificateVerify, and the signature is verified with the public key by other code than made it.  Then the certificates are
looked through - those in the token, those of a chain file, those in a localid record - for the one that holds the same public
key.  A mistake in a token, its library or the configuration so shows here, and not in the first handshake.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding, rsa

from tlspool_core.api import KeyStoreError
from tlspool_pkcs11.key import Pkcs11Key
from tlspool_pkcs11.mechanisms import BY_CODE, SCHEMES, scheme_name

_HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {"sha256": hashes.SHA256, "sha384": hashes.SHA384, "sha512": hashes.SHA512}
# RFC 8446 section 4.4.3; the hash at the end is not one of any transcript, so that the signature is of no use to anybody
CONTENT = b" " * 64 + b"TLS Pool token check" + b"\0" + bytes(32)


@dataclass(frozen=True, slots=True)
class SchemeResult:
    """One scheme: `fault` is "" if the signature was made and holds."""

    name: str
    fault: str = ""


@dataclass(frozen=True, slots=True)
class KeyResult:
    """One key, and all that was tried with it."""

    uri: str
    algorithm: str
    schemes: tuple[SchemeResult, ...]
    fault: str = ""
    matches: tuple[str, ...] = ()
    not_offered: tuple[str, ...] = field(default=())

    @property
    def good(self) -> bool:
        """True if the key can be used as it is."""
        return not self.fault and bool(self.schemes) and not any(result.fault for result in self.schemes)


@dataclass(frozen=True, slots=True)
class Shown:
    """Something that holds public keys: a certificate, or a record of a database."""

    name: str
    holds: Callable[[bytes], bool]


async def check_key(key: Pkcs11Key, shown: Sequence[Shown]) -> KeyResult:
    """Sign with every scheme, verify, and look for what holds the public key."""
    public = key.kind
    if public is None or key.public_key is None:
        fault = "the public key is unknown: put the public key or the certificate into the token, with the same CKA_ID"
        return KeyResult(key.uri, public.algorithm if public else "unknown", (), fault)
    results = [SchemeResult(scheme_name(code), await _try(key, code)) for code in key.signature_schemes]
    missing = [scheme.name for scheme in SCHEMES if scheme.kind == public.kind and scheme.code not in key.signature_schemes]
    matches = [each.name for each in shown if each.holds(key.public_key)]
    fault = "" if results else "the token has no mechanism for this key, or the key may not sign"
    return KeyResult(key.uri, public.algorithm, tuple(results), fault, tuple(matches), tuple(missing))


async def _try(key: Pkcs11Key, code: int) -> str:
    try:
        signature = await key.sign(code, CONTENT)
    except KeyStoreError as error:
        return str(error).removeprefix(f"{key.uri}: ")
    assert key.public_key is not None
    return "" if verifies(key.public_key, code, CONTENT, signature) else "the signature does not verify with the public key"


def verifies(spki: bytes, code: int, content: bytes, signature: bytes) -> bool:
    """Whether a signature of a TLS signature scheme holds, by the library `cryptography`."""
    public = serialization.load_der_public_key(spki)
    scheme = BY_CODE[code]
    algorithm = _HASHES[scheme.hash_name]() if scheme.hash_name else None
    try:
        match public:
            case ec.EllipticCurvePublicKey() if algorithm:
                public.verify(signature, content, ec.ECDSA(algorithm))
            case rsa.RSAPublicKey() if algorithm and scheme.family == "pss":
                public.verify(signature, content, padding.PSS(padding.MGF1(algorithm), algorithm.digest_size), algorithm)
            case rsa.RSAPublicKey() if algorithm:
                public.verify(signature, content, padding.PKCS1v15(), algorithm)
            case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
                public.verify(signature, content)
            case mldsa.MLDSA44PublicKey() | mldsa.MLDSA65PublicKey() | mldsa.MLDSA87PublicKey():
                public.verify(signature, content)
            case _:
                return False
    except InvalidSignature:
        return False
    return True


def shown_certificate(place: str, der: bytes) -> Shown:
    """A certificate to compare with keys; `place` says where it is."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        spki = certificate.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    except ValueError as error:
        return Shown(f"{place}: cannot be read: {error}", lambda _: False)
    names = certificate.subject.rfc4514_string() or "no subject"
    until = certificate.not_valid_after_utc.date()
    return Shown(f"{place}: {names}, serial {certificate.serial_number:x}, until {until}", lambda wanted: wanted == spki)


def shown_chain(file: str, content: bytes) -> Sequence[Shown]:
    """The end certificate of a chain file, PEM or DER. Raises ValueError if there is none in it."""
    if b"-----BEGIN" in content:
        certificates = x509.load_pem_x509_certificates(content)
    else:
        certificates = [x509.load_der_x509_certificate(content)]
    return [shown_certificate(file, certificates[0].public_bytes(serialization.Encoding.DER))]


def shown_record(name: str, public: bytes) -> Shown:
    """A record of the localid database. What its public part means is for its credential type, but a key lies in it as it is."""
    return Shown(name, lambda wanted: wanted in public or wanted in _unarmoured(public))


def _unarmoured(public: bytes) -> bytes:
    """The bytes within PEM armour, block after block."""
    blocks, inside = [], False
    for line in public.splitlines():
        if line.startswith(b"-----"):
            inside = line.startswith(b"-----BEGIN")
        elif inside:
            blocks.append(line)
    try:
        return binascii.a2b_base64(b"".join(blocks))
    except binascii.Error:
        return b""
