"""The group `tlspool`: its own commands, each imported when it is used, and those of plugins, loaded when they are asked for.

Theory of operation
-------------------
Importing plugins takes longer than most commands run, so a command of our own is found by name in a table, and plugins are loaded
only for a name that is not there, for help, and by commands that need what they offer.

What a command, or a plugin below it, raises on purpose is shown as one line; anything else is a fault and shows its trace.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tlspool_core.cli.context import Context
from tlspool_core.identity import InvalidIdentity
from tlspool_core.interfaces import ConfigError, Denied, KeyStoreError
from tlspool_core.policy.expression import InvalidExpression
from tlspool_core.pool.config import ConfigurationError
from tlspool_core.registry import RequiredPluginMissing

# command -> module and object, and what the list of commands says, so that no module is imported for it
COMMANDS: dict[str, tuple[str, str, str]] = {
    "serve": ("serve", "serve", "Run the TLS Pool in the foreground."),
    "ping": ("connect", "ping", "Ask the pool who it is."),
    "status": ("status", "status", "Show what a running pool tells of itself."),
    "connect": ("connect", "connect", "Connect to a TLS server through the pool."),
    "run": ("run", "run", "Run an inetd-style program with TLS around it."),
    "tunnel": ("tunnel", "tunnel", "Put TLS around plaintext services and clients."),
    "proxy": ("proxy", "proxy", "Be the HTTP proxy that shows a person's credential to sites."),
    "pin": ("pin", "pin", "Answer the pool's questions for PINs."),
    "choose": ("choose", "choose", "Choose whom to be towards remotes."),
    "localid": ("localid", "localid", "Local identities and their credentials."),
    "disclose": ("disclose", "disclose", "Which local identities remotes may see."),
    "trust": ("trust", "trust", "Whom to trust: anchors, pins, and rules for remotes."),
    "db": ("database", "database", "Copy the databases out and in, and check them."),
    "explain": ("explain", "explain", "Show what would be demanded of a remote, and why."),
    "plugins": ("plugins", "plugins", "List plugins: what they offer, or why they fail."),
    "completion": ("shell", "completion", "Print the script that completes commands in a shell."),
    "man": ("shell", "man", "Write manual pages."),
    "version": ("plugins", "version", "Print versions."),
}
CONFIG_VARIABLE = "TLSPOOL_CONFIG"
EXPECTED = (ConfigError, ConfigurationError, RequiredPluginMissing, Denied, KeyStoreError, InvalidIdentity, InvalidExpression)


class Root(click.Group):
    """Finds commands as described above."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(_plugin_commands(ctx))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module, name, _ = COMMANDS[cmd_name]
            found = getattr(importlib.import_module(f"tlspool_core.cli.{module}"), name)
            assert isinstance(found, click.Command)
            return found
        return _context(ctx).plugin_commands().get(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        plugins = _plugin_commands(ctx)
        for title, rows in (
            ("Commands", [(name, text) for name, (_, _, text) in COMMANDS.items()]),
            ("Commands of plugins", [(name, plugins[name].get_short_help_str(70)) for name in sorted(plugins)]),
        ):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EXPECTED as error:
            raise click.ClickException(str(error)) from error


def _context(ctx: click.Context) -> Context:
    """The context object, also where click asks for names before the group's callback has run (help, completion)."""
    if not isinstance(ctx.obj, Context):
        path = ctx.params.get("config") or os.environ.get(CONFIG_VARIABLE)
        ctx.obj = Context(Path(path) if path else None)
    return ctx.obj


def _plugin_commands(ctx: click.Context) -> Mapping[str, click.Command]:
    """For help and completion, which are there also while the configuration has a fault."""
    try:
        return _context(ctx).plugin_commands()
    except EXPECTED as error:
        click.echo(f"Warning: commands of plugins are not shown: {error}", err=True)
        return {}


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar=CONFIG_VARIABLE,
    help="Configuration file. [default: tlspool.toml in ~/.config/tlspool, for root /etc/tlspool]",
)
@click.option("--json", "as_json", is_flag=True, help="Print for programs.")
@click.version_option(package_name="tlspool-core", message="%(prog)s %(version)s")
@click.pass_context
def tlspool(ctx: click.Context, config: Path | None, as_json: bool) -> None:
    """TLS for applications that hold no keys.

    \b
    To begin with:
      tlspool plugins                                   which types there are
      tlspool token list                                which keys, and their URIs
      tlspool trust add --type TYPE ca.pem
      tlspool localid add www.example.com --type TYPE --key URI chain.pem
      tlspool explain www.example.com .
      tlspool serve
      tlspool connect www.example.com:443
    """
    ctx.obj = Context(config, json=as_json)
    if config is not None:
        ctx.default_map = {"serve": {"path": str(config)}}
