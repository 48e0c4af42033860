"""Pools with databases on disk, and people at terminals, for one test each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from deskhouse import House, Person


@pytest.fixture
def houses(tmp_path: Path) -> Iterator[Callable[..., House]]:
    made: list[House] = []

    def make(**wishes: Any) -> House:
        home = tmp_path / f"house{len(made)}"
        home.mkdir()
        made.append(House(home, **wishes))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def person() -> Iterator[Callable[..., Person]]:
    made: list[Person] = []

    def make(*arguments: str, **more: Any) -> Person:
        made.append(Person(*arguments, **more))
        return made[-1]

    yield make
    for one in made:
        one.leaves()
