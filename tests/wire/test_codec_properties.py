"""Does every message survive the wire, and does nothing but MalformedPacket come out of any bytes?"""

from __future__ import annotations

import gc
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tlspool_core.wire.codec import PACKET_SIZE, decode, encode, seal
from tlspool_core.wire.errors import ErrorCode, MalformedPacket
from tlspool_core.wire.flags import Command
from tlspool_core.wire.messages import Error, LidentryRegister, Packet, PinEntry, Prng, StartTls, Success, clip


def packed(packet: Packet) -> bytes:
    """As it goes over the wire."""
    if not isinstance(packet.message, PinEntry) or packet.message.pin is None:
        return encode(packet)
    with seal(packet) as sealed:
        return bytes(sealed.used)


# how long an example takes says more of the machine's other work than of the codec
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
Strategies = tuple[st.SearchStrategy[Packet], st.SearchStrategy[Packet]]


@settings(UNHURRIED, max_examples=400)
@given(data=st.data())
def test_round_trip_to_the_pool(packets: Strategies, data: st.DataObject) -> None:
    packet = data.draw(packets[0])
    raw = packed(packet)
    assert len(raw) == PACKET_SIZE
    assert decode(raw) == packet


@settings(UNHURRIED, max_examples=200)
@given(data=st.data())
def test_round_trip_from_the_pool(packets: Strategies, data: st.DataObject) -> None:
    packet = data.draw(packets[1])
    assert decode(packed(packet), answer=True) == packet


@settings(UNHURRIED, max_examples=500)
@given(st.binary(min_size=4, max_size=4), st.sampled_from([int(c) for c in Command]), st.binary(max_size=380), st.booleans())
def test_any_bytes_give_a_packet_or_the_declared_error(numbers: bytes, command: int, body: bytes, answer: bool) -> None:
    raw = (numbers + command.to_bytes(4, "little") + body).ljust(PACKET_SIZE, b"\xff")
    try:
        packet = decode(raw, answer=answer)
    except MalformedPacket as fault:
        assert fault.code == ErrorCode.MALFORMED_PACKET
        assert fault.command == command
        assert 0 < len(fault.text) < 128
    else:
        assert decode(encode(packet), answer=answer) == packet


def test_random_packets_a_fixed_number_of_times() -> None:
    source = random.Random(388)
    for _ in range(3000):
        raw = bytearray(source.randbytes(PACKET_SIZE))
        raw[4:8] = source.choice(list(Command)).to_bytes(4, "little")
        try:
            decode(bytes(raw), answer=source.random() < 0.5)
        except MalformedPacket:
            continue


@pytest.mark.parametrize("size", [0, 1, 387, 389, 776])
def test_other_lengths_are_refused(size: int) -> None:
    with pytest.raises(MalformedPacket, match="388 bytes"):
        decode(bytes(size))


@pytest.mark.parametrize("command", [0x02, 0x20, 0x80000024, 0x102, 0x303, 0xFFFFFFFF])
def test_unknown_commands_are_refused_with_their_numbers(command: int) -> None:
    raw = b"\x05\x00\x06\x00" + command.to_bytes(4, "little") + bytes(380)
    with pytest.raises(MalformedPacket) as caught:
        decode(raw)
    assert (caught.value.code, caught.value.reqid, caught.value.cbid) == (ErrorCode.COMMAND_UNKNOWN, 5, 6)


def _spoilt(offset: int, piece: bytes) -> bytes:
    raw = bytearray(encode(Packet(1, 2, StartTls(localid="a", remoteid="b"))))
    raw[offset : offset + len(piece)] = piece
    return bytes(raw)


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (_spoilt(20, b"x" * 128), "localid is not terminated"),
        (_spoilt(148, b"x" * 128), "remoteid is not terminated"),
        (_spoilt(20, b"\xff\0"), "localid is not UTF-8"),
        (_spoilt(20, b"\xed\xa0\x80\0"), "localid is not UTF-8"),  # a surrogate
        (_spoilt(20, b"\xc0\x80\0"), "localid is not UTF-8"),  # an overlong NUL
        (_spoilt(292, b"\xe2\x82"), "service is not UTF-8"),
    ],
)
def test_bad_text_is_refused_and_named(raw: bytes, fault: str) -> None:
    with pytest.raises(MalformedPacket, match=fault) as caught:
        decode(raw)
    assert (caught.value.code, caught.value.reqid, caught.value.cbid) == (ErrorCode.MALFORMED_PACKET, 1, 2)


def test_service_may_fill_its_field() -> None:
    packet = Packet(0, 0, StartTls(service="sixteen-letters!"))
    assert decode(encode(packet)) == packet


def test_stale_bytes_behind_a_nul_are_ignored() -> None:
    assert decode(_spoilt(20, b"a\0" + b"\xff" * 126)).message == StartTls(localid="a", remoteid="b")


@pytest.mark.parametrize(
    "lengths",
    [(-1, -1, 16), (335, -1, 16), (300, 35, 16), (32767, 32767, 16), (5, -1, 0), (5, -1, -4), (5, -1, 351)],
)
def test_prng_lengths_that_do_not_fit(lengths: tuple[int, int, int]) -> None:
    raw = bytearray(encode(Packet(0, 0, Prng(bytes(16), b"label", None, 16))))
    raw[8:14] = b"".join(length.to_bytes(2, "little", signed=True) for length in lengths)
    with pytest.raises(MalformedPacket, match="PRNG"):
        decode(bytes(raw))


@pytest.mark.parametrize(
    "message",
    [
        StartTls(localid="x" * 128),
        StartTls(localid="a\0b"),
        StartTls(service="x" * 17),
        StartTls(ctlkey=b"short"),
        StartTls(ipproto=256),
        StartTls(timeout=-1),
        StartTls(localid="\ud800"),
        Prng(bytes(16), b"x" * 335, None, 1),
        Prng(bytes(15), b"x", None, 1),
    ],
)
def test_values_that_do_not_fit_are_the_callers_mistake(message: StartTls | Prng) -> None:
    with pytest.raises(ValueError, match=message.command.name):
        encode(Packet(0, 0, message))


@pytest.mark.parametrize("number", [-1, 0x10000])
def test_numbers_that_do_not_fit(number: int) -> None:
    with pytest.raises(ValueError, match="SUCCESS"):
        encode(Packet(number, 0, Success()))


@given(st.text(max_size=300))
def test_clipped_text_always_fits(text: str) -> None:
    assert len(clip(text).encode()) < 128
    encode(Packet(0, 0, Error.of(ErrorCode.HANDSHAKE_FAILED, text)))


def test_clipping_cuts_between_characters() -> None:
    assert clip("ä" * 100) == "ä" * 63


@pytest.mark.parametrize("kind", [StartTls, LidentryRegister])
def test_flags_that_someone_makes_up_are_not_kept(kind: Any) -> None:
    """Python's enumerations keep each combination that they are asked for, which is four thousand million here."""
    flags = type(kind().flags)

    def kept() -> int:
        return sum(type(each) is flags for each in gc.get_objects())

    for combination in range(1000, 1300):  # as many as a cache may hold
        decode(encode(Packet(1, 0, kind(flags=flags(combination << 12)))))
    before = kept()
    for combination in range(2000, 5000):
        raw = encode(Packet(1, 0, kind(flags=flags(combination << 12))))
        assert decode(raw).message.flags == combination << 12
        assert not decode(raw).message.flags & flags.NONE
    assert kept() <= before
