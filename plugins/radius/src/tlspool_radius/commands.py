"""`tlspool radius check`: asks every configured server, and shows what it says."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from tlspool_core.api import AaaRequest, CliContext, Denied, DoNAI, InvalidIdentity
from tlspool_radius import attributes as a
from tlspool_radius.access import decision, message, question
from tlspool_radius.ledger import LedgerError, waiting
from tlspool_radius.packets import ACCESS_REQUEST, STATUS_SERVER
from tlspool_radius.servers import Servers
from tlspool_radius.settings import STEPS, Settings, parse
from tlspool_radius.transport import Silent


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one server said to one function."""

    function: str
    server: str
    where: str
    ok: bool
    said: str
    milliseconds: float


class RadiusCommands:
    """Implements `CliCommand`: the group `tlspool radius`."""

    name = "radius"

    def command(self) -> click.Command:
        return radius


@click.group()
def radius() -> None:
    """Look after RADIUS servers."""


@radius.command()
@click.option("--remoteid", help="Ask whether this peer may have a session, rather than whether the server is well.")
@click.option("--localid", default="", help="... towards this local identity.")
@click.option("--service", default="", help="... for this service.")
@click.option("--json", "as_json", is_flag=True, help="Print for programs.")
@click.pass_context
def check(context: click.Context, remoteid: str | None, localid: str, service: str, as_json: bool) -> None:
    """Ask every server of every function in [aaa.radius], and show the answers.

    Servers are asked for their health (Status-Server). With --remoteid, those for authentication and authorisation are asked
    as they would be for a session of that peer. The exit status is 1 if one does not answer, or refuses.
    """
    found: CliContext = context.obj
    settings = _settings(found)
    try:
        peer = DoNAI.parse(remoteid) if remoteid else None
        request = AaaRequest("check", "server", service, DoNAI.parse(localid) if localid else None, peer, "", "", "")
        outcomes = asyncio.run(_ask_all(settings, request if peer is not None else None))
        queued = waiting(settings.queue)
    except InvalidIdentity as error:
        raise click.ClickException(f"an identity is user@domain or domain: {error}") from None
    except (ValueError, LedgerError) as error:
        raise click.ClickException(str(error)) from None
    if not outcomes:
        raise click.ClickException("no servers are configured: see [aaa.radius] in the plugin's README")
    if as_json or found.json:
        queue = {"path": str(settings.queue), **_queue(queued)}
        click.echo(json.dumps({"servers": [asdict(one) for one in outcomes], "queue": queue}, indent=2))
    else:
        _print(outcomes)
        if settings.accounting.servers:
            _print_queue(settings.queue, queued)
    if not all(one.ok for one in outcomes):
        context.exit(1)


def _settings(context: CliContext) -> Settings:
    """Of the configuration. Raises ClickException."""
    try:
        return parse(context.settings("aaa", "radius"))
    except ValueError as error:
        raise click.ClickException(f"[aaa.radius]: {error}") from None


async def _ask_all(settings: Settings, request: AaaRequest | None) -> list[Outcome]:
    functions = {name: Servers(function) for name, function in settings.steps.items()}
    functions["accounting"] = Servers(settings.accounting, accounting=True)
    try:
        asked = [
            _ask(settings, request, name, servers, index)
            for name, servers in functions.items()
            for index in range(len(servers.peers))
        ]
        return list(await asyncio.gather(*asked))
    finally:
        for servers in functions.values():
            await servers.close()


async def _ask(settings: Settings, request: AaaRequest | None, name: str, servers: Servers, index: int) -> Outcome:
    peer, function = servers.peers[index], servers.function
    port = peer.server.accounting_port if name == "accounting" else peer.server.port
    started = time.monotonic()
    code = ACCESS_REQUEST if request is not None and name in STEPS else STATUS_SERVER
    try:
        if code == ACCESS_REQUEST and request is not None:
            attributes = question(replace(request, step=name), settings.nas_identifier, settings.anonymous)
        else:
            attributes = [(a.NAS_IDENTIFIER, a.text(settings.nas_identifier))]
        reply = await peer.way.ask(code, attributes, function.timeout, function.tries, [])
        if code == ACCESS_REQUEST:
            limits = decision(reply, name)
            seconds = [
                f"{what} {value:g} s" for what, value in _limits(limits.session_timeout, limits.idle_timeout) if value is not None
            ]
            ok, said = True, ", ".join(["accepted" + message(reply), *seconds])
        else:
            ok, said = True, "is well"
    except (Denied, Silent) as error:
        ok, said = False, str(error)
    took = round((time.monotonic() - started) * 1000, 1)
    return Outcome(name, peer.server.name, f"{peer.server.transport} {peer.server.address} port {port}", ok, said, took)


def _limits(session: float | None, idle: float | None) -> list[tuple[str, float | None]]:
    return [("session limit", session), ("idle limit", idle)]


def _queue(queued: tuple[int, float | None]) -> dict[str, Any]:
    count, oldest = queued
    return {"records": count, "oldest_seconds": None if oldest is None else round(time.time() - oldest, 1)}


def _print(outcomes: list[Outcome]) -> None:
    for one in outcomes:
        mark = "ok  " if one.ok else "FAIL"
        click.echo(f"{mark} {one.function:<14} {one.server} ({one.where}): {one.said} [{one.milliseconds:g} ms]")


def _print_queue(path: Path, queued: tuple[int, float | None]) -> None:
    """A pool of the service manager has its state elsewhere than we may think, and nobody shall be calmed by a queue that is not there."""
    count, oldest = queued
    age = "" if oldest is None else f", the oldest for {time.time() - oldest:.0f} s"
    if path.exists():
        click.echo(f"accounting records that wait to be delivered: {count}{age} ({path})")
    else:
        click.echo(f"no accounting queue at {path}; if the pool has one elsewhere, name it by `queue` in [aaa.radius]")
