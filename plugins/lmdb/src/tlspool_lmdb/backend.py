"""The config backend "lmdb": one environment, shared by all processes that use these databases.

Theory of operation
-------------------
LMDB maps one file into each process; a reader sees the last commit without locks, and the writers of all processes go one by one.
So a change is seen by the next read anywhere, and the number of the last transaction is a generation counter for free.

What needs care, and is done here (`environment` has the rest):
- one environment is opened once per process, and shared by all backends that name it;
- the map has a size, sparse on disk; if another process made it larger, transactions fail until it is adopted, for which no
  transaction of this process may be open;
- a file that is cut short would kill the process by a signal when a page beyond its end is read, so its length is checked first;
- whatever LMDB complains of becomes a ConfigError that names the file and the remedy. Nothing is ever repaired or overwritten.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tlspool_core.api import ConfigBackend, ConfigError, ConfigReader, ConfigWriter
from tlspool_lmdb.databases import Databases
from tlspool_lmdb.environment import Environment

DEFAULT_MAP_SIZE = 1 << 30
MIN_MAP_SIZE = 1 << 16


def default_path() -> Path:
    """Where the databases of a person's own session are, by the XDG base directory specification."""
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state.startswith("/") else Path.home() / ".local" / "state") / "tlspool" / "db"


class LmdbBackend(ConfigBackend):
    """localid, disclose and trust in LMDB. Settings: `path` (a directory) and `map_size` (bytes)."""

    name = "lmdb"

    def __init__(self) -> None:
        self._env: Environment | None = None

    def open(self, settings: Mapping[str, Any], *, readonly: bool = False) -> None:
        """Open, and unless `readonly` create what is missing. Raises ConfigError."""
        path, map_size = _settings(settings)
        self.close()
        self._env = Environment.share(path, map_size, readonly=readonly)

    @property
    def _open(self) -> Environment:
        if self._env is None:
            raise ConfigError("the databases are not open")
        return self._env

    @contextmanager
    def read(self) -> Iterator[ConfigReader]:
        env = self._open
        with env.transaction(write=False) as txn:
            yield Databases(txn, env.handles, str(env.path))

    @contextmanager
    def write(self) -> Iterator[ConfigWriter]:
        env = self._open
        with env.transaction(write=True) as txn:
            yield Databases(txn, env.handles, str(env.path))

    def generation(self) -> int:
        env = self._env or self._open  # asked several times in each session, hence without detours
        return env.last_transaction()

    def close(self) -> None:
        if self._env is not None:
            self._env.release()
            self._env = None


def _settings(settings: Mapping[str, Any]) -> tuple[Path, int]:
    """Path and size of the map. Raises ConfigError."""
    if unknown := sorted(settings.keys() - {"path", "map_size"}):
        raise ConfigError(f"[config]: {unknown[0]}: unknown key; known are path and map_size")
    path = settings.get("path", "")
    map_size = settings.get("map_size", DEFAULT_MAP_SIZE)
    if not isinstance(path, str) or (path and not path.startswith("/")):
        raise ConfigError(f"[config]: path: must be a directory that begins with /, not {path!r}")
    if not isinstance(map_size, int) or isinstance(map_size, bool) or map_size < MIN_MAP_SIZE:
        raise ConfigError(f"[config]: map_size: must be a number of bytes, at least {MIN_MAP_SIZE}, not {map_size!r}")
    return (Path(path) if path else default_path()), map_size
