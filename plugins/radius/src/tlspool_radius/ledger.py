"""Accounting records on disk, from the moment we take them until a server has acknowledged them.

Theory of operation
-------------------
One SQLite file in write-ahead mode.  A record is ours once its transaction is on the disk (synchronous=FULL); records that come while
another transaction is being written wait and share the next one.  Their order is the order of their numbers, which are never used again.

A record that is handed over again (same identifier and sequence) is known by the table `taken`, which keeps the last sequence of
each identifier for a day, so that it is counted once, even if it was delivered in between.  Removing an
acknowledged record need not reach the disk at once: what is lost with the power is sent again, with the same Acct-Session-Id,
Acct-Status-Type and Event-Timestamp, by which servers know it.

Several processes share the file; all add, and the one that holds the lock beside it delivers.  All work on the file is done in one
thread of our own.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from tlspool_radius.attributes import Attributes

T = TypeVar("T")

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS queue(
    id INTEGER PRIMARY KEY AUTOINCREMENT, record TEXT NOT NULL, taken REAL NOT NULL, attributes TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS taken(record TEXT PRIMARY KEY, sequence INTEGER NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS taken_at ON taken(at);
"""
_REMEMBERED: Final = 86400.0  # seconds
_BATCH: Final = 64  # records read ahead


class LedgerError(Exception):
    """The file cannot be used, or is full; says which file and why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A record that waits; `taken` in seconds since the epoch."""

    number: int
    taken: float
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class _New:
    record: str
    sequence: int
    attributes: Attributes
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
        self.added = asyncio.Event()

    async def _run(self, work: Callable[[], T]) -> T:
        """In the thread. Raises LedgerError."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(f"the accounting queue {self.path} cannot be used: {error}") from error

    async def open(self) -> None:
        """Raises LedgerError."""
        await self._run(self._open)

    def _open(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))  # names of users are in it
        self._adding, self._removing = (self._connect(how) for how in ("FULL", "NORMAL"))
        self._lock = os.open(f"{self.path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)

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

    async def add(self, record: str, sequence: int, attributes: Attributes) -> None:
        """Returns when the record is on disk. Raises LedgerError."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._new.append(_New(record, sequence, attributes, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write_all())
        await done

    async def _write_all(self) -> None:
        while self._new:
            batch, self._new = self._new, []
            try:
                await self._run(lambda batch=batch: self._write(batch))  # type: ignore[misc]
            except LedgerError as error:
                for one in batch:
                    if not one.done.done():
                        one.done.set_exception(error)
                continue
            self.added.set()
            for one in batch:
                if not one.done.done():
                    one.done.set_result(None)

    def _write(self, batch: list[_New]) -> None:
        """One transaction. Raises LedgerError if the queue is full."""
        connection, now = self._adding, time.time()
        connection.execute("BEGIN IMMEDIATE")
        try:
            # numbers are removed from the front only, so this counts them, and does not look at each
            span = "SELECT coalesce((SELECT max(id) FROM queue) - (SELECT min(id) FROM queue) + 1, 0)"
            waiting = connection.execute(span).fetchone()[0]
            if waiting + len(batch) > self._limit:
                raise LedgerError(f"the accounting queue {self.path} is full: {waiting} records wait for a server")
            for one in batch:
                before = connection.execute("SELECT sequence FROM taken WHERE record = ?", (one.record,)).fetchone()
                if before is None or before[0] < one.sequence:
                    value = json.dumps([[code, content.hex()] for code, content in one.attributes])
                    connection.execute("INSERT INTO queue(record, taken, attributes) VALUES(?, ?, ?)", (one.record, now, value))
                    connection.execute("INSERT OR REPLACE INTO taken VALUES(?, ?, ?)", (one.record, one.sequence, now))
            connection.execute("DELETE FROM taken WHERE at < ?", (now - _REMEMBERED,))
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise

    # --- delivering them -----------------------------------------------------------------------------------------------------

    async def mine(self) -> bool:
        """Whether this process is the one that delivers; asks for the part if nobody has it."""

        def lock() -> bool:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        return await self._run(lock)

    async def first(self) -> list[Entry]:
        """The oldest records, in order. Raises LedgerError."""
        sql = "SELECT id, taken, attributes FROM queue ORDER BY id LIMIT ?"
        rows = await self._run(lambda: self._removing.execute(sql, (_BATCH,)).fetchall())
        return [Entry(row[0], row[1], [(code, bytes.fromhex(value)) for code, value in json.loads(row[2])]) for row in rows]

    async def remove(self, number: int) -> None:
        """A server has acknowledged the record. Raises LedgerError."""
        await self._run(lambda: self._removing.execute("DELETE FROM queue WHERE id = ?", (number,)))


def waiting(path: Path) -> tuple[int, float | None]:
    """How many records wait, and when the oldest was taken over. Raises LedgerError."""
    if not path.exists():
        return 0, None
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2)) as connection:
            row: tuple[int, float | None] = connection.execute("SELECT count(*), min(taken) FROM queue").fetchone()
            return row
    except sqlite3.Error as error:
        raise LedgerError(f"the accounting queue {path} cannot be read: {error}") from error
