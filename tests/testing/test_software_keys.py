"""Do the software keys of tests behave as every key store has to?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tlspool_core.testing.keys import SoftwareKeys, public_der
from tlspool_core.testing.keystore import KeyStoreConformance, StoreUnderTest, nobody_asked


class TestSoftwareKeys(KeyStoreConformance):
    @asynccontextmanager
    async def opened(self) -> AsyncIterator[StoreUnderTest]:
        store = SoftwareKeys()
        await store.start({}, nobody_asked)
        made = {"ec": ec.generate_private_key(ec.SECP256R1()), "ed": ed25519.Ed25519PrivateKey.generate()}
        keys = {store.add(name, key): public_der(key) for name, key in made.items()}

        def pull(out: bool) -> None:
            store.missing = set(keys) if out else set()

        secrets = {store.add_secret("word", b"Joshua"): b"Joshua"}
        yield StoreUnderTest(store, keys, "software:nothing", secrets, pull)
        await store.stop()
