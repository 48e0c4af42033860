"""One asynchronous connection to the pool, shared by the tasks of an event loop.

Theory of operation
-------------------
As in `link`, there is no reader of its own: of the tasks that wait one leads, so that no task group has to live around the
connection, and a cancelled task hands the lead on.  The socket is read and written directly, once anyio says that it is ready:
anyio's own passing of descriptors leaves them open for programs that are started.  A connection belongs to one event loop.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import anyio

from tlspool_core import fdpass
from tlspool_core.client.errors import PoolError, PoolTimeout, PoolVanished, Refused
from tlspool_core.client.options import ANSWER_TIME
from tlspool_core.wire.application import ApplicationSide
from tlspool_core.wire.errors import ErrorCode, MalformedPacket, WireError
from tlspool_core.wire.messages import Error, Message, Packet


class Talk:
    """One request and everything that belongs to it. Use it in a `with`: at the end the request is given up if it is unanswered."""

    def __init__(self, link: Link, reqid: int) -> None:
        self.link = link
        self.reqid = reqid
        self.inbox: deque[Packet] = deque()
        self.wake = anyio.Event()
        self.answered = False

    async def next(self) -> Packet:
        """The next packet: a callback if it has a cbid, else the answer. Raises PoolVanished, Refused."""
        packet = await self.link.wait(self)
        self.answered = not packet.cbid
        if isinstance(packet.message, Error):
            raise Refused.by(packet.message)
        return packet

    async def reply(self, callback: Packet, message: Message, descriptor: int | None = None) -> None:
        """Answer a callback. Raises PoolVanished."""
        await self.link.reply(callback, message, descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.link.end(self)


class Link:
    """The connection. Owns its socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._books = ApplicationSide()
        self._sending = anyio.Lock()
        self._talks: dict[int, Talk] = {}
        self._waiting: set[Talk] = set()
        self._led = False
        self._fault = ""

    @property
    def alive(self) -> bool:
        """It has not broken as far as can be told without asking."""
        if self._fault:
            return False
        poll = select.poll()
        poll.register(self._sock, select.POLLRDHUP)
        return not poll.poll(0)

    async def begin(self, message: Message, descriptor: int | None = None) -> Talk:
        """Send a request. Raises PoolVanished: then the pool did not get it. Raises ValueError if a value does not fit."""
        self._check()
        try:
            reqid, data = self._books.request(message)
        except WireError as full:
            raise PoolError(full.code, full.text) from None
        talk = self._talks[reqid] = Talk(self, reqid)
        try:
            await self._send(data, descriptor)
        except BaseException:
            talk.answered = True  # nothing of it went, so no answer will come that could be taken for another's
            self.end(talk)
            raise
        return talk

    async def ask(self, message: Message, timeout: float | None = ANSWER_TIME) -> Message:
        """One request, one answer. Raises PoolError."""
        with patience(timeout), await self.begin(message) as talk:
            packet = await talk.next()
        return packet.message

    async def reply(self, callback: Packet, message: Message, descriptor: int | None = None) -> None:
        """Answer a callback. Raises PoolVanished."""
        await self._send(self._books.answer(callback, message), descriptor)

    def end(self, talk: Talk) -> None:
        """The talk is over; its number is free if it was answered."""
        if self._talks.pop(talk.reqid, None) is not None:
            (self._books.release if talk.answered else self._books.abandon)(talk.reqid)

    def close(self) -> None:
        """Break the connection: the pool ends the sessions that belong to it. Tasks that wait get PoolVanished."""
        self._break("The connection to the TLS Pool was closed")
        if self._sock.fileno() >= 0:
            anyio.notify_closing(self._sock)
            self._sock.close()

    def __del__(self) -> None:
        self._sock.close()  # the event loop ended without closing its connection

    # --- sending -----------------------------------------------------------------------------------------------------------------

    async def _send(self, data: bytes, descriptor: int | None) -> None:
        """Send all, the descriptor with the first byte. Once a packet has begun it is not cancelled midway."""
        async with self._sending:
            self._check()
            sent = await self._send_some(data, descriptor)
            with anyio.CancelScope(shield=True):
                while sent < len(data):
                    sent += await self._send_some(data[sent:], None)

    async def _send_some(self, data: bytes, descriptor: int | None) -> int:
        while True:
            try:
                return fdpass.send(self._sock, data, descriptor)
            except BlockingIOError:
                await self._ready(anyio.wait_writable)
            except OSError as fault:
                self._break(f"The TLS Pool does not take data: {fault.strerror or fault}")
                raise self._vanished() from fault

    # --- waiting and reading -----------------------------------------------------------------------------------------------------

    async def wait(self, talk: Talk) -> Packet:
        """The next packet of a talk. Raises PoolVanished."""
        while not talk.inbox:
            self._check()
            if self._led:
                await self._follow(talk)
            else:
                await self._lead(talk)
        return talk.inbox.popleft()

    async def _follow(self, talk: Talk) -> None:
        """Sleep until woken by the leader: with a packet, with the lead, or because the link broke."""
        talk.wake = anyio.Event()
        self._waiting.add(talk)
        try:
            await talk.wake.wait()
        except BaseException:
            self._waiting.discard(talk)
            if not self._led:
                self._hand_over()  # the lead may have been meant for us
            raise

    async def _lead(self, talk: Talk) -> None:
        """Read for everyone, until a packet for this talk has come."""
        self._led = True
        try:
            while not talk.inbox:
                packet = await self._take(await self._read())
                if packet is not None and packet.reqid in self._talks:
                    owner = self._talks[packet.reqid]
                    owner.inbox.append(packet)
                    self._wake(owner)
        finally:
            self._led = False
            self._hand_over()

    def _hand_over(self) -> None:
        """Wake one that waits, to lead; not one that was woken before, as that may have what it waited for."""
        if self._waiting:
            self._wake(next(iter(self._waiting)))

    def _wake(self, talk: Talk) -> None:
        self._waiting.discard(talk)
        talk.wake.set()

    async def _read(self) -> bytes:
        """Some bytes of the current packet; empty at the end of the stream."""
        while True:
            await self._ready(anyio.wait_readable)
            try:
                return self._sock.recv(self._books.wanted)
            except BlockingIOError:
                continue
            except OSError:  # closed by another task, or reset
                return b""

    async def _ready(self, wait: Callable[[socket.socket], Awaitable[None]]) -> None:
        try:
            await wait(self._sock)
        except (anyio.ClosedResourceError, ValueError):  # closed by another task, while or before waiting
            raise self._vanished() from None

    async def _take(self, data: bytes) -> Packet | None:
        """What the bytes complete. Breaks the link at the end of the stream, and on what is no packet."""
        if not data:
            self._break("The TLS Pool closed the connection")
            raise self._vanished()
        try:
            incoming = self._books.receive(data)
        except MalformedPacket as fault:
            self._break(f"The TLS Pool sent what is no answer: {fault}")
            raise self._vanished() from fault
        if incoming.replies:
            await self._send(incoming.replies, None)
        return incoming.packet

    def _break(self, why: str) -> None:
        self._fault = self._fault or why
        for talk in tuple(self._waiting):
            self._wake(talk)

    def _check(self) -> None:
        if self._fault:
            raise self._vanished()

    def _vanished(self) -> PoolVanished:
        return PoolVanished(text=self._fault)


@contextmanager
def patience(seconds: float | None) -> Iterator[None]:
    """Limits what happens in its `with` to some seconds (None: no limit), and raises PoolTimeout beyond."""
    with anyio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise PoolTimeout(ErrorCode.CLIENT_DISCONNECT, "The TLS Pool did not answer in time", "See in its log what it waits for.")
