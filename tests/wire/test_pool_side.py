"""Are requests, callbacks and answers kept apart at the pool's end, whatever the application does?"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tlspool_core.secret import Secret
from tlspool_core.wire import connection
from tlspool_core.wire.codec import PACKET_SIZE, decode, encode, seal
from tlspool_core.wire.connection import Answered, Asked, Callback, Exchange, PoolSide, Refused, Step
from tlspool_core.wire.errors import ErrorCode, WireError
from tlspool_core.wire.flags import StartTlsFlags
from tlspool_core.wire.messages import (
    ControlDetach,
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
    PrngOutput,
    StartTls,
    StartTlsLocalid,
    Success,
)

KEY = bytes(16)
START = StartTls(localid="me", remoteid="you", ctlkey=b"k" * 16, ipproto=17, service="http", timeout=5)


def put(side: PoolSide[str], message: Message, descriptors: Sequence[str] = (), reqid: int = 1, cbid: int = 0) -> Step[str]:
    return side.receive(packed(Packet(reqid, cbid, message)), descriptors)


def packed(packet: Packet) -> bytes:
    if not isinstance(packet.message, PinEntry) or packet.message.pin is None:
        return encode(packet)
    with seal(packet) as sealed:
        return bytes(sealed.used)


def pin_entry() -> PinEntry:
    return PinEntry(pin=Secret.of(b"1234"))


def begin(side: PoolSide[str], message: Message = START, descriptors: Sequence[str] = ("crypt",), reqid: int = 1) -> Exchange:
    (event,) = put(side, message, descriptors, reqid).events
    assert isinstance(event, Asked)
    return event.exchange


def error_in(step: Step[str]) -> Error:
    message = decode(step.replies, answer=True).message
    assert isinstance(message, Error)
    return message


def refusal(step: Step[str]) -> WireError:
    (event,) = step.events
    assert isinstance(event, Refused)
    return event.error


def test_a_session_from_request_to_answer() -> None:
    side: PoolSide[str] = PoolSide()
    (asked,) = put(side, START, ["crypt"]).events
    assert isinstance(asked, Asked)
    assert asked.descriptor == "crypt"
    assert isinstance(asked.exchange.request, StartTls)
    callback, data = side.call_back(asked.exchange, asked.exchange.request.ask_localid(localid="proposed"))
    packet = decode(data)
    assert (packet.reqid, packet.cbid) == (1, callback.cbid)
    assert packet.message == START.ask_localid(localid="proposed")
    (answered,) = put(side, START.ask_localid(localid="changed"), cbid=callback.cbid).events
    assert isinstance(answered, Answered)
    assert answered.message.localid == "changed"  # type: ignore[union-attr]
    callback, data = side.call_back(asked.exchange, asked.exchange.request.ask_plaintext(localid="changed", remoteid="proven"))
    (answered,) = put(side, START.ask_plaintext(), ["plain"], cbid=callback.cbid).events
    assert isinstance(answered, Answered)
    assert answered.descriptor == "plain"
    final = decode(side.answer(asked.exchange, START.echo(remoteid="proven")))
    assert final == Packet(1, 0, START.echo(remoteid="proven"))
    assert side.exchanges == frozenset()
    with pytest.raises(RuntimeError, match="answered before"):
        side.answer(asked.exchange, Success())


@pytest.mark.parametrize(
    ("message", "descriptors", "code"),
    [
        (START, [], ErrorCode.CIPHER_SOCKET_NEEDED),
        (START, ["a", "b"], ErrorCode.SUPERFLUOUS_SOCKET),
        (START.echo(flags=StartTlsFlags.RENEGOTIATE), ["a"], ErrorCode.SUPERFLUOUS_SOCKET),
        (Ping(), ["a"], ErrorCode.SUPERFLUOUS_SOCKET),
        (Ping(), ["a", "b"], ErrorCode.SUPERFLUOUS_SOCKET),
        (Info(KEY, 1), ["a"], ErrorCode.SUPERFLUOUS_SOCKET),
        (ControlDetach(), ["a"], ErrorCode.SUPERFLUOUS_SOCKET),
        (Success(), [], ErrorCode.COMMAND_NEEDED),
        (Error(-1, "x"), ["a"], ErrorCode.COMMAND_NEEDED),
        (PlaintextConnect(), ["a"], ErrorCode.COMMAND_NEEDED),
        (StartTlsLocalid(), [], ErrorCode.COMMAND_NEEDED),
        (LidentryCallback(), [], ErrorCode.COMMAND_NEEDED),
        (pin_entry(), [], ErrorCode.BAD_CALLBACK_RESPONSE),
    ],
)
def test_requests_that_are_refused_at_once(message: Message, descriptors: list[str], code: ErrorCode) -> None:
    side: PoolSide[str] = PoolSide()
    step = put(side, message, descriptors)
    assert step.events == ()
    assert error_in(step).tlserrno == code
    assert list(step.discard) == descriptors
    assert side.exchanges == frozenset()


@pytest.mark.parametrize(
    "message", [Ping(), Info(KEY, 1), Prng(KEY, b"EXPERIMENTAL", None, 1), ControlDetach(), PinEntry(), LidentryRegister()]
)
def test_requests_without_descriptor(message: Message) -> None:
    side: PoolSide[str] = PoolSide()
    exchange = begin(side, message, ())
    assert exchange.request == message
    assert side.exchanges == {exchange}


def test_renegotiation_needs_no_descriptor() -> None:
    assert begin(PoolSide(), START.echo(flags=StartTlsFlags.RENEGOTIATE), ()).open


def test_malformed_and_unknown_packets_are_answered_under_their_number() -> None:
    side: PoolSide[str] = PoolSide()
    raw = bytearray(encode(Packet(77, 0, START)))
    raw[20:148] = b"x" * 128
    step = side.receive(bytes(raw), ["a"])
    assert decode(step.replies) == Packet(77, 0, error_in(step))
    assert error_in(step).tlserrno == ErrorCode.MALFORMED_PACKET
    assert "localid" in error_in(step).text
    assert step.discard == ("a",)
    raw[4:8] = b"\x33\x33\x00\x80"
    assert error_in(side.receive(bytes(raw))).tlserrno == ErrorCode.COMMAND_UNKNOWN


@pytest.mark.parametrize(
    ("answer", "descriptors", "code"),
    [
        (Error(22, "no"), [], ErrorCode.CLIENT_REFUSES_CALLBACK),
        (Error(22, "no"), ["stray"], ErrorCode.CLIENT_REFUSES_CALLBACK),
        (Error(22, "no"), ["stray", "more"], ErrorCode.CLIENT_REFUSES_CALLBACK),
        (START.ask_plaintext(), [], ErrorCode.PLAIN_SOCKET_NEEDED),
        (START.ask_plaintext(), ["a", "b"], ErrorCode.SUPERFLUOUS_SOCKET),
        (START.ask_localid(), ["a"], ErrorCode.BAD_CALLBACK_RESPONSE),
        (START, ["a"], ErrorCode.BAD_CALLBACK_RESPONSE),
        (Ping(), [], ErrorCode.BAD_CALLBACK_RESPONSE),
    ],
)
def test_answers_that_refuse_the_plaintext(answer: Message, descriptors: list[str], code: ErrorCode) -> None:
    side: PoolSide[str] = PoolSide()
    exchange = begin(side)
    callback, _ = side.call_back(exchange, START.ask_plaintext())
    step = put(side, answer, descriptors, cbid=callback.cbid)
    assert refusal(step).code == code
    assert step.replies == b"", "the request is answered once, by whoever handles the refusal"
    assert list(step.discard) == descriptors
    assert error_in(Step(replies=side.refuse(exchange, refusal(step)))).tlserrno == code


def test_malformed_answer_ends_the_callback() -> None:
    side: PoolSide[str] = PoolSide()
    callback, data = side.call_back(begin(side), START.ask_plaintext())
    raw = bytearray(data)
    raw[20:148] = b"\xff" * 128
    step = side.receive(bytes(raw), ["plain"])
    assert refusal(step).code == ErrorCode.MALFORMED_PACKET
    assert step.discard == ("plain",)
    assert error_in(put(side, START.ask_plaintext(), ["plain"], cbid=callback.cbid)).tlserrno == ErrorCode.BAD_CALLBACK_RESPONSE


def test_localid_answer_may_bring_the_plaintext() -> None:
    side: PoolSide[str] = PoolSide()
    callback, _ = side.call_back(begin(side), START.ask_localid())
    (event,) = put(side, START.ask_localid(), ["plain"], cbid=callback.cbid).events
    assert isinstance(event, Answered)
    assert event.descriptor == "plain"


def test_desks_answer_many_callbacks_of_one_registration() -> None:
    side: PoolSide[str] = PoolSide()
    exchange = begin(side, PinEntry(timeout=60_000_000), ())
    for attempt in range(3):
        callback, data = side.call_back(exchange, PinEntry(attempt=attempt, token_label="t"))
        assert decode(data).reqid == 1
        (event,) = put(side, pin_entry(), cbid=callback.cbid).events
        assert isinstance(event, Answered)
    callback, _ = side.call_back(exchange, PinEntry())
    assert refusal(put(side, pin_entry(), ["a"], cbid=callback.cbid)).code == ErrorCode.SUPERFLUOUS_SOCKET
    assert exchange.open


def guarded() -> tuple[PoolSide[str], Exchange]:
    """The connection of a PIN desk."""
    side: PoolSide[str] = PoolSide()
    exchange = begin(side, PinEntry(timeout=60_000_000), ())
    side.guard()
    return side, exchange


def arrive(side: PoolSide[str], packet: Packet, descriptors: Sequence[str] = (), step: int = 100) -> Step[str]:
    """A packet as the kernel delivers it, in parts."""
    raw = packed(packet)
    for at in range(0, len(raw), step):
        room = side.room
        piece = raw[at : at + step]
        assert len(room) == len(raw) - at
        room[: len(piece)] = piece
        outcome = side.arrived(len(piece), descriptors if at == 0 else ())
    assert not any(room), "what was read is wiped"
    assert not side.midway
    return outcome


def test_a_pin_arrives_in_locked_memory_and_is_handed_on() -> None:
    side, exchange = guarded()
    for step in (1, 100, PACKET_SIZE):
        callback, _ = side.call_back(exchange, PinEntry())
        (event,) = arrive(side, Packet(1, callback.cbid, pin_entry()), step=step).events
        assert isinstance(event, Answered)
        assert event.message == pin_entry()
    assert isinstance(arrive(side, Packet(2, 0, Ping())).events[0], Asked)
    assert isinstance(arrive(side, Packet(2, 0, START), ["crypt"]).events[0], Asked)
    arrived = arrive(side, Packet(3, 0, Prng(KEY, b"EXPERIMENTAL", b"x", 5))).events[0]
    assert isinstance(arrived, Asked)
    assert arrived.exchange.request == Prng(KEY, b"EXPERIMENTAL", b"x", 5)
    side.guard()  # a second registration changes nothing


def test_a_pin_that_nobody_waits_for_is_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Packet] = []
    monkeypatch.setattr(connection, "decode", lambda packet: read.append(decode(packet)) or read[-1])
    side, exchange = guarded()
    read.clear()
    callback, _ = side.call_back(exchange, PinEntry())
    side.expire(callback)
    arrive(side, Packet(1, callback.cbid, pin_entry()))  # too late
    arrive(side, Packet(1, 777, pin_entry()))  # to no question
    arrive(side, Packet(1, 0, pin_entry()))  # unasked
    for descriptors in (["a"], ["a", "b"]):
        callback, _ = side.call_back(exchange, PinEntry())
        arrive(side, Packet(1, callback.cbid, pin_entry()), descriptors)
    other = side.call_back(exchange, LidentryCallback())[0]
    arrive(side, Packet(1, other.cbid, pin_entry()))  # another kind of answer
    pins = [packet.message.pin for packet in read if isinstance(packet.message, PinEntry)]
    assert len(pins) == 6
    assert all(pin is not None and not pin for pin in pins)


def test_a_packet_must_be_whole_before_its_connection_is_guarded() -> None:
    side: PoolSide[str] = PoolSide()
    side.receive(b"x")
    with pytest.raises(RuntimeError):
        side.guard()


def test_unknown_callbacks() -> None:
    side: PoolSide[str] = PoolSide()
    exchange = begin(side)
    callback, _ = side.call_back(exchange, START.ask_plaintext())
    for reqid, cbid in [(1, callback.cbid + 1), (2, callback.cbid + 2), (0xFFFF, 0xFFFF)]:
        step = put(side, START.ask_plaintext(), ["x"], reqid=reqid, cbid=cbid)
        assert error_in(step).tlserrno == ErrorCode.BAD_CALLBACK_RESPONSE
        assert step.discard == ("x",)
    (event,) = put(side, START.ask_plaintext(), ["plain"], cbid=callback.cbid).events
    assert isinstance(event, Answered), "strangers do not disturb the open callback"


def test_a_request_goes_on_under_the_number_of_the_last_answer() -> None:
    """The asynchronous C library draws a number for every packet and forgets the one before."""
    side: PoolSide[str] = PoolSide()
    exchange = begin(side, reqid=0x1111)
    for reqid, message in ((0x2222, START.ask_localid()), (0x3333, START.ask_plaintext())):
        callback, _ = side.call_back(exchange, message)
        (event,) = put(side, message, ["plain"], reqid=reqid, cbid=callback.cbid).events
        assert isinstance(event, Answered)
        assert exchange.reqid == reqid
    assert decode(side.answer(exchange, START)).reqid == 0x3333


def test_a_refusal_under_another_number_is_answered_there() -> None:
    side: PoolSide[str] = PoolSide()
    exchange = begin(side, reqid=7)
    callback, _ = side.call_back(exchange, START.ask_plaintext())
    step = put(side, Error(1, "no"), ["stray"], reqid=8, cbid=callback.cbid)
    assert step.discard == ("stray",)
    assert decode(side.refuse(exchange, refusal(step))).reqid == 8


def test_late_answers_are_dropped_without_a_word() -> None:
    side: PoolSide[str] = PoolSide()
    exchange = begin(side)
    callback, _ = side.call_back(exchange, START.ask_plaintext())
    side.expire(callback)
    side.expire(callback)
    assert side.refuse(exchange, WireError(ErrorCode.CALLBACK_TIMEOUT))
    assert put(side, START.ask_plaintext(), ["late"], cbid=callback.cbid) == Step(discard=("late",))
    assert error_in(put(side, START.ask_plaintext(), ["again"], cbid=callback.cbid)).tlserrno == ErrorCode.BAD_CALLBACK_RESPONSE


def test_answering_a_request_expires_its_callbacks() -> None:
    side: PoolSide[str] = PoolSide()
    exchange = begin(side)
    callback, _ = side.call_back(exchange, START.ask_plaintext())
    side.refuse(exchange, WireError(ErrorCode.HANDSHAKE_FAILED))
    assert put(side, START.ask_plaintext(), ["late"], cbid=callback.cbid) == Step(discard=("late",))


def test_a_thread_that_went_on_supersedes_its_request() -> None:
    side: PoolSide[str] = PoolSide()
    exchange = begin(side)
    callback, _ = side.call_back(exchange, START.ask_plaintext())
    refused, asked = put(side, Ping()).events
    assert isinstance(refused, Refused)
    assert isinstance(asked, Asked)
    assert (refused.callback, refused.error.code) == (callback, ErrorCode.CLIENT_REFUSES_CALLBACK)
    assert side.refuse(exchange, refused.error) == b"", "its answer would be taken for that to the PING"
    assert side.notify(exchange, Success()) == b""
    with pytest.raises(WireError):
        side.call_back(exchange, START.ask_plaintext())
    assert decode(side.answer(asked.exchange, Ping())).message == Ping()


def test_equal_numbers_without_open_callback_stand_side_by_side() -> None:
    side: PoolSide[str] = PoolSide()
    first, second = begin(side), begin(side)
    assert first.open
    assert second.open
    assert side.answer(first, Success())
    assert side.answer(second, Success())


def test_requests_in_flight_are_limited() -> None:
    side: PoolSide[str] = PoolSide(max_exchanges=3)
    exchanges = [begin(side, reqid=number) for number in range(3)]
    step = put(side, START, ["x"], reqid=3)
    assert error_in(step).tlserrno == ErrorCode.LIMIT_REACHED
    assert step.discard == ("x",)
    side.answer(exchanges[0], Success())
    begin(side, reqid=3)


def test_callback_numbers_run_out_and_come_back() -> None:
    side: PoolSide[str] = PoolSide()
    exchange = begin(side)
    callbacks = [side.call_back(exchange, START.ask_plaintext())[0] for _ in range(0xFFFF)]
    assert {callback.cbid for callback in callbacks} == set(range(1, 0x10000))
    with pytest.raises(WireError) as caught:
        side.call_back(exchange, START.ask_plaintext())
    assert caught.value.code == ErrorCode.LIMIT_REACHED
    put(side, Error(1), cbid=777)
    assert side.call_back(exchange, START.ask_plaintext())[0].cbid == 777


def test_only_so_many_late_answers_are_remembered() -> None:
    side: PoolSide[str] = PoolSide()
    exchange = begin(side)
    callbacks = [side.call_back(exchange, START.ask_plaintext())[0] for _ in range(1025)]
    for callback in callbacks:
        side.expire(callback)
    assert error_in(put(side, Error(1), cbid=callbacks[0].cbid)).tlserrno == ErrorCode.BAD_CALLBACK_RESPONSE
    assert put(side, Error(1), cbid=callbacks[1].cbid) == Step()


def test_closing_ends_everything() -> None:
    side: PoolSide[str] = PoolSide()
    exchange = begin(side)
    callback, _ = side.call_back(exchange, START.ask_plaintext())
    side.receive(b"x" * 10, ["half"])
    assert side.midway
    step = side.close()
    (event,) = step.events
    assert isinstance(event, Refused)
    assert (event.callback, event.error.code) == (callback, ErrorCode.CLIENT_DISCONNECT)
    assert step.discard == ("half",)
    assert side.answer(exchange, Success()) == b""
    assert side.close() == Step()


def test_output_of_the_exporter_is_an_answer() -> None:
    side: PoolSide[str] = PoolSide()
    exchange = begin(side, Prng(KEY, b"EXPERIMENTAL", b"", 5), ())
    assert decode(side.answer(exchange, PrngOutput(b"12345")), answer=True).message == PrngOutput(b"12345")


class HostileApplication(RuleBasedStateMachine):
    """Whatever arrives: every descriptor is handed on exactly once, every callback ends at most once, every request likewise."""

    def __init__(self) -> None:
        super().__init__()
        self.side: PoolSide[int] = PoolSide(max_exchanges=20)
        self.given = 0
        self.seen: list[int] = []
        self.exchanges: list[Exchange] = []
        self.open: list[Callback] = []
        self.ended: set[int] = set()

    def take(self, step: Step[int]) -> None:
        self.seen += step.discard
        assert len(step.replies) in (0, PACKET_SIZE)
        for event in step.events:
            match event:
                case Asked(exchange, descriptor):
                    self.exchanges.append(exchange)
                    self.seen += [] if descriptor is None else [descriptor]
                case Answered(callback, _, descriptor):
                    self.finish(callback)
                    self.seen += [] if descriptor is None else [descriptor]
                case Refused(callback, _):
                    self.finish(callback)

    def finish(self, callback: Callback) -> None:
        assert id(callback) not in self.ended
        self.ended.add(id(callback))

    @rule(data=st.binary(min_size=1, max_size=PACKET_SIZE), count=st.integers(0, 3))
    def some_bytes(self, data: bytes, count: int) -> None:
        self.feed(data[: self.side.wanted], count)

    @rule(
        reqid=st.integers(0, 3),
        cbid=st.integers(0, 6),
        count=st.integers(0, 3),
        message=st.sampled_from([START, Ping(), Error(1), START.ask_plaintext(), START.ask_localid(), PinEntry(), Success()]),
    )
    def a_packet(self, reqid: int, cbid: int, count: int, message: Message) -> None:
        data = encode(Packet(reqid, cbid, message))
        while data:
            piece, data = data[: self.side.wanted], data[self.side.wanted :]
            self.feed(piece, count)
            count = 0

    def feed(self, data: bytes, count: int) -> None:
        descriptors = list(range(self.given, self.given + count))
        self.given += count
        if self.side.guarded:
            self.side.room[: len(data)] = data
            self.take(self.side.arrived(len(data), descriptors))
        else:
            self.take(self.side.receive(data, descriptors))

    @precondition(lambda self: not self.side.midway)
    @rule()
    def guard(self) -> None:
        self.side.guard()

    @precondition(lambda self: self.exchanges)
    @rule(pick=st.integers(0, 100))
    def call_back(self, pick: int) -> None:
        exchange = self.exchanges[pick % len(self.exchanges)]
        if exchange.open:
            callback, _ = self.side.call_back(exchange, START.ask_plaintext())
            self.open.append(callback)
        else:
            with pytest.raises(WireError):
                self.side.call_back(exchange, START.ask_plaintext())

    @precondition(lambda self: self.open)
    @rule(pick=st.integers(0, 100))
    def expire(self, pick: int) -> None:
        callback = self.open[pick % len(self.open)]
        self.side.expire(callback)
        self.ended.add(id(callback))

    @precondition(lambda self: self.exchanges)
    @rule(pick=st.integers(0, 100))
    def answer(self, pick: int) -> None:
        exchange = self.exchanges.pop(pick % len(self.exchanges))
        was_open = exchange.open
        assert bool(self.side.answer(exchange, Success())) == was_open
        self.ended |= {id(callback) for callback in self.open if callback.exchange is exchange}

    @invariant()
    def descriptors_are_handed_on_once(self) -> None:
        assert len(set(self.seen)) == len(self.seen)

    def teardown(self) -> None:
        self.take(self.side.close())
        assert sorted(self.seen) == list(range(self.given))
        assert all(id(callback) in self.ended for callback in self.open)


TestHostileApplication = HostileApplication.TestCase
TestHostileApplication.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
