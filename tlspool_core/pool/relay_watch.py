"""What a relay waits for: two descriptors, for reading and writing, and its time limits.

Theory of operation
-------------------
`watch` is told after each step which of four things the relay can go on with, and tells the event loop only what has changed.
Nothing else of a relay touches the loop, so that a descriptor is known not to be watched any more before it is closed.
Idleness costs one timer, which looks back when it fires instead of being set anew with each step.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from tlspool_core.pool.logs import session_id
from tlspool_core.pool.relay_ends import End, SocketEnd

log = logging.getLogger("tlspool.relay")

CIPHER_READ: Final = 1
CIPHER_WRITE: Final = 2
PLAIN_READ: Final = 4
PLAIN_WRITE: Final = 8


class Watched(ABC):
    """A relay, as the event loop sees it."""

    __slots__ = (
        "_armed",
        "_cipher",
        "_deferred",
        "_idle_timeout",
        "_idle_timer",
        "_last_active",
        "_limited",
        "_loop",
        "_name",
        "_plain",
        "_session_timer",
        "closed",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        cipher: SocketEnd,
        plain: End,
        idle_timeout: float | None,
        session_timeout: float | None,
        name: str,
    ) -> None:
        """Times in seconds; `name` of the session, for the log."""
        self._loop = loop
        self._name = name
        self._cipher = cipher
        self._plain = plain
        self._armed = 0
        self._deferred = 0  # what is put off until the next tick
        self._idle_timer: asyncio.TimerHandle | None = None
        self._session_timer: asyncio.TimerHandle | None = None
        self._limited = False  # for good
        self.limit(idle_timeout, session_timeout)
        self.closed = False

    # --- steps -------------------------------------------------------------------------------------------------------------------

    @abstractmethod
    def _read_cipher(self) -> bool: ...

    @abstractmethod
    def _drain_cipher(self) -> None: ...

    @abstractmethod
    def _read_plain(self) -> bool: ...

    @abstractmethod
    def _drain_plain(self) -> None: ...

    @abstractmethod
    def _needed(self) -> int:
        """What can be gone on with, once it is ready."""

    @abstractmethod
    def _settle(self) -> None:
        """Follow up on a step."""

    @abstractmethod
    def close(self, cause: str = "closed") -> None: ...

    @abstractmethod
    def abort(self, cause: str) -> None: ...

    def _run(self, step: Callable[[], bool | None]) -> None:
        """One step and, unless it says that there is nothing to it, what follows from it. A fault ends this session only."""
        if self.closed:
            return
        if self._idle_timer is not None:
            self._last_active = self._loop.time()
        try:
            if not step() and not self.closed:
                self._settle()
        except Exception:
            token = session_id.set(self._name)  # the loop calls in no particular context
            log.exception("fault in a relay")
            session_id.reset(token)
            self.abort("fault")

    # --- descriptors -------------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Do now what was put off."""
        deferred, self._deferred = self._deferred, 0
        for bit, step in ((CIPHER_READ, self._read_cipher), (PLAIN_READ, self._read_plain)):
            if deferred & bit and not self.closed and self._needed() & bit:
                self._run(step)

    def _watch(self, wanted: int) -> None:
        """Have the loop watch exactly this."""
        armed = self._armed
        if wanted == armed:
            return
        self._armed = wanted
        stopped, started = armed & ~wanted, wanted & ~armed
        if stopped:
            self._unwatch(stopped)
        if started & CIPHER_READ:
            self._loop.add_reader(self._cipher.fd, self._run, self._read_cipher)
        if started & CIPHER_WRITE:
            self._loop.add_writer(self._cipher.fd, self._run, self._drain_cipher)
        if started & PLAIN_WRITE:
            self._loop.add_writer(self._plain.fd, self._run, self._drain_plain)
        if started & PLAIN_READ:
            self._watch_plain()

    def _watch_plain(self) -> None:
        if self._plain.pollable:
            self._loop.add_reader(self._plain.fd, self._run, self._read_plain)
        else:  # a regular file is always ready: it gets its turn in the next round of the loop
            self._armed &= ~PLAIN_READ
            self._defer(PLAIN_READ)

    def _defer(self, bit: int) -> None:
        """Have it done in the next round of the loop without asking the kernel."""
        if not self._deferred & bit:
            self._deferred |= bit
            self._loop.call_soon(self.tick)

    def _unwatch(self, stopped: int) -> None:
        if stopped & CIPHER_READ:
            self._loop.remove_reader(self._cipher.fd)
        if stopped & CIPHER_WRITE:
            self._loop.remove_writer(self._cipher.fd)
        if stopped & PLAIN_READ and self._plain.pollable:
            self._loop.remove_reader(self._plain.fd)
        if stopped & PLAIN_WRITE:
            self._loop.remove_writer(self._plain.fd)

    def _unwatch_cipher(self) -> None:
        """Before the cipher socket is closed or given away."""
        self._watch(self._armed & (PLAIN_READ | PLAIN_WRITE))

    # --- time --------------------------------------------------------------------------------------------------------------------

    def limit(self, idle_timeout: float | None, session_timeout: float | None, cause: str = "session timeout") -> None:
        """Limits in seconds from now on, instead of those of before; None: there is none. `cause` is that of the second.

        Those of an application that has left stay as they are.
        """
        if self._limited:
            return
        self._cancel_timers()
        loop = self._loop
        self._idle_timeout = idle_timeout
        self._last_active = loop.time()
        self._idle_timer = None if idle_timeout is None else loop.call_later(idle_timeout, self._check_idle)
        self._session_timer = None if session_timeout is None else loop.call_later(session_timeout, self.close, cause)

    def _cancel_timers(self) -> None:
        for timer in (self._idle_timer, self._session_timer):
            if timer is not None:
                timer.cancel()

    def _check_idle(self) -> None:
        assert self._idle_timeout is not None
        left = self._last_active + self._idle_timeout - self._loop.time()
        if left <= 0:
            self.close("idle timeout")
        else:
            self._idle_timer = self._loop.call_later(left, self._check_idle)

    def _unwatch_all(self) -> None:
        """The end: nothing is waited for."""
        self._watch(0)
        self._cancel_timers()
