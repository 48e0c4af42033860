"""Does the tree keep its own rules: import arrows, live links, documented modules?"""

from __future__ import annotations

import re
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


ATTACKS = (
    "Renegotiation", "Triple handshake", "BEAST", "Lucky 13", "POODLE", "CRIME", "FREAK", "Logjam", "SLOTH", "Bleichenbacher", "ROBOT",
    "DROWN", "Selfie", "KeyUpdate flood", "Theft of ticket keys", "ALPACA", "Raccoon", "0-RTT replay", "Early ChangeCipherSpec",
    "SKIP-TLS", "Heartbleed",
)  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_each_known_attack_has_its_row_and_a_test(attack: str) -> None:
    rows = (ROOT / "docs" / "vulnerabilities.md").read_text(encoding="utf-8").splitlines()
    (row, *_) = [line for line in rows if line.startswith("| ") and attack.lower() in line.split(" | ")[0].lower()] or [""]
    assert re.search(r"`(tests|plugins)/[\w/]+\.py::test_\w+`", row), "no row that begins with it and names a test"


def test_a_page_that_names_no_such_test_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tools import check_docs

    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text("def test_it_is_so() -> None: ...\n")
    page = tmp_path / "page.md"
    page.write_text("`tests/test_it.py::test_it_is_so` `tests/test_it.py::test_it` `tests/test_no.py`\n")
    monkeypatch.setattr(check_docs, "ROOT", tmp_path)
    assert list(check_docs.dead_links(page)) == [
        "page.md: tests/test_it.py has no test_it",
        "page.md: there is no tests/test_no.py",
    ]


def test_documentation_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    from tools import check_docs

    assert check_docs.main() == 0, capsys.readouterr().out
