"""RENEGOTIATE: prove who the client is, once more or for the first time, in a session that is running.

Theory of operation
-------------------
TLS 1.3 has no renegotiation.  What applications want of it has two equivalents there: post-handshake client authentication (RFC
8446 section 4.6.2), which only a server can ask for, and new keys (section 4.6.3), which either side can.  A server does both,
a client the second.  TLS 1.2's renegotiation is refused: it lets an attacker splice sessions unless both sides take care (RFC
5746), and even then changes identities under an application's feet.

The new identity is judged by today's policy like the first.  If it is refused, so is the session, with an alert.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tlspool_core.pool.wishes import wishes_of
from tlspool_core.tls.alerts import TlsError
from tlspool_core.wire.errors import ErrorCode, WireError
from tlspool_core.wire.flags import StartTlsFlags
from tlspool_core.wire.messages import StartTls

if TYPE_CHECKING:
    from tlspool_core.pool.session import Session


# what a session was set up with, and a renegotiation does not change
_FIXED = StartTlsFlags.LOCALROLE_PEER | StartTlsFlags.REMOTEROLE_PEER | StartTlsFlags.FORK | StartTlsFlags.DETACH


async def renegotiate(session: Session, request: StartTls) -> StartTls:
    """Authenticate the client anew (as a server) and change keys; the answer for the application. Raises WireError."""
    session.require_running(ErrorCode.RENEGOTIATE_NOT_INTERRUPTABLE)
    if session.judged is not None:
        raise WireError(ErrorCode.RENEGOTIATE_NOT_INTERRUPTABLE, "A renegotiation is under way already")
    judged = session.judged = session.pool.loop.create_future()
    try:
        asks_client = _begin(session)
        session.request = _amended(session.request, request)
        session.wishes = wishes_of(session.request.flags)
        assert session.relay is not None
        session.relay.resume()
        if asks_client:
            async with asyncio.timeout(session.time_limit(request)):
                await judged
    except TlsError as error:
        raise WireError(ErrorCode.RENEGOTIATE_INSECURE, f"Not with this peer: {error}") from None
    except TimeoutError:
        raise WireError(ErrorCode.HANDSHAKE_TIMEOUT, "The remote did not answer the renegotiation") from None
    finally:
        session.judged = None
    return request.echo(localid=session.local, remoteid=session.remote)


def _begin(session: Session) -> bool:
    """Have the engine start; whether an answer of the client is to be waited for. Raises TlsError, and has done nothing then."""
    if session.role == "server":
        session.connection.request_client_authentication()
    session.connection.update_keys(request_peer=True)
    return session.role == "server"


def _amended(old: StartTls, new: StartTls) -> StartTls:
    """What the session asks for from now on: the peer is judged by the new flags and remote identity."""
    flags = old.flags & _FIXED | new.flags & ~(_FIXED | StartTlsFlags.RENEGOTIATE)
    return old.echo(flags=flags, remoteid=new.remoteid)
