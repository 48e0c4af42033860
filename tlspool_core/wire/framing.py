"""Packets and descriptors out of a stream that may split and join them.

Theory of operation
-------------------
A descriptor belongs to the packet whose first byte it came with.  The kernel hands over descriptors with any read that touches the
first byte of the message they were sent with, and a read may take the tail of one packet together with the head of the next.  So
whose they are can be told only by whoever never reads across the end of a packet: the assembler says in `wanted` how many bytes
are left of the current one, and its user reads no more than that.

Descriptors are opaque here (`F`): numbers, or objects that own one.  At most one rides on a packet; what comes beyond that, or in
the midst of a packet, is surplus.  Surplus is handed on with its packet, for its owner to close and to refuse the packet; but whoever
sends a packet in many pieces could pile up descriptors at the other end, so all but one go back before (`excess`).

Where a packet may carry a PIN, it is read in place: into the `room` of a `LockedAssembler`, which is locked memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from tlspool_core.secret import Secret
from tlspool_core.wire.codec import PACKET_SIZE

F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class Frame(Generic[F]):
    """The bytes of one packet, the descriptor that rode on it, and descriptors that should not have."""

    packet: bytes | memoryview
    descriptor: F | None = None
    surplus: tuple[F, ...] = ()


class Assembler(Generic[F]):
    """Collects one packet after the other. Owns the descriptors given to it until a frame or `abandon` hands them back."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._first: tuple[F, ...] = ()
        self._surplus: tuple[F, ...] = ()

    @property
    def wanted(self) -> int:
        """Bytes left of the current packet, at least 1: the most that the next read may ask for."""
        return PACKET_SIZE - len(self._buffer)

    @property
    def midway(self) -> bool:
        """A packet has begun and is not complete: a peer that stops here has broken off."""
        return bool(self._buffer)

    def feed(self, data: bytes, descriptors: Sequence[F] = ()) -> Frame[F] | None:
        """Take what one read brought; the packet that it completes, if it does.

        Raises ValueError if `data` is empty or reaches past the packet: then it can no longer be told whose the descriptors are.
        """
        if not 0 < len(data) <= self.wanted:
            raise ValueError(f"read at most {self.wanted} bytes at a time, not {len(data)}")
        if len(data) == PACKET_SIZE:  # as nearly always: there is nothing to be put together
            return Frame(data, descriptors[0] if descriptors else None, tuple(descriptors[1:]))
        self._sort(descriptors)
        self._buffer += data
        return self._complete(bytes(self._buffer)) if len(self._buffer) == PACKET_SIZE else None

    def _sort(self, descriptors: Sequence[F]) -> None:
        """Note what came with bytes that are about to be taken."""
        if self.midway:
            self._surplus += tuple(descriptors)
        else:
            self._first = tuple(descriptors)

    def _complete(self, packet: bytes | memoryview) -> Frame[F]:
        first = self._first
        frame = Frame(packet, first[0] if first else None, first[1:] + self._surplus)
        self._reset()
        return frame

    def excess(self) -> tuple[F, ...]:
        """What has come with an unfinished packet beyond its own descriptor, to be closed now; one stays, for which the packet is refused."""
        surplus = self._first[1:] + self._surplus
        self._first, self._surplus = self._first[:1], surplus[:1]
        return surplus[1:]

    def abandon(self) -> tuple[F, ...]:
        """Forget an unfinished packet; the descriptors that came with it, to be closed."""
        left = self._first + self._surplus
        self._reset()
        return left

    def _reset(self) -> None:
        self._buffer.clear()
        self._first = self._surplus = ()


class LockedAssembler(Assembler[F]):
    """Collects packets that may carry a PIN. There are locked pages only from the first byte of a packet until it is wiped."""

    def __init__(self) -> None:
        super().__init__()
        self._secret: Secret | None = None

    @property
    def wanted(self) -> int:
        return PACKET_SIZE - (0 if self._secret is None else self._secret.length)

    @property
    def midway(self) -> bool:
        return bool(self._secret)

    @property
    def room(self) -> memoryview:
        """Where the next read is to put what is left of the current packet."""
        if self._secret is None:
            self._secret = Secret(PACKET_SIZE)
        return self._secret.view[self._secret.length :]

    def filled(self, length: int, descriptors: Sequence[F] = ()) -> Frame[F] | None:
        """A read put `length` bytes into `room`; the packet that they complete, to be read before `wipe`.

        Raises ValueError like `feed`, which is not for this class.
        """
        if self._secret is None or not 0 < length <= self.wanted:
            raise ValueError(f"read at most {self.wanted} bytes at a time, not {length}")
        self._sort(descriptors)
        self._secret.length += length
        return self._complete(self._secret.used) if self._secret.length == PACKET_SIZE else None

    def wipe(self) -> None:
        """The packet is done with."""
        if self._secret is not None:
            self._secret.wipe()
            self._secret = None

    def abandon(self) -> tuple[F, ...]:
        self.wipe()
        return super().abandon()
