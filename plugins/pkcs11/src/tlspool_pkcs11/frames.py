"""Messages out of a stream of bytes that may split and join their frames.

Theory of operation
-------------------
Nearly always one read brings exactly one frame, which is parsed where it lies.  A frame of which more is to come is put together in room
of its length, known once its head is there; for requests that is locked memory, as they may carry a PIN.
"""

from __future__ import annotations

from collections.abc import Iterator

from tlspool_core.secret import Secret
from tlspool_pkcs11.protocol import HEAD, MAX_FRAME, REQUESTS, Message, ProtocolError, overwrite, parse_kind


class _Partial:
    """A frame of which more is to come; `locked` if it may hold a PIN."""

    def __init__(self, locked: bool) -> None:
        self._locked = locked
        self._view = memoryview(bytearray(HEAD.size))
        self._secret: Secret | None = None
        self._filled = 0
        self._end = 0  # unknown as long as the head is not complete

    def take(self, data: memoryview) -> memoryview:
        """Returns what is left of `data`, which belongs to the next frame. Raises ProtocolError."""
        taken = data[: len(self._view) - self._filled]
        self._view[self._filled : self._filled + len(taken)] = taken
        self._filled += len(taken)
        if self._locked:
            overwrite(taken)
        if not self._end and self._filled == HEAD.size:
            self._make_room()
        return data[len(taken) :]

    def _make_room(self) -> None:
        head, self._end = self._view, _end(HEAD.unpack(self._view)[0])
        if self._locked:
            self._secret = Secret(self._end)
            self._view = self._secret.view
        else:
            self._view = memoryview(bytearray(self._end))
        self._view[: HEAD.size] = head

    def message(self, direction: dict[int, type[Message]]) -> tuple[int, Message] | None:
        """The number and the message, once it is complete. Raises ProtocolError."""
        if not 0 < self._end == self._filled:
            return None
        _, kind, number = HEAD.unpack_from(self._view)
        try:
            return number, parse_kind(kind, self._view[HEAD.size :], direction)
        finally:
            if self._secret is not None:
                self._secret.wipe()


class Frames:
    """Takes bytes as they arrive and hands out whole messages of one direction (`REQUESTS` or `REPLIES`)."""

    def __init__(self, direction: dict[int, type[Message]]) -> None:
        self._direction = direction
        self._partial: _Partial | None = None

    def feed(self, data: bytes | memoryview) -> Iterator[tuple[int, Message]]:
        """All messages that are complete now, with their request numbers. Raises ProtocolError; the stream is then unusable."""
        rest = memoryview(data)
        while len(rest):
            if self._partial is None and len(rest) >= HEAD.size:
                # nearly always exactly one frame arrives, which need not be kept
                length, kind, number = HEAD.unpack_from(rest)
                end = _end(length)
                if end <= len(rest):
                    body, rest = rest[HEAD.size : end], rest[end:]
                    yield number, parse_kind(kind, body, self._direction)
                    continue
            if self._partial is None:
                self._partial = _Partial(locked=self._direction is REQUESTS)
            rest = self._partial.take(rest)
            if complete := self._partial.message(self._direction):
                self._partial = None
                yield complete


def _end(length: int) -> int:
    """How long a frame is with its length field. Raises ProtocolError."""
    if not HEAD.size - 4 <= length <= MAX_FRAME:
        raise ProtocolError(f"a frame of {length} bytes")
    return 4 + length
