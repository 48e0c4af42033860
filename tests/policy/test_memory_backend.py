"""Do the databases in memory, with which so much else is tested, do what real ones must?"""

from __future__ import annotations

from tlspool_core.interfaces import ConfigBackend
from tlspool_core.testing.config import ConfigBackendConformance
from tlspool_core.testing.memory import MemoryBackend


class TestMemory(ConfigBackendConformance):
    persistent = False

    def make(self) -> ConfigBackend:
        return MemoryBackend()
