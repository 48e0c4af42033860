"""The stage on which the scenes play: a temporary directory, the programs started in it, and what is said to the audience.

Theory of operation
-------------------
Everything lives below one temporary directory: token, databases, sockets, certificates.  Programs are started with an environment
that points there and nowhere else, and are ended by their process id when the stage closes, in reverse order.  A scene calls
`tlspool` as a person would on a terminal, so that what is shown is what can be typed.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

BIN = Path(sys.executable).parent
DOMAIN = "tlspool.example"
MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
)


class DemoFailed(Exception):
    """Something that should have worked did not; the text says what, with the output of the program."""


def free_port() -> int:
    """A TCP port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Stage:
    """Directory, environment and processes of one demonstration."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="tlspool-demo-"))
        self.run_dir = self.home / "run"
        self.run_dir.mkdir(mode=0o700)
        self.socket = self.run_dir / "tlspool" / "tlspool.sock"
        self.config = self.home / "tlspool.toml"
        self.module = next((path for path in MODULES if Path(path).exists()), MODULES[0])
        self.processes: list[tuple[str, subprocess.Popen[bytes]]] = []
        self.environment = {
            "PATH": f"{BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "XDG_RUNTIME_DIR": str(self.run_dir),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "XDG_STATE_HOME": str(self.home / "state"),
            "SOFTHSM2_CONF": str(self.home / "softhsm2.conf"),
            "TLSPOOL_CONFIG": str(self.config),
            "TLSPOOL_SOCKET": str(self.socket),
        }
        self.environment["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)  # the demonstration's own programs

    # --- speaking to the audience

    def title(self, text: str) -> None:
        """Announce a scene."""
        print(f"\n\033[1m== {text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)

    def say(self, text: str) -> None:
        """Explain what is about to be seen."""
        print(f"   {text}", flush=True)

    def show(self, text: str) -> None:
        """Show output of a program, set off from our own words."""
        for line in text.rstrip().splitlines():
            print(f"   | {line}", flush=True)

    # --- running programs

    def command(self, arguments: Sequence[str], *, ok: bool = True, stdin: bytes = b"", quiet: bool = False) -> str:
        """Run a program to its end and return its output; raises DemoFailed when it succeeds or fails against expectation."""
        if not quiet:
            self.show("$ " + shlex.join(self.shorten(word) for word in arguments))
        done = subprocess.run(
            list(arguments),
            env=self.environment,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
        text = done.stdout.decode(errors="replace")
        if (done.returncode == 0) is not ok:
            raise DemoFailed(f"{shlex.join(arguments)} ended with {done.returncode}:\n{text}")
        return text

    def tlspool(self, *arguments: str, ok: bool = True, stdin: bytes = b"", quiet: bool = False) -> str:
        """Run the `tlspool` command."""
        return self.command(["tlspool", *arguments], ok=ok, stdin=stdin, quiet=quiet)

    def shorten(self, word: str) -> str:
        """Leave the temporary directory out of what is shown."""
        return word.replace(str(self.home), "$DEMO")

    def start(self, name: str, arguments: Sequence[str]) -> Path:
        """Start a program that keeps running; its output goes to the file that is returned."""
        log = self.home / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                list(arguments), env=self.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.home
            )
        self.processes.append((name, process))
        return log

    def stop(self, name: str) -> None:
        """End a program that `start` started."""
        for entry in [entry for entry in self.processes if entry[0] == name]:
            self.processes.remove(entry)
            self._end(entry[1])

    def wait_for(self, condition: str, test: object, seconds: float = 15.0) -> None:
        """Wait until `test()` is true; raises DemoFailed, with the logs of the programs, if that takes too long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if callable(test) and test():
                return
            for name, process in self.processes:
                if process.poll() is not None:
                    raise DemoFailed(f"{name} ended while waiting until {condition}:\n{self.tail(name)}")
            time.sleep(0.05)
        raise DemoFailed(f"waited {seconds:.0f} s in vain until {condition}\n" + "\n".join(self.tail(n) for n, _ in self.processes))

    def wait_port(self, port: int) -> None:
        """Wait until something listens on a port of loopback."""
        self.wait_for(f"port {port} listens", lambda: _listens(port))

    def tail(self, name: str, lines: int = 15) -> str:
        """The last lines that a started program printed."""
        log = self.home / f"{name}.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""

    # --- closing

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for _, process in reversed(self.processes):
            self._end(process)
        shutil.rmtree(self.home, ignore_errors=True)

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    hexadecimal = f"{port:04X}"
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[1].endswith(":" + hexadecimal) and fields[3] == "0A":
                    return True
    return False
