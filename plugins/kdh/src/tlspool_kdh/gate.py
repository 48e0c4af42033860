"""Keeps what waits for a KDC from standing in the way of what does not.

Theory of operation
-------------------
libkrb5 gives a KDC that is silent half a minute, and a thread that waits in it cannot be called back.  The pool has a few threads for
each plugin; so only a few at a time may ask the KDCs of one realm, others wait a moment for their turn, and then are refused.  When a
realm's KDCs were found unreachable, nobody asks them again for some seconds: who comes meanwhile is told at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

KDC_UNREACHABLE: Final = -1765328228  # KRB5_KDC_UNREACH
_AT_A_TIME: Final = 3
_PATIENCE: Final = 3.0  # seconds to wait for a turn
_PAUSE: Final = 10.0  # seconds to leave KDCs alone that were found unreachable


class KerberosError(Exception):
    """What Kerberos could not do, in words for the operator; names files and principals, holds no secret."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


@contextmanager
def turn(lock: threading.Lock | threading.BoundedSemaphore, who: str) -> Iterator[None]:
    """Hold a lock behind which someone may wait for a KDC. Raises KerberosError if it is not free soon."""
    if not lock.acquire(timeout=_PATIENCE):
        raise KerberosError(f"the KDC of {who} is slow: others wait for its answer already")
    try:
        yield
    finally:
        lock.release()


@dataclass(slots=True)
class _Realm:
    slots: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(_AT_A_TIME))
    failed: float = float("-inf")  # when the KDCs were last found unreachable
    reason: str = ""


class Gate:
    """One for the process, used by threads. Times are of `now`, in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._realms: dict[str, _Realm] = {}
        self._lock = threading.Lock()

    @contextmanager
    def asking(self, realm: str) -> Iterator[None]:
        """Around what asks the KDCs of a realm. Raises KerberosError if they are unreachable, or have too much to do."""
        with self._lock:
            state = self._realms.setdefault(realm, _Realm())
        if (age := self._now() - state.failed) < _PAUSE:
            raise KerberosError(f"{state.reason} (found {age:.0f} s ago)", KDC_UNREACHABLE)
        with turn(state.slots, realm):
            try:
                yield
            except KerberosError as error:
                if error.code == KDC_UNREACHABLE:
                    state.failed, state.reason = self._now(), str(error)
                raise
            state.failed = float("-inf")
