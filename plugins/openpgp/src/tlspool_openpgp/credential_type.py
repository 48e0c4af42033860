"""OpenPGP as a credential type: puts the modules of this package behind the pool's interface."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from tlspool_core.api import (
    CertificateEntry,
    ConfigBackend,
    Credential,
    CredentialType,
    DoNAI,
    EngineParts,
    Key,
    LocalCredential,
    PeerCredential,
    Predicate,
    Role,
    SessionContext,
    SessionParts,
    TrustRecord,
    UnsupportedCertificate,
)
from tlspool_openpgp import imports, local, peer, standing
from tlspool_openpgp.database import TYPE
from tlspool_openpgp.local import OpenPgpCredential
from tlspool_openpgp.message import FORM, OPENPGP
from tlspool_openpgp.names import identities_of
from tlspool_openpgp.peer import OpenPgpPeer
from tlspool_openpgp.predicates import PinPredicate, State, TrustPredicate
from tlspool_openpgp.reader import Reader
from tlspool_openpgp.settings import OpenPgpSettings, parse_settings

_TLS12 = 0x0303


class OpenPgpType(CredentialType):
    """See the interface. `clock` gives the seconds since the epoch that keys are held against."""

    name = TYPE
    certificate_types = (OPENPGP,)
    engine_parts = EngineParts(certificate_forms=(FORM,))
    examine_may_block = True

    def __init__(self, clock: Callable[[], float] = time.time, reader: Reader | None = None) -> None:
        self._state = State(OpenPgpSettings(), reader or Reader(), clock)

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Settings of [credential.openpgp]. Raises ValueError."""
        self._state.settings = parse_settings(settings)
        self._state.reader.time_limit = self._state.settings.time_limit

    # --- our own keys -----------------------------------------------------------------------------------------------------------

    async def load(self, credential: LocalCredential, find_key: Callable[[str], Awaitable[Key]]) -> OpenPgpCredential:
        """See `local.load`."""
        return await local.load(credential, find_key, self._state.reader, self._state.clock)

    async def sign(self, credential: Credential, scheme: int, content: bytes) -> bytes:
        """See `local.sign`."""
        assert isinstance(credential, OpenPgpCredential)
        return await local.sign(credential, scheme, content, self._state.clock())

    def begin(self, context: SessionContext) -> SessionParts:
        """RFC 8446 section 4.4.2: TLS 1.3 has no OpenPGP keys, so who prefers one negotiates TLS 1.2."""
        role = Role.CLIENT if context.role == "client" else Role.SERVER
        preferred = next((one for one in context.local_credentials if one.roles & role), None)
        if preferred is not None and preferred.type == TYPE:
            return SessionParts(versions=(_TLS12,))
        return SessionParts()

    # --- the peer's -----------------------------------------------------------------------------------------------------------

    def examine(self, certificate_type: int, entries: Sequence[CertificateEntry], config: ConfigBackend) -> OpenPgpPeer:
        """See `peer.examine`. Raises a TlsError."""
        if certificate_type != OPENPGP:
            raise UnsupportedCertificate(f"certificate type {certificate_type} is not OpenPGP")
        return peer.examine(entries, config, self._state.reader, self._state.clock(), self._names)

    def _names(self, user_ids: Sequence[str]) -> tuple[DoNAI, ...]:
        return identities_of(user_ids, user_case_counts=self._state.settings.user_case_counts)

    def identities(self, peer: PeerCredential) -> tuple[DoNAI, ...]:
        """Out of the valid user ids: users first, then domains."""
        assert isinstance(peer, OpenPgpPeer)
        return peer.identities

    def predicates(self) -> Iterable[Predicate]:
        """T and P."""
        return (TrustPredicate(self._state), PinPredicate(self._state))

    def trust_keys(self, peer: PeerCredential) -> tuple[bytes, ...]:
        """The key, and those of ours that seem to certify it."""
        assert isinstance(peer, OpenPgpPeer)
        return (peer.fingerprint, *peer.certifiers)

    def strength(self, peer: PeerCredential) -> int:
        """The weaker of primary key and signing key."""
        assert isinstance(peer, OpenPgpPeer)
        return standing.strength(peer.facts.primary, peer.signing)

    # --- facts and command line -------------------------------------------------------------------------------------------------

    def describe(self, side: Credential | PeerCredential, field: str) -> str | None:
        """The subject is the fingerprint; alternative names are the user ids that name somebody."""
        assert isinstance(side, OpenPgpCredential | OpenPgpPeer)
        if field == "subject":
            return imports.spelled(side.facts.primary.fingerprint)
        if field == "subjectaltname":
            users = standing.users(side.facts, self._state.clock())
            return ",".join(map(str, self._names([user.text for user in users]))) or None
        return None

    def import_local(self, data: bytes) -> bytes:
        """See `imports.import_local`."""
        return imports.import_local(self._state.reader, data)

    def import_trust(self, data: bytes, *, pinned: bool) -> list[TrustRecord]:
        """See `imports.import_trust`."""
        return imports.import_trust(self._state.reader, data, pinned=pinned)

    def summarize(self, public: bytes) -> str:
        """See `imports.summarize`."""
        return imports.summarize(self._state.reader, public)
