"""A plugin for pools under test: toy credentials whose keys every process derives alike from the names of their owners."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import ec

from tlspool_core.api import CredentialType, KeyStore, hookimpl
from tlspool_core.testing.keys import SoftwareKeys
from tlspool_core.testing.toy import ToyType

NAMES = ("www.example.com", "mail.example.com", "john@example.com", "mary@example.com", "eve@example.com", "new@example.com")

keys = SoftwareKeys()


def private_key(name: str) -> ec.EllipticCurvePrivateKey:
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()) >> 1
    return ec.derive_private_key(number, ec.SECP256R1())


for each in (*NAMES, "issuer.example.com"):
    keys.add(each, private_key(each))


@hookimpl
def tlspool_register_credential_types() -> Sequence[CredentialType]:
    return [ToyType()]


@hookimpl
def tlspool_register_key_stores() -> Sequence[KeyStore]:
    return [keys]
