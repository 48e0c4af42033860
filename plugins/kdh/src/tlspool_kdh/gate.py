"""Keeps what waits for a KDC from standing in the way of what does not.

Theory of operation
-------------------
libkrb5 gives a KDC that is silent half a minute, and a thread that waits in it cannot be called back.  The pool has a few threads for
each plugin, and they are not for that: KDCs are asked in threads of their own, and who waits for one does so for some seconds only.
A few at a time may ask the KDCs of one realm; others wait a moment for their turn, and then are refused.  Not all of these turns are for
strangers, on whose account a KDC is asked before they have proven anything.  When a realm's KDCs were found
unreachable, nobody asks them again for some seconds: who comes meanwhile is told at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

T = TypeVar("T")

KDC_UNREACHABLE: Final = -1765328228  # KRB5_KDC_UNREACH
_AT_A_TIME: Final = 3
_STRANGERS: Final = 2  # of these
_PATIENCE: Final = 3.0  # seconds to wait for a turn
_ANSWER: Final = 10.0  # seconds to wait for an answer, which is less than the pool gives a plugin
_PAUSE: Final = 10.0  # seconds to leave KDCs alone that were found unreachable


class KerberosError(Exception):
    """What Kerberos could not do, in words for the operator; names files and principals, holds no secret."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


def _slow(realm: str) -> KerberosError:
    return KerberosError(f"the KDC of {realm} is slow: others wait for its answer already")


@contextmanager
def turn(lock: threading.Lock, who: str) -> Iterator[None]:
    """Hold a lock behind which someone may wait for a KDC. Raises KerberosError if it is not free soon."""
    if not lock.acquire(timeout=_PATIENCE):
        raise _slow(who)
    try:
        yield
    finally:
        lock.release()


@dataclass(slots=True)
class _Realm:
    slots: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(_AT_A_TIME))
    strangers: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(_STRANGERS))
    failed: float = float("-inf")  # when the KDCs were last found unreachable
    reason: str = ""


def _release(turns: Sequence[threading.Semaphore]) -> None:
    for turn in turns:
        turn.release()


class Gate:
    """One for the process, used by threads. Times are of `now`, in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._realms: dict[str, _Realm] = {}
        self._lock = threading.Lock()

    def check(self, realm: str) -> None:
        """Raises KerberosError if the KDCs of a realm were found unreachable just now."""
        state = self._realm(realm)
        if (age := self._now() - state.failed) < _PAUSE:
            raise KerberosError(f"{state.reason} (found {age:.0f} s ago)", KDC_UNREACHABLE)

    def ask(self, realm: str, work: Callable[[], T], *, stranger: bool = False) -> T:
        """What `work` returns, which asks the KDCs of a realm. Raises KerberosError: its own, or that there is no answer in time."""
        self.check(realm)
        state, answer = self._realm(realm), Future[T]()
        turns = (state.strangers, state.slots) if stranger else (state.slots,)
        for number, turn in enumerate(turns):
            if not turn.acquire(timeout=_PATIENCE):
                _release(turns[:number])
                raise _slow(realm)
        threading.Thread(target=self._run, args=(state, turns, answer, work), name="kdh-kdc", daemon=True).start()
        try:
            return answer.result(_ANSWER)
        except TimeoutError:
            state.failed, state.reason = self._now(), f"the KDC of {realm} does not answer"
            raise KerberosError(f"the KDC of {realm} has not answered within {_ANSWER:g} s", KDC_UNREACHABLE) from None

    def _run(self, state: _Realm, turns: Sequence[threading.Semaphore], answer: Future[T], work: Callable[[], T]) -> None:
        """In a thread of its own, which may outlast who waits for it."""
        try:
            answer.set_result(work())
            state.failed = float("-inf")
        except KerberosError as error:
            if error.code == KDC_UNREACHABLE:
                state.failed, state.reason = self._now(), str(error)
            answer.set_exception(error)
        except Exception as error:  # the pool knows what to do with it
            answer.set_exception(error)
        finally:
            _release(turns)

    def _realm(self, realm: str) -> _Realm:
        with self._lock:
            return self._realms.setdefault(realm, _Realm())
