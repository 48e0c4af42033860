"""What a peer showed: read in bounded time, judged for its own validity, not for trust."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from tlspool_core.api import (
    BadCertificate,
    CertificateEntry,
    CertificateRevoked,
    CertificateUnknown,
    ConfigBackend,
    DecodeError,
    DoNAI,
    InsufficientSecurity,
    PublicKeyCredential,
    UnknownCA,
    UnsupportedCertificate,
)
from tlspool_openpgp import database, standing
from tlspool_openpgp.facts import KeyFacts, PublicKeyFacts
from tlspool_openpgp.message import OPENPGP, Shown, read_descriptor
from tlspool_openpgp.names import identities_of
from tlspool_openpgp.packets import Malformed, Unsupported, Weak
from tlspool_openpgp.reader import NoAnswer, Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPgpPeer(PublicKeyCredential):
    """A peer's key; the base verifies signatures with the part of it that signs."""

    facts: KeyFacts
    signing: PublicKeyFacts
    identities: tuple[DoNAI, ...]
    data: bytes = field(repr=False)  # the transferable public key
    certifiers: tuple[bytes, ...]  # fingerprints of keys of ours that seem to certify it

    @property
    def fingerprint(self) -> bytes:
        """Of the primary key."""
        return self.facts.primary.fingerprint


def read_key(reader: Reader, data: bytes) -> KeyFacts:
    """Facts about a key. Raises BadCertificate, UnsupportedCertificate, InsufficientSecurity, CertificateUnknown."""
    try:
        return reader.read(data)
    except Malformed as fault:
        raise BadCertificate(f"the OpenPGP key: {fault}") from None
    except Unsupported as fault:
        raise UnsupportedCertificate(f"the OpenPGP key: {fault}") from None
    except Weak as fault:
        raise InsufficientSecurity(f"the OpenPGP key: {fault}") from None
    except NoAnswer as fault:
        raise CertificateUnknown(str(fault)) from None


def public_key(facts: PublicKeyFacts) -> object:
    """The key of `cryptography`. Raises UnsupportedCertificate."""
    try:
        return load_der_public_key(facts.spki)
    except (ValueError, UnsupportedAlgorithm):
        raise UnsupportedCertificate("the OpenPGP key is of a kind that TLS does not use") from None


def examine(
    entries: Sequence[CertificateEntry],
    config: ConfigBackend,
    reader: Reader,
    now: float,
    names: Callable[[Sequence[str]], tuple[DoNAI, ...]] = identities_of,
) -> OpenPgpPeer:
    """From the entry of a Certificate message. Blocks. Raises a TlsError."""
    if len(entries) != 1:
        raise DecodeError("one OpenPGP key is shown, not more")
    shown = read_descriptor(entries[0].data)
    data = _key_of(shown, config)
    facts = read_key(reader, data)
    if shown.fingerprint and facts.primary.fingerprint != shown.fingerprint:
        raise CertificateUnknown("another OpenPGP key is stored under the fingerprint")
    if database.is_distrusted(config, facts.primary.fingerprint):
        raise CertificateRevoked("the OpenPGP key is marked as revoked in the trust database")
    signing = standing.signing_key(facts, shown.key_id, now)
    users = standing.users(facts, now)
    return OpenPgpPeer(
        certificate_type=OPENPGP,
        entries=tuple(entries),
        public_key=public_key(signing),
        facts=facts,
        signing=signing,
        identities=names([user.text for user in users]),
        data=data,
        certifiers=database.known_certifiers(config, (issuer for user in users for issuer in user.issuers)),
    )


def _key_of(shown: Shown, config: ConfigBackend) -> bytes:
    """The key itself, out of the trust database where only its fingerprint was shown."""
    if not shown.fingerprint:
        if not shown.key:
            raise DecodeError("no OpenPGP key is shown")
        return shown.key
    data = database.stored_key(config, shown.fingerprint)
    if not data:
        raise UnknownCA(f"the OpenPGP key {shown.fingerprint.hex().upper()} is not in the trust database")
    return data
