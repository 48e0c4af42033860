"""How much a relay reads at a time in one direction, and when it pays to wait.

Theory of operation
-------------------
The batch grows while reads fill it and falls to what the other side took when that was less, so that little has to be kept.

A stream that arrives in small pieces costs two system calls, a wake-up of its reader and a round of the loop for every piece.
So in the middle of one, after a small read, the next is put off by a tick.  This must not slow a sender that waits for
us: where its buffer is small, all reads are about as large as the largest, and then nothing is put off.  Nor must it delay
conversations: any data in the other direction ends the stream.
"""

from __future__ import annotations

from typing import Final

from tlspool_core.pool.relay_commons import BATCH, SMALL_BATCH

_FIRST: Final = 64 * 1024
_STREAM: Final = 1 << 20  # bytes in one direction, without any in the other
_LARGE: Final = 128 * 1024  # bytes; so much is read at once gladly


class Pace:
    """One direction. `window` is the number of bytes to read next; `streamed`, since there were any in the other direction."""

    __slots__ = ("_largest", "streamed", "window")

    def __init__(self) -> None:
        self.window = _FIRST
        self.streamed = 0
        self._largest = 0

    def took(self, count: int, room: int) -> None:
        """A read for which there was `room` brought `count` bytes."""
        self.streamed += count
        if count > self._largest:
            self._largest = count
        if count == room:
            self.window = min(2 * room, BATCH)

    def blocked(self, written: int) -> None:
        """Of what was read last, only `written` bytes were accepted at once."""
        self.window = max(min(written, BATCH), SMALL_BATCH)

    def can_wait(self, count: int) -> bool:
        """A read has just brought `count` bytes: better wait a little until more have come."""
        return self.streamed > _STREAM and count < _LARGE and 2 * count < self._largest
