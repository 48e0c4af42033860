"""What the blocking and the asynchronous client share: defaults, the request, and how long to wait.

Theory of operation
-------------------
A STARTTLS request is made here, once for both.  The caller says what it wants in Python's terms; roles follow from the function
that was called, the transport from the socket.  Of the two ends of the plaintext connection one is the application's, the other
goes to the pool; buffers are large, as the pool moves data in large pieces.
"""

from __future__ import annotations

import math
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict

from tlspool_core.client.errors import PoolVanished
from tlspool_core.wire.errors import ErrorCode
from tlspool_core.wire.flags import TIMEOUT_DEFAULT, TIMEOUT_INFINITE, IpProtocol, StartTlsFlags
from tlspool_core.wire.messages import Error, Message, StartTls, StartTlsData, StartTlsLocalid

CLIENT: Final = StartTlsFlags.LOCALROLE_CLIENT | StartTlsFlags.REMOTEROLE_SERVER
SERVER: Final = StartTlsFlags.LOCALROLE_SERVER | StartTlsFlags.REMOTEROLE_CLIENT
PEER: Final = StartTlsFlags.LOCALROLE_PEER | StartTlsFlags.REMOTEROLE_PEER

# whether a server's client has to show who it is: words of command lines and files
REMOTE_IDENTITY: Final = {
    "required": StartTlsFlags.NONE,
    "requested": StartTlsFlags.REQUEST_REMOTEID,
    "ignored": StartTlsFlags.IGNORE_REMOTEID,
}

ANSWER_TIME: Final = 30.0  # seconds for whatever needs no peer
HANDSHAKE_TIME: Final = 120.0  # seconds to wait if the pool's own limit applies; the pool's is shorter
GRACE: Final = 10.0  # seconds beyond a limit that the pool keeps, for it to tell
RECONNECT_TIME: Final = 10.0  # seconds in which a pool that was there may come back
BACKOFF: Final = (0.05, 1.0)  # seconds between attempts: the first pause, and the longest
BUFFER: Final = 1 << 20  # bytes wanted in the socket buffers of the plaintext connection


def socket_paths(explicit: str | os.PathLike[str] | None, environ: Mapping[str, str] = os.environ) -> Iterator[Path]:
    """Where the pool may listen, best first: as told, $TLSPOOL_SOCKET, the person's own pool, the system's."""
    if explicit is not None:
        yield Path(explicit)
    elif environ.get("TLSPOOL_SOCKET"):
        yield Path(environ["TLSPOOL_SOCKET"])
    else:
        if environ.get("XDG_RUNTIME_DIR"):
            yield Path(environ["XDG_RUNTIME_DIR"], "tlspool", "tlspool.sock")
        yield Path("/run/tlspool.sock")
        yield Path("/var/run/tlspool.sock")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a handshake may take: for the pool in milliseconds, and how long we wait in seconds (None: for ever)."""

    wire: int
    patience: float | None


def limits(timeout: float | None) -> Limits:
    """From the caller's seconds; None leaves it to the pool, infinity sets no limit. Raises ValueError if out of range."""
    if timeout is None:
        return Limits(TIMEOUT_DEFAULT, HANDSHAKE_TIME)
    if timeout == math.inf:
        return Limits(TIMEOUT_INFINITE, None)
    if not 0 < timeout * 1000 <= TIMEOUT_INFINITE - 1:
        raise ValueError("timeout: a positive number of seconds, None or infinity")
    return Limits(math.ceil(timeout * 1000), timeout + GRACE)


class Wishes(TypedDict, total=False):
    """What a caller of STARTTLS may wish for."""

    localid: str  # who to be: user@domain or domain; empty leaves it to the pool
    remoteid: str  # whom to reach, likewise; a client should always say
    service: str  # IANA service name, for policy and ALPN
    flags: StartTlsFlags  # beyond the roles
    timeout: float | None  # seconds for the handshake; None: the pool's limit, infinity: none
    plaintext: socket.socket | None  # the pool's end of the plaintext connection, if the caller brings both; it stays the caller's


def request(roles: StartTlsFlags, sock: socket.socket, wishes: Wishes, *, check: bool) -> StartTls:
    """The STARTTLS for a socket, with a fresh control key; `check` asks for the LOCALID callback."""
    extra = StartTlsFlags.LOCALID_CHECK if check else StartTlsFlags.NONE
    return StartTls(
        flags=roles | extra | wishes.get("flags", StartTlsFlags.NONE),
        ipproto=ip_protocol(sock),
        localid=wishes.get("localid", ""),
        remoteid=wishes.get("remoteid", ""),
        ctlkey=secrets.token_bytes(16),
        service=wishes.get("service", ""),
        timeout=limits(wishes.get("timeout")).wire,
    )


def ip_protocol(sock: socket.socket) -> IpProtocol:
    """The protocol that a socket carries."""
    if sock.proto == IpProtocol.SCTP:
        return IpProtocol.SCTP
    return IpProtocol.UDP if sock.type == socket.SOCK_DGRAM else IpProtocol.TCP


_PLAINTEXT_TYPES: Final = {
    IpProtocol.TCP: socket.SOCK_STREAM,
    IpProtocol.UDP: socket.SOCK_DGRAM,
    IpProtocol.SCTP: socket.SOCK_SEQPACKET,
}


def plaintext_pair(ipproto: int) -> tuple[socket.socket, socket.socket]:
    """Both ends of a plaintext connection: ours, and the one for the pool."""
    pair = socket.socketpair(socket.AF_UNIX, _PLAINTEXT_TYPES[IpProtocol(ipproto)])
    for end in pair:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    return pair


def localid_answer(proposal: StartTlsLocalid, identity: str | None) -> Message:
    """The answer to a LOCALID callback, after the application decided."""
    if not identity:
        return Error.of(ErrorCode.CLIENT_REFUSES_CALLBACK, "The application refuses the local identity")
    return proposal.echo(localid=identity)


def confirm(asked: StartTls, answer: StartTlsData) -> None:
    """The answer must be the one to our request: the control key tells. Raises PoolVanished."""
    if not secrets.compare_digest(asked.ctlkey, answer.ctlkey):
        raise PoolVanished(ErrorCode.ENTANGLED_THREADS)
