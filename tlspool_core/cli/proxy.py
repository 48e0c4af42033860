"""`tlspool proxy`: an HTTP proxy for a person's browser, which goes to configured sites with the person's credential."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from tlspool_core.cli.run import until_signal
from tlspool_core.pool.config import ConfigurationError, config_home
from tlspool_core.pool.permissions import user_numbers
from tlspool_core.pool.tomlfile import Table, TomlFile
from tlspool_core.tools.endpoints import Endpoint, EndpointError
from tlspool_core.tools.http_proxy.rules import BadTarget, Destination, Pattern, Rules
from tlspool_core.tools.http_proxy.server import DEFAULT_LISTEN, ProxySettings, read_files, run

T = TypeVar("T")


def read_settings(file: Path, pool: Path | None) -> ProxySettings:
    """The proxy that a file describes. Raises ConfigurationError."""
    root = TomlFile.read(file).root
    rules = Rules(
        destinations=tuple(_destination(table) for table in root.tables("destination")),
        passes=root.text("other", "refuse", choices=("refuse", "pass")) == "pass",
        ports=frozenset(root.integers("pass_ports", (80, 443), 1, 65535)),
    )
    settings = ProxySettings(
        rules,
        listen=_parsed(root, "listen", Endpoint.parse, root.text("listen", DEFAULT_LISTEN)),
        open_to_network=root.boolean("open_to_network", False),
        login_file=_path(root, "login_file"),
        authority=_path(root, "authority"),
        limit=root.integer("limit", 256, 1, 100_000),
        pool=pool,
        users=user_numbers(root, "users"),
    )
    root.finish()
    if not rules.destinations:
        raise ConfigurationError(f"{file}: there is no [[destination]]")
    if fault := settings.fault():
        raise root.error(*fault)
    return settings


def _destination(table: Table) -> Destination:
    made = Destination(
        patterns=tuple(_parsed(table, "match", Pattern.parse, text) for text in table.texts("match")),
        localid=table.text("localid"),
        remoteid=table.text("remoteid"),
        service=table.text("service", "https"),
        connect=_parsed(table, "connect", Endpoint.parse, table.text("connect")) if "connect" in table else None,
    )
    table.finish()
    if not made.patterns:
        raise table.error("match", "is needed: for which sites, such as www.example.com or *.example.com:8443")
    return made


def _parsed(table: Table, key: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except (EndpointError, BadTarget) as error:
        raise table.error(key, str(error)) from None


def _path(table: Table, key: str) -> Path | None:
    text = table.text(key)
    return Path(text) if text else None


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--check", is_flag=True, help="Only check FILE.")
@click.option("--socket", "path", type=click.Path(path_type=Path), default=None, help="Socket of the pool.")
def proxy(file: Path | None, check: bool, path: Path | None) -> None:
    """Be the HTTP proxy of a browser, and go to configured sites with the credential of the person in front of it.

    FILE (by default proxy.toml in ~/.config/tlspool) has a table [[destination]] for sites that are reached with a credential: match,
    localid, remoteid, service and connect. Other keys are listen, other ("refuse" or "pass"), pass_ports, users, login_file, authority,
    open_to_network and limit.
    """
    chosen = file or config_home() / "proxy.toml"
    try:
        settings = read_settings(chosen, path)
        read_files(settings)
    except EndpointError as error:
        raise click.ClickException(f"{chosen}: {error}") from None
    except ConfigurationError as error:
        hint = "" if chosen.exists() else '. A first one is two lines: [[destination]] and match = ["www.example.com"]'
        raise click.ClickException(f"{error}{hint}") from None
    if check:
        count = len(settings.rules.destinations)
        click.echo(f"good: {count} {'destination' if count == 1 else 'destinations'}")
        return
    until_signal(run(settings))
