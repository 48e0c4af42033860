"""GnuPG's pinentry programs, asked for a PIN by the Assuan protocol.

Theory of operation
-------------------
A pinentry is started for one question, with pipes for input and output.  It greets with `OK`; each line that we send is answered by `OK`
or `ERR`, and GETPIN by a line `D` with the PIN before its `OK`.  Whatever else comes (status lines, comments) is skipped, up to a
limit; whatever goes wrong means that there is no PIN.  In both directions %, CR and LF are written as %XX (Assuan manual,
"Server responses").

What the program writes is read into locked memory, and looked at there: any line may be the one with the PIN.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Iterable

from tlspool_core.cli.terminal import Cancelled
from tlspool_core.secret import Secret

_MAX_LINE = 1000  # bytes, of the Assuan protocol
_MAX_LINES = 100
_PERCENT, _RETURN, _NEWLINE = b"%\r\n"
_HEX = {ord(digit): int(digit, 16) for digit in "0123456789abcdefABCDEF"}
_DESKTOP = ("DISPLAY", "WAYLAND_DISPLAY")


class PinentryError(Exception):
    """The program cannot be used; says why."""


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
        self._input = Secret(2 * _MAX_LINE)
        self._read = 0  # how much of it was looked at

    def close(self) -> None:
        """End the program, whatever it does; wipes what it wrote."""
        self._input.wipe()
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
            line = self._line()
            if bytes(line[:2]) == b"D ":
                if secret is not None:
                    self._unescape(line[2:], secret)
                continue
            word = bytes(line[:4]).partition(b" ")[0]
            if word == b"OK":
                return
            if word == b"ERR":
                raise Cancelled
        raise PinentryError(f"{self._program} does not come to an answer")

    def _unescape(self, text: memoryview, secret: Secret) -> None:
        """Append what a line of data stands for; a % that nothing follows stands for itself."""
        at = 0
        while at < len(text):
            octet, at = text[at], at + 1
            if octet == _PERCENT and all(digit in _HEX for digit in text[at : at + 2]) and at + 2 <= len(text):
                octet, at = 16 * _HEX[text[at]] + _HEX[text[at + 1]], at + 2
            if secret.length == len(secret.view):
                raise PinentryError(f"{self._program} gives a PIN that is too long")
            secret.view[secret.length] = octet
            secret.length += 1

    def _line(self) -> memoryview:
        """The next line, good until the next call."""
        assert self._process.stdout is not None
        held = self._input
        held.view[: held.length - self._read] = held.used[
            self._read :
        ]  # what was read before the line of the last call is done with
        held.length -= self._read
        while (end := next((at for at, octet in enumerate(held.used) if octet == _NEWLINE), -1)) < 0:
            if held.length > _MAX_LINE:
                raise PinentryError(f"{self._program} does not speak the Assuan protocol")
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, self._deadline - time.monotonic()))
            if not ready:
                raise Cancelled
            got = os.readv(self._process.stdout.fileno(), [held.view[held.length :]])
            if not got:
                raise PinentryError(f"{self._program} ended without an answer")
            held.length += got
        self._read = end + 1
        return held.view[: end - 1] if end and held.view[end - 1] == _RETURN else held.view[:end]
