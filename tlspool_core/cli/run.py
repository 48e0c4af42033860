"""`tlspool run`: an inetd-style program as a TLS service, without a word about TLS in it."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

from tlspool_core.client import PoolError
from tlspool_core.client.options import REMOTE_IDENTITY
from tlspool_core.tools import inetd
from tlspool_core.tools.endpoints import Endpoint, EndpointError, listen


def until_signal(work: Coroutine[Any, Any, Any]) -> int:
    """Run a coroutine; SIGINT and SIGTERM end it in good order, which is success. Its own outcome is the exit status otherwise."""

    async def main() -> int:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        try:
            return int(await task or 0)
        except asyncio.CancelledError:
            return 0

    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO)
    try:
        return asyncio.run(main())
    except PoolError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(where + (error.strerror or str(error) or type(error).__name__)) from None
    except EndpointError as error:
        raise click.ClickException(str(error)) from None


def _endpoint(ctx: click.Context, param: click.Parameter, value: str | None) -> Endpoint | None:
    try:
        return None if value is None else Endpoint.parse(value)
    except EndpointError as error:
        raise click.BadParameter(str(error)) from None


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--listen", "listening", callback=_endpoint, metavar="HOST:PORT", help="Accept connections here.")
@click.option("--connect", "target", callback=_endpoint, metavar="HOST:PORT", help="Be the TLS client of this service.")
@click.option("--localid", default="", help="Whom to be.")
@click.option("--remoteid", default="", help="Whom the other side must prove to be; for --connect by default HOST.")
@click.option("--service", default="", help="IANA service name, for policy and application protocol.")
@click.option("--remote-identity", type=click.Choice([*REMOTE_IDENTITY]), default="required", show_default=True)
@click.option("--peer", is_flag=True, help="Be client or server of TLS, as both ends find out.")
@click.option("--limit", type=click.IntRange(1, 10000), default=64, show_default=True, help="Connections at a time.")
@click.option("--socket", "path", type=click.Path(path_type=Path), default=None, help="Socket of the pool.")
def run(
    command: tuple[str, ...],
    listening: Endpoint | None,
    target: Endpoint | None,
    localid: str,
    remoteid: str,
    service: str,
    remote_identity: str,
    peer: bool,
    limit: int,
    path: Path | None,
) -> None:
    """Run COMMAND for each connection, with the plaintext as its standard input and output.

    Without --listen or --connect the connection is standard input, as inetd and systemd (Accept=yes) pass it. COMMAND finds
    TLSPOOL_REMOTEID, TLSPOOL_LOCALID and more in its environment; TLSPOOL_REMOTEID is absent if the other side showed no identity.
    """
    if listening is not None and target is not None:
        raise click.UsageError("--listen and --connect do not go together")
    if shutil.which(command[0]) is None:
        raise click.UsageError(f"there is no program {command[0]!r} that could be run")
    program = inetd.Program(command, localid, remoteid, service, REMOTE_IDENTITY[remote_identity], path, peer)
    try:
        if listening is not None:
            status = until_signal(inetd.serve(program, listen(listening), limit))
        elif target is not None:
            status = until_signal(inetd.call(program, target))
        else:
            status = until_signal(inetd.serve_one(program, inherited()))
    except EndpointError as error:
        raise click.ClickException(str(error)) from None
    if status:
        raise SystemExit(status if status > 0 else 128 - status)


def inherited() -> Any:
    """Standard input as a connection. Raises click.UsageError."""
    try:
        return inetd.inherited_socket()
    except OSError:
        raise click.UsageError("standard input is no connection; say --listen or --connect, or let inetd start this") from None
