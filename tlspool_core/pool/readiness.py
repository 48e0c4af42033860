"""The daemon's event loop: asyncio's, which learns from epoll(7) what is ready with little on top.

Theory of operation
-------------------
A session watches descriptors and stops to watch them several times, and each of its messages begins with a descriptor that became
ready.  asyncio spends a dozen calls on each of these, for all kinds of file objects, selectors and uses.  Here `add_reader` and its
like enter a callback into a table by the descriptor's number, and `select` calls it right where epoll has told of it.  What asyncio
watches for itself (its own socket coroutines, transports, its pipe for signals) goes its usual way through the same selector.

The loop also looks less often.  When handles wait to be run, it asks for what is ready without waiting (a time-out of 0), although
most of these handles are the next step of what it has just begun: a new task, or a task whose answer has come.  So a few such
questions in a row are answered with "nothing yet" and without the kernel; descriptors that became ready meanwhile are seen one step
later, and never later than after `_PASSES` of them.

A descriptor that was closed and opened anew while others were served may be told of once without being ready: callbacks read and write
without blocking, so that costs them nothing.  A callback that fails is logged, and concerns nobody else.

Whoever watches a descriptor stops to do so before it is closed.  epoll goes by what is open and not by the number: what is still open
elsewhere (in the application that handed it over) would be told of without end, and nobody could stop that.  Should it happen all the
same, the next one that is given the number is watched nevertheless.
"""

from __future__ import annotations

import asyncio
import logging
import select
import selectors
from collections.abc import Callable, Mapping
from selectors import EVENT_READ, EVENT_WRITE, SelectorKey
from typing import Any, Final, TypeVarTuple

log = logging.getLogger("tlspool.daemon")

_PASSES: Final = 4
_MOST: Final = 256  # descriptors told of at a time; the kernel lets all have their turn
_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT
_MASKS: Final = (0, _IN, _OUT, _IN | _OUT)

Call = tuple[Callable[..., Any], tuple[Any, ...]]
Arguments = TypeVarTuple("Arguments")


class _Watch:
    """What is to be called for one descriptor."""

    __slots__ = ("events", "reader", "writer")

    def __init__(self) -> None:
        self.events = 0
        self.reader: Call | None = None
        self.writer: Call | None = None


class Readiness(selectors.BaseSelector):
    """A selector over epoll for descriptors that are numbers or have a `fileno()`, which calls some callbacks itself."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._keys: dict[int, SelectorKey] = {}
        self._watched: dict[int, _Watch] = {}
        self._passed = 0

    # --- callbacks -----------------------------------------------------------------------------------------------------------

    def call_reader(self, fd: int, call: Call | None) -> bool:
        """Have this called whenever the descriptor can be read, None: nothing any more. Whether there was one before."""
        watch = self._watched.get(fd)
        if watch is None:
            watch = _Watch()
        had, watch.reader = watch.reader is not None, call
        if had and call is not None:
            self._renew(fd, watch.events)
        else:
            self._watch(fd, watch, watch.events & ~_IN if call is None else watch.events | _IN)
        return had

    def call_writer(self, fd: int, call: Call | None) -> bool:
        """The same for writing."""
        watch = self._watched.get(fd)
        if watch is None:
            watch = _Watch()
        had, watch.writer = watch.writer is not None, call
        if had and call is not None:
            self._renew(fd, watch.events)
        else:
            self._watch(fd, watch, watch.events & ~_OUT if call is None else watch.events | _OUT)
        return had

    def _watch(self, fd: int, watch: _Watch, events: int) -> None:
        before, watch.events = watch.events, events
        if events == before:
            return
        if not before:
            self._epoll.register(fd, events)
            self._watched[fd] = watch
        elif events:
            self._epoll.modify(fd, events)
        else:
            del self._watched[fd]
            self._forget(fd)

    def _renew(self, fd: int, events: int) -> None:
        """A number that is watched already is watched again: it may stand for something else by now, of which the kernel knows nothing."""
        try:
            self._epoll.modify(fd, events)
        except FileNotFoundError:
            self._epoll.register(fd, events)

    def _forget(self, fd: int) -> None:
        try:
            self._epoll.unregister(fd)
        except OSError:
            return  # it is closed, so the kernel has forgotten it

    # --- what asyncio watches for itself -------------------------------------------------------------------------------------

    def register(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        """Watch a descriptor. Raises KeyError if it is watched already, OSError if the kernel cannot."""
        fd = fileobj if type(fileobj) is int else fileobj.fileno()
        if fd in self._keys or fd in self._watched:
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
        self._forget(key.fd)
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
        """All that is registered, by number."""
        return self._keys

    # --- what is ready -------------------------------------------------------------------------------------------------------

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """Wait up to `timeout` seconds (None: for ever), call the callbacks of what is ready, and return the rest of it."""
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
        watched, ready = self._watched, []
        for fd, event in self._epoll.poll(wait, _MOST):
            # anything but the other kind (a hang-up, an error) is for whoever watches, of either kind
            watch = watched.get(fd)
            if watch is not None:
                if event & ~_OUT and watch.reader is not None:
                    _call(watch.reader)
                if event & ~_IN and watch.writer is not None:  # the reader may have ended that
                    _call(watch.writer)
            elif (key := self._keys.get(fd)) is not None:
                found = (EVENT_READ if event & ~_OUT else 0) | (EVENT_WRITE if event & ~_IN else 0)
                ready.append((key, found & key.events))
        return ready

    def close(self) -> None:
        self._epoll.close()
        self._keys.clear()
        self._watched.clear()


def _call(call: Call) -> None:
    callback, arguments = call
    try:
        callback(*arguments)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a CancelledError among them, which would end the loop
        log.exception("fault in a callback")


class PoolLoop(asyncio.SelectorEventLoop):
    """The daemon's event loop. A descriptor given to `add_reader` or `add_writer` is not for the loop's socket coroutines."""

    def __init__(self) -> None:
        self._readiness = Readiness()
        super().__init__(self._readiness)

    def add_reader(self, fd: Any, callback: Callable[[*Arguments], Any], *args: *Arguments) -> None:
        """Call `callback(*args)` whenever `fd`, a number or what has a `fileno()`, can be read; in no particular context."""
        self._readiness.call_reader(fd if type(fd) is int else fd.fileno(), (callback, args))

    def remove_reader(self, fd: Any) -> bool:
        """Stop that, before the descriptor is closed; whether there was something to stop."""
        number = fd if type(fd) is int else fd.fileno()
        return self._readiness.call_reader(number, None) or super().remove_reader(number)  # which the loop's socket coroutines call

    def add_writer(self, fd: Any, callback: Callable[[*Arguments], Any], *args: *Arguments) -> None:
        """As `add_reader`, for writing."""
        self._readiness.call_writer(fd if type(fd) is int else fd.fileno(), (callback, args))

    def remove_writer(self, fd: Any) -> bool:
        """As `remove_reader`, for writing."""
        number = fd if type(fd) is int else fd.fileno()
        return self._readiness.call_writer(number, None) or super().remove_writer(number)
