"""Data whose every byte can be verified: position-dependent, and as cheap to compare as memory can be read."""

from __future__ import annotations

import random

PERIOD = (1 << 20) + 4093  # no multiple of any size that occurs in records, buffers or pages
_block = random.Random(20261123).randbytes(PERIOD)
_REACH = 1 << 20
_view = memoryview(_block + _block[:_REACH])


def piece(position: int, length: int) -> memoryview:
    """The bytes at a position of the endless pattern; `length` is at most 1 MiB."""
    start = position % PERIOD
    return _view[start : start + length]


class Verifier:
    """Compares what comes in, in pieces of any size, with the pattern."""

    def __init__(self) -> None:
        self.position = 0

    def take(self, data: memoryview) -> None:
        """Raises ValueError at the first piece that differs."""
        for start in range(0, len(data), _REACH):
            part = data[start : start + _REACH]
            if part != piece(self.position, len(part)):
                raise ValueError(f"bytes {self.position} to {self.position + len(part)} are not what was sent")
            self.position += len(part)
