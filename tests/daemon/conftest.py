"""Daemons under test: real processes with a configuration, a socket and a log of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tlspool_core.client import Pool, PoolError, Session

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # for toyplugin, which the daemons import too, and for this module
ROOT = HERE.parent.parent
_RUN = "import sys, pathlib; from tlspool_core.pool.daemon import serve; sys.exit(serve(pathlib.Path(sys.argv[1])))"
INSTALLED = ("x509", "pkcs11", "lmdb", "srp", "openpgp", "kdh", "radius", "rawkey", "dane", "ldap")

DEFAULTS = f"""
[plugins]
load = ["toyplugin"]
disabled = {list(INSTALLED)}

[config]
backend = "memory"
"""


class DaemonProcess:
    """A daemon; ended at the end of its test."""

    def __init__(
        self, directory: Path, extra: str = "", *, real: bool = False, path: Sequence[Path] = (), within: Sequence[str] = ()
    ) -> None:
        """`extra` is configuration: what stands before a line `---` goes to the top. `real`: with the installed plugins.

        `path` is where modules are found beside those of this directory; `within`, what becomes the daemon in the end (a program, with
        its arguments).
        """
        self.real = real
        self.directory = directory
        self.path = directory / "tlspool.sock"
        self.log = directory / "log"
        self.config = directory / "tlspool.toml"
        self.configure(extra)
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(str(each) for each in (*path, HERE, ROOT)),
            "PYTHONWARNINGS": "error",
        }
        with self.log.open("wb") as log:
            command = [*within, sys.executable, "-c", _RUN, str(self.config)]
            self.process = subprocess.Popen(command, stderr=log, env=environment)
        self.pool = Pool(self.path, patience=15)

    def configure(self, extra: str) -> None:
        top, _, rest = extra.partition("---\n") if "---\n" in extra else ("", "", extra)
        self.config.write_text(f'{top}\n[[socket]]\npath = "{self.path}"\n{"" if self.real else DEFAULTS}\n{rest}')

    @property
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    @property
    def text(self) -> str:
        return self.log.read_text()

    def wait_until_it_serves(self) -> None:
        """Or has ended, which the first request will tell. On a machine with other work that can take many times what it takes alone."""
        eventually(lambda: self.path.exists() or self.process.poll() is not None, 60)
        self.pool.ping()

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


def eventually(condition: Callable[[], object], limit: float = 30.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


def _factory(directory: Path) -> Iterator[Callable[..., DaemonProcess]]:
    started: list[DaemonProcess] = []

    def start(extra: str = "", **more: Any) -> DaemonProcess:
        own = directory / f"pool{len(started)}"
        own.mkdir()
        daemon = DaemonProcess(own, extra, **more)
        started.append(daemon)
        daemon.wait_until_it_serves()
        return daemon

    yield start
    for daemon in started:
        try:
            daemon.stop()
        finally:
            print(daemon.text)


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Callable[..., DaemonProcess]]:
    """Start daemons with pieces of configuration, for one test."""
    yield from _factory(tmp_path)


@pytest.fixture(scope="module")
def module_daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., DaemonProcess]]:
    """The same, for all tests of a file."""
    yield from _factory(tmp_path_factory.mktemp("pools"))


@pytest.fixture
def daemon(daemons: Callable[..., DaemonProcess]) -> DaemonProcess:
    """One daemon with defaults."""
    return daemons()


def both(server: Pool, client: Pool, server_wishes: dict[str, Any], client_wishes: dict[str, Any]) -> list[Any]:
    """STARTTLS at both ends of one connection; each outcome is a session or an error: server's, then client's."""
    ends = socket.socketpair()
    outcomes: list[Any] = [None, None]

    def run(index: int, call: Callable[..., Session], wishes: dict[str, Any]) -> None:
        try:
            outcomes[index] = call(ends[index], **({"timeout": 10} | wishes))
        except PoolError as error:
            outcomes[index] = error

    calls = [(0, server.starttls_server, server_wishes), (1, client.starttls_client, client_wishes)]
    threads = [threading.Thread(target=run, args=one) for one in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return outcomes


__all__ = ["DaemonProcess", "both", "eventually"]
