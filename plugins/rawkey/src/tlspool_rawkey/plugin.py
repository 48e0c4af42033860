"""The credential type `rawkey`: a public key without a certificate around it (RFC 7250), trusted because it is pinned.

Theory of operation
-------------------
What a peer shows is its SubjectPublicKeyInfo and nothing else.  Whom a key belongs to is for the trust database to say: a record under
the SHA-256 of the key, with the identity as its content.  Our own private keys stay in the key store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key, load_pem_public_key

from tlspool_core.api import (
    BadCertificate,
    CertificateEntry,
    CertificateForm,
    ConfigBackend,
    Credential,
    CredentialType,
    DecodeError,
    Denied,
    DoNAI,
    EngineParts,
    Finding,
    Key,
    LocalCredential,
    PeerContext,
    PeerCredential,
    Predicate,
    PublicKeyCredential,
    Role,
    TlsError,
    TrustRecord,
    Verdict,
    hookimpl,
    schemes_for_key,
    verify,
)

TYPE = "rawkey"
RAW_PUBLIC_KEY = 2  # IANA registry "TLS Certificate Types"
MAX_LENGTH = 8192  # bytes; the largest key that the engine verifies with is much smaller


# --- the form: how it lies in the Certificate message of TLS 1.2 (RFC 7250 section 3); TLS 1.3 has one frame for all types -----------


def parse12(body: bytes) -> tuple[CertificateEntry, ...]:
    """One vector, empty where a client has nothing to show."""
    if len(body) < 3 or int.from_bytes(body[:3], "big") != len(body) - 3:
        raise DecodeError("a raw public key is one vector")
    return (CertificateEntry(body[3:]),) if len(body) > 3 else ()


def build12(entries: Sequence[CertificateEntry]) -> bytes:
    """The other way round."""
    key = entries[0].data if entries else b""
    return len(key).to_bytes(3, "big") + key


FORM = CertificateForm(RAW_PUBLIC_KEY, "RawPublicKey", frozenset({0x0303, 0x0304}), parse12, build12, entries13_max=1)


# --- keys, pins, and what the trust database says of them ----------------------------------------------------------------------------


def parse_key(data: bytes) -> object:
    """A public key of `cryptography`. Raises ValueError for what is no key, or not in the one DER form that a key has."""
    try:
        key = load_der_public_key(data)
        if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == data and schemes_for_key(key):
            return key
    except (ValueError, UnsupportedAlgorithm):
        pass
    raise ValueError("not a DER SubjectPublicKeyInfo of a key that TLS signs with")


def pin(data: bytes) -> bytes:
    """The key of the trust database for a public key."""
    return hashlib.sha256(data).digest()


def known_as(config: ConfigBackend, data: bytes, role: Role = Role.BOTH) -> tuple[DoNAI, ...]:
    """Identities that the trust database gives to a public key, in a role; none at all once a record is revoked."""
    with config.read() as databases:
        records = [record for record in databases.trust(pin(data)) if record.type == TYPE]
    if any(record.revoked for record in records):
        return ()
    return tuple(DoNAI.parse(record.blob.decode()) for record in records if record.roles & role)


@dataclass(frozen=True, slots=True)
class RawCredential:
    """A key of ours."""

    entries: Sequence[CertificateEntry]
    signature_schemes: Sequence[int]
    key: Key = field(repr=False)
    certificate_type: int = RAW_PUBLIC_KEY
    issuers: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class RawPeer(PublicKeyCredential):
    """A peer's key, with the identities that it is pinned for. The base verifies signatures."""

    identities: tuple[DoNAI, ...] = ()


class PinnedForRole(Predicate):
    """T, t: every identity of the key is pinned to it for the role in which the peer shows it."""

    letter = "T"
    types = frozenset({TYPE})

    def establish(self, context: PeerContext) -> Finding:
        """Looks the pin up again: the database may have changed since the handshake began."""
        assert context.peer is not None
        role = Role.CLIENT if context.offered_role == "client" else Role.SERVER
        pinned = known_as(context.config, context.peer.entries[0].data, role)
        if context.identities and set(context.identities) <= set(pinned):
            return Finding(Verdict.STRICT)
        return Finding(Verdict.FALSE, f"the raw public key is not pinned as {context.offered_role}")


# --- the type ------------------------------------------------------------------------------------------------------------------------


class RawKeyType(CredentialType):
    """Registered as `rawkey`."""

    name = TYPE
    certificate_types = (RAW_PUBLIC_KEY,)
    engine_parts = EngineParts(certificate_forms=(FORM,))

    async def load(self, local: LocalCredential, find_key: Callable[[str], Awaitable[Key]]) -> Credential | None:
        """Find the private key, and see that it belongs to the public one by a signature."""
        key = await find_key(local.key_uri)
        try:
            public = parse_key(local.public)
            schemes = [scheme for scheme in key.signature_schemes if scheme in schemes_for_key(public)]
            probe = b"does this key belong to that one?"
            verify(public, schemes[0], probe, await key.sign(schemes[0], probe))
        except (ValueError, IndexError, TlsError):
            raise Denied(f"the key {local.key_uri} does not belong to the public key of {local.identity}") from None
        return RawCredential((CertificateEntry(local.public),), schemes, key)

    async def sign(self, credential: Credential, scheme: int, content: bytes) -> bytes:
        """The private key stays where it is."""
        assert isinstance(credential, RawCredential)
        return await credential.key.sign(scheme, content)

    def examine(self, certificate_type: int, entries: Sequence[CertificateEntry], config: ConfigBackend) -> PeerCredential:
        """Parse what the peer shows; what it is called depends on the trust database."""
        if len(entries) != 1 or len(entries[0].data) > MAX_LENGTH:
            raise BadCertificate("a raw public key is one entry")
        try:
            key = parse_key(entries[0].data)
        except ValueError as fault:
            raise BadCertificate(str(fault)) from None
        return RawPeer(RAW_PUBLIC_KEY, tuple(entries), key, identities=known_as(config, entries[0].data))

    def identities(self, peer: PeerCredential) -> tuple[DoNAI, ...]:
        """Those of the pin; a key that nobody pinned names nobody."""
        assert isinstance(peer, RawPeer)
        return peer.identities

    def predicates(self) -> Iterable[Predicate]:
        """T."""
        return (PinnedForRole(),)

    def trust_keys(self, peer: PeerCredential) -> tuple[bytes, ...]:
        """The pin, whose expressions apply."""
        return (pin(peer.entries[0].data),)

    def describe(self, side: Credential | PeerCredential, field: str) -> str | None:
        """The subject is the pin, in hexadecimal."""
        return pin(side.entries[0].data).hex() if field == "subject" else None

    def import_local(self, data: bytes) -> bytes:
        """A public key in PEM or DER."""
        return _der(data)

    def import_trust(self, data: bytes, *, pinned: bool) -> list[TrustRecord]:
        """A PEM public key with its identity on a line above: `john@example.org`, then `-----BEGIN PUBLIC KEY-----`."""
        head, dashes, rest = data.partition(b"-----BEGIN")
        identity = DoNAI.parse(head.decode("utf-8").strip())
        return [TrustRecord(pin(_der(dashes + rest)), TYPE, pinned=True, blob=str(identity).encode())]

    def summarize(self, public: bytes) -> str:
        """The pin of a stored key, or the identity of a record."""
        return f"key {pin(public).hex()}" if public[:1] == b"0" else public.decode("utf-8", "replace")


def _der(data: bytes) -> bytes:
    """SubjectPublicKeyInfo out of PEM or DER. Raises ValueError."""
    if data.lstrip().startswith(b"-----BEGIN"):
        try:
            data = load_pem_public_key(data).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        except UnsupportedAlgorithm as fault:
            raise ValueError(str(fault)) from None
    parse_key(data)
    return data


@hookimpl
def tlspool_register_credential_types() -> list[CredentialType]:
    """What this plugin adds to the pool."""
    return [RawKeyType()]
