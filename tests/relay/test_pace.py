"""Does a relay wait for more only where waiting slows nobody?"""

from __future__ import annotations

import os
import socket

from tlspool_core.fdpass import Descriptor
from tlspool_core.pool.relay_commons import BATCH, SMALL_BATCH, Commons
from tlspool_core.pool.relay_ends import plain_end
from tlspool_core.pool.relay_pace import Pace

ROOM = BATCH


def fed(*counts: int) -> Pace:
    pace = Pace()
    for count in counts:
        pace.took(count)
    return pace


def test_a_conversation_is_never_delayed() -> None:
    pace = fed(*[50_000] * 10, 300_000)
    assert not pace.can_wait(1000, ROOM)
    pace = fed(*[300_000] * 10)
    pace.streamed = 0  # something went the other way
    assert not pace.can_wait(1000, ROOM)


def test_a_stream_in_small_pieces_is_gathered() -> None:
    assert fed(*[300_000] * 10, 16_000).can_wait(16_000, ROOM)


def test_a_sender_with_a_small_buffer_is_not_kept_waiting() -> None:
    """It fills what it has, which is the most that a read can bring."""
    assert not fed(*[16_000] * 100).can_wait(16_000, ROOM)


def test_what_we_did_not_ask_for_is_not_waited_for() -> None:
    assert not fed(*[300_000] * 10, 40_000).can_wait(40_000, 40_000)


def test_the_batch_grows_with_full_reads_and_falls_when_blocked() -> None:
    commons, pace = Commons.__new__(Commons), Pace()
    commons.held = 0
    reading, writing = os.pipe()
    os.close(reading)
    end = plain_end(Descriptor(writing))
    sizes = []
    for _ in range(6):
        room = pace.room(commons, end)
        sizes.append(room)
        pace.took(room)
    assert sizes[-1] == BATCH
    assert sizes == sorted(sizes)
    for _ in range(10):
        pace.blocked()
    assert pace.room(commons, end) == SMALL_BATCH
    end.close()


def test_no_more_is_read_than_the_other_side_has_room_for() -> None:
    ours, theirs = socket.socketpair()
    end = plain_end(ours)
    commons, pace = Commons.__new__(Commons), fed(BATCH)
    commons.held = 0
    while room := pace.room(commons, end):
        assert room == end.write(memoryview(bytes(room)))
    assert pace.full
    while theirs.recv(1 << 20, socket.MSG_DONTWAIT) and end.space() < BATCH:
        pass
    assert pace.room(commons, end) >= SMALL_BATCH
    theirs.close()
    end.close()
