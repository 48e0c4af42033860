"""Would the tests notice the bugs that TLS stacks are known for? Each is put in, and a named test must fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.apply import Mutant, changed
from tests.mutants.known import MUTANTS

ROOT = Path(__file__).resolve().parents[2]
FAILED = 1  # pytest's exit status where tests ran and at least one failed


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_is_noticed(mutant: Mutant) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.mutants.apply", mutant.name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == FAILED, f"survived, or could not be run: {done.stdout[-1500:]}{done.stderr[-1500:]}"


def test_a_mutant_that_no_longer_fits_is_told() -> None:
    with pytest.raises(ValueError, match="0 times"):
        changed(MUTANTS[0], "")


def test_names_are_unique() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
