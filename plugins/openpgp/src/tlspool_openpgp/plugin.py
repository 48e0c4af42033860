"""The entry point of the plugin."""

from __future__ import annotations

from tlspool_core.api import CliCommand, CredentialType, hookimpl
from tlspool_openpgp.cli import OpenPgpCommands
from tlspool_openpgp.credential_type import OpenPgpType


@hookimpl
def tlspool_register_credential_types() -> list[CredentialType]:
    """OpenPGP keys."""
    return [OpenPgpType()]


@hookimpl
def tlspool_register_cli_commands() -> list[CliCommand]:
    """`tlspool openpgp`."""
    return [OpenPgpCommands()]
