"""Certificates made on the fly, under an issuing key that stays in its token.

Theory of operation
-------------------
A local proxy speaks for names that it has no credential for.  If the configuration names an issuing certificate and its key, one is
made when a session asks for it: a fresh P-256 key that lives in memory, and a certificate for it that names the identity, is
good for the one role, and is short-lived.  It is kept for as long as half of that life, so that a page with fifty pictures
costs the token one signature.

The certificate is first built with a throw-away key of the issuer's kind, which settles every byte but the signature; then the token
signs those bytes, and its signature takes the place of the other one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from tlspool_core.api import CertificateEntry, Denied, DoNAI, Key, Role
from tlspool_x509.certificates import der_of, issued_by, validity_fault
from tlspool_x509.local import X509Credential

SKEW = timedelta(minutes=5)  # of clocks elsewhere
_KEPT = 1000
_DNS_SRV = ObjectIdentifier("1.3.6.1.5.5.7.8.7")  # id-on-dnsSRV, RFC 4985 section 2
_LONGEST_NAME = 64  # ub-common-name, RFC 5280 appendix A
_ECDSA_SHA256 = 0x0403
_CURVES: Mapping[str, tuple[int, SHA256 | SHA384 | SHA512]] = {
    "secp256r1": (0x0403, SHA256()),
    "secp384r1": (0x0503, SHA384()),
    "secp521r1": (0x0603, SHA512()),
}

Throwaway = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
IssuingPublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey
FindKey = Callable[[str], Awaitable[Key]]
Wanted = tuple[DoNAI, str, Role]


class MemoryKey:
    """The key of a certificate that was made here; lives as long as that is kept."""

    uri = ""
    signature_schemes: Sequence[int] = (_ECDSA_SHA256,)

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def public(self) -> ec.EllipticCurvePublicKey:
        return self._key.public_key()

    @property
    def public_key(self) -> bytes:
        """DER SubjectPublicKeyInfo."""
        return self.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    async def sign(self, scheme: int, content: bytes) -> bytes:
        """With the one scheme that it has. Raises Denied for others."""
        if scheme != _ECDSA_SHA256:
            raise Denied(f"a key made on the fly does not make signature scheme {scheme:#06x}")
        return self._key.sign(content, ec.ECDSA(SHA256()))


@dataclass(slots=True)
class _Kept:
    credential: X509Credential
    until: datetime


@dataclass(frozen=True, slots=True)
class Way:
    """How an issuing key signs: TLS's code point for it, and the hash for the builder."""

    throwaway: Throwaway = field(repr=False)
    scheme: int
    algorithm: SHA256 | SHA384 | SHA512 | None


def read_issuers(path: Path) -> list[x509.Certificate]:
    """The issuing certificate, and those above it. Raises ValueError."""
    try:
        chain = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"issuing_certificate: {path}: {error}") from None
    for certificate, issuer in pairwise(chain):
        if not issued_by(certificate, issuer):
            raise ValueError(f"issuing_certificate: {path}: each certificate must be followed by its issuer")
    try:
        authority = chain[0].extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        authority = False
    if not authority:
        raise ValueError(f"issuing_certificate: {path} is not that of an authority")
    return chain


def way_of(key: PublicKeyTypes) -> Way:
    """How a key signs certificates. Raises ValueError for a kind that does not."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        found = _CURVES.get(key.curve.name)
        if found is not None:
            return Way(ec.generate_private_key(key.curve), *found)
    if isinstance(key, rsa.RSAPublicKey):
        return Way(rsa.generate_private_key(65537, 2048), 0x0401, SHA256())
    if isinstance(key, ed25519.Ed25519PublicKey):
        return Way(ed25519.Ed25519PrivateKey.generate(), 0x0807, None)
    if isinstance(key, ed448.Ed448PublicKey):
        return Way(ed448.Ed448PrivateKey.generate(), 0x0808, None)
    raise ValueError("this kind of key does not issue certificates here")


class Issuing:
    """One issuing key, and what it has issued."""

    def __init__(self, key_uri: str, chain: Sequence[x509.Certificate], lifetime: timedelta, clock: Callable[[], datetime]) -> None:
        """Raises ValueError."""
        self._key_uri = key_uri
        self._chain = chain
        self._lifetime = lifetime
        self._clock = clock
        self._way = way_of(chain[0].public_key())
        self._kept: OrderedDict[Wanted, _Kept] = OrderedDict()
        self._locks: dict[Wanted, asyncio.Lock] = {}

    async def credential(self, identity: DoNAI, service: str, role: Role, find_key: FindKey) -> X509Credential:
        """One that is kept, or a new one. Raises Denied, or KeyStoreError also for what is kept once the issuing key is gone."""
        key = await find_key(self._key_uri)
        wanted = (identity, service, role)
        lock = self._locks.setdefault(wanted, asyncio.Lock())
        try:
            async with lock:
                kept = self._kept.get(wanted)
                if kept is None or kept.until <= self._clock():
                    kept = self._kept[wanted] = await self._made(identity, service, role, key)
                self._kept.move_to_end(wanted)
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
                return kept.credential
        finally:
            if not lock.locked():
                self._locks.pop(wanted, None)

    async def _made(self, identity: DoNAI, service: str, role: Role, key: Key) -> _Kept:
        now, issuer = self._clock(), self._chain[0]
        if fault := validity_fault(issuer, now):
            raise Denied(f"the issuing certificate {fault}; install a new one")
        if self._way.scheme not in key.signature_schemes:
            raise Denied(f"the issuing key {self._key_uri} makes no signature that goes with its certificate")
        ends = min(now + self._lifetime, issuer.not_valid_after_utc)
        own = MemoryKey()
        built = self._built(identity, service, role, own, (max(now - SKEW, issuer.not_valid_before_utc), ends))
        signature = await key.sign(self._way.scheme, built.tbs_certificate_bytes)
        leaf = with_signature(built, signature)
        if not issued_by(leaf, issuer):
            raise Denied(f"the issuing key {self._key_uri} is not that of the issuing certificate")
        chain = (leaf, *self._chain)
        credential = X509Credential(
            certificate_type=0,
            entries=tuple(CertificateEntry(der_of(certificate)) for certificate in chain),
            signature_schemes=own.signature_schemes,
            issuers=tuple(certificate.issuer.public_bytes() for certificate in chain),
            roles=role,
            leaf=leaf,
            key=own,
            scheme_names={scheme: scheme for scheme in own.signature_schemes},
        )
        return _Kept(credential, now + (ends - now) / 2)

    def _built(
        self, identity: DoNAI, service: str, role: Role, own: MemoryKey, lasts: tuple[datetime, datetime]
    ) -> x509.Certificate:
        """The certificate with a signature that does not count yet."""
        issuer, text = self._chain[0], str(identity)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if len(text) <= _LONGEST_NAME else [])
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if role is Role.SERVER else ExtendedKeyUsageOID.CLIENT_AUTH
        public = own.public
        builder = x509.CertificateBuilder(issuer.subject, subject, public, x509.random_serial_number(), *lasts)
        for extension, critical in (
            (x509.BasicConstraints(False, None), True),
            (x509.KeyUsage(True, False, False, False, False, False, False, False, False), True),
            (x509.ExtendedKeyUsage([purpose]), False),
            (x509.SubjectAlternativeName(_names(identity, service, role)), not subject.rdns),
            (x509.SubjectKeyIdentifier.from_public_key(public), False),
            (_authority(issuer), False),
        ):
            builder = builder.add_extension(extension, critical)
        # the algorithm is inside of what is signed, so it must be the token's already
        return builder.sign(self._way.throwaway, self._way.algorithm)


def _names(identity: DoNAI, service: str, role: Role) -> list[x509.GeneralName]:
    """The identity, and for a server the service at it (RFC 4985), if it is named in ASCII."""
    if identity.user is not None:
        return [x509.RFC822Name(str(identity))]
    found: list[x509.GeneralName] = [x509.DNSName(identity.domain)]
    if role is Role.SERVER and service and service.isascii():
        text = f"_{service}.{identity.domain}".encode()
        if len(text) < 128:  # one byte of length
            found.append(x509.OtherName(_DNS_SRV, b"\x16" + bytes([len(text)]) + text))
    return found


def _authority(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        public = issuer.public_key()
        assert isinstance(public, IssuingPublicKey)
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(public)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _tlv(tag: int, content: bytes) -> bytes:
    """DER (X.690 section 8.1)."""
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(length)]) + length + content


def with_signature(built: x509.Certificate, signature: bytes) -> x509.Certificate:
    """The same certificate with another signature of the same algorithm (RFC 5280 section 4.1)."""
    der, signed = der_of(built), built.tbs_certificate_bytes
    rest = der[der.index(signed) + len(signed) :]
    algorithm = rest[: 2 + rest[1]]  # shorter than 128 bytes for every algorithm that is used here
    return x509.load_der_x509_certificate(_tlv(0x30, signed + algorithm + _tlv(0x03, b"\0" + signature)))
