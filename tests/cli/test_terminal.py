"""Is a PIN typed at the terminal, or piped in without one, read without echo and without a copy?"""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

import pytest

from tlspool_core.testing.traces import may_look, traces

PIN = "Hd-3851+Mole"
ASKS = """
import os
from tlspool_core.cli.terminal import ask_anywhere
from tlspool_core.secret import Secret
pin = ask_anywhere("PIN of the token")
if pin is None:
    print("declined", flush=True)
else:
    with pin:
        print("length", len(pin), "last", pin.used[-1], flush=True)
os.read(0, 1)
"""

ASKS_IN_THREAD = """
import asyncio
from tlspool_core.cli.terminal import ask_in_thread
try:
    asyncio.run(ask_in_thread("PIN of the token"))
except KeyboardInterrupt:
    print("interrupted", flush=True)
input()
"""


class Program:
    """Runs at a terminal of its own."""

    def __init__(self, text: str) -> None:
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.execv(sys.executable, [sys.executable, "-c", text])  # noqa: S606 - no shell is wanted
        self.seen = ""

    def sees(self, text: str) -> None:
        end = time.monotonic() + 20
        while text not in self.seen:
            ready, _, _ = select.select([self.terminal], [], [], max(0.0, end - time.monotonic()))
            assert ready, self.seen
            self.seen += os.read(self.terminal, 1000).decode()

    def types(self, text: bytes) -> None:
        os.write(self.terminal, text)


@pytest.fixture
def program(request: pytest.FixtureRequest) -> Iterator[Program]:
    made = Program(getattr(request, "param", ASKS))
    yield made
    os.kill(made.pid, signal.SIGKILL)
    os.waitpid(made.pid, 0)
    os.close(made.terminal)


def test_a_pin_is_typed_without_echo(program: Program) -> None:
    program.sees("PIN of the token: ")
    program.types(f"{PIN}\n".encode())
    program.sees(f"length {len(PIN)} last {ord(PIN[-1])}")
    assert PIN not in program.seen
    if may_look():
        assert traces(program.pid, PIN) == []


@pytest.mark.parametrize("program", [ASKS_IN_THREAD], indirect=True)
def test_an_interrupt_ends_the_question_and_gives_the_terminal_back(program: Program) -> None:
    """The thread that reads has to be told: no signal reaches it."""
    program.sees("PIN of the token: ")
    assert not termios.tcgetattr(program.terminal)[3] & termios.ECHO
    program.types(b"\3")
    program.sees("interrupted")
    assert termios.tcgetattr(program.terminal)[3] & termios.ECHO


@pytest.mark.parametrize("typed", [b"\n", b"\4"])
def test_an_empty_line_declines(program: Program, typed: bytes) -> None:
    program.sees("PIN of the token: ")
    program.types(typed)
    program.sees("declined")


@pytest.mark.parametrize(
    ("piped", "said"),
    [
        (f"{PIN}\r\n", f"length {len(PIN)}"),
        (PIN, f"length {len(PIN)}"),
        (f"{PIN}\nanother\n", f"length {len(PIN)}"),
        ("", "declined"),
        ("\n", "declined"),
        ("x" * 600, "declined"),
    ],
)
def test_without_a_terminal_standard_input_is_read(piped: str, said: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", ASKS], input=piped, capture_output=True, text=True, start_new_session=True, check=True
    )
    assert result.stdout.startswith(said)
    assert PIN not in result.stderr
