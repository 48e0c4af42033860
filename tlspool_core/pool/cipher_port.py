"""The cipher socket during the handshake: reads and writes for the one coroutine that drives it.

Theory of operation
-------------------
Most reads of a handshake find their bytes there already, or wait for one flight of the peer; most writes fit into the socket's buffer.
So both are tried at once, and the event loop is asked only if that fails; but what answers a flight of ours cannot be there when the
flight has just been sent.  The loop's own socket coroutines register and
unregister with every call; here a socket is registered once, at the first wait, until `release`.

That comes before the socket is closed, always.  An application may keep a copy of it; epoll(7) goes by what is open, not by our number,
so what was closed here while it was watched would be told of without end, and could not be stopped.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Final

from tlspool_core import fdpass

_READ: Final = 65536
# an application that has kept a copy of the socket can take its O_NONBLOCK away at any time, so each call says it by itself
_READ_NOW: Final = int(socket.MSG_DONTWAIT)
_LOOK_NOW: Final = int(socket.MSG_DONTWAIT | socket.MSG_PEEK)
_SEND_NOW: Final = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


class CipherPort:
    """Borrows the socket: whoever owns it calls `release` before anything else is done with it."""

    __slots__ = ("_fd", "_loop", "_read", "_socket", "_spoken", "_waiting", "_watching", "_writing")

    def __init__(self, loop: asyncio.AbstractEventLoop, cipher: socket.socket) -> None:
        self._loop = loop
        self._socket = cipher
        self._fd = cipher.fileno()
        self._read: Callable[[], bytes] = (
            partial(fdpass.only_bytes, cipher, _READ) if fdpass.may_carry(cipher) else partial(cipher.recv, _READ, _READ_NOW)
        )
        self._watching = self._writing = False
        self._spoken = False  # just now: an answer to it cannot be there yet
        self._waiting: asyncio.Future[bytes] | None = None

    async def receive(self) -> bytes:
        """Bytes from the peer, empty at the end. Raises OSError."""
        if not self._spoken:
            try:
                return self._read()
            except (BlockingIOError, InterruptedError):
                pass
        self._spoken = False
        self._waiting = self._loop.create_future()
        if not self._watching:
            self._watching = True
            self._loop.add_reader(self._fd, self._readable)
        return await self._waiting

    def _readable(self) -> None:
        waiting = self._waiting
        if waiting is None or waiting.done():
            # the coroutine is busy with something else: it will find the bytes when it comes back
            self._stop_reading()
            return
        try:
            data = self._read()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            waiting.set_exception(error)
        else:
            waiting.set_result(data)

    async def send(self, data: bytes) -> None:
        """Send all of it. Raises OSError."""
        self._spoken = True
        while True:
            try:
                sent = self._socket.send(data, _SEND_NOW)
            except (BlockingIOError, InterruptedError):
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
            await self._room()

    async def _room(self) -> None:
        """Wait until the kernel takes more."""
        room: asyncio.Future[bool] = self._loop.create_future()
        self._writing = True
        self._loop.add_writer(self._fd, _settle, room, True)
        try:
            await room
        finally:
            self._stop_writing()

    async def heard(self, seconds: float) -> bool:
        """Whether the peer says something, or ends, within a time; what it says, and what went wrong, is for whoever reads next.

        For before the first `receive`.
        """
        try:
            self._socket.recv(1, _LOOK_NOW)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            return True
        else:
            return True
        outcome: asyncio.Future[bool] = self._loop.create_future()
        timer = self._loop.call_later(seconds, _settle, outcome, False)
        self._watching = True
        self._loop.add_reader(self._fd, _settle, outcome, True)
        try:
            return await outcome
        finally:
            timer.cancel()
            self._stop_reading()

    def release(self) -> None:
        """Leave the socket to others, or to its end; harmless if done before. Whoever waits here is to be cancelled."""
        self._stop_reading()
        self._stop_writing()

    def _stop_reading(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self._fd)

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._fd)


def _settle(outcome: asyncio.Future[bool], value: bool) -> None:
    if not outcome.done():
        outcome.set_result(value)
