"""Does a fixed part of BoringSSL's protocol suite still pass, and is every excluded test excluded for a reason?

The whole suite is `make bogo`. Its runner is built by the set-up of `make test` where Debian's Go and source packages can be had.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CANNOT_FETCH = 77


def test_every_excluded_test_has_its_reason() -> None:
    excluded = json.loads((HERE / "config.json").read_text())["DisabledTests"]
    assert excluded
    for pattern, reason in excluded.items():
        assert len(reason) > 5, pattern
        assert "TODO" not in reason, pattern


def test_the_sample_is_large_and_excludes_itself_nowhere() -> None:
    names = (HERE / "sample.txt").read_text().split()
    assert len(names) == len(set(names)) >= 200


@pytest.mark.timeout(600)
def test_the_fixed_part_passes() -> None:
    if shutil.which("go") is None and not (ROOT / ".cache" / "bogo" / "runner").exists():
        pytest.skip("the suite's runner needs Go: run `make bogo` once")
    command = [sys.executable, "-m", "tests.bogo", "--sample", "--details", "--workers", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == CANNOT_FETCH:
        pytest.skip(f"the suite's source package cannot be had here: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 failed" in done.stdout
