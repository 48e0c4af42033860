"""Where a tool listens and connects: `HOST:PORT`, `[ADDRESS]:PORT`, or the path of a UNIX socket; and who is accepted there.

Theory of operation
-------------------
An `Acceptor` takes connections on any number of listening sockets, each handled in a task of its own.  There are as many at a time as
its limit says; more wait in the kernel's queue.  When it is cancelled, so are all connections.

A connection may be silent for as long as both sides like.  But one whose other side has vanished would hold its place for ever, so TCP
asks.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

log = logging.getLogger("tlspool.tools")

BACKLOG: Final = 128
CONNECT_TIME: Final = 30.0  # seconds to reach a TCP service
_PAUSE: Final = 0.5  # seconds without accepting, when descriptors run out
_IDLE: Final = 60  # seconds until TCP asks whether a silent other side is still there


class EndpointError(ValueError):
    """A text that is no endpoint, or an endpoint that cannot be used; the text is for the operator."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A TCP endpoint, or a UNIX socket if `path` is there."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Raises EndpointError. `:PORT` has no host: all addresses of this machine, to listen on."""
        if text.startswith("/"):
            return cls(path=text)
        host, colon, port = text.rpartition(":")
        bare = host.removeprefix("[").removesuffix("]")
        if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535 or (":" in host and host == bare):
            raise EndpointError(f"{text!r} is neither HOST:PORT, nor [ADDRESS]:PORT, nor a path that begins with /")
        try:
            bare.encode("idna")  # as the resolver's call does
        except UnicodeError:
            raise EndpointError(f"{text!r} names no host: between dots is nothing, too much, or what is not for names") from None
        return cls(bare, int(port))

    def __str__(self) -> str:
        return self.path or (f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}")


async def connect(
    endpoint: Endpoint, permitted: Callable[[str], bool] | None = None, resolver: Executor | None = None
) -> socket.socket:
    """A connected socket that does not block. Raises OSError, of which TimeoutError is one.

    Addresses of the host that are not `permitted` are passed over; PermissionError if no other is left. `resolver` has the threads
    that look names up, by default those of the event loop.
    """
    loop = asyncio.get_running_loop()
    if endpoint.path:
        return await _connect_to(socket.AF_UNIX, endpoint.path, endpoint)
    fault: OSError = OSError(f"{endpoint}: no address")
    look_up = partial(socket.getaddrinfo, endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    async with asyncio.timeout(CONNECT_TIME):
        try:
            found = await loop.run_in_executor(resolver, look_up)
        except socket.gaierror as error:
            error.filename = endpoint.host
            raise
        for family, _, _, _, address in found:
            if permitted is not None and not permitted(str(address[0])):
                fault = PermissionError(f"{endpoint}: {address[0]} is not permitted")
                continue
            try:
                return await _connect_to(family, address, endpoint)
            except OSError as error:
                fault = error
    raise fault


async def _connect_to(family: int, address: Any, endpoint: Endpoint) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        _notice_loss(sock)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except OSError as error:
        sock.close()
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(endpoint)) from None  # asyncio's words are for programmers
    except BaseException:
        sock.close()
        raise
    return sock


def _notice_loss(sock: socket.socket) -> None:
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE)


def listen(endpoint: Endpoint) -> list[socket.socket]:
    """Listening sockets, one for each address of the host. Raises EndpointError."""
    opened: list[socket.socket] = []
    try:
        if endpoint.path:
            opened.append(_listen_unix(endpoint.path))
            return opened
        found = socket.getaddrinfo(endpoint.host or None, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            opened.append(socket.create_server(address[:2], family=family, backlog=BACKLOG))
    except OSError as error:
        for sock in opened:
            sock.close()
        raise EndpointError(f"cannot listen on {endpoint}: {error.strerror or error}") from None
    for sock in opened:
        sock.setblocking(False)
    return opened


def _listen_unix(path: str) -> socket.socket:
    """A socket in place of one that an earlier process left; only its owner may connect. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(Path(path).lstat().st_mode):
                _check_left(path)
                Path(path).unlink()
        sock.bind(path)
        Path(path).chmod(0o600)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _check_left(path: str) -> None:
    """Raises OSError if somebody listens there."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


class Acceptor:
    """Accepts for one service. The handler owns the socket that it is given; what it raises is logged."""

    def __init__(self, name: str, sockets: Sequence[socket.socket], handle: Callable[[socket.socket], Awaitable[None]], limit: int):
        self.name = name
        self._sockets = sockets
        self._handle = handle
        self._slots = asyncio.Semaphore(limit)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for sock in self._sockets:
                    group.create_task(self._accept(sock))
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listening:
            while True:
                await self._slots.acquire()
                try:
                    sock, _ = await loop.sock_accept(listening)
                except OSError as fault:  # out of descriptors, or a connection that was gone before we took it
                    self._slots.release()
                    log.warning("%s: accept: %s", self.name, fault)
                    await asyncio.sleep(_PAUSE)
                    continue
                task = loop.create_task(self._serve(sock))
                self._tasks.add(task)
                task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()

    async def _serve(self, sock: socket.socket) -> None:
        with sock:
            try:
                _notice_loss(sock)
                await self._handle(sock)
            except (OSError, TimeoutError) as fault:  # PoolError is one
                log.warning("%s: %s", self.name, fault)
            except Exception:
                log.exception("%s: a connection failed", self.name)
