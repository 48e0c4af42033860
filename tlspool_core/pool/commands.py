"""Commands about sessions that exist: who may give them, and what is answered, whichever process the session lives in.

Theory of operation
-------------------
The controller is whoever a control key may belong to: a client of this process, or the token of a client of a sibling process (see
`mesh`).  Both are served by the same functions, so that a session is commanded alike from everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlspool_core.pool import facts
from tlspool_core.pool.logs import session_id
from tlspool_core.wire.errors import ErrorCode
from tlspool_core.wire.messages import Accounting, ControlDetach, ControlReattach, Info, Message, Prng, StartTls, Success

if TYPE_CHECKING:
    from tlspool_core.pool.core import Pool

SessionCommand = ControlDetach | ControlReattach | Prng | Info


def command(pool: Pool, controller: object, request: SessionCommand) -> Message:
    """The answer to a command that needs no waiting. Raises WireError."""
    control = pool.control
    match request:
        case ControlDetach():
            control.detach(request.ctlkey, controller)
            return Success()
        case ControlReattach():
            control.reattach(request.ctlkey, controller)
            return Success()
        case Prng():
            session = control.controlled(request.ctlkey, controller)
            session.require_running(ErrorCode.PRNG_UNAVAILABLE)
            return facts.prng(session, request)
        case Info():
            session = control.controlled(request.ctlkey, controller)
            session.require_running(ErrorCode.INFO_NOT_FOUND)
            return facts.info(session, request)


async def account(pool: Pool, controller: object, request: Accounting) -> Message:
    """The answer to an accounting command. Raises WireError; CTLKEY_NOT_FOUND if this process does not know of the session."""
    if request.ctlkey not in pool.control:
        return await pool.accounting.resume(request, controller)
    session = pool.control.controlled(request.ctlkey, controller)
    session.require_running(ErrorCode.ACCOUNTING_IDENTITY)
    session_id.set(session.id)
    return await pool.accounting.begin(session, request)


async def renegotiate(pool: Pool, controller: object, request: StartTls) -> Message:
    """The answer to RENEGOTIATE. Raises WireError; CTLKEY_NOT_FOUND if the session is not in this process."""
    session = pool.control.controlled(request.ctlkey, controller)
    session_id.set(session.id)
    return await session.renegotiate(request)
