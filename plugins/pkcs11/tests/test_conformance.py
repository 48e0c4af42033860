"""Does the store do what every key store has to do, with keys that a real token made?"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tlspool_pkcs11.store import Pkcs11Store

from tlspool_core.testing.keystore import KeyStoreConformance, StoreUnderTest

NAMES = ("p256", "p384", "p521", "ed25519", "ed448", "rsa", "careful")


async def keys_of(store: Pkcs11Store) -> dict[str, bytes]:
    found = {}
    for name in NAMES:
        spki = (await store.find(f"pkcs11:token=Web;object={name}")).public_key
        assert spki is not None
        found[f"pkcs11:token=Web;object={name};type=private"] = spki
    return found


class TestSoftHsm(KeyStoreConformance):
    @pytest.fixture(autouse=True)
    def _token(self, hsm: Any) -> None:
        self.hsm = hsm

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[StoreUnderTest]:
        async with self.hsm.store() as store:
            secrets = {"pkcs11:token=Web;object=password;type=data": b"Joshua"}
            yield StoreUnderTest(store, await keys_of(store), "pkcs11:token=Web;object=nothing", secrets)
