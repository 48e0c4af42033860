"""A limit on guessing: failed attempts are counted for each user and each peer address.

Theory of operation
-------------------
Whether an attempt failed is only seen by what does not follow: an attempt is counted as failed in advance, and taken back when Finished
has been verified.  For the address that is when it begins, as it costs us something; for the user when the client has sent what depends on the
password, as a client that has none to be had guesses nothing.  Counts are kept for a sliding window of time, in bounded memory; when
there are too many names, the oldest are forgotten.  Only what has failed takes room there: one address that makes up names must not have
the failures of others forgotten.  Names are counted whether or not they exist, so the limit tells nothing about them.
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
        """Count an attempt for the address, if there is one; False if it or the user had too many: then this one is not to be served."""
        with self._lock:
            allowed = self._recent(_of_user(user)) < self.limit_user
            if allowed and address:
                allowed = self._count(_from(address), self.limit_address)
        return allowed or _refused(user, address)

    def guess(self, user: str, address: str) -> bool:
        """Count an attempt for the user; False if there were too many meanwhile."""
        with self._lock:
            allowed = self._count(_of_user(user), self.limit_user)
        return allowed or _refused(user, address)

    def succeeded(self, user: str, address: str) -> None:
        """Take the newest failure back: it was none."""
        with self._lock:
            for name in (_of_user(user), _from(address)):
                if times := self._failures.get(name):
                    times.pop()
                    if not times:
                        del self._failures[name]

    def _recent(self, name: str) -> int:
        """How many failures there were within the window."""
        times = self._failures.get(name)
        if times is None:
            return 0
        self._failures.move_to_end(name)
        while times and times[0] <= self.clock() - self.window:
            times.popleft()
        return len(times)

    def _count(self, name: str, limit: int) -> bool:
        """Count one more; False if there were as many as there may be."""
        if self._recent(name) >= limit:
            return False
        self._failures.setdefault(name, deque()).append(self.clock())
        while len(self._failures) > _MAX_NAMES:
            self._failures.popitem(last=False)
        return True


def _of_user(user: str) -> str:
    return f"user {user}"


def _from(address: str) -> str:
    return f"address {address}"


def _refused(user: str, address: str) -> bool:
    log.warning("SRP: too many failed attempts for user %r or from %s; refused for a while", user[:64], address or "(unknown)")
    return False
