"""Does the store do what every key store has to do, with keys that a real token made?"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tlspool_pkcs11.key import Pkcs11Key
from tlspool_pkcs11.mechanisms import MECHANISMS
from tlspool_pkcs11.store import Pkcs11Store

from tlspool_core.testing.keystore import KeyStoreConformance, StoreUnderTest, Typist, nobody_asked

PIN = "123456"
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
        typist = Typist(PIN)
        async with self.hsm.store(pin_file=None, ask=typist) as store:
            secrets = {"pkcs11:token=Web;object=password;type=data": b"Joshua"}
            yield StoreUnderTest(store, await keys_of(store), "pkcs11:token=Web;object=nothing", secrets, self.hsm.pull, typist)


NSS = next((str(path) for path in Path("/usr/lib").glob("*/libsoftokn3.so")), "")
NSS_PIN = "nss password"


def new_database(directory: Path) -> str:
    """An NSS database with two keys; the text for C_Initialize that opens it."""
    pin, noise = directory / "pin", directory / "noise"
    pin.write_text(NSS_PIN + "\n")
    pin.chmod(0o600)
    noise.write_bytes(bytes(range(200)))
    base = ("certutil", "-d", f"sql:{directory}", "-f", str(pin))
    made = (("ec", "-q", "nistp256"), ("rsa", "-g", "2048"))
    subprocess.run([*base, "-N"], check=True, capture_output=True)
    for name, *size in made:
        new = ("-S", "-x", "-t", ",,", "-z", str(noise), "-s", f"CN={name}", "-n", name, "-k", name, *size)
        subprocess.run([*base, *new], check=True, capture_output=True)
    return f"configdir='sql:{directory}' certPrefix='' keyPrefix='' secmod='secmod.db' flags=readOnly"


@pytest.mark.skipif(not NSS, reason="NSS's library is not installed (libnss3-tools)")
class TestNss(KeyStoreConformance):
    """Another library: it wants a text at C_Initialize, hashes by itself, and names keys by CKA_ID alone."""

    @pytest.fixture(autouse=True)
    def _database(self, tmp_path: Path) -> None:
        self.row = {"path": NSS, "init_string": new_database(tmp_path), "pin_file": str(tmp_path / "pin")}

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[StoreUnderTest]:
        store = Pkcs11Store()
        await store.start({"modules": [self.row]}, nobody_asked)
        try:
            keys = {}
            for info in await store.list():
                if info.kind == "private-key":
                    keys[info.uri] = (await store.find(info.uri)).public_key or b""
            assert len(keys) == 2
            yield StoreUnderTest(store, keys, "pkcs11:token=NSS%20Certificate%20DB;object=nothing")
        finally:
            await store.stop()

    def test_it_is_the_token_that_hashes(self) -> None:
        async def work(it: StoreUnderTest) -> None:
            for uri in it.keys:
                key = await it.store.find(uri)
                assert isinstance(key, Pkcs11Key)
                used = {ways[0].mechanism for ways in key._ways.values()}
                assert used <= {number for name, number in MECHANISMS.items() if "SHA" in name}

        self._run(work)
