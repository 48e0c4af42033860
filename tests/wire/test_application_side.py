"""Does the application's end give each packet to the right request, and keep late ones from the wrong one?"""

from __future__ import annotations

import pytest

from tlspool_core.wire.application import ApplicationSide, Incoming
from tlspool_core.wire.codec import decode, encode
from tlspool_core.wire.errors import ErrorCode, MalformedPacket, WireError
from tlspool_core.wire.messages import Error, Message, Packet, Ping, StartTls, Success


def give(side: ApplicationSide, reqid: int, message: Message, cbid: int = 0) -> Incoming:
    return side.receive(encode(Packet(reqid, cbid, message)))


def test_requests_get_numbers_of_their_own() -> None:
    side = ApplicationSide()
    numbers = [side.request(Ping())[0] for _ in range(5)]
    assert len(set(numbers)) == 5
    side.release(numbers[0])
    assert side.request(Ping())[0] not in numbers, "a number rests before it is used again"


def test_callbacks_and_answers_reach_their_request() -> None:
    side = ApplicationSide()
    first, data = side.request(StartTls(localid="a"))
    second, _ = side.request(Ping())
    assert decode(data) == Packet(first, 0, StartTls(localid="a"))
    answer = give(side, second, Ping()).packet
    callback = give(side, first, StartTls().ask_plaintext(), cbid=9).packet
    assert answer == Packet(second, 0, Ping())
    assert callback == Packet(first, 9, StartTls().ask_plaintext())
    assert decode(side.answer(callback, callback.message)) == callback


def test_split_packets_are_joined() -> None:
    side = ApplicationSide()
    reqid, _ = side.request(Ping())
    raw = encode(Packet(reqid, 0, Success()))
    assert side.receive(raw[:100]) == Incoming()
    assert side.wanted == 288
    assert side.receive(raw[100:]).packet == Packet(reqid, 0, Success())


def test_what_was_abandoned_is_refused_and_its_answer_dropped() -> None:
    side = ApplicationSide()
    reqid, _ = side.request(StartTls())
    side.abandon(reqid)
    step = give(side, reqid, StartTls().ask_plaintext(), cbid=3)
    assert step.packet is None
    reply = decode(step.replies)
    assert (reply.reqid, reply.cbid) == (reqid, 3)
    assert isinstance(reply.message, Error)
    assert reply.message.tlserrno == ErrorCode.CLIENT_REFUSES_CALLBACK
    assert give(side, reqid, Error(1)) == Incoming()


def test_numbers_of_abandoned_requests_stay_reserved() -> None:
    side = ApplicationSide()
    numbers = [side.request(Ping())[0] for _ in range(0xFFFF)]
    with pytest.raises(WireError):
        side.request(Ping())
    side.abandon(numbers[4])
    with pytest.raises(WireError):
        side.request(Ping())
    give(side, numbers[4], Ping())
    assert side.request(Ping())[0] == numbers[4]


def test_strangers_are_ignored() -> None:
    assert give(ApplicationSide(), 77, Ping()) == Incoming()


def test_what_is_no_packet_is_the_end() -> None:
    side = ApplicationSide()
    with pytest.raises(MalformedPacket):
        side.receive(b"\xff" * 388)


def test_a_request_that_does_not_fit_takes_no_number() -> None:
    side = ApplicationSide()
    with pytest.raises(ValueError, match="STARTTLS"):
        side.request(StartTls(localid="x" * 200))
    assert side.request(Ping())[0] == 1
