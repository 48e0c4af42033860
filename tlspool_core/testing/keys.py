"""Software keys in the shape of a key store: what a token does, without a token.

For tests only: keys lie in the memory of the process, which is what the pool exists to avoid.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from tlspool_core.interfaces import AskPin, KeyInfo, KeyStore, KeyStoreError

# RFC 8446 section 4.2.3
_ECDSA: Mapping[int, tuple[str, HashAlgorithm]] = {
    0x0403: ("secp256r1", SHA256()),
    0x0503: ("secp384r1", SHA384()),
    0x0603: ("secp521r1", SHA512()),
}
_RSA_PSS: Mapping[int, HashAlgorithm] = {0x0804: SHA256(), 0x0805: SHA384(), 0x0806: SHA512()}
_RSA_PKCS1: Mapping[int, HashAlgorithm] = {0x0401: SHA256(), 0x0501: SHA384(), 0x0601: SHA512()}
_ED25519 = 0x0807
_ED448 = 0x0808


def schemes_of(key: PrivateKeyTypes | PublicKeyTypes) -> tuple[int, ...]:
    """Code points of the SignatureSchemes that a key makes, best first; none for a kind that TLS does not sign with."""
    if isinstance(key, (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey)):
        return tuple(code for code, (curve, _) in _ECDSA.items() if curve == key.curve.name)
    if isinstance(key, (rsa.RSAPrivateKey, rsa.RSAPublicKey)):
        return (*_RSA_PSS, *_RSA_PKCS1)
    if isinstance(key, (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey)):
        return (_ED25519,)
    if isinstance(key, (ed448.Ed448PrivateKey, ed448.Ed448PublicKey)):
        return (_ED448,)
    return ()


def sign(key: PrivateKeyTypes, scheme: int, content: bytes) -> bytes:
    """A signature in TLS's encoding. Raises KeyStoreError if the key does not make the scheme."""
    if scheme not in schemes_of(key):
        raise KeyStoreError(f"this key does not make signature scheme {scheme:#06x}")
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(content, ec.ECDSA(_ECDSA[scheme][1]))
    if isinstance(key, rsa.RSAPrivateKey):
        if scheme in _RSA_PSS:
            algorithm = _RSA_PSS[scheme]
            return key.sign(content, padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH), algorithm)
        return key.sign(content, padding.PKCS1v15(), _RSA_PKCS1[scheme])
    assert isinstance(key, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey))
    return key.sign(content)


def verify(key: PublicKeyTypes, scheme: int, content: bytes, signature: bytes) -> bool:
    """Whether the signature holds."""
    if scheme not in schemes_of(key):
        return False
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, content, ec.ECDSA(_ECDSA[scheme][1]))
        elif isinstance(key, rsa.RSAPublicKey) and scheme in _RSA_PSS:
            algorithm = _RSA_PSS[scheme]
            key.verify(signature, content, padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH), algorithm)
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, content, padding.PKCS1v15(), _RSA_PKCS1[scheme])
        else:
            assert isinstance(key, (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey))
            key.verify(signature, content)
    except InvalidSignature:
        return False
    return True


def public_der(key: PrivateKeyTypes) -> bytes:
    """DER SubjectPublicKeyInfo of a private key."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class SoftwareKey:
    """A Key over a private key object."""

    def __init__(self, uri: str, key: PrivateKeyTypes) -> None:
        self.uri = uri
        self._key = key
        self.signatures = 0

    @property
    def public_key(self) -> bytes | None:
        return public_der(self._key)

    @property
    def signature_schemes(self) -> Sequence[int]:
        return schemes_of(self._key)

    async def sign(self, scheme: int, content: bytes) -> bytes:
        self.signatures += 1
        return sign(self._key, scheme, content)

    def agree(self, public: PublicKeyTypes) -> bytes:
        if not isinstance(self._key, ec.EllipticCurvePrivateKey) or not isinstance(public, ec.EllipticCurvePublicKey):
            raise KeyStoreError(f"{self.uri} agrees on no keys with this one")
        if self._key.curve.name != public.curve.name:
            raise KeyStoreError(f"{self.uri} is on another curve")
        return self._key.exchange(ec.ECDH(), public)


class SoftwareKeys(KeyStore):
    """A key store with keys under URIs `software:NAME`; `missing` URIs behave like a token that was pulled out."""

    name = "software"
    uri_schemes = ("software",)

    def __init__(self) -> None:
        self._keys: dict[str, SoftwareKey] = {}
        self._secrets: dict[str, bytes] = {}
        self.missing: set[str] = set()

    def add(self, name: str, key: PrivateKeyTypes) -> str:
        """Keep a key; returns its URI."""
        uri = f"software:{name}"
        self._keys[uri] = SoftwareKey(uri, key)
        return uri

    def add_secret(self, name: str, value: bytes) -> str:
        """Keep a secret; returns its URI."""
        uri = f"software:{name}"
        self._secrets[uri] = value
        return uri

    async def start(self, settings: Mapping[str, Any], ask_pin: AskPin) -> None:
        """No token, no PIN."""

    async def find(self, uri: str) -> SoftwareKey:
        if uri in self.missing or uri not in self._keys:
            raise KeyStoreError(f"no software key {uri}; known are: {', '.join(sorted(self._keys)) or 'none'}")
        return self._keys[uri]

    async def read_secret(self, uri: str) -> bytes:
        if uri in self.missing or uri not in self._secrets:
            raise KeyStoreError(f"no secret {uri}")
        return self._secrets[uri]

    async def reach(self, uri: str) -> None:
        await (self.read_secret(uri) if uri in self._secrets else self.find(uri))

    async def agree(self, uri: str, peer_public: bytes) -> bytes:
        return (await self.find(uri)).agree(load_der_public_key(peer_public))

    async def departure(self, uris: Collection[str]) -> Collection[str]:
        while not (gone := self.missing.intersection(uris)):  # noqa: ASYNC110 - a set that tests change directly
            await asyncio.sleep(0.02)
        return gone

    async def list(self) -> Sequence[KeyInfo]:
        return [KeyInfo(uri, "private-key", "software", uri.partition(":")[2]) for uri in sorted(self._keys)]

    async def status(self) -> Mapping[str, Any]:
        return {"keys": len(self._keys), "missing": len(self.missing)}

    async def rescan(self) -> None:
        """Everything is there already."""

    async def stop(self) -> None:
        """Nothing is held."""
