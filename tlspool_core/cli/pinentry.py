"""GnuPG's pinentry programs, asked for a PIN by the Assuan protocol.

Theory of operation
-------------------
A pinentry is started for one question, with pipes for input and output.  It greets with `OK`; each line that we send is answered by `OK`
or `ERR`, and GETPIN by a line `D` with the PIN before its `OK`.  Whatever else comes (status lines, comments) is skipped, up to a
limit; whatever goes wrong means that there is no PIN.  In both directions %, CR and LF are written as %XX (Assuan manual,
"Server responses").
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from tlspool_core.cli.secret import Secret

_MAX_LINE = 1000  # bytes, of the Assuan protocol
_MAX_LINES = 100
_DESKTOP = ("DISPLAY", "WAYLAND_DISPLAY")


class PinentryError(Exception):
    """The program cannot be used; says why."""


class Cancelled(Exception):
    """The person gave no PIN, or not in time."""


def has_desktop() -> bool:
    """Whether a pinentry could open a window."""
    return any(os.environ.get(name) for name in _DESKTOP)


def escape(text: str) -> str:
    """A text as an argument of a command."""
    return "".join(f"%{ord(letter):02X}" if letter in "%\r\n" or ord(letter) < 32 else letter for letter in text)


class Pinentry:
    """One program, started; `deadline` is of time.monotonic()."""

    def __init__(self, program: str, deadline: float) -> None:
        """Raises PinentryError."""
        self._program = program
        self._deadline = deadline
        try:
            self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        except OSError as error:
            raise PinentryError(f"{program}: {error.strerror}") from None
        self._buffer = bytearray()

    def close(self) -> None:
        """End the program, whatever it does; wipes what it wrote."""
        self._buffer[:] = bytes(len(self._buffer))
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait()

    def ask(self, lines: Iterable[tuple[str, str]], secret: Secret) -> None:
        """Have the PIN written into `secret`. Raises PinentryError or Cancelled."""
        self._answer(None)
        for command, argument in lines:
            self._send(f"{command} {escape(argument)}")
            try:
                self._answer(None)
            except Cancelled:
                continue  # an option that it does not know
        self._send("GETPIN")
        self._answer(secret)
        if not secret.length:
            raise Cancelled

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode()[: _MAX_LINE - 1] + b"\n")
        except OSError as error:
            raise PinentryError(f"{self._program} went away: {error.strerror}") from None

    def _answer(self, secret: Secret | None) -> None:
        """Up to OK. Raises Cancelled for ERR."""
        for _ in range(_MAX_LINES):
            word, _, rest = self._line().partition(b" ")
            if word == b"OK":
                return
            if word == b"ERR":
                raise Cancelled
            if word == b"D" and secret is not None:
                pin = unquote_to_bytes(bytes(rest))
                if len(pin) > len(secret.view) - secret.length:
                    raise PinentryError(f"{self._program} gives a PIN that is too long")
                secret.view[secret.length : secret.length + len(pin)] = pin
                secret.length += len(pin)
        raise PinentryError(f"{self._program} does not come to an answer")

    def _line(self) -> bytearray:
        assert self._process.stdout is not None
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > _MAX_LINE:
                raise PinentryError(f"{self._program} does not speak the Assuan protocol")
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, self._deadline - time.monotonic()))
            if not ready:
                raise Cancelled
            data = os.read(self._process.stdout.fileno(), _MAX_LINE)
            if not data:
                raise PinentryError(f"{self._program} ended without an answer")
            self._buffer += data
        line = self._buffer[:end].rstrip(b"\r")
        self._buffer[: end + 1] = bytes(end + 1)
        del self._buffer[: end + 1]
        return line
