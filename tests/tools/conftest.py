"""A pool whose keys are in a token, and tools in front of it as processes of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for helpers
sys.path.insert(0, str(Path(__file__).parent.parent / "daemon"))  # for the pool under test

from conftest import DaemonProcess, eventually  # type: ignore[attr-defined]
from test_openssl import NEEDED, World

ROOT = Path(__file__).parent.parent.parent
W = TypeVar("W", bound=World)


@contextmanager
def opened(kind: type[W], directory: Callable[[str], Path]) -> Iterator[W]:
    """A world of some kind; `directory` makes one for a purpose."""
    if NEEDED:
        pytest.skip(f"not installed: {', '.join(NEEDED)}")
    daemons: list[DaemonProcess] = []

    def start(extra: str, *, real: bool) -> DaemonProcess:
        daemons.append(DaemonProcess(directory("pool"), extra, real=real))
        daemons[0].wait_until_it_serves()
        return daemons[0]

    try:
        yield kind(directory("world"), start)
    finally:
        for daemon in daemons:
            daemon.stop()
            print(daemon.text)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with opened(World, tmp_path_factory.mktemp) as made:
        yield made


class Tool:
    """A `tlspool` command as a process."""

    def __init__(self, log: Path, world: World, *arguments: str, **more: Any) -> None:
        self.log = log
        self.good_ends = more.pop("good_ends", (0,))
        environment = os.environ | {"TLSPOOL_SOCKET": str(world.daemon.path), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
        program = more.pop("program", "from tlspool_core.cli import main; main()")
        self.arguments = [sys.executable, "-c", program, *arguments]
        with log.open("wb") as errors:
            self.process = subprocess.Popen(self.arguments, env=environment | more.pop("env", {}), **({"stderr": errors} | more))

    def reaches(self, *ports: int) -> Tool:
        """Wait until it listens."""
        for port in ports:
            eventually(lambda port=port: self.process.poll() is not None or listens(port))
        assert self.process.poll() is None, self.log.read_text()
        return self

    def stop(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def listens(port: int) -> bool:
    """Whether a socket listens on the port; looks without connecting."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines)


class Listening:
    """Does with each connection to a port of loopback, one after the other, what `talk` does."""

    def __init__(self) -> None:
        self.connections = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            connection.settimeout(20)
            with connection, suppress(OSError):
                self.talk(connection)

    def talk(self, connection: socket.socket) -> None:
        """Until the connection may end."""
        raise NotImplementedError

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(20)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def tool(world: World, tmp_path: Path) -> Iterator[Callable[..., Tool]]:
    """Start a tool; it must end well when it is asked to."""
    started: list[Tool] = []

    def start(*arguments: str, **more: Any) -> Tool:
        started.append(Tool(tmp_path / f"log{len(started)}", world, *arguments, **more))
        return started[-1]

    yield start
    running = [one for one in started if one.process.poll() is None]
    ends = {one: one.stop() for one in reversed(started)}
    for one in started:
        print(one.log.read_text())
    assert all(ends[one] in one.good_ends for one in running)


def s_client(
    world: World, port: int, *arguments: str, data: bytes = b"", name: str = "www.example.com"
) -> subprocess.CompletedProcess[bytes]:
    """What `openssl s_client` shows after the handshake."""
    ways = ("-servername", name, "-CAfile", str(world.home / "ca.pem"), "-verify_return_error", "-quiet")
    command = ("openssl", "s_client", "-connect", f"127.0.0.1:{port}", *ways, *arguments)
    return subprocess.run(command, input=data, capture_output=True, timeout=20, check=False)
