"""Daemons under test: real processes with a configuration, a socket and a log of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tlspool_core.client import Pool, PoolError

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for toyplugin, which the daemons import too
ROOT = HERE.parent.parent
_RUN = "import sys, pathlib; from tlspool_core.pool.daemon import serve; serve(pathlib.Path(sys.argv[1]))"
_INSTALLED = ("x509", "pkcs11", "lmdb", "srp", "openpgp", "kdh", "radius", "rawkey", "ldap")

DEFAULTS = f"""
[plugins]
load = ["toyplugin"]
disabled = {list(_INSTALLED)}

[config]
backend = "memory"
"""


class DaemonProcess:
    """A daemon; ended at the end of its test."""

    def __init__(self, directory: Path, extra: str = "") -> None:
        self.directory = directory
        self.path = directory / "tlspool.sock"
        self.log = directory / "log"
        self.config = directory / "tlspool.toml"
        self.configure(extra)
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join((str(HERE), str(ROOT))),
            "PYTHONWARNINGS": "error",
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([sys.executable, "-c", _RUN, str(self.config)], stderr=log, env=environment)
        self.pool = Pool(self.path, patience=15)

    def configure(self, extra: str) -> None:
        top, _, rest = extra.partition("---\n") if "---\n" in extra else ("", "", extra)
        self.config.write_text(f'{top}\n[[socket]]\npath = "{self.path}"\n{DEFAULTS}\n{rest}')

    @property
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    @property
    def text(self) -> str:
        return self.log.read_text()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        self.pool.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                return self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
        return self.process.returncode


def eventually(condition: Callable[[], object], limit: float = 10.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Callable[..., DaemonProcess]]:
    """Start daemons with pieces of configuration."""
    started: list[DaemonProcess] = []

    def start(extra: str = "") -> DaemonProcess:
        directory = tmp_path / f"pool{len(started)}"
        directory.mkdir()
        daemon = DaemonProcess(directory, extra)
        started.append(daemon)
        daemon.pool.ping()
        return daemon

    yield start
    for daemon in started:
        try:
            daemon.stop()
        finally:
            print(daemon.text)


@pytest.fixture
def daemon(daemons: Callable[..., DaemonProcess]) -> DaemonProcess:
    """One daemon with defaults."""
    return daemons()


__all__ = ["DaemonProcess", "PoolError", "eventually"]
