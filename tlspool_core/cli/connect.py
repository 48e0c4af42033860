"""`tlspool connect`: a plaintext dialogue with a TLS server or peer, through the pool, as `openssl s_client` holds it without one."""

from __future__ import annotations

import os
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

import click

from tlspool_core.cli.context import Context, pass_context
from tlspool_core.cli.output import json_option, print_json
from tlspool_core.client import PoolError, Session, StartTlsFlags, starttls_client, starttls_peer
from tlspool_core.client import ping as ask_ping
from tlspool_core.pool.settings import SERVICE_ALPN
from tlspool_core.wire.flags import InfoKind

_CHUNK = 65536


def parse_target(target: str) -> tuple[str, int]:
    """Host and port out of `HOST:PORT` or `[ADDRESS]:PORT`. Raises click.BadParameter."""
    host, colon, port = target.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise click.BadParameter(f"{target!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def service_for(alpn: str) -> str:
    """The service that speaks an application protocol; its own name if it is listed under none."""
    known = [service for service, protocols in SERVICE_ALPN.items() if alpn in protocols]
    return known[0] if known else alpn


def _show(session: Session) -> None:
    """Identities, version and cipher, on standard error so that output stays the server's."""
    click.echo(f"remote identity: {session.remoteid or '(none)'}", err=True)
    click.echo(f"local identity:  {session.localid or '(none)'}", err=True)
    click.echo(f"role:            {session.role}", err=True)
    group = session.text(InfoKind.GROUP)
    click.echo(f"protocol:        {session.version()} {session.cipher()}{f' {group}' if group else ''}", err=True)
    if alpn := session.alpn():
        click.echo(f"application:     {alpn}", err=True)


def _send_input(plaintext: socket.socket) -> None:
    """Standard input to the server; its end becomes close_notify."""
    with suppress(OSError):
        while data := os.read(sys.stdin.fileno(), _CHUNK):
            plaintext.sendall(data)
        plaintext.shutdown(socket.SHUT_WR)


def _pump(plaintext: socket.socket) -> None:
    """Both directions, until the server has closed."""
    threading.Thread(target=_send_input, args=(plaintext,), daemon=True).start()
    while data := plaintext.recv(_CHUNK):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def _open(host: str, port: int) -> socket.socket:
    """A connection that we make. Raises OSError."""
    cipher = socket.create_connection((host, port), timeout=30)
    cipher.settimeout(None)
    return cipher


def _await(host: str, port: int) -> socket.socket:
    """A connection that is made to us. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listening:
        click.echo(f"listening:       {host} port {port}", err=True)
        return listening.accept()[0]


@click.command()
@click.argument("target", metavar="HOST:PORT")
@click.option("--localid", default="", help="Whom to be; by default what the disclosure database says.")
@click.option("--remoteid", default=None, help="Whom the other end must prove to be; by default HOST, or anybody with --listen.")
@click.option("--service", default="", help="IANA service name, for policy and application protocol.")
@click.option("--alpn", default="", help="Application protocol; chooses the service that speaks it.")
@click.option("--peer", is_flag=True, help="Be client or server of TLS, as both ends find out.")
@click.option("--listen", is_flag=True, help="Wait for one connection to HOST:PORT instead of making one; needs --peer.")
@click.option("--ignore-remoteid", is_flag=True, help="Do not ask who the other end is. Not secure: for looking only.")
@click.option("--socket", "path", type=click.Path(path_type=Path), default=None, help="Socket of the pool.")
def connect(
    target: str,
    localid: str,
    remoteid: str | None,
    service: str,
    alpn: str,
    peer: bool,
    listen: bool,
    ignore_remoteid: bool,
    path: Path | None,
) -> None:
    """Connect to a TLS server through the pool: standard input goes there, what comes back to standard output."""
    host, port = parse_target(target)
    if listen and not peer:
        raise click.UsageError("--listen is for --peer: a server of TLS is what `tlspool tunnel` and `tlspool run` make")
    flags = StartTlsFlags.IGNORE_REMOTEID if ignore_remoteid else StartTlsFlags.NONE
    try:
        cipher = _await(host, port) if listen else _open(host, port)
    except OSError as error:
        raise click.ClickException(f"{target}: {error.strerror or error}") from None
    if remoteid is None:
        remoteid = "" if listen else host
    starttls = starttls_peer if peer else starttls_client
    try:
        with starttls(
            cipher,
            path=path,
            localid=localid,
            remoteid=remoteid,
            service=service or (service_for(alpn) if alpn else ""),
            flags=flags,
        ) as session:
            _show(session)
            _pump(session.plaintext)
    except PoolError as error:
        raise click.ClickException(str(error)) from None


@click.command()
@click.option("--socket", "path", type=click.Path(path_type=Path), default=None, help="Socket of the pool.")
@json_option
@pass_context
def ping(context: Context, path: Path | None) -> None:
    """Ask the pool who it is."""
    try:
        answer = ask_ping(path=path)
    except PoolError as error:
        raise click.ClickException(str(error)) from None
    if context.json:
        print_json({"identity": answer.identity, "facilities": answer.facilities})
    else:
        click.echo(f"{answer.identity} facilities {answer.facilities:#x}")
