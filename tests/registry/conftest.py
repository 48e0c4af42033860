"""Real distributions, made in a temporary directory on sys.path: what the registry finds is what `pip install` would leave."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import pytest

from tlspool_core.registry import loading

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """`install("name", "source", key="entry point", version="1.0")` puts a distribution with one module there."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def entry_points(group: str) -> list[EntryPoint]:
        """Of this directory alone: plugins that happen to be installed beside the tests must not matter."""
        return [point for found in distributions(path=[str(site)]) for point in found.entry_points if point.group == group]

    monkeypatch.setattr(loading, "entry_points", entry_points)
    before = set(sys.modules)

    def put(distribution: str, source: str, *, key: str = "", version: str = "1.0") -> None:
        module = distribution.replace("-", "_")
        (site / f"{module}.py").write_text(textwrap.dedent(source))
        metadata = site / f"{module}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (metadata / "entry_points.txt").write_text(f"[tlspool]\n{key or distribution} = {module}\n")

    yield put
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(site) in str(sys.modules[name].__file__):
            del sys.modules[name]
