"""TLS for programs that have none: listens on one side, connects on the other, and one of the two sides is TLS.

Theory of operation
-------------------
A server's tunnel accepts TLS and connects to a backend in plaintext; a client's accepts plaintext and connects to a TLS server.  In
either case STARTTLS dialogues come first on the side that gets TLS, then the pool has that socket, and we copy between plaintext
sockets.  The backend is connected only after the handshake: whoever is refused never reaches it.  A connection that breaks on one
side is reset on the other, so that the loss of an end is not taken for the end.

With `peer` it is still fixed on which side TLS is, but not which role we play there: both ends find that out.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tlspool_core.client import aio, proxy_header
from tlspool_core.tools import starttls_client, starttls_server, whose
from tlspool_core.tools.endpoints import Acceptor, Endpoint, connect, listen, log
from tlspool_core.wire.flags import StartTlsFlags

PROTOCOLS: Final = tuple(starttls_client.DIALOGUES)
SERVICES: Final = {"managesieve": "sieve"}  # where the name of a STARTTLS protocol is not that of its service
_CHUNK: Final = 65536
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets


@dataclass(frozen=True, slots=True)
class Tunnel:
    """One service. `path` is the pool's socket, None for the usual places; `limit` counts connections at a time.

    `users`: whose programs a client's tunnel works for, beside our own and root's; None is everybody who reaches it.
    """

    name: str
    listen: Endpoint
    connect: Endpoint
    client: bool = False
    localid: str = ""
    remoteid: str = ""
    service: str = ""
    flags: StartTlsFlags = StartTlsFlags.NONE
    starttls: str = ""
    proxy_protocol: bool = False
    limit: int = 256
    path: Path | None = None
    peer: bool = False
    users: Collection[int] | None = None

    @property
    def wishes(self) -> aio.AsyncWishes:
        """What the pool is asked for."""
        service = self.service or SERVICES.get(self.starttls, self.starttls)
        return {"localid": self.localid, "remoteid": self.target, "service": service, "flags": self.flags}

    @property
    def target(self) -> str:
        """Whom the other side must prove to be: of a client's tunnel always somebody."""
        return self.remoteid or (self.connect.host if self.client else "")


async def run(tunnels: Sequence[Tunnel]) -> None:
    """Serve all tunnels until cancelled. Raises EndpointError if one cannot listen; then none does."""
    opened: list[tuple[Tunnel, list[socket.socket]]] = []
    try:
        for tunnel in tunnels:
            opened.append((tunnel, listen(tunnel.listen)))
            log.info("%s: listens on %s", tunnel.name, tunnel.listen)
        async with asyncio.TaskGroup() as group:
            for tunnel, sockets in opened:
                group.create_task(_acceptor(tunnel, sockets).run())
    finally:
        for _, sockets in opened:
            for sock in sockets:
                sock.close()


def _acceptor(tunnel: Tunnel, sockets: list[socket.socket]) -> Acceptor:
    async def handle(sock: socket.socket) -> None:
        await (_as_client if tunnel.client else _as_server)(tunnel, sock)

    return Acceptor(tunnel.name, sockets, handle, tunnel.limit)


async def _as_server(tunnel: Tunnel, sock: socket.socket) -> None:
    """`sock` is a client that gets TLS."""
    family, source, target = sock.family, sock.getpeername(), sock.getsockname()
    if tunnel.starttls:
        await starttls_server.begin(tunnel.starttls, sock, tunnel.localid or "localhost")
    starttls = aio.starttls_peer if tunnel.peer else aio.starttls_server
    async with await starttls(sock, path=tunnel.path, **tunnel.wishes) as session:
        log.info(
            "%s: %s from %s, we are %s", tunnel.name, session.remoteid or "(nobody)", source[0] if source else "here", session.role
        )
        with await connect(tunnel.connect) as backend:
            if tunnel.proxy_protocol:
                facts = proxy_header.Facts(
                    family,
                    source,
                    target,
                    session.localid,
                    session.remoteid,
                    await session.version() or "",
                    await session.cipher() or "",
                    await session.alpn() or "",
                )
                await asyncio.get_running_loop().sock_sendall(backend, proxy_header.header(facts))
            if tunnel.starttls:
                await starttls_server.swallow(tunnel.starttls, backend)
            await relay(session.plaintext, backend)


async def _as_client(tunnel: Tunnel, application: socket.socket) -> None:
    """`application` speaks plaintext, and gets to a TLS server."""
    if tunnel.users is not None and (why := whose.refusal(application, tunnel.users)):
        raise PermissionError(why)
    with await connect(tunnel.connect) as sock:
        first = b""
        if tunnel.starttls:
            first = await starttls_client.begin(tunnel.starttls, sock, tunnel.target)
        starttls = aio.starttls_peer if tunnel.peer else aio.starttls_client
        async with await starttls(sock, path=tunnel.path, **tunnel.wishes) as session:
            log.info("%s: %s to %s, we are %s", tunnel.name, session.localid or "(nobody)", session.remoteid, session.role)
            await asyncio.get_running_loop().sock_sendall(application, first)
            await relay(session.plaintext, application)


async def relay(one: socket.socket, other: socket.socket) -> None:
    """Copy both ways until both have ended. Raises OSError if one breaks; both are reset then."""
    for sock in (one, other):
        sock.setblocking(False)
    ways = [asyncio.ensure_future(_copy(one, other)), asyncio.ensure_future(_copy(other, one))]
    try:
        await asyncio.gather(*ways)
    except OSError:
        for sock in (one, other):
            if sock.family != socket.AF_UNIX:
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        raise
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _copy(source: socket.socket, sink: socket.socket) -> None:
    """One direction until its end, which is passed on."""
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, _CHUNK):
        await loop.sock_sendall(sink, data)
    with suppress(OSError):  # the sink may have gone after it had said all
        sink.shutdown(socket.SHUT_WR)
