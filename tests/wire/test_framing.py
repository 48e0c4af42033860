"""Does each descriptor stay with its packet, however the stream is cut?"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlspool_core.wire.codec import PACKET_SIZE
from tlspool_core.wire.framing import Assembler, Frame

# what a hostile sender may do: per packet the descriptors on its first byte, and those on some later byte
SENT = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(1, PACKET_SIZE - 1)), min_size=1, max_size=5)


def read_as_the_kernel_does(sent: list[tuple[int, int, int]], sizes: list[int]) -> list[Frame[str]]:
    """Frames out of a stream, read in pieces of at most `sizes`; a read ends before a byte that has descriptors, unless it is first."""
    stream, rights = bytearray(), {}
    for number, (first, late, where) in enumerate(sent):
        start = len(stream)
        stream += bytes([number]) * PACKET_SIZE
        rights[start] = [f"{number}:{i}" for i in range(first)]
        rights[start + where] = [f"late {number}:{i}" for i in range(late)]
    assembler: Assembler[str] = Assembler()
    frames, at, turn = [], 0, 0
    while at < len(stream):
        size = min(sizes[turn % len(sizes)], assembler.wanted)
        stop = next((place for place in sorted(rights) if at < place < at + size and rights[place]), at + size)
        frame = assembler.feed(bytes(stream[at:stop]), rights.get(at, []))
        frames += [frame] if frame is not None else []
        at, turn = stop, turn + 1
    assert not assembler.midway
    assert assembler.wanted == PACKET_SIZE
    return frames


@settings(max_examples=300)
@given(SENT, st.lists(st.integers(1, 1000), min_size=1, max_size=6))
def test_any_split_keeps_packets_and_descriptors_together(sent: list[tuple[int, int, int]], sizes: list[int]) -> None:
    frames = read_as_the_kernel_does(sent, sizes)
    assert [frame.packet for frame in frames] == [bytes([number]) * PACKET_SIZE for number in range(len(sent))]
    for number, (frame, (first, late, _)) in enumerate(zip(frames, sent, strict=True)):
        assert frame.descriptor == (f"{number}:0" if first else None)
        assert list(frame.surplus) == [f"{number}:{i}" for i in range(1, first)] + [f"late {number}:{i}" for i in range(late)]


@given(st.integers(1, PACKET_SIZE - 1), st.integers(0, 3), st.integers(0, 3))
def test_what_is_abandoned_midway_is_handed_back(cut: int, first: int, late: int) -> None:
    assembler: Assembler[int] = Assembler()
    expected = list(range(first + late))
    assembler.feed(b"x" * cut, expected[:first])
    if cut < PACKET_SIZE - 1:
        assembler.feed(b"x", expected[first:])
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
