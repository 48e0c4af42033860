"""Do both ends of the worker's socket refuse whatever is not the protocol, and only that?"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tlspool_pkcs11 import protocol as wire
from tlspool_pkcs11.frames import Frames
from tlspool_pkcs11.protocol import HEAD, REPLIES, REQUESTS, Message, ProtocolError, build, build_body, build_frame

from tlspool_core.api import Secret

_BITS = {"B": 8, "H": 16, "I": 32, "Q": 64}
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def _field(letter: Any) -> st.SearchStrategy[Any]:
    if letter in _BITS:
        return st.integers(0, 2 ** _BITS[letter] - 1)
    if letter == "b":
        return st.binary(max_size=40)
    if letter == "s":
        return st.none() | st.binary(min_size=1, max_size=40).map(Secret.of)
    if letter == "t":
        return _TEXT
    if letter == "q":
        return st.lists(st.integers(0, 2**64 - 1), max_size=5).map(tuple)
    return st.lists(_message(letter), max_size=3).map(tuple)


def whole(number: int, message: Any) -> bytes:
    """The frame of a message, its PIN and all."""
    pin = bytes(getattr(message, "pin", None).used) if getattr(message, "pin", None) else b""
    return build_frame(number, message.KIND, build_body(message), len(pin)) + pin


def _message(kind: type[Message]) -> st.SearchStrategy[Any]:
    return st.builds(kind, *map(_field, kind.LAYOUT))


_NUMBER = st.integers(0, 2**32 - 1)
ALL = {**REQUESTS, **REPLIES}
MESSAGES = st.sampled_from(sorted(ALL)).flatmap(lambda kind: _message(ALL[kind]))


@given(st.lists(st.tuples(_NUMBER, MESSAGES), max_size=4), st.integers(1, 50))
def test_messages_arrive_as_they_were_sent_however_they_are_split(sent: list[tuple[int, Any]], step: int) -> None:
    stream = b"".join(whole(number, message) for number, message in sent)
    frames = Frames(ALL)
    received = [each for at in range(0, len(stream), step) for each in frames.feed(stream[at : at + step])]
    assert received == sent


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_any_bytes_are_messages_or_a_protocol_error(chunks: list[bytes]) -> None:
    for direction in (REQUESTS, REPLIES):
        frames = Frames(direction)
        try:
            for chunk in chunks:
                for _, message in frames.feed(chunk):
                    assert isinstance(message, Message)
        except ProtocolError:
            pass


@given(MESSAGES, st.data())
def test_a_changed_frame_is_a_message_or_a_protocol_error(message: Any, data: Any) -> None:
    frame = bytearray(whole(7, message))
    at = data.draw(st.integers(4, len(frame) - 1))
    frame[at] ^= data.draw(st.integers(1, 255))
    try:
        for _, received in Frames(ALL).feed(bytes(frame)):
            assert build(7, received)
    except ProtocolError:
        pass


@given(MESSAGES)
def test_a_shorter_or_longer_body_is_refused(message: Any) -> None:
    frame = whole(1, message)
    body = frame[HEAD.size :]
    for changed in (body[:-1], body + b"\0"):
        if changed == body:
            continue
        head = HEAD.pack(5 + len(changed), message.KIND, 1)
        with pytest.raises(ProtocolError):
            list(Frames(ALL).feed(head + changed))


@pytest.mark.parametrize(
    "frame",
    [
        HEAD.pack(4, 6, 1),  # shorter than its own head
        HEAD.pack(wire.MAX_FRAME + 1, 6, 1),
        HEAD.pack(5, 99, 1),  # no such kind
        HEAD.pack(5, wire.ListTokens.KIND, 1),  # the wrong direction
        HEAD.pack(9, wire.Tokens.KIND, 1) + b"\xff\xff\xff\xff",  # a list without end
        HEAD.pack(11, wire.Failed.KIND, 1) + bytes(6),
        HEAD.pack(5 + 14, wire.Failed.KIND, 1) + bytes(8) + b"\0\0\0\2\xc3\x28",  # not UTF-8
    ],
)
def test_frames_that_are_refused(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(Frames(REPLIES).feed(frame))


@given(_message(wire.Sign))
def test_the_quick_ways_of_a_signature_are_the_same_as_the_general_ones(sign: wire.Sign) -> None:
    frame = whole(1, sign)
    body = frame[HEAD.size :]
    ((_, received),) = Frames(REQUESTS).feed(frame)
    assert received == wire.parse(body, wire.Sign) == sign
    plain = dataclasses.replace(sign, authenticate=0, pin=None)
    template = wire.SignTemplate(sign.reference, sign.mechanism, sign.parameters)
    assert template.body(sign.data) == wire.build_body(plain)


def test_what_would_be_too_long_is_not_sent() -> None:
    with pytest.raises(ProtocolError):
        build(1, wire.Value(bytes(wire.MAX_FRAME)))


def test_no_message_shows_a_pin_or_a_secret() -> None:
    pin = Secret.of(b"123456")
    for message in (wire.Login(1, 0, pin), wire.Sign(1, 2, 1, (), b"", pin), wire.Value(b"123456")):
        assert "123456" not in repr(message)


def test_a_pin_does_not_linger_in_the_receive_buffer() -> None:
    received = bytearray(
        whole(1, wire.Login(1, 0, Secret.of(b"123456"))) + whole(2, wire.Sign(1, 2, 1, (), b"x", Secret.of(b"654321")))
    )
    messages = [message for _, message in Frames(REQUESTS).feed(memoryview(received))]
    assert [message.pin.text() for message in messages] == ["123456", "654321"]
    assert b"123456" not in received
    assert b"654321" not in received
