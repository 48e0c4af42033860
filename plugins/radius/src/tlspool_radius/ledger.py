"""Accounting records on disk, from the moment we take them until a server has acknowledged them.

Theory of operation
-------------------
One SQLite file in write-ahead mode.  A record is ours once its transaction is on the disk (synchronous=FULL); records that come while
another transaction is being written wait and share the next one.  Their order is the order of their numbers, which are never used again.
How many may wait is limited, on disk and in memory; the stop of something that is open is always welcome on disk.  A stop of what is
not open says nothing: its start was refused, or it was stopped before.

A record that is handed over again (same identifier and sequence) is known by the table `taken`, which keeps the last sequence of
each identifier for an hour, so that it is counted once, even if it was delivered in between.

Several processes share the file; all add, and the one that holds the lock beside it delivers.  Records are delivered in order, so that
one mark says which ones a server has acknowledged: it is written in place into the file of the lock, which takes no space on the
disk and survives the end of this process, and tells the next one what not to send again.  The rows are removed behind it, some at a time,
and stay until there is space if the disk is full.  What servers do not take gets new numbers, behind all others.  The mark names its
record, not only its number, so that a queue that was brought back from a backup is sent rather than lost.  What a loss of power may
undo is sent again, with the same Acct-Session-Id, Acct-Status-Type and Event-Timestamp, by which servers know it.

What is open, started and not stopped, is kept with the process that it belongs to, so that it is stopped if that dies (see `orphans`).

All work on the file is done in one thread of our own.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from tlspool_radius.attributes import Attributes
from tlspool_radius.orphans import is_alive, new_owner, stop_of

T = TypeVar("T")

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS queue(
    id INTEGER PRIMARY KEY AUTOINCREMENT, record TEXT NOT NULL, taken REAL NOT NULL, attributes TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS taken(record TEXT PRIMARY KEY, sequence INTEGER NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS taken_at ON taken(at);
CREATE TABLE IF NOT EXISTS open(record TEXT PRIMARY KEY, owner INTEGER NOT NULL, attributes TEXT NOT NULL) WITHOUT ROWID;
"""
_REMEMBERED: Final = 3600.0  # seconds
_BATCH: Final = 64  # records read ahead
_MOST_AT_ONCE: Final = 10_000  # records in memory that wait for the disk
_SHARE: Final = 0.75  # of the places for what applications account, so that none of them can stop the sessions of others
_MARK: Final = 256  # bytes
_LAST: Final = 1 << 62  # sequence of a stop that we make ourselves


class LedgerError(Exception):
    """The file cannot be used, or is full; says which file and why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record that waits; `taken` in seconds since the epoch."""

    number: int
    record: str
    taken: float
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class _New:
    record: str
    sequence: int
    attributes: Attributes
    final: bool
    ours: bool
    done: asyncio.Future[None]


class Ledger:
    """The file; its methods are for one event loop."""

    def __init__(self, path: Path, limit: int) -> None:
        """`limit`: how many records may wait."""
        self.path = path
        self._limit = limit
        self._thread = ThreadPoolExecutor(1, "radius-ledger")
        self._adding: sqlite3.Connection
        self._removing: sqlite3.Connection
        self._new: list[_New] = []
        self._writer: asyncio.Task[None] | None = None
        self._lock = -1
        self._owner = 0
        self._seen = 0.0  # when the pool was alive, as far as we know
        self._mine = False
        self._acknowledged = self._removed = 0  # numbers, up to which it is done
        self.added = asyncio.Event()

    async def _run(self, work: Callable[[], T]) -> T:
        """In the thread. Raises LedgerError."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(_complaint(self.path, error)) from error

    async def open(self) -> None:
        """Raises LedgerError."""
        await self._run(self._open)

    def _open(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self.path.exists():  # to close a file that is in use would drop the locks of this process on it
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))  # names of users are in it
        self._adding, self._removing = (self._connect(how) for how in ("FULL", "NORMAL"))
        self._lock = os.open(f"{self.path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        self._owner = new_owner(self._lock)

    def _connect(self, synchronous: str) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=5, check_same_thread=False, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.executescript(_SCHEMA)
        return connection

    async def close(self) -> None:
        """Write what waits to be written, and let the file go."""
        if self._writer is not None:
            await self._writer
        with contextlib.suppress(LedgerError):
            await self._run(self._close)
        self._thread.shutdown(wait=False)

    def _close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
            self._adding.close()
            self._removing.close()

    # --- taking records over -------------------------------------------------------------------------------------------------

    async def add(self, record: str, sequence: int, attributes: Attributes, *, final: bool = False, ours: bool = True) -> None:
        """Returns when the record is on disk. Raises LedgerError.

        `final` is the last one of its identifier, and needs one before; what is not `ours` but an application's leaves space for ours.
        """
        if len(self._new) >= _MOST_AT_ONCE:
            raise LedgerError(f"{_MOST_AT_ONCE} accounting records wait for the disk already ({self.path})")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._new.append(_New(record, sequence, attributes, final, ours, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write_all())
        await done

    def _places(self, one: _New) -> int:
        """How many records may wait before there is no room for this one."""
        return self._limit if one.ours else math.ceil(self._limit * _SHARE)

    async def _write_all(self) -> None:
        while self._new:
            batch, self._new = self._new, []
            fault: LedgerError | None = None
            try:
                taken = await self._run(lambda batch=batch: self._write(batch))  # type: ignore[misc]
            except LedgerError as error:
                taken, fault = [False] * len(batch), error
            self.added.set()
            for one, is_taken in zip(batch, taken, strict=True):
                if one.done.done():
                    continue
                if is_taken:
                    one.done.set_result(None)
                else:
                    full = f"the accounting queue is full: {self._places(one)} records wait for a server ({self.path})"
                    one.done.set_exception(fault or LedgerError(full))

    def _write(self, batch: list[_New]) -> list[bool]:
        """One transaction, with as many of the batch as there is room for; which ones that are."""
        now = time.time()
        with _transaction(self._adding) as connection:
            # numbers are removed from the front, but for few exceptions: this counts them, and does not look at each
            span = "SELECT coalesce((SELECT max(id) FROM queue) - (SELECT min(id) FROM queue) + 1, 0)"
            waiting = connection.execute(span).fetchone()[0]
            taken = []
            for one in batch:
                taken.append(one.final or waiting < self._places(one))
                if taken[-1]:
                    waiting += self._write_one(connection, one, now)
            connection.execute("DELETE FROM taken WHERE at < ?", (now - _REMEMBERED,))
        return taken

    def _write_one(self, connection: sqlite3.Connection, one: _New, now: float) -> bool:
        """Whether it is in the queue now; what was taken before is not."""
        before = connection.execute("SELECT sequence FROM taken WHERE record = ?", (one.record,)).fetchone()
        if before is not None and before[0] >= one.sequence:
            return False
        if one.final and not connection.execute("DELETE FROM open WHERE record = ?", (one.record,)).rowcount:
            return False
        value = json.dumps([[code, content.hex()] for code, content in one.attributes])
        connection.execute("INSERT INTO queue(record, taken, attributes) VALUES(?, ?, ?)", (one.record, now, value))
        connection.execute("INSERT OR REPLACE INTO taken VALUES(?, ?, ?)", (one.record, one.sequence, now))
        if not one.final:
            connection.execute("INSERT OR REPLACE INTO open VALUES(?, ?, ?)", (one.record, self._owner, value))
        return True

    # --- delivering them -----------------------------------------------------------------------------------------------------

    async def mine(self) -> bool:
        """Whether this process is the one that delivers; asks for the part if nobody has it. Raises LedgerError."""
        if not self._mine:
            self._mine = await self._run(self._become)
        return self._mine

    def _become(self) -> bool:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self._seen = os.fstat(self._lock).st_mtime  # before we write into it
        self._acknowledged = self._read_mark()
        if not self._acknowledged:
            self._write_mark(b"")  # from now on it has its space on the disk
        return True

    def _write_mark(self, mark: bytes) -> None:
        with contextlib.suppress(OSError):  # then it holds for this process only
            os.pwrite(self._lock, mark.ljust(_MARK, b"\0")[:_MARK], 0)

    def _read_mark(self) -> int:
        """The number up to which an earlier process was told that records have arrived; 0 if there is no such record."""
        try:
            number, record, taken = json.loads(os.pread(self._lock, _MARK, 0).rstrip(b"\0"))
            number, record, taken = int(number), str(record), float(taken)
        except (TypeError, ValueError):
            return 0
        sql = "SELECT id FROM queue WHERE id = ? AND record = ? AND taken = ?"
        row = self._removing.execute(sql, (number, record, taken)).fetchone()
        return row[0] if row else 0

    async def stop_orphans(self) -> int:
        """Stop what processes that have died had open; how much that was. Only for the one that delivers. Raises LedgerError."""
        orphans = await self._run(self._orphans)
        for first in range(0, len(orphans), _BATCH):  # those of a batch share a transaction
            stops = [(record, stop_of(_attributes(last), self._seen)) for record, last in orphans[first : first + _BATCH]]
            await asyncio.gather(*(self.add(record, _LAST, stop, final=True) for record, stop in stops))
        await self._run(lambda: os.utime(self._lock))
        self._seen = time.time()
        return len(orphans)

    def _orphans(self) -> list[tuple[str, str]]:
        """Records, and what was told last of them."""
        owners = [row[0] for row in self._removing.execute("SELECT DISTINCT owner FROM open")]
        dead = [owner for owner in owners if owner != self._owner and not is_alive(self._lock, owner)]
        sql = "SELECT record, attributes FROM open WHERE owner = ?"
        return [row for owner in dead for row in self._removing.execute(sql, (owner,))]

    async def first(self) -> list[Entry]:
        """The oldest records that no server has acknowledged, in order. Raises LedgerError."""
        sql = "SELECT id, record, taken, attributes FROM queue WHERE id > ? ORDER BY id LIMIT ?"
        rows = await self._run(lambda: self._removing.execute(sql, (self._acknowledged, _BATCH)).fetchall())
        return [Entry(number, record, taken, _attributes(text)) for number, record, taken, text in rows]

    def acknowledge(self, entry: Entry) -> None:
        """A server has the record, and all before it: it is not sent again."""
        self._acknowledged = entry.number
        self._write_mark(json.dumps([entry.number, entry.record, entry.taken]).encode())

    async def put_behind(self, record: str) -> bool:
        """Have what waits of a thing wait behind all others, in its order; False if there are none. Raises LedgerError."""
        return await self._run(lambda: self._put_behind(record))

    def _put_behind(self, record: str) -> bool:
        done = self._acknowledged
        with _transaction(self._adding) as connection:
            others = "SELECT EXISTS(SELECT 1 FROM queue WHERE id > ? AND record != ?)"
            if not connection.execute(others, (done, record)).fetchone()[0]:
                return False
            (last,) = connection.execute("SELECT max(id) FROM queue").fetchone()
            again = """INSERT INTO queue(record, taken, attributes)
                SELECT record, taken, attributes FROM queue WHERE id > ? AND record = ? ORDER BY id"""
            connection.execute(again, (done, record))
            connection.execute("DELETE FROM queue WHERE id <= ? AND record = ?", (last, record))
        return True

    async def remove(self) -> None:
        """Forget what servers have acknowledged. Raises LedgerError; it is not sent again nevertheless."""
        through = self._acknowledged
        if through > self._removed:
            await self._run(lambda: self._removing.execute("DELETE FROM queue WHERE id <= ?", (through,)))
            self._removed = through


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All that is done in it, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite has ended it by itself if the disk is full
            connection.execute("ROLLBACK")
        raise


def _attributes(text: str) -> Attributes:
    return [(code, bytes.fromhex(value)) for code, value in json.loads(text)]


def _complaint(path: Path, error: sqlite3.Error | OSError) -> str:
    """The path comes last: the socket protocol cuts what is long."""
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or getattr(error, "errno", None) == errno.ENOSPC:
        return f"the disk of the accounting queue is full ({path})"
    return f"the accounting queue cannot be used: {error} ({path})"


def waiting(path: Path) -> tuple[int, float | None]:
    """How many records wait, and when the oldest was taken over. Raises LedgerError."""
    try:
        if not path.exists():
            return 0, None
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2)) as connection:
            row: tuple[int, float | None] = connection.execute("SELECT count(*), min(taken) FROM queue").fetchone()
            return row
    except (sqlite3.Error, OSError) as error:
        raise LedgerError(f"the accounting queue {path} cannot be read: {error}") from error
