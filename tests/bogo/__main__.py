"""Does the engine behave as BoringSSL's protocol test suite ("BoGo") demands?

`python -m tests.bogo [--sample] [PATTERN...]` fetches the suite's source by apt, builds its runner with Debian's Go, runs it against the
shim, and prints how many tests passed, failed, and do not apply.  Status 0 only if none failed.  `config.json` lists the tests that
do not apply to the engine's features, each pattern with its reason, and translates the suite's error names into ours.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".cache" / "bogo"
PACKAGE = "android-platform-external-boringssl"
CANNOT_FETCH = 77  # exit status, as automake's for a test that cannot run here
IMPORT_PATH = "boringssl.googlesource.com/boringssl"


def fetch() -> Path:
    """The suite's source tree, fetched once. Adds a source line to apt's lists for this call only."""
    tree = CACHE / "source"
    if (tree / "src" / "go.mod").exists():
        return tree
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        lists = Path(scratch) / "sources.list"
        lists.write_text("deb-src http://deb.debian.org/debian bookworm main\n")
        state = Path(scratch) / "lists"
        (state / "partial").mkdir(parents=True)
        options = [
            "-o", f"Dir::Etc::sourcelist={lists}", "-o", "Dir::Etc::sourceparts=-", "-o", f"Dir::State::lists={state}",
            "-o", "Dir::Cache::srcpkgcache=", "-o", "Dir::Cache::pkgcache=", "-o", "APT::Sandbox::User=root",
        ]  # fmt: skip
        subprocess.run(["apt-get", *options, "-qq", "update"], check=True)
        subprocess.run(["apt-get", *options, "-qq", "--download-only", "source", PACKAGE], check=True, cwd=CACHE)
    archive = next(CACHE.glob(f"{PACKAGE}_*.orig.tar.*"))
    tree.mkdir(exist_ok=True)
    subprocess.run(["tar", "xf", str(archive), "-C", str(tree), "--strip-components=1"], check=True)
    return tree


def build(tree: Path) -> Path:
    """The runner's program."""
    runner = CACHE / "runner"
    if runner.exists():
        return runner
    home = CACHE / "gopath"
    link = home / "src" / IMPORT_PATH
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(tree / "src")
    environment = {
        **os.environ, "GO111MODULE": "off", "GOFLAGS": "", "GOPATH": f"{home}:/usr/share/gocode", "GOCACHE": str(CACHE / "gocache"),
    }  # fmt: skip
    command = ["go", "test", "-c", "-o", str(runner), "."]
    subprocess.run(command, check=True, cwd=link / "ssl" / "test" / "runner", env=environment)
    return runner


@contextlib.contextmanager
def shim_server() -> Iterator[tuple[Path, str]]:
    """A running fork server; yields the launcher program and the socket's path for its environment."""
    with tempfile.TemporaryDirectory(prefix="bogo-") as scratch:
        path = str(Path(scratch) / "server")
        launcher = Path(scratch) / "shim"
        source = (HERE / "launcher.py").read_text().split("\n", 1)[1]
        launcher.write_text(f"#!{Path(sys.executable).resolve()} -IS\n{source}")
        launcher.chmod(0o755)
        server = subprocess.Popen([sys.executable, "-m", "tests.bogo.forkserver", path], cwd=ROOT)
        while not Path(path).exists():
            if server.poll() is not None:
                raise SystemExit("the shim's fork server did not start")
            time.sleep(0.05)
        try:
            yield launcher, path
        finally:
            server.send_signal(signal.SIGKILL)
            server.wait()


def run(runner: Path, tree: Path, patterns: list[str], workers: int) -> dict[str, str]:
    """Run the suite; returns the outcome of each test by its name."""
    results = CACHE / "results.json"
    results.unlink(missing_ok=True)
    directory = tree / "src" / "ssl" / "test" / "runner"
    with shim_server() as (launcher, path):
        command = [
            str(runner), "-test.timeout=60m", "-shim-path", str(launcher), "-shim-config", str(HERE / "config.json"), "-loose-errors",
            "-allow-unimplemented", "-pipe", "-resource-dir", str(directory), "-num-workers", str(workers), "-json-output", str(results),
        ]  # fmt: skip
        if patterns:
            command += ["-test", ";".join(patterns)]
        done = subprocess.run(
            command, cwd=directory, env={**os.environ, "TLSPOOL_BOGO_SERVER": path}, check=False, capture_output=True, text=True
        )
    (CACHE / "log.txt").write_text(done.stdout + done.stderr)
    if not results.exists():
        raise SystemExit(f"the runner did not finish:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return {name: test["actual"] for name, test in json.loads(results.read_text())["tests"].items()}


def failures() -> str:
    """What the runner said about the tests that failed."""
    log = (CACHE / "log.txt").read_text()
    return (
        "\n".join(re.findall(r"^FAILED \(.*?(?=^(?:PASSED|FAILED|SKIPPED|UNIMPLEMENTED|DISABLED|$))", log, re.S | re.M))
        or log[-3000:]
    )


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", help="tests to run, with * as wildcard; all if none is given")
    parser.add_argument("--sample", action="store_true", help="only the fixed part that belongs to `make test`")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--details", action="store_true", help="print what the runner said about each failed test")
    options = parser.parse_args()
    try:
        tree = fetch()
    except (subprocess.CalledProcessError, FileNotFoundError, StopIteration) as failure:
        print(f"bogo: {PACKAGE} cannot be fetched by apt from Debian: {failure}", file=sys.stderr)
        return CANNOT_FETCH
    patterns = (HERE / "sample.txt").read_text().split() if options.sample else options.patterns
    outcomes = run(build(tree), tree, patterns, options.workers)
    counts = Counter(outcomes.values())
    for name in sorted(name for name, outcome in outcomes.items() if outcome not in ("PASS", "SKIP")):
        print(f"{outcomes[name]}: {name}")
    if options.details:
        print(failures())
    failed = sum(count for outcome, count in counts.items() if outcome not in ("PASS", "SKIP"))
    print(f"bogo: {counts['PASS']} passed, {failed} failed, {counts['SKIP']} not applicable")
    return 1 if failed or not counts["PASS"] else 0


if __name__ == "__main__":
    sys.exit(main())
