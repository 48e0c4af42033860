"""`tlspool plugins`: which are installed, what they offer, and why one cannot be used; `tlspool version`."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path

import click

from tlspool_core.cli.context import Context, pass_context
from tlspool_core.cli.output import json_option, print_json, print_table, printable
from tlspool_core.cli.skeleton import make_skeleton
from tlspool_core.interfaces import API_VERSION
from tlspool_core.registry import PluginState, PluginStatus


@click.command()
@click.option("--trace", is_flag=True, help="Show where those that fail went wrong, for their authors.")
@click.option("--new", metavar="NAME", help="Write a plugin to start from, into the directory tlspool-NAME.")
@json_option
@pass_context
def plugins(context: Context, trace: bool, new: str | None) -> None:
    """List plugins: what they offer, or why they fail.

    Any Python distribution with entry points in the group "tlspool" is a plugin; install one with pip into the environment of
    this program. The status is 1 if one fails.
    """
    if new is not None:
        _make(new)
        return
    found = context.registry.plugins
    if context.json:
        print_json([{**asdict(plugin), "state": plugin.state.value} for plugin in found])
    else:
        rows = [[plugin.name, plugin.version, plugin.state.value, _words(plugin)] for plugin in found]
        print_table(("plugin", "version", "state", "offers, or why not"), rows, "no plugins are installed; pip installs them")
        for plugin in found if trace else ():
            if plugin.trace:
                click.echo(f"\n{plugin.name} ({plugin.module}):\n{plugin.trace.rstrip()}")
    if any(plugin.state is PluginState.FAILED for plugin in found):
        click.get_current_context().exit(1)


def _make(name: str) -> None:
    try:
        made = make_skeleton(name, Path(f"tlspool-{name}"))
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from None
    for file in made:
        click.echo(file)
    click.echo(f"Next: pip install ./tlspool-{name} && pytest tlspool-{name}", err=True)


def _words(plugin: PluginStatus) -> str:
    if plugin.state is PluginState.LOADED:
        return ", ".join(plugin.offers) or "nothing"
    return printable(f"it {plugin.reason}")


@click.command()
@json_option
@pass_context
def version(context: Context) -> None:
    """Print versions of the pool, its plugins, and what they build on."""
    found = {"tlspool-core": _version("tlspool-core"), "plugin API": str(API_VERSION)}
    found |= {plugin.distribution: plugin.version for plugin in context.registry.plugins if plugin.distribution}
    found |= {"cryptography": _version("cryptography"), "python": platform.python_version()}
    if context.json:
        print_json(found)
        return
    for name, number in found.items():
        click.echo(f"{name} {number}")


def _version(distribution: str) -> str:
    try:
        return version_of(distribution)
    except PackageNotFoundError:
        return "(not installed as a distribution)"
