"""Does the AAA plugin of docs/example-aaa.md work as the page says, and does the conformance class find faulty plugins?"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import Aaa, AaaDecision, AaaRequest, AccountingRecord, Denied
from tlspool_core.pool.aaa import SiteRules
from tlspool_core.testing.aaa import AaaConformance, AaaUnderTest, aaa_request

PAGE = Path(__file__).resolve().parents[2] / "docs" / "example-aaa.md"


def code_of(name: str) -> str:
    found = re.search(rf"^`{re.escape(name)}`:\n\n```\w+\n(.*?)```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None, f"the page has no {name}"
    return found[1]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The plugin, installed by pip into a directory of its own."""
    source, target = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    for name in ("pyproject.toml", "tlspool_guestlist.py"):
        (source / name).write_text(code_of(name))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, timeout=100)
    (target / "test_guestlist.py").write_text(code_of("test_guestlist.py"))
    return target


def run(site: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(site), "TLSPOOL_CONFIG": str(site / "tlspool.toml")}
    (site / "tlspool.toml").touch()
    done = subprocess.run([sys.executable, *arguments], cwd=site, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_found_and_passes_the_tests_of_every_aaa_plugin(site: Path) -> None:
    assert re.search(
        r"guestlist +1\.0 +loaded +aaa guestlist\n", run(site, "-c", "from tlspool_core.cli import main; main()", "plugins")
    )
    assert "10 passed" in run(site, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_guestlist.py")


def test_the_error_is_the_one_on_the_page(tmp_path: Path) -> None:
    scope: dict[str, Any] = {"__name__": "guestlist"}
    exec(code_of("tlspool_guestlist.py"), scope)  # noqa: S102 - this is the page under test
    (tmp_path / "guests").write_text("john@example.com\n")

    async def main() -> None:
        rules = scope["GuestList"]()
        await rules.start({"file": str(tmp_path / "guests")})
        await SiteRules({"guestlist": rules}, [("authorization", ["guestlist"])], 5).permit(aaa_request("eve@example.com"))

    with pytest.raises(Denied) as caught:
        asyncio.run(main())
    assert f"`{caught.value}`" in PAGE.read_text()


class Permissive(Aaa):
    """Permits strangers, gives john a limit that cannot be, and loses records."""

    name = "permissive"

    async def authorize(self, request: AaaRequest) -> AaaDecision:
        return AaaDecision(session_timeout=0 if request.remote_identity == DoNAI.parse("john@example.com") else None)

    async def account(self, record: AccountingRecord) -> None:
        if record.event == "stop":
            raise RuntimeError("lost")


class Faulty(AaaConformance):
    @asynccontextmanager
    async def opened(self) -> AsyncIterator[AaaUnderTest]:
        yield AaaUnderTest(Permissive(), aaa_request("john@example.com"), aaa_request("eve@example.com"), accounts=True)


@pytest.mark.parametrize(
    "test",
    [
        "test_who_is_permitted_is_permitted_with_limits_that_can_be_kept",
        "test_who_is_refused_is_refused_with_a_reason",
        "test_a_refusal_does_not_stick",
        "test_requests_at_once_do_not_mix",
        "test_accounting_is_taken_over_or_denied",
    ],
)
def test_faults_are_found(test: str) -> None:
    with pytest.raises((AssertionError, RuntimeError, Denied, pytest.fail.Exception)):  # Denied: of one who is permitted
        getattr(Faulty(), test)()
