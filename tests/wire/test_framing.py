"""Does each descriptor stay with its packet, however the stream is cut?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlspool_core.wire.codec import PACKET_SIZE
from tlspool_core.wire.framing import Assembler, Frame, LockedAssembler

# what a hostile sender may do: per packet the descriptors on its first byte, and those on some later byte
SENT = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(1, PACKET_SIZE - 1)), min_size=1, max_size=5)


def take(assembler: Assembler[str], data: bytes, descriptors: Sequence[str]) -> Frame[str] | None:
    """One read; out of locked memory the packet is gone with the next one."""
    if not isinstance(assembler, LockedAssembler):
        return assembler.feed(data, descriptors)
    assembler.room[: len(data)] = data
    frame = assembler.filled(len(data), descriptors)
    if frame is None:
        return None
    kept = replace(frame, packet=bytes(frame.packet))
    assembler.wipe()
    assert not any(frame.packet)
    return kept


def read_as_the_kernel_does(assembler: Assembler[str], sent: list[tuple[int, int, int]], sizes: list[int]) -> list[Frame[str]]:
    """Frames out of a stream, read in pieces of at most `sizes`; a read ends before a byte that has descriptors, unless it is first."""
    stream, rights = bytearray(), {}
    for number, (first, late, where) in enumerate(sent):
        start = len(stream)
        stream += bytes([number]) * PACKET_SIZE
        rights[start] = [f"{number}:{i}" for i in range(first)]
        rights[start + where] = [f"late {number}:{i}" for i in range(late)]
    frames, at, turn = [], 0, 0
    while at < len(stream):
        size = min(sizes[turn % len(sizes)], assembler.wanted)
        stop = next((place for place in sorted(rights) if at < place < at + size and rights[place]), at + size)
        frame = take(assembler, bytes(stream[at:stop]), rights.get(at, []))
        frames += [frame] if frame is not None else []
        at, turn = stop, turn + 1
    assert not assembler.midway
    assert assembler.wanted == PACKET_SIZE
    return frames


@settings(max_examples=300)
@given(st.sampled_from([Assembler, LockedAssembler]), SENT, st.lists(st.integers(1, 1000), min_size=1, max_size=6))
def test_any_split_keeps_packets_and_descriptors_together(
    kind: type[Assembler[str]], sent: list[tuple[int, int, int]], sizes: list[int]
) -> None:
    frames = read_as_the_kernel_does(kind(), sent, sizes)
    assert [frame.packet for frame in frames] == [bytes([number]) * PACKET_SIZE for number in range(len(sent))]
    for number, (frame, (first, late, _)) in enumerate(zip(frames, sent, strict=True)):
        assert frame.descriptor == (f"{number}:0" if first else None)
        assert list(frame.surplus) == [f"{number}:{i}" for i in range(1, first)] + [f"late {number}:{i}" for i in range(late)]


@given(st.sampled_from([Assembler, LockedAssembler]), st.integers(1, PACKET_SIZE - 1), st.integers(0, 3), st.integers(0, 3))
def test_what_is_abandoned_midway_is_handed_back(kind: type[Assembler[str]], cut: int, first: int, late: int) -> None:
    assembler = kind()
    expected = [str(number) for number in range(first + late)]
    take(assembler, b"x" * cut, expected[:first])
    if cut < PACKET_SIZE - 1:
        take(assembler, b"x", expected[first:])
    else:
        expected = expected[:first]
    assert assembler.midway
    assert list(assembler.abandon()) == expected
    assert not assembler.midway
    assert assembler.abandon() == ()


@pytest.mark.parametrize("size", [0, PACKET_SIZE + 1])
def test_reading_across_the_end_of_a_packet_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="388"):
        Assembler[int]().feed(bytes(size))
    locked = LockedAssembler[int]()
    assert len(locked.room) == PACKET_SIZE
    with pytest.raises(ValueError, match="388"):
        locked.filled(size)
