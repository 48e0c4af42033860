"""What the relays of one event loop share: the large buffers, and the memory of who is active.

Theory of operation
-------------------
A relay works only while it is called, and two are never called at a time, so one pair of buffers serves them all.  What a blocked
descriptor did not take is copied out and kept by its relay; the sum of that is limited here: above the limit, batches shrink to
what a record needs.

A relay may put off its next read by a tick (see `relay_pace`), which is one timer for all of them.

Keys in use hold a cipher object of 2.5 KiB in each direction, which can be made again in a microsecond.  Only the relays that worked
last keep theirs; whoever drops out of that list is told to relax.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import OrderedDict
from typing import Protocol

BATCH = 512 * 1024  # bytes read at once
SMALL_BATCH = 32 * 1024  # when memory is short; more than a record
_ROOM = 64 * 1024  # for headers, tags and the piece of a record left over from the read before
HELD_LIMIT = 64 << 20  # bytes kept for blocked descriptors, all relays together
_ACTIVE = 64  # relays that keep their cipher objects
TICK = 0.001  # seconds; the loop knows no shorter time


class Sharer(Protocol):
    """A relay, as far as it is of interest here."""

    def relax(self) -> None: ...

    def tick(self) -> None: ...


class Commons:
    """Shared by all relays of an event loop; `held` is the number of bytes that they keep for blocked descriptors."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # the loop keeps these commons alive, not the other way round
        self._call_later = weakref.WeakMethod(loop.call_later)
        self._putting_off: list[Sharer] = []
        self.incoming = memoryview(bytearray(BATCH + _ROOM))
        self.outgoing = memoryview(bytearray(BATCH + _ROOM))
        self.held = 0
        self._active: OrderedDict[Sharer, None] = OrderedDict()

    def touch(self, relay: Sharer) -> None:
        """The relay is about to work."""
        active = self._active
        if relay in active:
            active.move_to_end(relay)
            return
        active[relay] = None
        if len(active) > _ACTIVE:
            active.popitem(last=False)[0].relax()

    def put_off(self, relay: Sharer) -> None:
        """Call the relay's `tick` soon."""
        if not self._putting_off and (call_later := self._call_later()) is not None:
            call_later(TICK, self._tick)
        self._putting_off.append(relay)

    def _tick(self) -> None:
        relays, self._putting_off = self._putting_off, []
        for relay in relays:
            relay.tick()

    def forget(self, relay: Sharer) -> None:
        """The relay has ended."""
        self._active.pop(relay, None)


_commons: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Commons] = weakref.WeakKeyDictionary()


def commons_of(loop: asyncio.AbstractEventLoop) -> Commons:
    """The commons of a loop, made for its first relay."""
    commons = _commons.get(loop)
    if commons is None:
        commons = _commons[loop] = Commons(loop)
    return commons
