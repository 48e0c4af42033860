"""The toy credential type as a plugin: for tests that load it by `plugins.load = ["tlspool_core.testing.toy_plugin"]`."""

from __future__ import annotations

from collections.abc import Sequence

from tlspool_core.hookspecs import hookimpl
from tlspool_core.interfaces import CredentialType
from tlspool_core.testing.toy import ToyType

TLSPOOL_API = 1


@hookimpl
def tlspool_register_credential_types() -> Sequence[CredentialType]:
    return [ToyType()]
