"""A limit on guessing: failed attempts are counted for each user and each peer address.

Theory of operation
-------------------
Whether an attempt failed is only seen by what does not follow: an attempt is counted as failed when it begins to depend on the password,
and taken back when Finished has been verified.  Counts are kept for a sliding window of time, in bounded memory; when there are too
many names, the oldest are forgotten.  Names are counted whether or not they exist, so the limit tells nothing about them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

log = logging.getLogger("tlspool.srp")

_MAX_NAMES = 10_000


@dataclass
class Attempts:
    """Counts failures within `window` seconds; safe to use from several threads."""

    limit_user: int = 10
    limit_address: int = 50
    window: float = 600.0
    clock: Callable[[], float] = time.monotonic
    _failures: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def begin(self, user: str, address: str) -> bool:
        """Count an attempt as failed; False if there were too many, and this one is not to be served."""
        allowed = True
        with self._lock:
            now = self.clock()
            for name, limit in self._names(user, address):
                times = self._failures.setdefault(name, deque())
                self._failures.move_to_end(name)
                while times and times[0] <= now - self.window:
                    times.popleft()
                if len(times) >= limit:
                    allowed = False
                else:
                    times.append(now)
            while len(self._failures) > _MAX_NAMES:
                self._failures.popitem(last=False)
        if not allowed:
            log.warning(
                "SRP: too many failed attempts for user %r or from %s; refused for a while", user[:64], address or "(unknown)"
            )
        return allowed

    def succeeded(self, user: str, address: str) -> None:
        """Take the newest failure back: it was none."""
        with self._lock:
            for name, _ in self._names(user, address):
                if times := self._failures.get(name):
                    times.pop()

    def _names(self, user: str, address: str) -> list[tuple[str, int]]:
        names = [(f"user {user}", self.limit_user)]
        if address:
            names.append((f"address {address}", self.limit_address))
        return names
