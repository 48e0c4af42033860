"""Reading and writing the presentation language of RFC 8446 section 3.

Theory of operation
-------------------
A `Reader` stands over an exact slice; each vector yields a child over its own bytes and nothing else, so no length can reach
outside.  Whoever reads a structure ends it with `finish()`, which refuses left-over bytes.  All faults are `DecodeError`s.

Writing needs no state: the functions below each return bytes, and a structure is the sum of its fields.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from struct import Struct, pack, unpack
from typing import Any, Final

from tlspool_core.tls.alerts import BadLength, InternalError, TrailingBytes, TruncatedMessage

_UNBOUNDED: Final = 1 << 24  # more than any length says
_USUAL_LIST: Final = 128  # bytes


class Reader:
    """A cursor over one slice of bytes. Every method advances it, or raises a DecodeError."""

    __slots__ = ("_data", "_end", "_pos")

    def __init__(self, data: bytes, start: int = 0, end: int | None = None) -> None:
        self._data = data
        self._pos = start
        self._end = len(data) if end is None else end

    def __len__(self) -> int:
        """Bytes left."""
        return self._end - self._pos

    def __bool__(self) -> bool:
        return self._pos < self._end

    @property
    def position(self) -> int:
        """Offset of the cursor in the bytes that the outermost reader was made over."""
        return self._pos

    def _advance(self, count: int) -> int:
        start = self._pos
        if count > self._end - start:
            raise TruncatedMessage(f"{count} bytes wanted, {self._end - start} left")
        self._pos = start + count
        return start

    def u8(self) -> int:
        return self._data[self._advance(1)]

    def u16(self) -> int:
        start = self._advance(2)
        return self._data[start] << 8 | self._data[start + 1]

    def u24(self) -> int:
        start = self._advance(3)
        return int.from_bytes(self._data[start : start + 3], "big")

    def u32(self) -> int:
        start = self._advance(4)
        return int.from_bytes(self._data[start : start + 4], "big")

    def u64(self) -> int:
        start = self._advance(8)
        return int.from_bytes(self._data[start : start + 8], "big")

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes."""
        start = self._advance(count)
        return self._data[start : start + count]

    def fixed(self, fields: Struct) -> tuple[Any, ...]:
        """Several fields of fixed length at once."""
        return fields.unpack_from(self._data, self._advance(fields.size))

    def rest(self) -> bytes:
        """All bytes that are left."""
        start, self._pos = self._pos, self._end
        return self._data[start : self._end]

    def _span(self, prefix: int, minimum: int, maximum: int) -> int:
        """Move over a vector with `prefix` bytes of length; returns where its content starts, and leaves the cursor at its end."""
        start = self._pos + prefix
        length = int.from_bytes(self._data[start - prefix : start], "big")
        end = start + length
        if end > self._end:
            raise TruncatedMessage(f"{length} bytes wanted after {prefix} of length, {len(self)} left")
        if not minimum <= length <= maximum:
            raise BadLength(f"vector of {length} bytes, allowed are {minimum} to {maximum if maximum < _UNBOUNDED else 'any'}")
        self._pos = end
        return start

    def vector8(self, minimum: int = 0, maximum: int = _UNBOUNDED) -> bytes:
        """opaque field<minimum..maximum> with one byte of length."""
        start = self._span(1, minimum, maximum)
        return self._data[start : self._pos]

    def vector16(self, minimum: int = 0, maximum: int = _UNBOUNDED) -> bytes:
        """As `vector8`, with two bytes of length."""
        start = self._span(2, minimum, maximum)
        return self._data[start : self._pos]

    def vector24(self, minimum: int = 0, maximum: int = _UNBOUNDED) -> bytes:
        """As `vector8`, with three bytes of length."""
        start = self._span(3, minimum, maximum)
        return self._data[start : self._pos]

    def reader8(self, minimum: int = 0, maximum: int = _UNBOUNDED) -> Reader:
        """A child over the content of a vector with one byte of length."""
        start = self._span(1, minimum, maximum)
        return Reader(self._data, start, self._pos)

    def reader16(self, minimum: int = 0, maximum: int = _UNBOUNDED) -> Reader:
        start = self._span(2, minimum, maximum)
        return Reader(self._data, start, self._pos)

    def reader24(self, minimum: int = 0, maximum: int = _UNBOUNDED) -> Reader:
        start = self._span(3, minimum, maximum)
        return Reader(self._data, start, self._pos)

    def u16s8(self, minimum: int = 1) -> tuple[int, ...]:
        """A list of 16-bit values with one byte of length; `minimum` counts elements."""
        return split_u16s(self.vector8(2 * minimum))

    def u16s16(self, minimum: int = 1) -> tuple[int, ...]:
        """A list of 16-bit values with two bytes of length; `minimum` counts elements."""
        return split_u16s(self.vector16(2 * minimum))

    def finish(self) -> None:
        """The structure must be used up."""
        if self._pos != self._end:
            raise TrailingBytes(f"{self._end - self._pos} bytes after the end")


def split_u16s(content: bytes) -> tuple[int, ...]:
    """16-bit values without a length in front. Raises BadLength."""
    return _known_u16s(content) if len(content) <= _USUAL_LIST else _u16s_in(content)


def _u16s_in(content: bytes) -> tuple[int, ...]:
    if len(content) & 1:
        raise BadLength(f"list of 16-bit values in {len(content)} bytes")
    return unpack(f">{len(content) >> 1}H", content)


# what a program offers is the same in each of its hellos
_known_u16s: Final = lru_cache(maxsize=128)(_u16s_in)


def u8(value: int) -> bytes:
    return value.to_bytes(1, "big")


def u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def u24(value: int) -> bytes:
    return value.to_bytes(3, "big")


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _too_long(content: bytes, prefix: int) -> InternalError:
    return InternalError(f"{len(content)} bytes do not fit a vector with {prefix} bytes of length")


def vector8(content: bytes) -> bytes:
    """`content` after one byte of length. Raises InternalError if it does not fit: what we send is our own doing."""
    try:
        return len(content).to_bytes(1, "big") + content
    except OverflowError:
        raise _too_long(content, 1) from None


def vector16(content: bytes) -> bytes:
    """As `vector8`, with two bytes of length."""
    try:
        return len(content).to_bytes(2, "big") + content
    except OverflowError:
        raise _too_long(content, 2) from None


def vector24(content: bytes) -> bytes:
    """As `vector8`, with three bytes of length."""
    try:
        return len(content).to_bytes(3, "big") + content
    except OverflowError:
        raise _too_long(content, 3) from None


def u16s(values: Iterable[int]) -> bytes:
    """The values without a length in front."""
    listed = tuple(values)
    return pack(f">{len(listed)}H", *listed)
