"""Whether a session may go on with this peer: puts together what policy needs to know, and turns its answer into ours."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import CredentialType, PeerContext, Role
from tlspool_core.policy.demands import RemoteIdentity
from tlspool_core.policy.judge import PeerRefused
from tlspool_core.pool.credentials import roles_to_show
from tlspool_core.pool.logs import say
from tlspool_core.pool.refusal import Refusal, too_long
from tlspool_core.tls import alerts
from tlspool_core.tls.questions import JudgePeer
from tlspool_core.tls.seams import PeerCredential
from tlspool_core.wire.errors import ErrorCode, WireError
from tlspool_core.wire.flags import IpProtocol

if TYPE_CHECKING:
    from tlspool_core.pool.answers import Answers
    from tlspool_core.pool.core import Pool
    from tlspool_core.pool.session import Session

log = logging.getLogger("tlspool.session")


def identities_of(kind: CredentialType | None, peer: PeerCredential | None, wanted: DoNAI | None) -> tuple[DoNAI, ...]:
    """Identities that a peer's credential names, those that it names by a pattern included where they are wanted."""
    if kind is None or peer is None:
        return ()
    found = kind.identities(peer)
    if wanted is None:
        return found
    also = [one for one in dict.fromkeys((wanted, wanted.of_domain)) if one not in found and kind.names(peer, one)]
    return (*also, *found)


def context_of(pool: Pool, session: Session, answers: Answers, question: JudgePeer, local: DoNAI | None) -> PeerContext:
    """All that policy needs to know of the peer. `local` is who we are, or shall be if the peer asks."""
    request, kind = session.request, answers.peer_type
    wanted = pool.identity(request.remoteid)
    own = answers.own_credential(question.own)
    return PeerContext(
        peer=question.peer,
        identities=identities_of(kind, question.peer, wanted),
        own=question.own,
        local_identity=local,
        wanted=wanted,
        domain_represents_user=session.wishes.domain_represents_user,
        service=request.service,
        facts=question.facts,
        config=pool.backend,
        offered_role="client" if session.role == "server" else "server",
        ignore_caches=session.wishes.ignore_caches,
        peer_address=session.peer_address,
        ip_protocol=request.ipproto or IpProtocol.TCP,
        own_roles=own.roles if own is not None else _other_roles(pool, session, local),
    )


def _other_roles(pool: Pool, session: Session, local: DoNAI | None) -> Role | None:
    """Of what a client would show, which it chooses once the server was judged, or of what a server has shown in the handshake before."""
    if session.role == "server":
        return session.own_roles
    return roles_to_show(pool.credentials.identity(local)) if local is not None else None


async def judge(pool: Pool, context: PeerContext, mode: RemoteIdentity, kind: CredentialType | None) -> DoNAI | None:
    """The remote identity that is believed, or None if the application can do without. Raises Refusal."""
    try:
        judgement = await pool.judge.judge(context, mode, kind)
    except PeerRefused as refused:
        say(log, logging.INFO, "peer not acceptable", why=refused.explanation)
        raise _refusal(context.peer, mode, refused) from None
    if reason := too_long("remote", judgement.identity):
        raise Refusal(alerts.CertificateUnknown("identity"), WireError(ErrorCode.REMOTEID_REFUSED, reason))
    say(log, logging.DEBUG, "peer acceptable", why=judgement.explanation)
    return judgement.identity


def _refusal(peer: PeerCredential | None, mode: RemoteIdentity, refused: PeerRefused) -> Refusal:
    if peer is None and mode is RemoteIdentity.REQUIRED:
        return Refusal(alerts.CertificateRequired("no identity"), WireError(ErrorCode.REMOTEID_MISSING, str(refused)))
    alert = alerts.AccessDenied("policy") if peer is None else alerts.CertificateUnknown("policy")
    return Refusal(alert, WireError(ErrorCode.REMOTEID_REFUSED, str(refused)))
