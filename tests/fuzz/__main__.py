"""Coverage-guided fuzzing of all targets, or of those named: `python -m tests.fuzz --seconds 60 [TARGET ...]`.

Theory of operation
-------------------
Each target runs in a process of its own, since a fuzzer never returns and instruments what is imported.  It starts from the seeds and
the kept corpus, and works in a temporary directory.  An input that raises is written to `.cache/fuzz/`, shown, and makes the exit
status 1; when its fault is mended, it belongs into `corpus/`.  `--keep` merges what added coverage into `corpus/`, smallest first.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOUND = ROOT / ".cache" / "fuzz"
INSTRUMENTED = [
    "tlspool_core",
    *(path.name for path in ROOT.glob("plugins/*/src/tlspool_*") if path.is_dir() and path.suffix == ""),
]
KEPT_MAX = 10  # files that `--keep` leaves for a target
KEPT_SIZE = 1024


def _targets() -> dict[str, object]:
    from tests.fuzz import dialogues, engine, files, kerberos, parsers, plugins, proxy

    modules = (parsers, plugins, kerberos, files, dialogues, proxy, engine)
    return {target.name: target for module in modules for target in module.TARGETS}


def one(name: str, arguments: list[str]) -> None:
    """In the process of one target: give it to the fuzzer, which does not return."""
    import warnings

    import atheris

    warnings.simplefilter("ignore")
    with atheris.instrument_imports(include=INSTRUMENTED):
        target = _targets()[name]

    def run(data: bytes) -> None:
        if data:
            target.run(data)  # type: ignore[attr-defined]

    atheris.Setup([sys.argv[0], *arguments], run)
    atheris.Fuzz()


def _command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.fuzz", "--one", name, "--", *arguments]


def fuzz(name: str, seconds: int, keep: bool) -> bool:
    """Whether a target stood the time."""
    from tests.fuzz.target import CORPUS, Target

    target = _targets()[name]
    assert isinstance(target, Target)
    FOUND.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        seeds, work = Path(scratch, "seeds"), Path(scratch, "work")
        seeds.mkdir()
        work.mkdir()
        for number, data in enumerate(target.inputs()):
            (seeds / f"{number}").write_bytes(data)
        options = [
            f"-max_total_time={seconds}",
            "-timeout=20",
            "-rss_limit_mb=2048",
            "-max_len=4096",
            f"-artifact_prefix={FOUND}/{name}-",
        ]
        done = subprocess.run(
            _command(name, *options, str(work), str(seeds)), cwd=ROOT, capture_output=True, text=True, check=False
        )
        report = done.stderr.splitlines()
        runs = next((line for line in reversed(report) if line.startswith(("Done", "#"))), "")
        print(f"{name:28} {'ok' if done.returncode == 0 else 'FAULT'}  {runs.strip()}", flush=True)
        if done.returncode:
            print("\n".join(report[-40:]), flush=True)
        elif keep:
            _keep(sorted(work.iterdir(), key=lambda path: path.stat().st_size), CORPUS / name)
    return done.returncode == 0


def _keep(added: list[Path], corpus: Path) -> None:
    """Spread over the sizes, so that inputs that reach far are among them."""
    small = [path for path in added if path.stat().st_size <= KEPT_SIZE]
    corpus.mkdir(parents=True, exist_ok=True)
    for path in small[:: max(1, len(small) // KEPT_MAX)][:KEPT_MAX]:
        (corpus / path.name[:12]).write_bytes(path.read_bytes())


def main() -> int:
    """The exit status: 1 if any target found a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--keep", action="store_true", help="add to the kept corpus what reached new code")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", help="targets, all without")
    options = parser.parse_args()
    if options.one:
        one(options.one, options.names)
    outcomes = [fuzz(name, options.seconds, options.keep) for name in options.names or _targets()]
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
