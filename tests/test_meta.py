"""Does the tree keep its own rules: import arrows, live links, documented modules?"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _tools_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])


def test_import_arrows_point_down() -> None:
    from tools import check_architecture

    assert [*check_architecture.core_faults(), *check_architecture.plugin_faults()] == []


def test_the_arrow_check_sees_an_upward_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tools import check_architecture

    room = tmp_path / "tlspool_core" / "tls"
    room.mkdir(parents=True)
    (room / "bad.py").write_text("from tlspool_core.pool import session\n")
    monkeypatch.setattr(check_architecture, "ROOT", tmp_path)
    assert [*check_architecture.core_faults()] == ["tlspool_core/tls/bad.py:1: tls may not import tlspool_core.pool"]


def test_documentation_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    from tools import check_docs

    assert check_docs.main() == 0, capsys.readouterr().out
