"""The books of one connection at the application's end: which answer and which callback belong to which request.

Theory of operation
-------------------
Requests get numbers that are free; everything with that number belongs to the request until it is released.  A caller may lose
patience: an abandoned number stays reserved until the pool has answered, so that the late answer is not taken for another's, and
callbacks for it are refused here, so that the pool need not wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tlspool_core.secret import Secret
from tlspool_core.wire.codec import decode, encode, seal
from tlspool_core.wire.errors import ErrorCode, WireError
from tlspool_core.wire.framing import Assembler
from tlspool_core.wire.messages import Error, Message, Packet, PinEntry

_ABANDONED: Final = Error.of(ErrorCode.CLIENT_REFUSES_CALLBACK, "The application no longer waits for this")


@dataclass(frozen=True, slots=True)
class Incoming:
    """What one read brought: a packet for a live request, if there is one, and what to send on behalf of an abandoned one."""

    packet: Packet | None = None
    replies: bytes = b""


class ApplicationSide:
    """The application's connection to the pool. The pool sends no descriptors, so none are looked for."""

    def __init__(self) -> None:
        self._assembler: Assembler[int] = Assembler()
        self._live: set[int] = set()
        self._abandoned: set[int] = set()
        self._last = 0

    @property
    def wanted(self) -> int:
        """The most bytes that the next read may ask for."""
        return self._assembler.wanted

    def request(self, message: Message) -> tuple[int, bytes]:
        """Open a request: its number, and what to send.

        Raises WireError if all numbers are in use, ValueError if a value does not fit the packet.
        """
        reqid = self._free()
        data = encode(Packet(reqid, 0, message))
        self._live.add(reqid)
        self._last = reqid
        return reqid, data

    def answer(self, callback: Packet, message: Message) -> bytes:
        """What to send in answer to a callback."""
        return encode(Packet(callback.reqid, callback.cbid, message))

    def answer_with_pin(self, callback: Packet, message: PinEntry) -> Secret:
        """The same for a message with a PIN; to be wiped once it is sent. Raises ValueError if the PIN does not fit."""
        return seal(Packet(callback.reqid, callback.cbid, message))

    def receive(self, data: bytes) -> Incoming:
        """Take what one read of at most `wanted` bytes brought.

        Raises MalformedPacket: then the connection is of no use any more.
        """
        frame = self._assembler.feed(data)
        if frame is None:
            return Incoming()
        packet = decode(frame.packet, answer=True)
        if packet.reqid in self._live:
            return Incoming(packet)
        if packet.cbid:
            return Incoming(replies=self.answer(packet, _ABANDONED))
        self._abandoned.discard(packet.reqid)
        return Incoming()

    def release(self, reqid: int) -> None:
        """The request has its answer."""
        self._live.discard(reqid)

    def abandon(self, reqid: int) -> None:
        """Nobody waits for the request any more, though its answer is still to come."""
        if reqid in self._live:
            self._live.discard(reqid)
            self._abandoned.add(reqid)

    def _free(self) -> int:
        for step in range(1, 0x10000):
            reqid = (self._last + step - 1) % 0xFFFF + 1
            if reqid not in self._live and reqid not in self._abandoned:
                return reqid
        raise WireError(ErrorCode.LIMIT_REACHED, "Too many requests at a time on one connection to the TLS Pool")
