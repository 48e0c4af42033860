"""Keytabs and caches that belong to users, read in a way that no user can make us wait.

Theory of operation
-------------------
libkrb5 opens the file that it is told to, and waits for a lock on it.  The file may be its owner's to replace: by a pipe that nobody writes
to, or by one that never ends; and its owner can keep it locked.  A thread that waits for that waits for ever.  So the file is read
here, without waiting, if it is a file and not a large one, and libkrb5 is given a copy in memory.

Of other kinds than files, and directories of files, only the name is handed on: they are the system's (KEYRING, KCM) or the process's
own (MEMORY).
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
    path = _path(name)
    if not path:
        yield name
        return
    data = _read(path)
    with os.fdopen(os.memfd_create("kerberos", os.MFD_CLOEXEC), "wb", buffering=0) as copy:
        copy.write(data)
        yield f"FILE:/proc/self/fd/{copy.fileno()}"


def contents(name: str) -> bytes:
    """What a keytab or cache holds; empty if it is no file. Raises OSError."""
    path = _path(name)
    return _read(path) if path else b""


def _read(path: str) -> bytes:
    with open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, f"{path} is no file")
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise OSError(0, f"{path} has more than {LARGEST} bytes")
    return data


def _path(name: str) -> str:
    """Of the file that a name stands for; empty for none. Raises OSError."""
    kind, colon, path = name.partition(":")
    if not colon:
        return name
    if kind == "DIR":
        return path[1:] if path.startswith(":") else _primary(path)
    return path if kind in ("FILE", "WRFILE") else ""


def _primary(directory: str) -> str:
    """The file of a directory of caches that is in use: MIT Kerberos keeps its name, which begins with tkt, in a file beside it."""
    try:
        chosen = _read(f"{directory}/primary").decode(errors="replace").strip()
    except FileNotFoundError:
        chosen = "tkt"
    if not chosen.startswith("tkt") or "/" in chosen:
        raise OSError(0, f"{directory}/primary names no cache in this directory")
    return f"{directory}/{chosen}"
