"""Would the tests notice the bugs that TLS stacks are known for? Each is put in, and a named test must fail."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mutants.apply import Mutant, changed
from tests.mutants.known import CONTROLS, MUTANTS

ROOT = Path(__file__).resolve().parents[2]
FAILED = "1"  # pytest's exit status where tests ran and at least one failed


class Nursery:
    """The process that runs mutants; what they print goes to a file."""

    def __init__(self, log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            command = [sys.executable, "-m", "tests.mutants.apply"]
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True
            )

    def status(self, name: str) -> tuple[str, str]:
        """Exit status of a mutant's tests, and what they printed."""
        assert self.process.stdin is not None and self.process.stdout is not None
        start = self._log.stat().st_size
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()
        status = self.process.stdout.readline().strip()
        return status, self._log.read_bytes()[start:].decode(errors="replace")


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    started = Nursery(tmp_path_factory.mktemp("mutants") / "output")
    yield started
    started.process.kill()
    started.process.communicate()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_is_noticed(mutant: Mutant, nursery: Nursery) -> None:
    status, output = nursery.status(mutant.name)
    assert status == FAILED, f"survived, or could not be run: {status!r} {output[-2000:]}"


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_without_a_bug_nothing_is_noticed(control: Mutant, nursery: Nursery) -> None:
    """What makes the others' failures mean something."""
    status, output = nursery.status(control.name)
    assert status == "0", output[-2000:]


def test_a_mutant_that_no_longer_fits_is_told() -> None:
    with pytest.raises(ValueError, match="0 times"):
        changed(MUTANTS[0], "")


def test_names_are_unique() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
