"""Keytabs and caches that belong to users, read in a way that no user can make us wait.

Theory of operation
-------------------
libkrb5 opens the file that it is told to, and waits for a lock on it.  The file may be its owner's to replace: by a pipe that nobody writes
to, or by one that never ends; and its owner can keep it locked.  A thread that waits for that waits for ever.  So the file is read
here, without waiting, if it is a file and not a large one, and libkrb5 is given a copy in memory.

Of other kinds than files only the name is handed on: they are the system's (KEYRING, KCM) or the process's own (MEMORY).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LARGEST: Final = 1 << 20  # bytes


@contextmanager
def steady(name: str) -> Iterator[str]:
    """A name, for libkrb5 and for as long as the block lasts, of what a keytab or cache holds now. Raises OSError."""
    kind, colon, path = name.partition(":")
    if not colon:
        kind, path = "FILE", name
    if kind not in ("FILE", "WRFILE"):
        yield name
        return
    copy = os.memfd_create("kerberos", os.MFD_CLOEXEC)
    try:
        _copy(path, copy)
        yield f"FILE:/proc/self/fd/{copy}"
    finally:
        os.close(copy)


def _copy(path: str, copy: int) -> None:
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(0, f"{path} is no file")
        size = 0
        while data := os.read(file, LARGEST):
            size += os.write(copy, data)
            if size > LARGEST:
                raise OSError(0, f"{path} has more than {LARGEST} bytes")
    finally:
        os.close(file)
