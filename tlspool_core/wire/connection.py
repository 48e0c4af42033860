"""The books of one connection at the pool's end: requests, the callbacks they cause, and one answer to each.

Theory of operation
-------------------
The application numbers its requests (`reqid`), the pool its callbacks (`cbid`); an answer to a callback names it by its `cbid`.  `PoolSide`
turns what arrives into events about `Exchange`s and `Callback`s, and refuses by itself whatever the protocol rules out: unknown
commands, malformed packets, descriptors that are missing or too many, answers that nobody waits for.  The session code therefore
sees only requests that are whole, and callbacks that end exactly once: answered or refused.

What existing applications do shapes four rules.

- A refused callback may never be answered, so the caller keeps a clock and calls `expire`.  The answer to an expired callback is
  dropped without a word: its request had its one answer already, and a second would be taken for the answer to the next.
- The C library numbers requests by thread.  A new request under a number whose callback is still open means that its thread went
  on; the older exchange is superseded: its callback ends as refused, and nothing is sent for it any more.
- An ERROR in answer to a callback may bring a stray descriptor.  It is discarded and the refusal stands.
- The asynchronous C library gives every packet that it sends a number of its own, answers to callbacks too, and waits for what
  follows under that number.  The `cbid` alone therefore finds the callback, and its request goes on under the answer's `reqid`.

Nothing is read, sent or closed here: a `Step` says what to send, what to close, and what happened.

The connection of a PIN desk is `guarded`: what it sends is read in place into locked memory, and wiped when it was decoded.  A PIN
that answers an open callback is handed on; any other is wiped here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from tlspool_core.wire.codec import decode, encode
from tlspool_core.wire.errors import ErrorCode, MalformedPacket, WireError
from tlspool_core.wire.framing import Assembler, Frame, LockedAssembler
from tlspool_core.wire.messages import (
    AccountingInterim,
    AccountingStart,
    AccountingStop,
    ControlDetach,
    ControlReattach,
    Error,
    Info,
    LidentryCallback,
    LidentryRegister,
    Message,
    Packet,
    PinEntry,
    Ping,
    PlaintextConnect,
    Prng,
    StartTls,
    StartTlsLocalid,
)

F = TypeVar("F")

Request = (
    Ping
    | StartTls
    | PinEntry
    | Prng
    | Info
    | ControlDetach
    | ControlReattach
    | LidentryRegister
    | AccountingStart
    | AccountingInterim
    | AccountingStop
)
CallbackMessage = StartTlsLocalid | PlaintextConnect | PinEntry | LidentryCallback

MAX_EXCHANGES: Final = 4096  # in flight on one connection, unless the caller says otherwise
_REMEMBERED: Final = 1024  # expired callbacks whose late answers are recognised


@dataclass(eq=False, slots=True)
class Exchange:
    """One request until its answer."""

    reqid: int
    request: Request
    superseded: bool = field(default=False, init=False)
    answered: bool = field(default=False, init=False)

    @property
    def open(self) -> bool:
        """An answer is still owed."""
        return not (self.superseded or self.answered)


@dataclass(eq=False, slots=True)
class Callback:
    """One question to the application until it ends."""

    exchange: Exchange
    cbid: int
    message: CallbackMessage


@dataclass(frozen=True, slots=True)
class Asked(Generic[F]):
    """A request came. The descriptor is there exactly if the command needs one."""

    exchange: Exchange
    descriptor: F | None


@dataclass(frozen=True, slots=True)
class Answered(Generic[F]):
    """A callback was answered, with a message of its own kind; the plaintext descriptor is there where it must be."""

    callback: Callback
    message: CallbackMessage
    descriptor: F | None


@dataclass(frozen=True, slots=True)
class Refused:
    """A callback ended without an answer that can be used; `error` is what to answer the request with."""

    callback: Callback
    error: WireError


@dataclass(frozen=True, slots=True)
class Step(Generic[F]):
    """The outcome of something that arrived: in this order, send `replies`, close `discard`, act on `events`."""

    events: tuple[Asked[F] | Answered[F] | Refused, ...] = ()
    replies: bytes = b""
    discard: tuple[F, ...] = ()


class PoolSide(Generic[F]):
    """One application's connection as the pool sees it; `F` is whatever owns a descriptor."""

    def __init__(self, max_exchanges: int = MAX_EXCHANGES) -> None:
        self._assembler: Assembler[F] = Assembler()
        self._locked: LockedAssembler[F] | None = None
        self._exchanges: set[Exchange] = set()
        self._pending: dict[int, Callback] = {}
        self._expired: OrderedDict[int, None] = OrderedDict()  # cbids, the oldest first
        self._last_cbid = 0
        self._max_exchanges = max_exchanges

    @property
    def wanted(self) -> int:
        """The most bytes that the next read may ask for."""
        return self._assembler.wanted

    @property
    def midway(self) -> bool:
        """A packet has begun and is not complete."""
        return self._assembler.midway

    @property
    def exchanges(self) -> frozenset[Exchange]:
        """Requests that wait for their answer."""
        return frozenset(self._exchanges)

    # --- what arrives ------------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, descriptors: Sequence[F] = ()) -> Step[F]:
        """Take what one read of at most `wanted` bytes brought. Takes over the descriptors."""
        frame = self._assembler.feed(data, descriptors)
        return self._unfinished() if frame is None else self._frame(frame)

    def _unfinished(self) -> Step[F]:
        return Step(discard=self._assembler.excess())

    def guard(self) -> None:
        """PINs may come from now on: `room` and `arrived` take the place of `receive`. Raises RuntimeError in the midst of a packet."""
        if self._locked is not None:
            return
        if self.midway:
            raise RuntimeError("a packet is on its way")
        self._assembler = self._locked = LockedAssembler()

    @property
    def guarded(self) -> bool:
        return self._locked is not None

    @property
    def room(self) -> memoryview:
        """Where the next read of a guarded connection goes: locked memory."""
        assert self._locked is not None
        return self._locked.room

    def arrived(self, length: int, descriptors: Sequence[F] = ()) -> Step[F]:
        """Take what one read put into `room`. Takes over the descriptors."""
        assert self._locked is not None
        frame = self._locked.filled(length, descriptors)
        if frame is None:
            return self._unfinished()
        try:
            return self._frame(frame)
        finally:
            self._locked.wipe()

    def close(self) -> Step[F]:
        """The connection is gone: every open callback ends as refused, every descriptor of an unfinished packet is surplus."""
        gone = WireError(ErrorCode.CLIENT_DISCONNECT)
        events = tuple(Refused(callback, gone) for callback in self._pending.values())
        for exchange in self._exchanges:
            exchange.superseded = True
        self._exchanges.clear()
        self._pending.clear()
        return Step(events, discard=self._assembler.abandon())

    def _frame(self, frame: Frame[F]) -> Step[F]:
        try:
            packet = decode(frame.packet)
        except MalformedPacket as fault:
            return self._unusable(fault, frame)
        if frame.surplus and not isinstance(packet.message, Error):
            _wipe(packet.message)
            too_many = MalformedPacket(ErrorCode.SUPERFLUOUS_SOCKET, "", packet.reqid, packet.cbid, packet.message.command)
            return self._unusable(too_many, frame)
        if packet.cbid:
            return self._callback_answer(packet, frame)
        return self._request(packet, frame)

    def _unusable(self, fault: MalformedPacket, frame: Frame[F]) -> Step[F]:
        """A packet that cannot be taken ends the callback that it answers, or else is answered itself."""
        callback = self._end(fault.cbid, fault.reqid)
        if callback is not None:
            return Step((Refused(callback, fault),), discard=_all(frame))
        return Step(replies=_error(fault.reqid, fault), discard=_all(frame))

    def _request(self, packet: Packet, frame: Frame[F]) -> Step[F]:
        request = packet.message
        if not isinstance(request, Request):
            return self._refuse(packet, frame, WireError(ErrorCode.COMMAND_NEEDED))
        fault = self._unacceptable(request, frame.descriptor is not None)
        if fault is not None:
            return self._refuse(packet, frame, fault)
        superseded = self._supersede(packet.reqid)
        exchange = Exchange(packet.reqid, request)
        self._exchanges.add(exchange)
        return Step((*superseded, Asked(exchange, frame.descriptor)))

    def _unacceptable(self, request: Request, with_descriptor: bool) -> WireError | None:
        """Why a request is refused before anyone looks at what it wants."""
        needs = isinstance(request, StartTls) and not request.renegotiates
        if needs and not with_descriptor:
            return WireError(ErrorCode.CIPHER_SOCKET_NEEDED)
        if with_descriptor and not needs:
            return WireError(ErrorCode.SUPERFLUOUS_SOCKET)
        if isinstance(request, PinEntry) and request.pin:
            return WireError(ErrorCode.BAD_CALLBACK_RESPONSE)
        if len(self._exchanges) >= self._max_exchanges:
            return WireError(
                ErrorCode.LIMIT_REACHED, f"The TLS Pool takes {self._max_exchanges} requests at a time on one connection"
            )
        return None

    def _supersede(self, reqid: int) -> list[Refused]:
        """Give up older requests under this number whose callback was never answered."""
        stale = [callback for callback in self._pending.values() if callback.exchange.reqid == reqid]
        if not stale:
            return []
        for callback in stale:
            self._remember(callback)
            callback.exchange.superseded = True
            self._exchanges.discard(callback.exchange)
        error = WireError(ErrorCode.CLIENT_REFUSES_CALLBACK, "The application went on without answering a callback")
        return [Refused(callback, error) for callback in stale]

    def _callback_answer(self, packet: Packet, frame: Frame[F]) -> Step[F]:
        if packet.cbid in self._expired:
            del self._expired[packet.cbid]
            _wipe(packet.message)
            return Step(discard=_all(frame))
        callback = self._end(packet.cbid, packet.reqid)
        if callback is None:
            return self._refuse(packet, frame, WireError(ErrorCode.BAD_CALLBACK_RESPONSE))
        outcome = _judge_answer(callback, packet.message, frame.descriptor)
        if isinstance(outcome, WireError):
            _wipe(packet.message)
            return Step((Refused(callback, outcome),), discard=_all(frame))
        return Step((Answered(callback, outcome, frame.descriptor),))

    def _refuse(self, packet: Packet, frame: Frame[F], error: WireError) -> Step[F]:
        _wipe(packet.message)
        return Step(replies=_error(packet.reqid, error), discard=_all(frame))

    # --- what the pool does ------------------------------------------------------------------------------------------------------

    def call_back(self, exchange: Exchange, message: CallbackMessage) -> tuple[Callback, bytes]:
        """Ask the application something on behalf of its request: the callback to wait for, and what to send.

        Raises WireError if the exchange is over, or if no number is free.
        """
        if not exchange.open:
            raise WireError(ErrorCode.CLIENT_REFUSES_CALLBACK, "The application went on without answering a callback")
        callback = Callback(exchange, self._free_cbid(), message)
        data = encode(Packet(exchange.reqid, callback.cbid, message))
        self._pending[callback.cbid] = callback
        return callback, data

    def notify(self, exchange: Exchange, message: Message) -> bytes:
        """Tell the application something to which no answer belongs; empty if its request is over."""
        return encode(Packet(exchange.reqid, 0, message)) if exchange.open else b""

    def expire(self, callback: Callback) -> None:
        """Wait for a callback no longer; does nothing if it has ended."""
        if self._pending.get(callback.cbid) is callback:
            self._remember(callback)

    def answer(self, exchange: Exchange, message: Message) -> bytes:
        """The answer to a request: what to send, and nothing if the application gave the request up.

        Open callbacks of the request expire with it. Raises RuntimeError if it was answered before.
        """
        if exchange.answered:
            raise RuntimeError(f"request {exchange.reqid} was answered before")
        for callback in [c for c in self._pending.values() if c.exchange is exchange]:
            self.expire(callback)
        if exchange.superseded:
            return b""
        data = encode(Packet(exchange.reqid, 0, message))
        exchange.answered = True
        self._exchanges.discard(exchange)
        return data

    def refuse(self, exchange: Exchange, error: WireError) -> bytes:
        """Answer a request with ERROR."""
        return self.answer(exchange, _error_message(error))

    # --- bookkeeping -------------------------------------------------------------------------------------------------------------

    def _end(self, cbid: int, reqid: int) -> Callback | None:
        """Take a callback out of the books, if one is open; its request goes on under the number that the answer has."""
        callback = self._pending.pop(cbid, None)
        if callback is not None:
            callback.exchange.reqid = reqid
        return callback

    def _remember(self, callback: Callback) -> None:
        """Close a callback so that its late answer is known for what it is."""
        del self._pending[callback.cbid]
        self._expired[callback.cbid] = None
        if len(self._expired) > _REMEMBERED:
            self._expired.popitem(last=False)

    def _free_cbid(self) -> int:
        """The next number that neither an open callback nor a late answer can have."""
        for step in range(1, 0x10000):
            cbid = (self._last_cbid + step - 1) % 0xFFFF + 1
            if cbid not in self._pending and cbid not in self._expired:
                self._last_cbid = cbid
                return cbid
        raise WireError(ErrorCode.LIMIT_REACHED, "Too many callbacks wait for the application")


def _judge_answer(callback: Callback, message: Message, descriptor: object | None) -> CallbackMessage | WireError:
    """The answer, if it is one to this callback; else why not."""
    if isinstance(message, Error):
        return WireError(ErrorCode.CLIENT_REFUSES_CALLBACK, f"The application refused: {message.text}" if message.text else "")
    if type(message) is not type(callback.message):
        return WireError(ErrorCode.BAD_CALLBACK_RESPONSE)
    if isinstance(message, PlaintextConnect) and descriptor is None:
        return WireError(ErrorCode.PLAIN_SOCKET_NEEDED)
    if isinstance(message, PinEntry | LidentryCallback) and descriptor is not None:
        return WireError(ErrorCode.SUPERFLUOUS_SOCKET)
    assert isinstance(message, CallbackMessage)
    return message


def _wipe(message: Message) -> None:
    """Nobody waits for the PIN that this may hold."""
    if isinstance(message, PinEntry):
        message.wipe()


def _all(frame: Frame[F]) -> tuple[F, ...]:
    return frame.surplus if frame.descriptor is None else (frame.descriptor, *frame.surplus)


def _error_message(error: WireError) -> Error:
    return Error.of(error.code, error.text)


def _error(reqid: int, error: WireError) -> bytes:
    return encode(Packet(reqid, 0, _error_message(error)))
