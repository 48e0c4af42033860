"""Which applications may do what reaching the socket alone does not permit.

Theory of operation
-------------------
Two things are for few applications: to have credentials made on the fly, since under an issuing key an application can be whoever it names
(`[onthefly]`); and to answer questions for PINs, since wrong answers use up a token's tries (`[pin_desk]`).  Root and the user that the
pool runs as need no permission: the one can become any user, the other holds keys and PINs.  All others are refused unless the section
names their user, or a group that they were in when they connected to the pool.

The kernel vouches for user and groups (SO_PEERCRED, SO_PEERGROUPS; see `accept`).  A session is asked about before its handshake, and again
where a desk decides in its midst that the credential is to be made; a desk when it registers.  A reload of the configuration holds for
what comes after it.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Collection
from dataclasses import dataclass

from tlspool_core.pool.tomlfile import Table

_HIGHEST = 2**32 - 2  # the number above it means "unchanged" to the kernel


@dataclass(frozen=True, slots=True)
class Permitted:
    """Numbers of users and groups whose applications may, beside root and the pool's own user."""

    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()

    def permits(self, uid: int, groups: Collection[int]) -> bool:
        """Whether an application of this user, in these groups, may."""
        return uid in (0, os.geteuid()) or uid in self.uids or not self.gids.isdisjoint(groups)


def permitted(table: Table) -> Permitted:
    """A section with `users` and `groups`. Raises ConfigurationError; also for a name that is not known: it would permit nobody."""
    made = Permitted(
        uids=user_numbers(table, "users"),
        gids=_numbers(table, "groups", "group", lambda name: grp.getgrnam(name).gr_gid),
    )
    table.finish()
    return made


def user_numbers(table: Table, key: str) -> frozenset[int]:
    """A list of users by name or number. Raises ConfigurationError."""
    return _numbers(table, key, "user", lambda name: pwd.getpwnam(name).pw_uid)


def _numbers(table: Table, key: str, kind: str, look_up: Callable[[str], int]) -> frozenset[int]:
    found = set()
    for name in table.texts(key):
        try:
            number = int(name) if name.isascii() and name.isdigit() else look_up(name)
        except KeyError:
            raise table.error(key, f"there is no {kind} {name!r}") from None
        if number > _HIGHEST:
            raise table.error(key, f"{name} is no {kind}'s number")
        found.add(number)
    return frozenset(found)
