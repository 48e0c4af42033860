"""Authenticators that were seen, remembered by all processes of a pool, and over a restart (RFC 4120 section 3.2.3).

Theory of operation
-------------------
A file of fixed size is mapped into the memory of each process.  It is a table of buckets with a few slots each; what was seen goes into
the bucket that its hash says, for as long as it could be seen again.  A slot has 24 bytes of the hash and 8 of the time when it may be
forgotten.  To look and to write take a lock on the bucket, so two processes are in each other's way for some microseconds, once in 4,096
times.  There is no waiting for a disk once the file is open, so it can be done on an event loop, which it takes some thirty microseconds
of.  A process that was stopped within these microseconds must not stop the others: they wait a fifth of a second, and then refuse.

A bucket that is full of what must not be forgotten refuses what is new: that takes more than a hundred thousand handshakes within the
time that clocks may differ.

The file takes its whole room when it is made: a page that a full disk has no room for would end the process (SIGBUS) once it is written.

Without a path the table is for this process alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_HASH, _TIME = 24, 8
_SLOT: Final = _HASH + _TIME
_SLOTS: Final = 64
_BUCKET: Final = _SLOTS * _SLOT
_BUCKETS: Final = 1 << 12
SIZE: Final = _BUCKETS * _BUCKET  # 8 MiB
_STAT_BLOCK: Final = 512  # bytes, of st_blocks
_TRIES: Final = 200  # to lock a bucket, a millisecond after another


class Repeated(Exception):
    """It was seen before."""


class NoRoom(Exception):
    """Too much was seen lately, or the file cannot be used; the text says why."""


def default_path() -> Path:
    """Where a service keeps its state: as the service manager says, or the user's own place (XDG base directories)."""
    if directory := os.environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(directory) / "kerberos-replay"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "tlspool" / "kerberos-replay"


class ReplayCache:
    """One for the process, used by threads; the file is opened at first use."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._lock = threading.Lock()  # locks on files are of processes, and not of threads
        self._file = -1
        self._table: mmap.mmap | None = None

    def once(self, what: bytes, until: float, now: float) -> None:
        """Remember `what` up to `until`, seconds since the epoch. Raises Repeated, and NoRoom if it cannot be told."""
        mark = hashlib.sha256(what).digest()
        start = int.from_bytes(mark[_HASH:], "big") % _BUCKETS * _BUCKET
        with self._bucket(start) as table:
            bucket, free = table[start : start + _BUCKET], None
            for at in range(0, _BUCKET, _SLOT):
                if int.from_bytes(bucket[at + _HASH : at + _SLOT], "big") <= now:
                    free = start + at
                elif bucket[at : at + _HASH] == mark[:_HASH]:
                    raise Repeated
            if free is None:
                raise NoRoom("too many authenticators at a time to tell new from repeated ones")
            table[free : free + _SLOT] = mark[:_HASH] + (int(until) + 1).to_bytes(_TIME, "big")

    def open(self) -> None:
        """Open the file, and make it where there is none; may block on the disk. Raises NoRoom in words."""
        with self._lock:
            self._opened()

    def close(self) -> None:
        """Let go of the file; harmless if it is not open, and whoever needs it still opens it again."""
        with self._lock:
            table, self._table = self._table, None
            file, self._file = self._file, -1
            if table is not None:
                table.close()
            if file >= 0:
                os.close(file)

    @contextmanager
    def _bucket(self, start: int) -> Iterator[mmap.mmap]:
        with self._lock:
            table = self._opened()
            if self._file < 0:
                yield table
                return
            self._lock_bucket(start)
            try:
                yield table
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, _BUCKET, start)

    def _lock_bucket(self, start: int) -> None:
        """Raises NoRoom if another process has it for long."""
        for tried in range(_TRIES):
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, _BUCKET, start)
            except (BlockingIOError, PermissionError):  # POSIX leaves open which
                time.sleep(0.001 * bool(tried))
            else:
                return
        raise NoRoom(f"another process keeps the replay cache {self.path} locked")

    def _opened(self) -> mmap.mmap:
        if self._table is None:
            try:
                self._table = self._map()
            except OSError as error:
                raise NoRoom(f"the replay cache {self.path} cannot be used: {error.strerror or error}") from None
        return self._table

    def _map(self) -> mmap.mmap:
        if self.path is None:
            return mmap.mmap(-1, SIZE)
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
                # who can read it can lock it, and have us wait
                raise OSError(0, "it is no file of the pool's own that nobody else can open")
            if found.st_size not in (0, SIZE):
                raise OSError(0, f"it has {found.st_size} bytes and not {SIZE}, so it is something else")
            if found.st_blocks * _STAT_BLOCK < SIZE:
                _allocate(file)
            table = mmap.mmap(file, SIZE)
        except BaseException:
            os.close(file)
            raise
        self._file = file
        return table


def _allocate(file: int) -> None:
    """Raises OSError."""
    fcntl.lockf(file, fcntl.LOCK_EX)  # where a file system cannot do it, the C library reads and writes the blocks
    try:
        os.ftruncate(file, SIZE)
        os.posix_fallocate(file, 0, SIZE)
    finally:
        fcntl.lockf(file, fcntl.LOCK_UN)
