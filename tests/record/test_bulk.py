"""Does the batch do exactly what the record layer does, whatever the sizes, and leave alone what is not its business?"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlspool_core.tls.alerts import BadRecordMac, InternalError, RecordOverflow
from tlspool_core.tls.bulk import open_batch, seal_batch, sealed_capacity
from tlspool_core.tls.protection import MAX_SEQUENCE, AeadProtection, Protection
from tlspool_core.tls.record import RecordLayer

ROOM = 700_000


def layers(make: Callable[[], Protection], limit: int = 16385) -> tuple[RecordLayer, RecordLayer]:
    """Two ends under the same keys; the first sends to the second."""
    sender, receiver = RecordLayer(), RecordLayer()
    sender.set_write_protection(make())
    receiver.set_read_protection(make())
    for layer in (sender, receiver):
        layer.version = 0x0304 if make().hides_type else 0x0303
    sender.limit_sent(limit)
    receiver.limit_received(limit)
    return sender, receiver


def sealed(sender: RecordLayer, data: bytes) -> bytes:
    plain, out = memoryview(bytearray(data + b"?")), memoryview(bytearray(ROOM))
    assert len(data) <= sealed_capacity(sender, ROOM)
    filled = seal_batch(sender, plain, len(data), out)
    assert bytes(plain) == data + b"?", "the plaintext buffer is as before"
    return bytes(out[:filled])


def by_records(receiver: RecordLayer, wire: bytes) -> list[tuple[int, bytes]]:
    receiver.feed(wire)
    found = []
    while (record := receiver.next_record()) is not None:
        found.append(record)
    return found


@given(
    sizes=st.lists(st.sampled_from([0, 1, 16, 1000, 16383, 16384, 16385, 40000, 65536]), max_size=4), limit=st.integers(64, 20000)
)
@settings(max_examples=12, deadline=None)
def test_what_is_sealed_by_the_batch_opens_record_by_record(make: Callable[[], Protection], sizes: list[int], limit: int) -> None:
    sender, receiver = layers(make, limit)
    for size in sizes:
        data = random.Random(size).randbytes(size)
        records = by_records(receiver, sealed(sender, data))
        assert b"".join(content for _, content in records) == data
        assert {kind for kind, _ in records} <= {23}
        assert len(records) == -(-size // sender.max_fragment)


@given(sizes=st.lists(st.integers(1, 16384), min_size=1, max_size=12), cut=st.floats(0, 1), most=st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_records_of_any_size_open_by_the_batch(
    make_aead: Callable[[], Protection], sizes: list[int], cut: float, most: int
) -> None:
    """Cut anywhere: the records before the cut are opened, the rest is not touched and opens when it is complete."""
    sender, receiver = layers(make_aead)
    data = [random.Random(size).randbytes(size) for size in sizes]
    for piece in data:
        sender.write(23, piece)
    wire = memoryview(bytearray(sender.take_output()))
    out = memoryview(bytearray(len(wire)))
    end = round(cut * len(wire))
    position = filled = 0
    while True:
        opened = open_batch(receiver, wire, position, end, out, filled, most)
        position, filled = opened.position, opened.filled
        assert opened.odd == 0
        if opened.full:
            continue
        if end == len(wire):
            break
        end = len(wire)
    assert position == len(wire)
    assert bytes(out[:filled]) == b"".join(data)


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        (b"padded\x17\0\0", (23, b"padded")),
        (b"\x17", (23, b"")),
        (b"\x17\0\0\0", (23, b"")),
        (b"\1\0\x15", (21, b"\1\0")),
        (b"ticket\x16", (22, b"ticket")),
    ],
)
def test_odd_records_are_left_to_the_connection(
    make13: Callable[[], Protection], inner: bytes, expected: tuple[int, bytes]
) -> None:
    sender, receiver = layers(make13)
    protection = sender.write_protection
    wire = memoryview(bytearray(protection.seal(23, b"before") + protection.seal(0, inner) + protection.seal(23, b"after")))
    out = memoryview(bytearray(len(wire)))
    opened = open_batch(receiver, wire, 0, len(wire), out, 0, 10)
    assert bytes(out[: opened.filled]) == b"before"
    assert opened.odd == 5 + len(inner) + 1 + 16
    after = opened.position + opened.odd
    assert by_records(receiver, bytes(wire[opened.position : after])) == [expected]
    opened = open_batch(receiver, wire, after, len(wire), out, 0, 10)
    assert bytes(out[: opened.filled]) == b"after"


def test_forgery_is_left_to_the_connection_which_refuses_it(make_aead: Callable[[], Protection]) -> None:
    sender, receiver = layers(make_aead)
    wire = memoryview(bytearray(sealed(sender, b"good") + sealed(sender, b"bad")))
    wire[-1] ^= 1
    out = memoryview(bytearray(len(wire)))
    opened = open_batch(receiver, wire, 0, len(wire), out, 0, 10)
    assert bytes(out[: opened.filled]) == b"good"
    assert receiver.read_protection.sequence == 1
    with pytest.raises(BadRecordMac):
        by_records(receiver, bytes(wire[opened.position : opened.position + opened.odd]))


def test_too_much_plaintext_is_left_to_the_connection_which_refuses_it(make_aead: Callable[[], Protection]) -> None:
    _, receiver = layers(make_aead, 100)
    wire = memoryview(bytearray(make_aead().seal(23, bytes(101))))
    opened = open_batch(receiver, wire, 0, len(wire), memoryview(bytearray(200)), 0, 10)
    assert (opened.position, opened.odd) == (0, len(wire))
    with pytest.raises(RecordOverflow):
        by_records(receiver, bytes(wire))


def test_header_of_an_impossible_length_is_not_waited_for(make: Callable[[], Protection]) -> None:
    _, receiver = layers(make)
    wire = memoryview(bytearray(b"\x17\x03\x03\xff\xffabc"))
    opened = open_batch(receiver, wire, 0, len(wire), memoryview(bytearray(100)), 0, 10)
    assert opened.odd == len(wire)
    with pytest.raises(RecordOverflow):
        by_records(receiver, bytes(wire))


def test_sequence_numbers_never_wrap(make_aead: Callable[[], Protection]) -> None:
    sender, _ = layers(make_aead)
    sender.write_protection.sequence = MAX_SEQUENCE - 2
    with pytest.raises(InternalError):
        sealed(sender, bytes(3 * 16384))
    assert sealed(sender, bytes(2 * 16384))
    with pytest.raises(InternalError):
        sender.write_protection.seal(23, b"x")


def test_a_relaxed_key_is_the_same_key(make: Callable[[], Protection]) -> None:
    one, other = make(), make()
    record = one.seal(23, b"before")
    one.relax()
    assert other.open(record[:5], record[5:]) == (23, b"before")
    other.relax()
    record = one.seal(23, b"after")
    assert other.open(record[:5], record[5:]) == (23, b"after")


def test_usage_limit_is_that_of_the_cipher(make: Callable[[], Protection]) -> None:
    """RFC 8446 section 5.5: 2^24.5 records for AES-GCM; none that matters for ChaCha20-Poly1305."""
    protection = make()
    protection.sequence = 23_800_000
    limited = isinstance(protection, AeadProtection) and "AESGCM" in type(protection.aead).__name__
    assert protection.needs_update == limited
    protection.sequence = 20_000_000
    assert not protection.needs_update
