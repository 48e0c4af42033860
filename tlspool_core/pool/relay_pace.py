"""How much a relay reads at a time in one direction, and when it pays to wait.

Theory of operation
-------------------
The batch grows while reads fill it.  Once it is large, the kernel is asked before each read how much the other side has room for,
so that nothing is left over that would have to be kept; where it has next to none, reading stops until it has.  If something is left
over all the same, the batch shrinks.

A stream that arrives in small pieces costs two system calls, a wake-up of its reader and a round of the loop for every piece.
So in the middle of one, after a small read, the next is put off by a tick.  This must not slow a sender that waits for
us: where its buffer is small, all reads are about as large as the largest, and then nothing is put off.  Nor must it delay
conversations: any data in the other direction ends the stream.
"""

from __future__ import annotations

from typing import Final

from tlspool_core.pool.relay_commons import BATCH, HELD_LIMIT, SMALL_BATCH, Commons
from tlspool_core.pool.relay_ends import End

_FIRST: Final = 64 * 1024
STREAM: Final = 1 << 20  # bytes in one direction, without any in the other
_LARGE: Final = 128 * 1024  # bytes; so much is read at once gladly


class Pace:
    """One direction. `streamed` counts bytes since there were any in the other direction; `full`: the other side has no room."""

    __slots__ = ("_largest", "_window", "full", "streamed")

    def __init__(self) -> None:
        self._window = _FIRST
        self._largest = 0
        self.streamed = 0
        self.full = False

    def room(self, commons: Commons, into: End) -> int:
        """Bytes to read now, to be written to `into`; 0 and `full` if that should have room first."""
        window = self._window if commons.held < HELD_LIMIT else SMALL_BATCH
        if window <= _FIRST or not into.can_write:
            return window
        space = into.space()
        if space >= window:
            return window
        if space >= SMALL_BATCH:
            return space
        self.full = True
        return 0

    def took(self, count: int) -> None:
        """A read brought `count` bytes."""
        self.streamed += count
        if count > self._largest:
            self._largest = count
        if count >= self._window:
            self._window = min(2 * count, BATCH)

    def blocked(self) -> None:
        """What was read last was not accepted at once."""
        self._window = max(self._window // 2, SMALL_BATCH)

    def can_wait(self, count: int, room: int) -> bool:
        """A read has just brought `count` bytes, of `room`: better wait a little until more have come."""
        return self.streamed > STREAM and count < room and count < _LARGE and 2 * count < self._largest
