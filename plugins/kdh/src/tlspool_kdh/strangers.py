"""Bounds on what strangers can make a KDC do through a server that is a user.

Theory of operation
-------------------
Such a server has the KDC make a ticket for whoever shows a ticket-granting ticket, before that one has proven anything; what is shown may
be made up.  So that it is no way to wear a KDC down, to lock others out, or to learn by trying:

- a peer's network may cause so many requests within a minute, and all of them together so many;
- a network that came with something good lately is not kept out by what all the others do;
- what the KDC has refused is not asked again within that time, and what it has granted is kept by the wallet;
- strangers get some of the turns at a realm's KDCs only (see `gate`), so the pool's own tickets need not wait for them.

A connection without addresses, as between processes of one host, counts among all only.  All of it is in bounded memory.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Final, TypeVar

from tlspool_kdh.gate import KDC_UNREACHABLE, KerberosError

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

WINDOW: Final = 60.0  # seconds
_KNOWN_FOR: Final = 3600.0
_MOST: Final = 4096  # networks, and refusals, that are remembered


class Strangers:
    """One for the process, used by threads. `now` in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.per_peer = 30  # requests within the window
        self.in_all = 300
        self._now = now
        self._lock = threading.Lock()
        self._asked: OrderedDict[str, deque[float]] = OrderedDict()  # by network, "" for all; when
        self._known: OrderedDict[str, float] = OrderedDict()  # networks; when something good came from them
        self._refused: OrderedDict[Hashable, tuple[float, KerberosError]] = OrderedDict()  # by what was asked for

    def ask(self, network: str, what: Hashable, work: Callable[[], T]) -> T:
        """What `work` returns, which asks a KDC on account of a peer; `what` tells one request from another.

        Raises KerberosError: of `work`, the one that it raised lately, or that too much was asked for.
        """
        self._admit(network, what)
        try:
            found = work()
        except KerberosError as error:
            if error.code not in (0, KDC_UNREACHABLE):  # else nobody has looked at it
                self._note(self._refused, what, (self._now(), error))
            raise
        if network:
            self._note(self._known, network, self._now())
        return found

    def _admit(self, network: str, what: Hashable) -> None:
        with self._lock:
            now = self._now()
            seen = self._refused.get(what)
            if seen is not None and now - seen[0] < WINDOW:
                raise KerberosError(str(seen[1]), seen[1].code)
            here, all_ = self._times(network, now), self._times("", now)
            known = now - self._known.get(network, float("-inf")) < _KNOWN_FOR
            if network and len(here) >= self.per_peer:
                raise KerberosError(f"{network} has had tickets asked for {self.per_peer} times within a minute: try again later")
            if len(all_) >= self.in_all and not known:
                raise KerberosError(f"strangers have had tickets asked for {self.in_all} times within a minute: try again later")
            for times in (here, all_) if network else (all_,):
                times.append(now)

    def _times(self, network: str, now: float) -> deque[float]:
        """When a network has asked lately."""
        times = self._asked.setdefault(network, deque())
        self._asked.move_to_end(network)
        while times and times[0] <= now - WINDOW:
            times.popleft()
        while len(self._asked) > _MOST:
            self._asked.popitem(last=False)
        return times

    def _note(self, table: OrderedDict[K, V], key: K, value: V) -> None:
        with self._lock:
            table[key] = value
            table.move_to_end(key)
            while len(table) > _MOST:
                table.popitem(last=False)
