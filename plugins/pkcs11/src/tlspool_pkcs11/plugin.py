"""What this package registers with the pool."""

from __future__ import annotations

from collections.abc import Sequence

from tlspool_core.api import CliCommand, KeyStore, hookimpl
from tlspool_pkcs11.commands import TokenCommands
from tlspool_pkcs11.store import Pkcs11Store

TLSPOOL_API = 1


@hookimpl
def tlspool_register_key_stores() -> Sequence[KeyStore]:
    """Keys in PKCS #11 tokens, for URIs that begin with pkcs11:."""
    return [Pkcs11Store()]


@hookimpl
def tlspool_register_cli_commands() -> Sequence[CliCommand]:
    """`tlspool token list` and `tlspool token check`."""
    return [TokenCommands()]
