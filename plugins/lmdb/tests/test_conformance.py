"""Does the LMDB backend do what every config backend must?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlspool_lmdb.backend import LmdbBackend

from tlspool_core.api import ConfigBackend
from tlspool_core.testing.config import ConfigBackendConformance


class TestLmdb(ConfigBackendConformance):
    def make(self) -> ConfigBackend:
        return LmdbBackend()

    def settings(self, directory: Path) -> Mapping[str, Any]:
        return {"path": str(directory / "db")}
