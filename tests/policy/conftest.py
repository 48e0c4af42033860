"""What all tests of policy look at."""

from __future__ import annotations

import pytest

from tlspool_core.interfaces import PeerContext
from tlspool_core.testing.memory import MemoryBackend
from tlspool_core.testing.policy import peer_context


@pytest.fixture
def databases() -> MemoryBackend:
    return MemoryBackend()


@pytest.fixture
def context(databases: MemoryBackend) -> PeerContext:
    """A client that wanted www.example.com, and got it."""
    return peer_context(config=databases)
