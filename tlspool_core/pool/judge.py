"""Whether a session may go on with this peer: what the application asks for, then what policy demands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlspool_core.identity import DoNAI
from tlspool_core.tls import alerts
from tlspool_core.tls.questions import JudgePeer
from tlspool_core.wire.errors import ErrorCode, WireError
from tlspool_core.wire.flags import StartTlsFlags

if TYPE_CHECKING:
    from tlspool_core.pool.answers import Answers
    from tlspool_core.pool.core import Pool
    from tlspool_core.pool.session import Session


async def judge(pool: Pool, session: Session, answers: Answers, question: JudgePeer) -> DoNAI | None:
    """The remote identity that is believed, or None if the application can do without. Raises Refusal."""
    from tlspool_core.pool.answers import Refusal

    flags = session.request.flags
    if flags & StartTlsFlags.IGNORE_REMOTEID:
        return None
    peer, kind = question.peer, answers.peer_type
    if peer is None:
        if flags & StartTlsFlags.REQUEST_REMOTEID:
            return None
        raise Refusal(alerts.CertificateRequired("no identity"), WireError(ErrorCode.REMOTEID_MISSING))
    assert kind is not None
    return kind.identities(peer)[0]
