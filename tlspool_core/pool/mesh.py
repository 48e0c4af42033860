"""What worker processes of one pool tell each other: commands for sessions that live in another one.

Theory of operation
-------------------
An application's connection lands in some worker, and so do its sessions; but a control key may be presented in any.  A worker that
does not know the key asks all others, through the supervisor, to which each has one connection of whole messages.  The question
is the packet of the application as it came, and the token of the client that asks; the answer is the packet to answer with, or
nothing from those who do not know the key either.  A client's token stands for it in the worker that controls a session
on its behalf, until the message that it is gone.

    frame    kind, origin, destination (workers are numbered from 0; ALL), number of the question, content
    ASK      content: token, packet        forwarded to the others; the supervisor answers ASKED with their number
             content: token                the same, asking for the status
    TELL     content: packet or nothing    back to the origin of the question
    TELL_PIN content: packet with a PIN    likewise
             content: status               likewise
    GONE     content: token                forwarded to the others
    READY    the worker serves             to the supervisor

A frame is looked at before it is taken out of the socket: one with a PIN is read into locked memory, here and in the supervisor.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from tlspool_core.pool import commands
from tlspool_core.pool.desks_identity import choose_for_sibling
from tlspool_core.pool.status import worker_status
from tlspool_core.secret import Secret
from tlspool_core.wire.codec import PACKET_SIZE, decode, encode, seal
from tlspool_core.wire.errors import ErrorCode, WireError
from tlspool_core.wire.messages import (
    Accounting,
    ControlDetach,
    ControlReattach,
    Error,
    Info,
    LidentryCallback,
    LidentryRegister,
    Message,
    Packet,
    PinEntry,
    Prng,
    StartTls,
)

if TYPE_CHECKING:
    from tlspool_core.pool.core import Pool

log = logging.getLogger("tlspool.mesh")

ASK, ASKED, TELL, GONE, READY, TELL_PIN = range(1, 7)
SUPERVISOR = 0xFFFE
ALL = 0xFFFF
FRAME = struct.Struct("=BHHI")
MAX_FRAME = 65536
TOKEN = struct.Struct("=HHI")  # worker, unused, number of the client


def receive(link: socket.socket) -> bytes | Secret:
    """One frame, as a Secret if there is a PIN in it; shorter than a frame's head if the other end is gone. Raises OSError."""
    head = link.recv(FRAME.size, socket.MSG_PEEK)
    if len(head) < FRAME.size or head[0] != TELL_PIN:
        return link.recv(MAX_FRAME)
    frame = Secret(FRAME.size + PACKET_SIZE)
    frame.length = link.recv_into(frame.view)
    return frame


_NO_ANSWER = 5.0  # seconds until a worker that says nothing counts as one that does not know


class _Question:
    """Asked of the others: how many were asked, how many have answered. With `told`, all answers are wanted, not the first."""

    def __init__(self, loop: asyncio.AbstractEventLoop, told: list[bytes] | None = None) -> None:
        self.answer: asyncio.Future[bytes | Secret | None] = loop.create_future()
        self._told = told
        self._asked: int | None = None
        self._answered = 0

    def asked(self, count: int) -> None:
        self._asked = count
        self._check()

    def told(self, packet: bytes | Secret) -> None:
        if packet and self._told is not None and isinstance(packet, bytes):
            self._told.append(packet)
        elif packet and not self.answer.done():
            self.answer.set_result(packet)
        elif isinstance(packet, Secret):
            packet.wipe()
        self._answered += 1
        self._check()

    def abandon(self) -> None:
        """Nobody waits any more, though a PIN may have come in the same moment."""
        if self.answer.done() and not self.answer.cancelled():
            packet = self.answer.result()
            if isinstance(packet, Secret):
                packet.wipe()

    def _check(self) -> None:
        if self._asked is not None and self._answered >= self._asked and not self.answer.done():
            self.answer.set_result(None)


def _message(packet: bytes | Secret) -> Message:
    """What another worker answers. Raises MalformedPacket."""
    if isinstance(packet, bytes):
        return decode(packet, answer=True).message
    with packet:
        return decode(packet.used, answer=True).message


class Mesh:
    """One worker's connection to the others."""

    def __init__(self, pool: Pool, link: socket.socket, worker: int) -> None:
        """Takes over the link, a SOCK_SEQPACKET socket to the supervisor."""
        self._pool = pool
        self._link = link
        self._worker = worker
        self._questions: dict[int, _Question] = {}
        self._last_question = 0
        self._last_client = 0
        link.setblocking(False)
        pool.loop.add_reader(link.fileno(), self._readable)

    @property
    def worker(self) -> int:
        """Our number among the workers, from 0; whoever replaces one has its number."""
        return self._worker

    def close(self) -> None:
        self._pool.loop.remove_reader(self._link.fileno())
        self._link.close()

    def ready(self) -> None:
        """Tell the supervisor that this worker serves."""
        self._send(READY, SUPERVISOR, 0)

    def new_token(self) -> bytes:
        """What stands for a client of ours in the other workers."""
        self._last_client = (self._last_client + 1) & 0xFFFFFFFF
        return TOKEN.pack(self._worker, 0, self._last_client)

    def gone(self, token: bytes) -> None:
        """A client of ours that gave commands elsewhere has gone."""
        self._send(GONE, ALL, 0, token)

    async def ask_all(self, question: bytes, time_limit: float) -> list[bytes]:
        """What all others tell, as many as answer in time."""
        told: list[bytes] = []
        number = self._number()
        asked = self._questions[number] = _Question(self._pool.loop, told)
        self._send(ASK, ALL, number, TOKEN.pack(self._worker, 0, 0) + question)
        try:
            async with asyncio.timeout(time_limit):
                await asked.answer
        except TimeoutError:
            log.warning("not all workers answer")
        finally:
            del self._questions[number]
        return told

    def _number(self) -> int:
        self._last_question = (self._last_question + 1) & 0xFFFFFFFF
        return self._last_question

    async def ask(self, token: bytes, request: Message, time_limit: float = _NO_ANSWER) -> Message:
        """Have a command done where its session lives. Raises WireError: what that worker says, or that nobody knows the key."""
        question = _Question(self._pool.loop)
        number = self._number()
        self._questions[number] = question
        self._send(ASK, ALL, number, token + encode(Packet(0, 0, request)))
        try:
            async with asyncio.timeout(time_limit):
                packet = await question.answer
        except TimeoutError:
            question.abandon()
            packet = None
        except asyncio.CancelledError:
            question.abandon()
            raise
        finally:
            del self._questions[number]
        if packet is None:
            raise WireError(ErrorCode.CTLKEY_NOT_FOUND)
        answer = _message(packet)
        if isinstance(answer, Error):
            raise WireError(answer.tlserrno, answer.text)
        return answer

    # --- frames --------------------------------------------------------------------------------------------------------------

    def _send(self, kind: int, destination: int, number: int, content: bytes | memoryview = b"") -> None:
        """A frame that does not fit the socket's buffer is lost: whoever waits for an answer has a time limit."""
        try:
            self._link.sendmsg([FRAME.pack(kind, self._worker, destination, number), content])
        except OSError as error:
            log.warning("message to other workers is lost: %s", error.strerror)

    def _readable(self) -> None:
        try:
            frame = receive(self._link)
        except (BlockingIOError, InterruptedError):
            return
        if len(frame) < FRAME.size:  # the supervisor is gone, and its end will be ours in a moment
            self._pool.loop.remove_reader(self._link.fileno())
            return
        if isinstance(frame, Secret):
            with frame:
                self._told(FRAME.unpack_from(frame.used)[3], Secret.of(frame.used[FRAME.size :]))
            return
        kind, origin, _, number = FRAME.unpack_from(frame)
        content = frame[FRAME.size :]
        if kind == ASK:
            self._keep(self._serve(origin, number, content[: TOKEN.size], content[TOKEN.size :]))
        elif kind == ASKED and number in self._questions:
            self._questions[number].asked(int.from_bytes(content))
        elif kind == TELL:
            self._told(number, content)
        elif kind == GONE:
            self._pool.release(content)

    def _told(self, number: int, packet: bytes | Secret) -> None:
        if number in self._questions:
            self._questions[number].told(packet)
        elif isinstance(packet, Secret):
            packet.wipe()

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        self._pool.keep(self._pool.loop.create_task(work))

    async def _serve(self, origin: int, number: int, token: bytes, asked: bytes) -> None:
        """A sibling asks: do what its client wants, if the session is here; without a packet it asks for our status."""
        if not asked:
            self._send(TELL, origin, number, json.dumps(await worker_status(self._pool), default=str).encode())
            return
        try:
            request = decode(asked).message
            if isinstance(request, StartTls):
                answer = await commands.renegotiate(self._pool, token, request)
            elif isinstance(request, Accounting):
                answer = await commands.account(self._pool, token, request)
            elif isinstance(request, LidentryCallback):
                answer = await choose_for_sibling(self._pool, request)
            elif isinstance(request, PinEntry | LidentryRegister):
                answer = await self._pool.desks.for_sibling(request)
            else:
                assert isinstance(request, ControlDetach | ControlReattach | Prng | Info)
                answer = commands.command(self._pool, token, request)
        except WireError as error:
            if error.code == ErrorCode.CTLKEY_NOT_FOUND:
                self._send(TELL, origin, number)
                return
            answer = Error.of(ErrorCode(error.code), error.text)
        except Exception:
            log.exception("fault while serving another worker")
            answer = Error.of(ErrorCode.CONNECTION_HANDLER)
        packet = Packet(0, 0, answer)
        if isinstance(answer, PinEntry) and answer.pin is not None:
            with answer.pin, seal(packet) as sealed:
                self._send(TELL_PIN, origin, number, sealed.used)
        else:
            self._send(TELL, origin, number, encode(packet))
