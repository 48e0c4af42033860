"""FreeRADIUS servers for the tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for freeradius and radius_helpers

from freeradius import FreeRadius


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
