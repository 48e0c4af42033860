"""A program between standard input and output becomes a TLS service (or client): what `tlspool run` does.

Theory of operation
-------------------
The program is started once for each connection, after the handshake, with the plaintext socket as standard input and output, as
inetd would start it.  Standard error stays ours.  Who is who stands in the environment; variables of these names that we inherited
are removed first, so that an absent identity cannot be taken for somebody's.  The session outlives our
connection to the pool (FORK), or what the program said last would be cut off when we end with it; its plaintext socket ends it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tlspool_core.client import aio
from tlspool_core.tools.endpoints import Acceptor, Endpoint, connect, log
from tlspool_core.wire.flags import StartTlsFlags

_END_TIME: Final = 5.0  # seconds between the request to end and the end
VARIABLES: Final = (
    "TLSPOOL_LOCALID",
    "TLSPOOL_REMOTEID",
    "TLSPOOL_SERVICE",
    "TLSPOOL_VERSION",
    "TLSPOOL_CIPHER",
    "TLSPOOL_ALPN",
    "PROTO",
    "TCPLOCALIP",
    "TCPLOCALPORT",
    "TCPREMOTEIP",
    "TCPREMOTEPORT",
)


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, and what TLS is to be like. `path` is the pool's socket, None for the usual places."""

    command: Sequence[str]
    localid: str = ""
    remoteid: str = ""
    service: str = ""
    flags: StartTlsFlags = StartTlsFlags.NONE
    path: Path | None = None
    peer: bool = False  # the role in TLS is found out with the other end


def addresses(sock: socket.socket) -> dict[str, str]:
    """Both ends as UCSPI names them; only what they are for TCP."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return {}
    (ours, our_port), (theirs, their_port) = sock.getsockname()[:2], sock.getpeername()[:2]
    return {
        "PROTO": "TCP",
        "TCPLOCALIP": ours,
        "TCPLOCALPORT": str(our_port),
        "TCPREMOTEIP": theirs,
        "TCPREMOTEPORT": str(their_port),
    }


async def environment(session: aio.Session, ends: Mapping[str, str], inherited: Mapping[str, str]) -> dict[str, str]:
    """The program's environment."""
    told = {
        "TLSPOOL_LOCALID": session.localid,
        "TLSPOOL_REMOTEID": session.remoteid,
        "TLSPOOL_SERVICE": session.service,
        "TLSPOOL_VERSION": await session.version(),
        "TLSPOOL_CIPHER": await session.cipher(),
        "TLSPOOL_ALPN": await session.alpn(),
        **ends,
    }
    kept = {name: value for name, value in inherited.items() if name not in VARIABLES}
    return kept | {name: value for name, value in told.items() if value}


async def serve_one(program: Program, sock: socket.socket) -> int:
    """One connection as TLS server, or peer; the program's exit status. Raises PoolError, OSError."""
    ends = addresses(sock)
    starttls = aio.starttls_peer if program.peer else aio.starttls_server
    session = await starttls(
        sock,
        path=program.path,
        localid=program.localid,
        remoteid=program.remoteid,
        service=program.service,
        flags=program.flags | StartTlsFlags.FORK,
    )
    return await _run(program, session, ends)


async def call(program: Program, endpoint: Endpoint) -> int:
    """Connect, be TLS client, or peer; the program's exit status. Raises PoolError, OSError."""
    sock = await connect(endpoint)
    starttls = aio.starttls_peer if program.peer else aio.starttls_client
    with sock:
        ends = addresses(sock)
        session = await starttls(
            sock,
            path=program.path,
            localid=program.localid,
            remoteid=program.remoteid or endpoint.host,
            service=program.service,
            flags=program.flags | StartTlsFlags.FORK,
        )
    return await _run(program, session, ends)


async def serve(program: Program, sockets: Sequence[socket.socket], limit: int) -> None:
    """Serve every connection to listening sockets, `limit` at a time, until cancelled."""

    async def handle(sock: socket.socket) -> None:
        status = await serve_one(program, sock)
        log.log(20 if status == 0 else 30, "%s: ended with status %d", program.command[0], status)

    await Acceptor(program.command[0], sockets, handle, limit).run()


async def _run(program: Program, session: aio.Session, ends: Mapping[str, str]) -> int:
    """Start the program and wait for it; if we are cancelled, it ends too."""
    async with session:
        variables = await environment(session, ends, os.environ)
        with session.take() as plain:
            plain.setblocking(True)
            process = await asyncio.create_subprocess_exec(
                *program.command, stdin=plain.fileno(), stdout=plain.fileno(), env=variables
            )
        try:
            return await process.wait()
        finally:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask a program that still runs to end; make it end if it does not."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _END_TIME)
        except TimeoutError:
            process.kill()
            await process.wait()


def inherited_socket() -> socket.socket:
    """The connection that inetd left as standard input, which becomes empty.

    inetd leaves the connection as standard output and error too.  They become empty as well: nothing of ours or of the program's
    may go out in clear.  Raises OSError if standard input is no connected socket.
    """
    sock = socket.socket(fileno=os.dup(0))
    try:
        sock.getpeername()
        sock.setblocking(False)
        mine = os.fstat(0)
        empty = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            if os.path.samestat(os.fstat(descriptor), mine):
                os.dup2(empty, descriptor)
        os.close(empty)
    except BaseException:
        sock.close()
        raise
    return sock
