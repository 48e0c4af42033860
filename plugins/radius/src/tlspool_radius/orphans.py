"""Things that are being accounted by a process that has died, and what becomes of them.

Theory of operation
-------------------
A process that is killed stops nothing that it has open, and servers would have it open for ever.  So each process holds a lock on a byte
of its own, far behind the end of the lock file, which the kernel releases however the process ends: an open file description lock,
as others depend on who in a process closed what.  What is open is on disk with the number of that byte.  Whoever delivers looks from time
to time for owners that are gone, and stops on their behalf what they had open, with the last count that they told and the
cause NAS-Reboot.  It also touches the lock file each time: when a whole pool has died, the next one takes that for the time of death,
so that nobody is charged for the time in between.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final

from tlspool_radius import attributes as a
from tlspool_radius.attributes import Attributes, number

# struct flock of Linux: l_type, l_whence, l_start, l_len, l_pid
_FLOCK: Final = struct.Struct("@hhqqi4x")
_FIRST: Final = 1 << 20  # bytes before it are for content
_REBOOT: Final = 11  # Acct-Terminate-Cause, RFC 2866 section 5.10
_STOP: Final = 2  # Acct-Status-Type
_OF_THE_END: Final = (a.ACCT_STATUS_TYPE, a.EVENT_TIMESTAMP, a.ACCT_SESSION_TIME, a.ACCT_TERMINATE_CAUSE)


def new_owner(descriptor: int) -> int:
    """A number that stands for this process as long as the descriptor of the lock file is open. Raises OSError."""
    owner = _FIRST + int.from_bytes(os.urandom(7), "big")
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, owner, 1, 0))
    return owner


def is_alive(descriptor: int, owner: int) -> bool:
    """Whether some other descriptor of the lock file holds the owner's byte. Raises OSError."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, owner, 1, 0)
    kind: int = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked))[0]
    return kind != fcntl.F_UNLCK


def stop_of(last: Attributes, end: float) -> Attributes:
    """The stop that never came, made of the last record before it: a start, or an interim record. `end` in seconds since 1970."""
    told = dict(last)
    happened = _read(told, a.EVENT_TIMESTAMP)
    started = happened - _read(told, a.ACCT_SESSION_TIME)
    end = max(end, happened)
    return [
        (a.ACCT_STATUS_TYPE, number(_STOP)),
        *(pair for pair in last if pair[0] not in _OF_THE_END),
        (a.EVENT_TIMESTAMP, number(end)),
        (a.ACCT_SESSION_TIME, number(end - started)),
        (a.ACCT_TERMINATE_CAUSE, number(_REBOOT)),
    ]


def _read(told: dict[int, bytes], code: int) -> int:
    return int.from_bytes(told.get(code, b""), "big")
