"""The predicates T, t, P and p for peers that showed an OpenPGP key. (U, I and i are established by the pool, from the user ids.)"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tlspool_core.api import DoNAI, Finding, PeerContext, Predicate, Role, Verdict
from tlspool_openpgp import database, standing
from tlspool_openpgp.names import identity_of
from tlspool_openpgp.packets import Malformed, Unsupported, Weak
from tlspool_openpgp.peer import OpenPgpPeer
from tlspool_openpgp.reader import NoAnswer, Reader
from tlspool_openpgp.settings import OpenPgpSettings

_ROLES = {"client": Role.CLIENT, "server": Role.SERVER}


@dataclass(slots=True)
class State:
    """What configuration makes; replaced on reload, while predicates stay."""

    settings: OpenPgpSettings
    reader: Reader
    clock: Callable[[], float] = time.time


def counted_identity(context: PeerContext) -> DoNAI | None:
    """The identity that the pool is going to believe, if policy allows."""
    wanted = context.wanted
    if wanted is None:
        return next(iter(context.identities), None)
    if wanted in context.identities:
        return wanted
    return wanted.of_domain if wanted.of_domain in context.identities else None


class _OpenPgpPredicate(Predicate):
    """What they have in common: the peer showed a key, in a role, and nobody took it back."""

    types = frozenset({database.TYPE})

    def __init__(self, state: State) -> None:
        self._state = state

    def establish(self, context: PeerContext) -> Finding:
        peer = context.peer
        if not isinstance(peer, OpenPgpPeer):
            return Finding(Verdict.FALSE, "the peer showed no OpenPGP key")
        if database.is_distrusted(context.config, peer.fingerprint):
            return Finding(Verdict.FALSE, "the OpenPGP key is marked as revoked in the trust database")
        fault = standing.primary_fault(peer.facts, self._state.clock())
        if fault is not None:
            return Finding(Verdict.FALSE, str(fault))
        return self._find(peer, _ROLES[context.offered_role], context)

    def _find(self, peer: OpenPgpPeer, role: Role, context: PeerContext) -> Finding:
        raise NotImplementedError


class TrustPredicate(_OpenPgpPredicate):
    """T: the key is trusted, or a trusted key certifies the user id that counts. t: its self-signatures are valid."""

    letter = "T"

    def _find(self, peer: OpenPgpPeer, role: Role, context: PeerContext) -> Finding:
        if database.trusted(context.config, peer.fingerprint, role):
            return Finding(Verdict.STRICT, "the OpenPGP key is trusted")
        identity = counted_identity(context)
        reason = "the OpenPGP key names nobody" if identity is None else f"no trusted OpenPGP key certifies {identity}"
        if identity is not None:
            for certifier in database.known_certifiers(context.config, self._issuers(peer, identity)):
                if self._certifies(certifier, peer, identity, role, context):
                    return Finding(Verdict.STRICT, f"certified by {certifier.hex().upper()}")
        return Finding(Verdict.LENIENT, f"{reason}; its self-signatures are valid")

    def _users(self, peer: OpenPgpPeer, identity: DoNAI) -> list[str]:
        """The valid user ids that name the identity."""
        case = self._state.settings.user_case_counts
        valid = standing.users(peer.facts, self._state.clock())
        return [user.text for user in valid if identity_of(user.text, user_case_counts=case) == identity]

    def _issuers(self, peer: OpenPgpPeer, identity: DoNAI) -> list[bytes]:
        users = self._users(peer, identity)
        return [issuer for user in peer.facts.users if user.text in users for issuer in user.issuers]

    def _certifies(self, certifier: bytes, peer: OpenPgpPeer, identity: DoNAI, role: Role, context: PeerContext) -> bool:
        """Whether a key of ours is trusted, stands, and certifies a user id of the identity."""
        record = database.trusted(context.config, certifier, role)
        if record is None or not record.blob:
            return False
        now = self._state.clock()
        try:
            facts = self._state.reader.read(record.blob)
            if facts.primary.fingerprint != certifier or not standing.may_certify(facts, now):
                return False
            said = self._state.reader.certifications(peer.data, record.blob)
        except (Malformed, Unsupported, Weak, NoAnswer):
            return False
        return any(standing.certification(said.get(user, ()), now) is not None for user in self._users(peer, identity))


class PinPredicate(_OpenPgpPredicate):
    """P: an operator pinned the key, or it was kept. p: or nothing is kept yet, and it is when the peer is accepted."""

    letter = "P"

    def _find(self, peer: OpenPgpPeer, role: Role, context: PeerContext) -> Finding:
        if database.is_pinned(context.config, peer.fingerprint, role):
            return Finding(Verdict.STRICT, "the OpenPGP key is pinned")
        identity = context.wanted or counted_identity(context)
        if identity is None:
            return Finding(Verdict.FALSE, "the OpenPGP key is not pinned, and names nobody for whom it could be")
        pins = database.kept_pins(context.config, identity, role)
        if not pins:
            keep = database.keeper(context.config, identity, role, peer.fingerprint)
            return Finding(Verdict.LENIENT, f"first OpenPGP key seen for {identity}; it is pinned when accepted", keep)
        if database.matches(pins, peer.fingerprint):
            return Finding(Verdict.STRICT, f"the OpenPGP key pinned for {identity}")
        return Finding(Verdict.FALSE, f"another OpenPGP key is pinned for {identity}; if the change is right, remove that pin")
