"""FreeRADIUS servers, and pools that ask them, for the tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for freeradius and radius_helpers

from freeradius import FreeRadius
from radius_pools import PoolProcess, Pools


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreeRadius]:
    """One that all tests may ask, and none may stop."""
    made = FreeRadius(tmp_path_factory.mktemp("freeradius"), radsec=True)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def own_servers(tmp_path: Path) -> Iterator[list[FreeRadius]]:
    """Two that a test may start and stop; neither is running."""
    made = [FreeRadius(tmp_path / name) for name in ("first", "second")]
    yield made
    for one in made:
        one.stop()


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PoolProcess]:
    """The other side's pool, which asks nobody."""
    made = PoolProcess(tmp_path_factory.mktemp("clients") / "pool")
    made.outcome.write_text("clean")  # of the server, for the service "slow"
    yield made
    made.stop()


@pytest.fixture
def pools(tmp_path: Path) -> Iterator[Pools]:
    """Start pools that ask; `rules` are [aaa.radius]."""
    started: list[PoolProcess] = []

    def start(rules: dict[str, Any], **more: Any) -> PoolProcess:
        started.append(PoolProcess(tmp_path / f"pool{len(started)}", rules, **({"authorization": ["radius"]} | more)))
        return started[-1]

    yield start
    for pool in started:
        pool.stop()
        print(pool.text)
