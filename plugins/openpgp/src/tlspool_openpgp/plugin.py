"""The entry point of the plugin."""

from __future__ import annotations

from tlspool_core.api import CredentialType, hookimpl
from tlspool_openpgp.credential_type import OpenPgpType


@hookimpl
def tlspool_register_credential_types() -> list[CredentialType]:
    """OpenPGP keys."""
    return [OpenPgpType()]
