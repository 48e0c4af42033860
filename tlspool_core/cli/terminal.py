"""A PIN typed at the terminal: without echo, and right into locked memory.

Theory of operation
-------------------
The controlling terminal is asked, not standard input, and read by line without an editor that would remember.  A program that
has no terminal, as in a script, reads the line from standard input, and no more than the line: behind it may be that of the next question.
An empty line declines.

Reading waits in a thread, which no signal ends; so it also ends when it is woken, by an eventfd(2).
"""

from __future__ import annotations

import asyncio
import os
import select
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tlspool_core.secret import Secret

_PATIENCE = 3600.0  # seconds, should nobody set a deadline
_ENDS = b"\4\r\n"


class Cancelled(Exception):
    """The person gave no PIN, or not in time."""


class NoTerminal(Exception):
    """There is none to ask at."""


def printable(text: str) -> str:
    """Names come from tokens: nothing that steers a terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def ask(question: str, secret: Secret, deadline: float | None = None, waker: int | None = None) -> None:
    """Show a question, and read the answer into `secret`; the deadline is of time.monotonic(). Raises Cancelled, NoTerminal."""
    with _quiet_terminal() as terminal:
        os.write(terminal, f"{question}: ".encode())
        try:
            _read_line(terminal, secret, time.monotonic() + _PATIENCE if deadline is None else deadline, waker)
        finally:
            os.write(terminal, b"\r\n")


async def ask_in_thread(question: str) -> Secret | None:
    """`ask_anywhere`, without keeping the event loop waiting; if this is called off, the terminal is as before when it ends."""
    waker = os.eventfd(0, os.EFD_CLOEXEC)
    asking = asyncio.ensure_future(asyncio.to_thread(ask_anywhere, question, waker))
    try:
        return await asyncio.shield(asking)
    finally:
        os.eventfd_write(waker, 1)
        await asyncio.wait([asking])
        os.close(waker)


def ask_anywhere(question: str, waker: int | None = None) -> Secret | None:
    """The answer of a person at the terminal, else the next line of standard input; None if it is empty. The caller wipes it.

    None, too, as soon as something can be read from the descriptor `waker`.
    """
    secret = Secret()
    try:
        try:
            ask(question, secret, waker=waker)
        except NoTerminal:
            _read_line(0, secret, time.monotonic() + _PATIENCE, waker, piped=True)
    except Cancelled:
        secret.wipe()
        return None
    except BaseException:
        secret.wipe()
        raise
    return secret


@contextmanager
def _quiet_terminal() -> Iterator[int]:
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise NoTerminal(error.strerror) from None
    try:
        before = termios.tcgetattr(terminal)
        quiet = [*before]
        quiet[3] = before[3] & ~termios.ECHO
        try:
            termios.tcsetattr(terminal, termios.TCSAFLUSH, quiet)
            yield terminal
        finally:
            termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
    finally:
        os.close(terminal)


def _read_line(source: int, secret: Secret, deadline: float, waker: int | None, *, piped: bool = False) -> None:
    """One line into the secret; if `piped`, the last one may lack its end, which at a terminal means that it was hung up.

    Raises Cancelled for an empty line, the end of input, a line that is too long, at the deadline, or when it is woken.
    """
    view = secret.view
    sources = [source] if waker is None else [source, waker]
    while True:
        ready, _, _ = select.select(sources, [], [], max(0.0, deadline - time.monotonic()))
        if source not in ready or waker in ready:
            raise Cancelled
        # a terminal gives a line at a time, and anything else what is there
        got = os.readv(source, [view[secret.length :][: 1 if piped else None]])
        if not got:
            if piped and secret.length:
                return
            raise Cancelled
        secret.length += got
        if view[secret.length - 1] in _ENDS:
            break
        if secret.length == len(view):
            raise Cancelled
    while secret.length and view[secret.length - 1] in _ENDS:
        secret.length -= 1
    if not secret.length:
        raise Cancelled
