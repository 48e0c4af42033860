"""Room for sessions: how many there may be at a time, and how many of them may be one user's.

Theory of operation
-------------------
A session holds two descriptors.  If more were begun than the process may have open, whoever came next would be turned away at the
listening socket, or lose the descriptor that it sends; so the limit of open files is a limit of sessions, too, and leaves
something for connections of applications, and for the pool itself.

Applications of one user get half of the room, so that there is always some for others.  Root and the user that the pool runs as may have
all of it.
"""

from __future__ import annotations

import logging
import os
import resource
from typing import Final

from tlspool_core.pool.logs import say
from tlspool_core.pool.settings import Limits
from tlspool_core.wire.errors import ErrorCode, WireError

log = logging.getLogger("tlspool.daemon")

_KEPT_BACK: Final = 64  # descriptors: listening sockets, databases, workers of key stores, log


def open_files() -> int:
    """How many descriptors this process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Room:
    """Of one process; `users` counts the sessions of each."""

    def __init__(self) -> None:
        self.users: dict[int, int] = {}
        self._taken = self._most = self._most_of_one = 0

    def configure(self, limits: Limits, files: int) -> None:
        """What there is from now on, with so many open files; sessions that are there already stay."""
        connections = min(limits.clients, files // 4)
        self._most = max(min(limits.sessions, (files - _KEPT_BACK - connections) // 2), 1)
        self._most_of_one = limits.sessions_per_uid or max(self._most // 2, 1)
        if self._most < limits.sessions:
            say(log, logging.INFO, "fewer sessions than configured", sessions=self._most, because=f"a limit of {files} open files")

    def take(self, uid: int) -> None:
        """For one session of this user's. Raises WireError if there is none."""
        theirs = self.users.get(uid, 0)
        if self._taken >= self._most:
            raise WireError(ErrorCode.LIMIT_REACHED, "The TLS Pool has reached its limit of sessions")
        if theirs >= self._most_of_one and uid not in (0, os.geteuid()):
            raise WireError(ErrorCode.LIMIT_REACHED, f"User {uid} has reached the limit of sessions for one user")
        self._taken += 1
        self.users[uid] = theirs + 1

    def give_back(self, uid: int) -> None:
        """A session that took some has ended."""
        self._taken -= 1
        self.users[uid] -= 1
        if not self.users[uid]:
            del self.users[uid]
