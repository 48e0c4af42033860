"""A toy credential type: the smallest thing that authenticates inside the handshake, for tests and as an example to read.

Theory of operation
-------------------
A toy credential is one entry: an identity as text, a zero byte, and a public key (DER SubjectPublicKeyInfo).  It proves possession
of its key as any credential does; that the identity belongs to the key is believed if the trust database pins the SHA-256 of the
entry for this type.  It travels under a private-use code point of the registry "TLS Certificate Types" (RFC 7250 section 3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import (
    ConfigBackend,
    CredentialType,
    Denied,
    EngineParts,
    Finding,
    Key,
    LocalCredential,
    LocalIdentity,
    PeerContext,
    Predicate,
    Role,
    TrustRecord,
    Verdict,
)
from tlspool_core.testing.keys import public_der, verify
from tlspool_core.tls.alerts import BadCertificate, DecodeError, DecryptError
from tlspool_core.tls.seams import CertificateEntry, CertificateForm, Credential, PeerCredential

TOY_CERTIFICATE_TYPE = 224
_VERSIONS = frozenset({0x0303, 0x0304})


def toy_entry(identity: DoNAI, public_key: bytes) -> bytes:
    """The public part of a toy credential: what goes into `LocalCredential.public` and over the wire."""
    return str(identity).encode() + b"\0" + public_key


def toy_trust_key(entry: bytes) -> bytes:
    """Key of the trust database under which a toy credential is pinned."""
    return hashlib.sha256(entry).digest()


def toy_key(name: str) -> ec.EllipticCurvePrivateKey:
    """A private key for whom `name` says: every process of a test derives the same one."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()) >> 1
    return ec.derive_private_key(number, ec.SECP256R1())


def toy_identity(name: str, uri: str = "", allowed_uids: tuple[int, ...] = ()) -> tuple[LocalIdentity, TrustRecord]:
    """An identity with a toy credential, and the record by which that is trusted.

    Its `toy_key` is where `uri` says; else in `SoftwareKeys`, to which it was added under the same name.
    """
    identity = DoNAI.parse(name)
    public = toy_entry(identity, public_der(toy_key(name)))
    credential = LocalCredential(identity, "toy", Role.BOTH, uri or f"software:{name}", public)
    return LocalIdentity(identity, (credential,), "", allowed_uids), TrustRecord(toy_trust_key(public), "toy", pinned=True)


@dataclass(frozen=True, slots=True)
class ToyCredential:
    """A toy credential of ours."""

    entries: Sequence[CertificateEntry]
    signature_schemes: Sequence[int]
    key: Key = field(repr=False)
    certificate_type: int = TOY_CERTIFICATE_TYPE
    issuers: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class ToyPeer:
    """What a peer showed."""

    entries: Sequence[CertificateEntry]
    identity: DoNAI
    public_key: bytes
    certificate_type: int = TOY_CERTIFICATE_TYPE

    def verify(self, scheme: int, content: bytes, signature: bytes) -> None:
        if not verify(load_der_public_key(self.public_key), scheme, content, signature):
            raise DecryptError("the signature does not hold")


def _parse12(body: bytes) -> tuple[CertificateEntry, ...]:
    """TLS 1.2's Certificate message: one vector of up to 2^24-1 bytes."""
    if len(body) < 3 or int.from_bytes(body[:3]) != len(body) - 3:
        raise DecodeError("the toy credential's length is wrong")
    return (CertificateEntry(body[3:]),) if len(body) > 3 else ()


def _build12(entries: Sequence[CertificateEntry]) -> bytes:
    data = entries[0].data if entries else b""
    return len(data).to_bytes(3) + data


class ToyTrust(Predicate):
    """T: the credential is pinned in the trust database for the role in which the peer shows it."""

    letter = "T"
    types = frozenset({"toy"})

    def establish(self, context: PeerContext) -> Finding:
        assert context.peer is not None
        with context.config.read() as databases:
            records = databases.trust(toy_trust_key(context.peer.entries[0].data))
        if any(record.type == "toy" and not record.revoked for record in records):
            return Finding(Verdict.STRICT)
        return Finding(Verdict.FALSE, "the toy credential is not pinned")


class ToyType(CredentialType):
    """Registers like any other credential type."""

    name = "toy"
    certificate_types = (TOY_CERTIFICATE_TYPE,)
    engine_parts = EngineParts(
        certificate_forms=(CertificateForm(TOY_CERTIFICATE_TYPE, "Toy", _VERSIONS, _parse12, _build12, entries13_max=1),)
    )

    async def load(self, local: LocalCredential, find_key: Callable[[str], Awaitable[Key]]) -> Credential | None:
        key = await find_key(local.key_uri)
        if toy_entry(local.identity, key.public_key or b"") != local.public:
            raise Denied(f"the key {local.key_uri} does not belong to the toy credential of {local.identity}")
        return ToyCredential((CertificateEntry(local.public),), key.signature_schemes, key)

    async def sign(self, credential: Credential, scheme: int, content: bytes) -> bytes:
        assert isinstance(credential, ToyCredential)
        return await credential.key.sign(scheme, content)

    def examine(self, certificate_type: int, entries: Sequence[CertificateEntry], config: ConfigBackend) -> PeerCredential:
        if len(entries) != 1 or len(entries[0].data) > 10_000:
            raise BadCertificate("a toy credential is one entry")
        identity, zero, public_key = entries[0].data.partition(b"\0")
        try:
            user, at, domain = identity.decode("ascii").rpartition("@")
            load_der_public_key(public_key)
        except (ValueError, UnsupportedAlgorithm):
            raise BadCertificate("not a toy credential") from None
        if not zero or not domain or (at and not user):
            raise BadCertificate("a toy credential names no identity")
        return ToyPeer(tuple(entries), DoNAI(domain, user or None), public_key)

    def identities(self, peer: PeerCredential) -> tuple[DoNAI, ...]:
        assert isinstance(peer, ToyPeer)
        return (peer.identity,)

    def predicates(self) -> Iterable[Predicate]:
        return (ToyTrust(),)

    def trust_keys(self, peer: PeerCredential) -> tuple[bytes, ...]:
        return (toy_trust_key(peer.entries[0].data),)

    def describe(self, side: Credential | PeerCredential, field: str) -> str | None:
        return side.entries[0].data.partition(b"\0")[0].decode() if field == "subject" else None

    def end_point_binding(self, side: Credential | PeerCredential) -> bytes | None:
        return hashlib.sha256(side.entries[0].data).digest()
