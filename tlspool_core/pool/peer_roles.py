"""Sessions whose role is found out with the remote (LOCALROLE_PEER and REMOTEROLE_PEER): when to speak, and whom not to believe.

Theory of operation
-------------------
The engine asks two questions of such a session (`tls.peer`): whether to send a ClientHello, and with which settings to be the server.
Between them the session has a role for the time being.  Once the handshake is complete, the flags tell the application which it was.

A remote that knows nothing of this, and is a client, gives up when a ClientHello comes to it.  So we listen a moment before we speak
([symmetric] wait); the moment is drawn by lot, so that two pools seldom speak at once.  A connection does not tell which end of it has
called `connect`, nor would that say who begins with TLS.

An end that takes either role can be connected to itself: an attacker joins two connections that it began.  TLS sees two honest ends
then, that prove to be the same one; so here that is refused, unless the application has asked for its own identity by name.
"""

from __future__ import annotations

import secrets
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import PeerContext
from tlspool_core.pool.refusal import Refusal
from tlspool_core.tls import alerts
from tlspool_core.tls.settings import PeerSettings
from tlspool_core.wire.errors import ErrorCode, WireError
from tlspool_core.wire.flags import StartTlsFlags

if TYPE_CHECKING:
    from tlspool_core.pool.session import Session

_ROLES: Final = StartTlsFlags.LOCALROLE_PEER | StartTlsFlags.REMOTEROLE_PEER
_PLAYED: Final = {
    "client": StartTlsFlags.LOCALROLE_CLIENT | StartTlsFlags.REMOTEROLE_SERVER,
    "server": StartTlsFlags.LOCALROLE_SERVER | StartTlsFlags.REMOTEROLE_CLIENT,
}
_lot = secrets.SystemRandom()


def undecided(session: Session) -> PeerSettings:
    """The engine's settings for a session that meets a peer; one that can only be the client says so to it."""
    return PeerSettings(session.pool.config.symmetric.extension, may_serve=session.role == "peer")


async def remote_speaks(session: Session) -> bool:
    """Listen a moment; whether the remote has begun."""
    wait = min(session.pool.config.symmetric.wait, session.time_limit(session.request) / 2)
    assert session.beginning is not None
    return await session.beginning.port.heard(_lot.uniform(wait / 2, wait))


def with_role(flags: StartTlsFlags, role: str) -> StartTlsFlags:
    """The roles that were played, in place of those that were possible."""
    return _with_role(int(flags), role)


@lru_cache(maxsize=256)
def _with_role(flags: int, role: str) -> StartTlsFlags:
    return StartTlsFlags(flags) & ~_ROLES | _PLAYED[role]


def refuse_ourselves(context: PeerContext, local: DoNAI | None, remote: DoNAI | None) -> None:
    """Raises Refusal for a remote that has our own identity or credential, unless our identity is the one that is wanted.

    `local` is who we are, or would be, to it; `remote` whom policy believes it to be.
    """
    own, peer, wanted = context.own, context.peer, context.wanted
    same_credential = own is not None and peer is not None and bool(own.entries) and tuple(own.entries) == tuple(peer.entries)
    same_identity = local is not None and remote == local
    if (same_identity or same_credential) and (wanted is None or wanted != local):
        who = f"identity {local}" if same_identity else "credential"
        raise Refusal(
            alerts.AccessDenied("our own"),
            WireError(ErrorCode.REMOTEID_REFUSED, f"The remote shows our own {who}, as if we were connected to ourselves"),
        )
