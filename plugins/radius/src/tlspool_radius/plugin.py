"""What this package registers with the pool."""

from __future__ import annotations

from collections.abc import Sequence

from tlspool_core.api import Aaa, CliCommand, hookimpl
from tlspool_radius.aaa import RadiusAaa
from tlspool_radius.commands import RadiusCommands

TLSPOOL_API = 1


@hookimpl
def tlspool_register_aaa() -> Sequence[Aaa]:
    """The plugin that [aaa] names "radius"."""
    return [RadiusAaa()]


@hookimpl
def tlspool_register_cli_commands() -> Sequence[CliCommand]:
    """`tlspool radius check`."""
    return [RadiusCommands()]
