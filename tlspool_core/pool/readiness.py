"""How the daemon's event loop asks the kernel which descriptors are ready: epoll(7), with little on top.

Theory of operation
-------------------
asyncio brings its own selector, which serves all kinds of file objects and costs a dozen calls to watch a descriptor or to stop it; a
session does that several times.  This one keeps a table by number, and does the same in a few.

It also looks less often.  When handles wait to be run, the loop asks for what is ready without waiting (a time-out of 0), although
most of these handles are the next step of what it has just begun: a new task, or a task whose answer has come.  So a few such
questions in a row are answered with "nothing yet" and without the kernel; descriptors that became ready meanwhile are seen one step
later, and never later than after `_PASSES` of them.
"""

from __future__ import annotations

import asyncio
import select
import selectors
from collections.abc import Mapping
from selectors import EVENT_READ, EVENT_WRITE, SelectorKey
from typing import Any, Final

_PASSES: Final = 4
_MOST: Final = 256  # descriptors told of at a time; the kernel lets all have their turn
_MASKS: Final = (0, select.EPOLLIN, select.EPOLLOUT, select.EPOLLIN | select.EPOLLOUT)


class Readiness(selectors.BaseSelector):
    """A selector over epoll, for descriptors that are numbers or have a `fileno()`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._keys: dict[int, SelectorKey] = {}
        self._passed = 0

    # --- what is watched -----------------------------------------------------------------------------------------------------

    def register(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        """Watch a descriptor. Raises KeyError if it is watched already, OSError if the kernel cannot."""
        fd = fileobj if type(fileobj) is int else fileobj.fileno()
        if fd in self._keys:
            raise KeyError(f"descriptor {fd} is registered already")
        self._epoll.register(fd, _MASKS[events])
        key = self._keys[fd] = SelectorKey(fileobj, fd, events, data)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        """Watch a descriptor for something else, or on behalf of something else. Raises KeyError if it is not watched."""
        old = self.get_key(fileobj)
        if events != old.events:
            self._epoll.modify(old.fd, _MASKS[events])
        key = self._keys[old.fd] = SelectorKey(fileobj, old.fd, events, data)
        return key

    def unregister(self, fileobj: Any) -> SelectorKey:
        """Watch a descriptor no more. Raises KeyError if it is not watched."""
        key = self.get_key(fileobj)
        del self._keys[key.fd]
        try:  # noqa: SIM105 - a context manager costs more than all of this
            self._epoll.unregister(key.fd)
        except OSError:
            pass  # it is closed, so the kernel has forgotten it
        return key

    def get_key(self, fileobj: Any) -> SelectorKey:
        """What a descriptor is watched for. Raises KeyError if it is not."""
        if type(fileobj) is int:
            return self._keys[fileobj]
        fd = fileobj.fileno()
        if fd >= 0:
            return self._keys[fd]
        for key in self._keys.values():  # closed before it was unregistered
            if key.fileobj is fileobj:
                return key
        raise KeyError(f"{fileobj!r} is not registered")

    def get_map(self) -> Mapping[Any, SelectorKey]:
        """All that is watched, by number."""
        return self._keys

    # --- what is ready -------------------------------------------------------------------------------------------------------

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """What is ready, after waiting for it up to `timeout` seconds (None: for ever)."""
        if timeout is None:
            wait = -1.0
        elif timeout > 0:
            wait = timeout  # which `poll` rounds up to milliseconds: a timer must not find that it is too early
        elif self._passed < _PASSES:
            self._passed += 1
            return []
        else:
            wait = 0.0
        self._passed = 0
        keys = self._keys
        ready = []
        for fd, event in self._epoll.poll(wait, _MOST):
            key = keys.get(fd)
            if key is not None:
                # anything else (a hang-up, an error) is for whoever watches, of either kind
                found = (EVENT_READ if event & ~select.EPOLLOUT else 0) | (EVENT_WRITE if event & ~select.EPOLLIN else 0)
                ready.append((key, found & key.events))
        return ready

    def close(self) -> None:
        self._epoll.close()
        self._keys.clear()


def event_loop() -> asyncio.AbstractEventLoop:
    """The daemon's event loop; to be given to `asyncio.Runner`."""
    return asyncio.SelectorEventLoop(Readiness())
