"""One LMDB environment of this process: opening it safely, and transactions in it.

Theory of operation
-------------------
`Environment.share` opens a directory once per process and counts its users.  Transactions of this process are counted too: when another
process has made the map larger, LMDB refuses new transactions until the new size is adopted, and adopting it while a transaction is
open would pull the map away from under it.  So whoever meets that refusal waits until the others are done, and lets no new one
begin meanwhile; a thread that has one open already may nest another, or it would wait for itself.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import lmdb

from tlspool_core.api import ConfigError
from tlspool_lmdb.databases import NAMES, Handles, open_handles

MAX_READERS = 1024  # transactions at one time, of all threads of all processes
_RESIZE_PATIENCE = 10.0  # seconds for other threads to end their transactions
_FORMAT = b"1"
_META = b"meta"


class Environment:
    """See above; made by `share`, given back by `release`."""

    _shared: ClassVar[dict[tuple[int, str], Environment]] = {}
    _sharing: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, path: Path, map_size: int, *, readonly: bool) -> None:
        """Raises ConfigError."""
        self.path = path
        self.readonly = readonly
        self._pid = os.getpid()
        self._users = 0
        self._active = 0
        self._resizing = False
        self._turn = threading.Condition()
        self._mine = threading.local()
        _prepare(path, readonly=readonly)
        with self._explained():
            self._env = lmdb.open(
                str(path),
                map_size=map_size,
                max_dbs=len(NAMES) + 1,
                max_readers=MAX_READERS,
                max_spare_txns=8,
                readonly=readonly,
                mode=0o600,
            )
        try:
            with self._explained():
                self._check_length()
                self._env.reader_check()  # frees what a killed process has left
                self.handles = self._open_databases()
        except BaseException:
            self._env.close()
            raise

    # --- sharing

    @classmethod
    def share(cls, path: Path, map_size: int, *, readonly: bool) -> Environment:
        """The process's environment at a directory. Raises ConfigError."""
        key = (os.getpid(), os.path.realpath(path))
        with cls._sharing:
            found = cls._shared.get(key)
            if found is None:
                found = cls._shared[key] = cls(path, map_size, readonly=readonly)
            elif found.readonly and not readonly:
                raise ConfigError(f"{path}: is open for reading only in this process")
            found._users += 1
            return found

    def release(self) -> None:
        """One user less; the last one closes."""
        with self._sharing:
            self._users -= 1
            if not self._users:
                self._shared.pop((self._pid, os.path.realpath(self.path)), None)
                if self._pid == os.getpid():
                    self._env.close()

    # --- opening

    def _check_length(self) -> None:
        """A page in the map but beyond the end of the file is no error to LMDB: touching it ends the process."""
        needed = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        size = (self.path / "data.mdb").stat().st_size
        # nothing is written yet of a new environment
        if size < needed and size > 0:
            raise ConfigError(f"{self.path}/data.mdb: damaged: it has {size} bytes and needs {needed}; {_RESTORE}")

    def _open_databases(self) -> Handles:
        if self.readonly:
            # without a transaction of ours: handles that are opened in a read transaction end with it
            with suppress(lmdb.NotFoundError):
                meta = self._env.open_db(_META, create=False)
                with self._env.begin() as txn:
                    self._check_format(txn, meta)
                return open_handles(self._env, None, create=False)
            raise ConfigError(f"{self.path}: holds no databases of the TLS Pool yet")
        with self._env.begin(write=True) as txn:
            self._check_owner(txn)
            meta = self._env.open_db(_META, txn=txn)
            if txn.get(b"format", db=meta) is None:
                txn.put(b"format", _FORMAT, db=meta)
            self._check_format(txn, meta)
            return open_handles(self._env, txn, create=True)

    def _check_owner(self, txn: lmdb.Transaction) -> None:
        """Nothing is added to an environment that another program made."""
        entries = {bytes(key) for key in txn.cursor().iternext(values=False)}
        if entries and _META not in entries:
            raise ConfigError(f"{self.path}: holds LMDB databases of another program; choose another path")

    def _check_format(self, txn: lmdb.Transaction, meta: Any) -> None:
        found = txn.get(b"format", db=meta)
        if found != _FORMAT:
            raise ConfigError(f"{self.path}: has format {found!r}; this program knows {_FORMAT!r}: use the program that made it")

    # --- transactions

    def last_transaction(self) -> int:
        """Number of the last commit by any process."""
        number: int = self._env.info()["last_txnid"]
        return number

    @contextmanager
    def transaction(self, *, write: bool) -> Iterator[lmdb.Transaction]:
        """A transaction; committed at the end unless an exception ends it. Raises ConfigError."""
        if self._pid != os.getpid():
            raise ConfigError(f"{self.path}: was opened before this process was forked; open it in each process")
        if write and self.readonly:
            raise ConfigError(f"{self.path}: is open for reading only")
        if write and self._writing:
            raise ConfigError(f"{self.path}: this thread is writing already")
        with self._explained():
            txn = self._begin(write)
            try:
                self._mine.writing = write or self._writing
                with txn:
                    yield txn
            finally:
                self._mine.writing = self._writing and not write
                self._leave()

    @property
    def _writing(self) -> bool:
        """Whether this thread has a write transaction open."""
        return bool(getattr(self._mine, "writing", False))

    def _begin(self, write: bool) -> lmdb.Transaction:
        while True:
            self._enter()
            try:
                return self._env.begin(write=write)
            except lmdb.MapResizedError:
                self._leave()
                self._adopt_size()
            except BaseException:
                self._leave()
                raise

    def _enter(self) -> None:
        depth = getattr(self._mine, "depth", 0)
        with self._turn:
            while self._resizing and not depth:
                self._turn.wait()
            self._active += 1
        self._mine.depth = depth + 1

    def _leave(self) -> None:
        self._mine.depth -= 1
        with self._turn:
            self._active -= 1
            self._turn.notify_all()

    def _adopt_size(self) -> None:
        """Take over the size that another process gave the map."""
        with self._turn:
            if self._resizing:
                return  # another thread is at it: `_enter` waits for it
            self._resizing = True
            try:
                if not self._turn.wait_for(lambda: self._active == 0, _RESIZE_PATIENCE):
                    raise ConfigError(
                        f"{self.path}: another process made the databases larger, and a transaction here does not end"
                    )
                self._env.set_mapsize(0)
            finally:
                self._resizing = False
                self._turn.notify_all()

    # --- errors

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except lmdb.MapFullError:
            size = self._env.info()["map_size"]
            raise ConfigError(f"{self.path}: full: {size} bytes; nothing was changed. Raise map_size in [config]") from None
        except lmdb.ReadersFullError:
            raise ConfigError(f"{self.path}: more than {MAX_READERS} readers at one time; too many processes share it") from None
        except (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError, lmdb.VersionMismatchError) as error:
            raise ConfigError(f"{self.path}/data.mdb: damaged, or no LMDB file ({error}); {_RESTORE}") from error
        except lmdb.Error as error:
            raise ConfigError(f"{self.path}: {error}{_remedy(error)}") from error


_RESTORE = "nothing was changed: move it away, and `tlspool db import` a copy made by `tlspool db export`"


def _remedy(error: lmdb.Error) -> str:
    text = str(error)
    if os.strerror(errno.ENOSPC) in text:
        return ": make room on the disk; nothing was changed"
    if os.strerror(errno.EACCES) in text or os.strerror(errno.EROFS) in text:
        return f": user {os.geteuid()} needs permission to write there, also for reading (lock.mdb)"
    return ""


def _prepare(path: Path, *, readonly: bool) -> None:
    """Make the directory, for its owner alone; refuse one that anybody may write to. Raises ConfigError."""
    try:
        if readonly and not (path / "data.mdb").exists():
            raise ConfigError(f"{path}: holds no databases yet; `tlspool localid add` and the like make them")
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in (path, path / "data.mdb"):
            if each.exists() and each.stat().st_mode & stat.S_IWOTH:
                raise ConfigError(f"{each}: everybody may write to it, and with it decide whom to trust; chmod o-w it")
    except OSError as error:
        raise ConfigError(f"{error.filename or path}: {error.strerror}") from error
