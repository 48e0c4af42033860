"""`tlspool pin`: asks the person at the terminal, or at the desktop, for the PINs of tokens.

Theory of operation
-------------------
The program registers as the pool's PIN desk and serves it until it is interrupted.  With a desktop it asks through a pinentry program,
otherwise on its terminal.  A question ends at the pool's deadline: an answer after that would be nobody's.  An empty PIN declines.
A PIN is read into locked memory, sent from there, and wiped; meanwhile the process has neither core dumps nor debuggers.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from tlspool_core.cli.pinentry import Pinentry, PinentryError, has_desktop
from tlspool_core.cli.terminal import Cancelled, NoTerminal, ask, printable
from tlspool_core.client import PoolError
from tlspool_core.client.desks import PinDesk, PinRequest
from tlspool_core.secret import Secret, forbid_dumps
from tlspool_core.wire.messages import clip

_LONGEST = 127  # bytes of a PIN in a packet
_PATIENCE = 3600.0  # seconds, should the pool set no deadline

Ask = Callable[[PinRequest, Secret], None]  # raises Cancelled


def description(request: PinRequest) -> str:
    """Which token, in words."""
    words = (request.label, request.manufacturer, request.model, request.serial and f"serial number {request.serial}")
    return printable(", ".join(word for word in words if word))


def _deadline(request: PinRequest) -> float:
    return request.deadline if request.deadline is not None else time.monotonic() + _PATIENCE


def on_terminal(request: PinRequest, secret: Secret) -> None:
    """Ask on the controlling terminal. Raises Cancelled."""
    again = "The PIN before was refused.\r\n" if request.attempt else ""
    try:
        ask(f"{description(request)}\r\n{again}{printable(request.prompt)}", secret, _deadline(request))
    except NoTerminal as error:
        raise click.ClickException(f"there is no terminal to ask at: {error}; see --pinentry") from None


def through(program: str) -> Ask:
    """Ask through a pinentry program."""

    def ask_pinentry(request: PinRequest, secret: Secret) -> None:
        deadline = _deadline(request)
        lines = [("OPTION", f"ttyname={os.ttyname(sys.stdin.fileno())}")] if sys.stdin.isatty() else []
        if "TERM" in os.environ:
            lines.append(("OPTION", f"ttytype={os.environ['TERM']}"))
        lines += [
            ("SETTITLE", "TLS Pool"),
            ("SETDESC", f"{description(request)}\n{printable(request.prompt)}"),
            ("SETPROMPT", "PIN:"),
            ("SETTIMEOUT", str(max(1, int(deadline - time.monotonic())))),
        ]
        if request.attempt:
            lines.append(("SETERROR", "The PIN before was refused."))
        pinentry = Pinentry(program, deadline)
        try:
            pinentry.ask(lines, secret)
        finally:
            pinentry.close()

    return ask_pinentry


def serve_one(request: PinRequest, asking: Ask) -> bool:
    """Ask for one PIN and answer; whether one was given."""
    with Secret() as secret:
        try:
            asking(request, secret)
            if len(secret) > _LONGEST or 0 in secret.used:
                raise PinentryError(f"a PIN has up to {_LONGEST} bytes and no NUL")
        except (Cancelled, PinentryError) as error:
            if not isinstance(error, Cancelled):
                click.echo(str(error), err=True)
            request.decline()
            return False
        request.answer(secret)
        return True


@click.command()
@click.option("--pinentry", "program", default="", metavar="PROGRAM", help="Ask through this pinentry program.")
@click.option("--terminal", is_flag=True, help="Ask on the terminal, also if there is a desktop.")
@click.option("--timeout", default=60.0, show_default=True, type=click.FloatRange(1, 600), help="Seconds for each answer.")
@click.option("--once", is_flag=True, help="End after the first question.")
@click.option("--socket", "path", type=click.Path(path_type=Path), default=None, help="Socket of the pool.")
def pin(program: str, terminal: bool, timeout: float, once: bool, path: Path | None) -> None:
    """Answer the pool's questions for PINs of tokens, until interrupted.

    Asks through a window of `pinentry` if there is a desktop, else on this terminal. An empty PIN declines.
    """
    if program and terminal:
        raise click.UsageError("--pinentry and --terminal exclude each other")
    forbid_dumps()
    if not program and not terminal and has_desktop():
        program = "pinentry"
    asking = through(program) if program else on_terminal
    try:
        with PinDesk(path, timeout=timeout) as desk:
            desk.register()
            click.echo("waiting for questions of the TLS Pool", err=True)
            for request in desk:
                given = serve_one(request, asking)
                click.echo(f"{clip(description(request))}: {'PIN passed on' if given else 'declined'}", err=True)
                if once:
                    return
    except PoolError as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        return
