"""One blocking connection to the pool, shared by all threads of a process.

Theory of operation
-------------------
Many requests travel over one connection, so whoever waits for an answer may read another's.  There is no reader thread: of the
threads that wait, one leads.  It reads without holding the lock, puts each packet where it belongs, wakes its owner, and when its
own packet has come hands the lead to any other that waits.  A process that forks leaves its connections to the parent.

A link breaks once and for all: everyone who waits, or comes later, gets PoolVanished.  To connect anew is the business of `Pool`.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self, TypeVar

from tlspool_core import fdpass
from tlspool_core.client.errors import PoolError, PoolTimeout, PoolVanished, Refused
from tlspool_core.client.options import ANSWER_TIME
from tlspool_core.wire.application import ApplicationSide
from tlspool_core.wire.errors import ErrorCode, MalformedPacket, WireError
from tlspool_core.wire.messages import Error, Message, Packet, PinEntry

T = TypeVar("T")

_SEND_TIME = 30.0  # seconds; a pool that does not read for so long is gone


class Deadline:
    """A moment to wait for; None seconds: no limit."""

    __slots__ = ("_at",)

    def __init__(self, seconds: float | None) -> None:
        self._at = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """Seconds to go, at least 0; None without a limit."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())


class Talk:
    """One request and everything that belongs to it. Use it in a `with`: at the end the request is given up if it is unanswered."""

    def __init__(self, link: Link, reqid: int, lock: threading.Lock) -> None:
        self.link = link
        self.reqid = reqid
        self.inbox: deque[Packet] = deque()
        self.wake = threading.Condition(lock)
        self.answered = False

    def next(self, deadline: Deadline) -> Packet:
        """The next packet: a callback if it has a cbid, else the answer. Raises PoolVanished, PoolTimeout, Refused."""
        packet = self.link.wait(self, deadline)
        self.answered = not packet.cbid
        if isinstance(packet.message, Error):
            raise Refused.by(packet.message)
        return packet

    def reply(self, callback: Packet, message: Message, descriptor: int | None = None) -> None:
        """Answer a callback. Raises PoolVanished."""
        self.link.reply(callback, message, descriptor)

    def reply_with_pin(self, callback: Packet, message: PinEntry) -> None:
        """Answer a callback with a PIN. Raises PoolVanished, ValueError."""
        self.link.reply_with_pin(callback, message)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.link.end(self)


class Link:
    """The connection. Owns its socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(_SEND_TIME)
        self._sock = sock
        self._books = ApplicationSide()
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._talks: dict[int, Talk] = {}
        self._waiting: set[Talk] = set()
        self._led = False
        self._fault = ""

    @property
    def alive(self) -> bool:
        """It has not broken as far as can be told without asking."""
        if self._fault or self._sock.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(self._sock, select.POLLRDHUP)
        return not poll.poll(0)

    def begin(self, message: Message, descriptor: int | None = None) -> Talk:
        """Send a request. Raises PoolVanished: then the pool did not get it. Raises ValueError if a value does not fit."""
        with self._lock:
            self._check()
            try:
                reqid, data = self._books.request(message)
            except WireError as full:
                raise PoolError(full.code, full.text) from None
            talk = self._talks[reqid] = Talk(self, reqid, self._lock)
        try:
            self._send(data, descriptor)
        except BaseException:
            self.end(talk)
            raise
        return talk

    def ask(self, message: Message, timeout: float | None = ANSWER_TIME) -> Message:
        """One request, one answer. Raises PoolError."""
        with self.begin(message) as talk:
            return talk.next(Deadline(timeout)).message

    def reply(self, callback: Packet, message: Message, descriptor: int | None = None) -> None:
        """Answer a callback. Raises PoolVanished."""
        self._send(self._books.answer(callback, message), descriptor)

    def reply_with_pin(self, callback: Packet, message: PinEntry) -> None:
        """Answer a callback with a PIN, from locked memory. Raises PoolVanished, ValueError if the PIN does not fit."""
        with self._books.answer_with_pin(callback, message) as sealed:
            self._send(sealed.used, None)

    def end(self, talk: Talk) -> None:
        """The talk is over; its number is free if it was answered."""
        with self._lock:
            if self._talks.pop(talk.reqid, None) is not None:
                (self._books.release if talk.answered else self._books.abandon)(talk.reqid)

    def close(self) -> None:
        """Break the connection: the pool ends the sessions that belong to it. Threads that wait get PoolVanished."""
        with self._lock:
            self._break("The connection to the TLS Pool was closed")
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def forsake(self) -> None:
        """In a child process: let go of the parent's connection without disturbing it."""
        self._fault = "The connection to the TLS Pool belongs to the parent process"
        self._sock.close()

    # --- sending -----------------------------------------------------------------------------------------------------------------

    def _send(self, data: bytes | memoryview, descriptor: int | None) -> None:
        with self._sending:
            try:
                sent = fdpass.send(self._sock, data, descriptor)
                while sent < len(data):
                    sent += fdpass.send(self._sock, data[sent:])
            except OSError as fault:
                with self._lock:
                    self._break(f"The TLS Pool does not take data: {fault.strerror or fault}")
                raise self._vanished() from fault

    # --- waiting and reading -----------------------------------------------------------------------------------------------------

    def wait(self, talk: Talk, deadline: Deadline) -> Packet:
        """The next packet of a talk. Raises PoolVanished, PoolTimeout."""
        with self._lock:
            while not talk.inbox:
                self._check()
                if self._led:
                    self._follow(talk, deadline)
                else:
                    self._lead(talk, deadline)
            return talk.inbox.popleft()

    def _follow(self, talk: Talk, deadline: Deadline) -> None:
        """Sleep until woken by the leader: with a packet, with the lead, or because the link broke."""
        self._waiting.add(talk)
        try:
            if not talk.wake.wait(deadline.left()):
                raise _too_late()
        except BaseException:
            self._waiting.discard(talk)
            if not self._led:
                self._hand_over()  # the lead may have been meant for us
            raise

    def _lead(self, talk: Talk, deadline: Deadline) -> None:
        """Read for everyone, until a packet for this talk has come. Called with the lock, which is free while reading."""
        self._led = True
        try:
            while not talk.inbox:
                packet = self._take(self._unlocked(lambda: self._read(deadline)))
                if packet is not None and packet.reqid in self._talks:
                    owner = self._talks[packet.reqid]
                    owner.inbox.append(packet)
                    self._wake(owner)
        finally:
            self._led = False
            self._hand_over()

    def _unlocked(self, work: Callable[[], T]) -> T:
        self._lock.release()
        try:
            return work()
        finally:
            self._lock.acquire()

    def _hand_over(self) -> None:
        """Wake one that waits, to lead; not one that was woken before, as that may have what it waited for."""
        if self._waiting:
            self._wake(next(iter(self._waiting)))

    def _wake(self, talk: Talk) -> None:
        self._waiting.discard(talk)
        talk.wake.notify()

    def _read(self, deadline: Deadline) -> bytes:
        """Some bytes of the current packet; empty at the end of the stream. Raises PoolTimeout."""
        poll = select.poll()
        try:
            poll.register(self._sock, select.POLLIN)
            left = deadline.left()
            if not poll.poll(None if left is None else left * 1000 + 1):
                raise _too_late()
            return self._sock.recv(self._books.wanted)
        except PoolTimeout:
            raise
        except (OSError, ValueError):  # closed by another thread, or reset
            return b""

    def _take(self, data: bytes) -> Packet | None:
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
            self._unlocked(lambda: self._send(incoming.replies, None))
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


def _too_late() -> PoolTimeout:
    return PoolTimeout(ErrorCode.CLIENT_DISCONNECT, "The TLS Pool did not answer in time", "See in its log what it waits for.")
