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
    if not _path(name):
        yield name
        return
    data = contents(name)
    with os.fdopen(os.memfd_create("kerberos", os.MFD_CLOEXEC), "wb", buffering=0) as copy:
        copy.write(data)
        yield f"FILE:/proc/self/fd/{copy.fileno()}"


def contents(name: str) -> bytes:
    """What a keytab or cache holds; empty if it is no file. Raises OSError."""
    path = _path(name)
    if not path:
        return b""
    with open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, f"{path} is no file")
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise OSError(0, f"{path} has more than {LARGEST} bytes")
    return data


def _path(name: str) -> str:
    kind, colon, path = name.partition(":")
    if not colon:
        return name
    return path if kind in ("FILE", "WRFILE") else ""
