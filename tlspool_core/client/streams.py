"""asyncio's streams over the pool: `open_connection` and `start_server` as asyncio has them, with identities.

    reader, writer = await open_connection("www.example.com", 443, service="https")
    print(writer.remoteid)

Theory of operation
-------------------
asyncio's own `ssl=` argument wants the engine of the `ssl` module in its process, so TLS comes before the streams here: connect or
accept, hand over, then make streams from the plaintext socket.  Each accepted connection does its handshake in a task of its own,
so many in progress at a time and no more; a peer that is refused costs a line in the log.

With `peer=True` it does not matter for TLS who has connected: both ends find out who is client and who is server.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self, TypedDict, Unpack

from tlspool_core.client import aio
from tlspool_core.client.errors import PoolError
from tlspool_core.wire.flags import StartTlsFlags

log = logging.getLogger("tlspool.client")

LIMIT: Final = 1 << 16  # bytes that a reader holds before it stops to read, as in asyncio
HANDSHAKES: Final = 256  # in progress at a time, for one server
_PAUSE: Final = 0.5  # seconds without accepting, when descriptors run out


class StreamWishes(TypedDict, total=False):
    """What may be wished for beside host and port: as with `starttls_client`, and `path`, the pool's socket."""

    localid: str
    service: str
    flags: StartTlsFlags
    timeout: float | None
    localid_hook: aio.AsyncLocalidHook | None


class PoolStreamWriter(asyncio.StreamWriter):
    """asyncio's writer, that knows the session. `get_extra_info` gives the addresses of the connection that TLS runs over."""

    session: aio.Session
    addresses: tuple[Any, Any]

    @property
    def localid(self) -> str:
        """Who we are towards the peer."""
        return self.session.localid

    @property
    def remoteid(self) -> str:
        """Who the peer proved to be; empty if it showed no identity."""
        return self.session.remoteid

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As asyncio's; "tlspool_session" gives the session."""
        ours, peers = self.addresses
        extra = {"sockname": ours, "peername": peers, "tlspool_session": self.session}
        return extra[name] if name in extra else super().get_extra_info(name, default)


Handler = Callable[[asyncio.StreamReader, PoolStreamWriter], Awaitable[None]]


async def open_connection(
    host: str,
    port: int,
    *,
    remoteid: str | None = None,
    path: str | os.PathLike[str] | None = None,
    peer: bool = False,
    **wishes: Unpack[StreamWishes],
) -> tuple[asyncio.StreamReader, PoolStreamWriter]:
    """Connect, do TLS as client, and give streams. `remoteid` defaults to the host. Raises OSError, of which PoolError is one.

    `peer`: do TLS as client or server, as both ends find out; `writer.session.role` tells which.
    """
    sock = await _connect(host, port)
    addresses = (sock.getsockname(), sock.getpeername())
    starttls = aio.starttls_peer if peer else aio.starttls_client
    session = await starttls(sock, path=path, remoteid=host if remoteid is None else remoteid, **wishes)
    return await _streams(session, addresses)


async def _connect(host: str, port: int) -> socket.socket:
    """A connected TCP socket to the first address that answers."""
    loop = asyncio.get_running_loop()
    faults: list[OSError] = []
    for family, kind, proto, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, proto)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, address)
        except OSError as fault:
            sock.close()
            faults.append(fault)
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise faults[0] if len(faults) == 1 else OSError(f"{host}:{port}: " + "; ".join(map(str, faults)))


async def _streams(session: aio.Session, addresses: tuple[Any, Any]) -> tuple[asyncio.StreamReader, PoolStreamWriter]:
    """Streams over the plaintext socket of a session."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LIMIT, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    plain = session.take()
    plain.setblocking(False)
    try:
        transport, _ = await loop.create_connection(lambda: protocol, sock=plain)
    except BaseException:
        plain.close()
        raise
    writer = PoolStreamWriter(transport, protocol, reader, loop)
    writer.session = session
    writer.addresses = addresses
    return reader, writer


class PoolServer:
    """Accepts, does TLS as server or peer, and calls the handler with streams. Use it as asyncio's server."""

    def __init__(
        self,
        handler: Handler,
        sockets: list[socket.socket],
        path: str | os.PathLike[str] | None,
        wishes: StreamWishes,
        peer: bool = False,
    ) -> None:
        self.sockets = tuple(sockets)
        self._handler = handler
        self._path = path
        self._wishes = wishes
        self._starttls = aio.starttls_peer if peer else aio.starttls_server
        self._slots = asyncio.Semaphore(HANDSHAKES)
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting = [asyncio.ensure_future(self._accept(sock)) for sock in sockets]

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._slots.acquire()
            try:
                sock, _ = await loop.sock_accept(listening)
            except asyncio.CancelledError:
                raise
            except OSError as fault:  # out of descriptors, or a connection that was gone before we took it
                self._slots.release()
                log.warning("accept: %s", fault)
                await asyncio.sleep(_PAUSE)
                continue
            task = loop.create_task(self._serve(sock))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, sock: socket.socket) -> None:
        """One connection from its handshake to its end."""
        try:
            addresses = (sock.getsockname(), sock.getpeername())
            session = await self._starttls(sock, path=self._path, **self._wishes)
            reader, writer = await _streams(session, addresses)
        except PoolError as refusal:
            log.info("refused: %s", refusal)
            return
        except OSError as fault:  # the peer was gone before TLS began
            sock.close()
            log.info("lost: %s", fault)
            return
        finally:
            self._slots.release()
        try:
            await self._handler(reader, writer)
        except Exception:
            log.exception("the handler of a connection failed")
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def close(self) -> None:
        """Stop to listen. Connections go on."""
        for task in self._accepting:
            task.cancel()
        for sock in self.sockets:
            sock.close()

    async def wait_closed(self) -> None:
        """Until listening has ended and the handlers of all connections have returned."""
        await asyncio.gather(*self._accepting, *self._tasks, return_exceptions=True)

    async def serve_forever(self) -> None:
        """Until cancelled; then stops to listen."""
        try:
            await asyncio.gather(*self._accepting)
        finally:
            self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
        await self.wait_closed()


async def start_server(
    handler: Handler,
    host: str | None = None,
    port: int = 0,
    *,
    backlog: int = 100,
    path: str | os.PathLike[str] | None = None,
    peer: bool = False,
    **wishes: Unpack[StreamWishes],
) -> PoolServer:
    """Listen on all addresses of `host` (None: all of this machine). `localid` is the name that we serve, empty: as asked for.

    `peer`: be client or server of TLS with those who connect, as both ends find out.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            sockets.append(socket.create_server(address[:2], family=family, backlog=backlog))
            sockets[-1].setblocking(False)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return PoolServer(handler, sockets, path, wishes, peer)
