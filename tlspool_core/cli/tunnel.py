"""`tlspool tunnel`: TLS around plaintext services and clients, from a file or from arguments."""

from __future__ import annotations

from pathlib import Path

import click

from tlspool_core.cli.run import until_signal
from tlspool_core.client.options import REMOTE_IDENTITY
from tlspool_core.identity import DoNAI, InvalidIdentity
from tlspool_core.pool.config import ConfigurationError
from tlspool_core.pool.permissions import user_numbers
from tlspool_core.pool.tomlfile import Table, TomlFile
from tlspool_core.tools.endpoints import Endpoint, EndpointError
from tlspool_core.tools.tunnel import PROTOCOLS, Tunnel
from tlspool_core.tools.tunnel import run as run_tunnels


def read_tunnels(file: Path, path: Path | None) -> list[Tunnel]:
    """The tunnels of a file, each a table [[tunnel]]. Raises ConfigurationError."""
    root = TomlFile.read(file).root
    tables = root.tables("tunnel")
    root.finish()
    if not tables:
        raise ConfigurationError(f"{file}: there is no [[tunnel]]")
    tunnels = [_tunnel(table, number, path) for number, table in enumerate(tables, 1)]
    names = [tunnel.name for tunnel in tunnels]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"{file}: two tunnels have one name")
    return tunnels


def _tunnel(table: Table, number: int, path: Path | None) -> Tunnel:
    client = table.text("role", "server", choices=("client", "server")) == "client"
    tunnel = Tunnel(
        name=table.text("name", f"tunnel {number}"),
        listen=_endpoint(table, "listen"),
        connect=_endpoint(table, "connect"),
        client=client,
        localid=table.text("localid"),
        remoteid=table.text("remoteid"),
        service=table.text("service"),
        flags=REMOTE_IDENTITY[table.text("remote_identity", "required", choices=tuple(REMOTE_IDENTITY))],
        starttls=table.text("starttls", choices=PROTOCOLS) if "starttls" in table else "",
        proxy_protocol=table.boolean("proxy_protocol", False),
        limit=table.integer("limit", 256, 1, 100_000),
        path=path,
        peer=table.boolean("peer", False),
        users=user_numbers(table, "users") if "users" in table else None,
    )
    table.finish()
    if fault := _fault(tunnel):
        raise table.error(*fault)
    return tunnel


def _endpoint(table: Table, key: str) -> Endpoint:
    if key not in table:
        raise table.error(key, "is needed")
    try:
        return Endpoint.parse(table.text(key))
    except EndpointError as error:
        raise table.error(key, str(error)) from None


def _fault(tunnel: Tunnel) -> tuple[str, str] | None:
    """What of a tunnel does not go together: a key, and what is wrong with it."""
    if tunnel.client and tunnel.proxy_protocol:
        return "proxy_protocol", "is for backends of a server's tunnel"
    if tunnel.client and not tunnel.remoteid and (not tunnel.target or _no_identity(tunnel.target)):
        return "remoteid", "is needed: whom the other side must prove to be, as `connect` does not name it"
    if not tunnel.client and tunnel.users is not None:
        return "users", "is for a client's tunnel: who may be a server's client is what TLS and policy decide"
    if tunnel.peer and tunnel.starttls:
        return "peer", "does not go with starttls, where the protocol says who is the client of TLS"
    for key, text in (("localid", tunnel.localid), ("remoteid", tunnel.target)):
        if text and (fault := _no_identity(text)):
            return key, fault
    if not (tunnel.connect.path or (tunnel.connect.host and tunnel.connect.port)):
        return "connect", "needs a host and a port"
    return None


def _no_identity(text: str) -> str:
    """Why a text is no identity; empty if it is one."""
    try:
        DoNAI.parse(text)
    except InvalidIdentity as fault:
        return f"is not user@domain or domain: {fault}"
    return ""


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--listen", "listening", metavar="HOST:PORT", help="Accept connections here; also a path, for a UNIX socket.")
@click.option("--connect", "target", metavar="HOST:PORT", help="Connect there; also a path.")
@click.option("--client", is_flag=True, help="Accept plaintext, connect with TLS. [default: the other way round]")
@click.option("--localid", default="", help="Whom to be.")
@click.option("--remoteid", default="", help="Whom the other side must prove to be; for --client by default HOST.")
@click.option("--service", default="", help="IANA service name, for policy and application protocol.")
@click.option("--remote-identity", type=click.Choice([*REMOTE_IDENTITY]), default="required", show_default=True)
@click.option("--peer", is_flag=True, help="On the side that gets TLS, be client or server of TLS, as both ends find out.")
@click.option("--starttls", type=click.Choice(PROTOCOLS), help="Begin in plaintext, by this protocol.")
@click.option("--proxy-protocol", is_flag=True, help="Tell the backend addresses and identities, by the PROXY protocol, version 2.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=256, show_default=True, help="Connections at a time.")
@click.option("--check", is_flag=True, help="Only check FILE or the arguments.")
@click.option("--socket", "path", type=click.Path(path_type=Path), default=None, help="Socket of the pool.")
def tunnel(
    file: Path | None,
    listening: str | None,
    target: str | None,
    client: bool,
    localid: str,
    remoteid: str,
    service: str,
    remote_identity: str,
    peer: bool,
    starttls: str | None,
    proxy_protocol: bool,
    limit: int,
    check: bool,
    path: Path | None,
) -> None:
    """Put TLS around plaintext services and clients.

    FILE has a table [[tunnel]] for each, with the keys name, role (server or client), listen, connect, localid, remoteid, service,
    remote_identity, peer, starttls, proxy_protocol and limit, which mean what the options mean, and users: those of this machine whose
    programs a client's tunnel works for. Without FILE, the options are one tunnel.
    """
    if (file is None) == (listening is None or target is None):
        raise click.UsageError("say FILE, or both --listen and --connect")
    try:
        if file is not None:
            tunnels = read_tunnels(file, path)
        else:
            ends = Endpoint.parse(listening or ""), Endpoint.parse(target or "")
            flags = REMOTE_IDENTITY[remote_identity]
            one = Tunnel(
                "tunnel", *ends, client, localid, remoteid, service, flags, starttls or "", proxy_protocol, limit, path, peer
            )
            if fault := _fault(one):
                raise click.UsageError(f"--{fault[0].replace('_', '-')} {fault[1]}")
            tunnels = [one]
    except (ConfigurationError, EndpointError) as error:
        raise click.ClickException(str(error)) from None
    if check:
        click.echo(f"good: {len(tunnels)} {'tunnel' if len(tunnels) == 1 else 'tunnels'}")
        return
    until_signal(run_tunnels(tunnels))
