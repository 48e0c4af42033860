"""What this package registers with the pool."""

from __future__ import annotations

from collections.abc import Sequence

from tlspool_core.api import CliCommand, CredentialType, hookimpl
from tlspool_x509.authority import X509Commands
from tlspool_x509.credential_type import X509Type

TLSPOOL_API = 1


@hookimpl
def tlspool_register_credential_types() -> Sequence[CredentialType]:
    """X.509 certificates, with the predicates that come with them."""
    return [X509Type()]


@hookimpl
def tlspool_register_cli_commands() -> Sequence[CliCommand]:
    """`tlspool x509 authority`."""
    return [X509Commands()]
