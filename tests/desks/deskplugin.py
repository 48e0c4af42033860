"""A plugin for pools under test: toy credentials whose keys every process derives alike from the names of their owners."""

from __future__ import annotations

from collections.abc import Sequence

from tlspool_core.api import CredentialType, KeyStore, hookimpl
from tlspool_core.testing.keys import SoftwareKeys
from tlspool_core.testing.toy import ToyType, toy_key

NAMES = ("www.example.com", "mail.example.com", "john@example.com", "mary@example.com", "eve@example.com", "new@example.com")

keys = SoftwareKeys()


for each in (*NAMES, "issuer.example.com"):
    keys.add(each, toy_key(each))


@hookimpl
def tlspool_register_credential_types() -> Sequence[CredentialType]:
    return [ToyType()]


@hookimpl
def tlspool_register_key_stores() -> Sequence[KeyStore]:
    return [keys]
