"""What every key store has to do, as tests to inherit.

Theory of operation
-------------------
The tests of a key store plugin inherit `KeyStoreConformance` and say in `opened` how a store with keys comes about:

    class TestMyStore(KeyStoreConformance):
        @asynccontextmanager
        async def opened(self):
            store = MyStore()
            await store.start({...}, nobody_asked)
            try:
                yield StoreUnderTest(store, keys={"my:web": spki_of_web}, missing="my:nothing", secrets={"my:password": b"..."})
            finally:
                await store.stop()

Signatures are verified as the engine verifies a peer's, so it is not the store that says whether they are right.  The tests need no plugin of
pytest: each runs its own event loop.
"""

from __future__ import annotations

import asyncio
import json
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import asdict, dataclass, field

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from tlspool_core.interfaces import KeyInfo, KeyStore, KeyStoreError, PinRequest
from tlspool_core.secret import Secret
from tlspool_core.tls.alerts import TlsError
from tlspool_core.tls.settings import TLS12, TLS13
from tlspool_core.tls.signatures import CORE_SCHEMES, verify

# RFC 8446 section 4.2.3 in the range for private use: no key makes it
PRIVATE_SCHEME = 0xFE00


@dataclass(frozen=True)
class StoreUnderTest:
    """A started store and what is in it."""

    store: KeyStore
    keys: Mapping[str, bytes]  # URI of each private key, and its DER SubjectPublicKeyInfo
    missing: str  # a URI of the right form that names nothing
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    # puts all keys out of reach (True) and back (False), as pulling a token does; None if these never go
    pull: Callable[[bool], None] | None = None
    # who is asked for PINs; None if nobody is
    typist: Typist | None = None


def _spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def holds(spki: bytes, scheme: int, content: bytes, signature: bytes) -> bool:
    """Whether a signature verifies as a peer would verify it."""
    row = CORE_SCHEMES.get(scheme)
    if row is None:
        return False
    version = TLS13 if TLS13 in row.versions else TLS12
    try:
        verify(load_der_public_key(spki), scheme, content, signature, version=version, pss="pss_pss" in row.name)
    except TlsError:
        return False
    return True


async def _found_again(store: KeyStore, uri: str) -> None:
    """Wait until a key is back."""
    async with asyncio.timeout(30):
        while True:
            with suppress(KeyStoreError):
                await store.find(uri)
                return
            await asyncio.sleep(0.1)


async def nobody_asked(request: PinRequest) -> Secret | None:
    """For `KeyStore.start`: fails the test if the store asks for a PIN."""
    raise AssertionError(f"nobody is here to answer {request.prompt!r}")


class Typist:
    """For `KeyStore.start`: types the same PIN whenever it is asked, and keeps what it gave, so that a test sees whether it is wiped."""

    def __init__(self, pin: str) -> None:
        self._pin = pin
        self.given: list[Secret] = []

    async def __call__(self, request: PinRequest) -> Secret:
        """What a store calls."""
        self.given.append(Secret.of(self._pin.encode()))
        return self.given[-1]


class KeyStoreConformance:
    """Inherit, implement `opened`, and pytest does the rest."""

    @abstractmethod
    def opened(self) -> AbstractAsyncContextManager[StoreUnderTest]:
        """A started store with at least one key; stopped at the end. Called once for each test."""

    def _run(self, work: Callable[[StoreUnderTest], Awaitable[None]]) -> None:
        async def main() -> None:
            async with self.opened() as under_test:
                await work(under_test)

        asyncio.run(main())

    def test_a_name_and_uri_schemes_are_declared(self) -> None:
        async def work(it: StoreUnderTest) -> None:
            assert it.store.name
            assert all(uri.partition(":")[0] in it.store.uri_schemes for uri in [*it.keys, *it.secrets, it.missing])

        self._run(work)

    def test_find_gives_the_key_that_the_uri_names(self) -> None:
        async def work(it: StoreUnderTest) -> None:
            for uri, spki in it.keys.items():
                key = await it.store.find(uri)
                assert key.public_key in (None, spki)
                assert key.signature_schemes
                assert len(set(key.signature_schemes)) == len(key.signature_schemes)
                # the key's own name for itself finds it again
                assert (await it.store.find(key.uri)).public_key == key.public_key

        self._run(work)

    def test_every_scheme_that_a_key_promises_verifies(self) -> None:
        async def work(it: StoreUnderTest) -> None:
            for uri, spki in it.keys.items():
                key = await it.store.find(uri)
                for scheme in key.signature_schemes:
                    for content in (b"", b" " * 64 + b"TLS 1.3, client CertificateVerify\0" + bytes(32), bytes(range(256)) * 64):
                        signature = await key.sign(scheme, content)
                        assert holds(spki, scheme, content, signature), f"{uri}: scheme {scheme:#06x}"

        self._run(work)

    def test_signatures_asked_for_at_once_do_not_mix(self) -> None:
        async def work(it: StoreUnderTest) -> None:
            keys = [await it.store.find(uri) for uri in it.keys]
            public = list(it.keys.values())

            async def one(number: int) -> bool:
                index = number % len(keys)
                key, content = keys[index], number.to_bytes(4, "big")
                scheme = key.signature_schemes[0]
                return holds(public[index], scheme, content, await key.sign(scheme, content))

            assert all(await asyncio.gather(*map(one, range(40))))

        self._run(work)

    def test_a_scheme_that_the_key_cannot_make_is_refused(self) -> None:
        async def work(it: StoreUnderTest) -> None:
            key = await it.store.find(next(iter(it.keys)))
            with pytest.raises(KeyStoreError):
                await key.sign(PRIVATE_SCHEME, b"content")

        self._run(work)

    def test_a_uri_that_names_nothing_is_an_error_with_a_reason(self) -> None:
        async def work(it: StoreUnderTest) -> None:
            with pytest.raises(KeyStoreError) as caught:
                await it.store.find(it.missing)
            assert len(str(caught.value)) > 10
            for ask in (it.store.read_secret, it.store.reach):
                with pytest.raises(KeyStoreError):
                    await ask(it.missing)

        self._run(work)

    def test_a_secret_is_read_and_a_key_is_not(self) -> None:
        async def work(it: StoreUnderTest) -> None:
            for uri, value in it.secrets.items():
                assert await it.store.read_secret(uri) == value
                await it.store.reach(uri)
                with pytest.raises(KeyStoreError):
                    await it.store.find(uri)
            for uri in it.keys:
                await it.store.reach(uri)
                with pytest.raises(KeyStoreError):
                    await it.store.read_secret(uri)

        self._run(work)

    def test_keys_agree_rightly_or_not_at_all(self) -> None:
        async def work(it: StoreUnderTest) -> None:
            for uri, spki in it.keys.items():
                public = load_der_public_key(spki)
                if not isinstance(public, ec.EllipticCurvePublicKey):
                    peer = ec.generate_private_key(ec.SECP256R1())
                    with pytest.raises(KeyStoreError):
                        await it.store.agree(uri, _spki(peer))
                    continue
                peer = ec.generate_private_key(public.curve)
                # a store, or a single key, may be unable to; it must not be wrong
                with suppress(KeyStoreError):
                    assert await it.store.agree(uri, _spki(peer)) == peer.exchange(ec.ECDH(), public)

        self._run(work)

    def test_the_list_names_every_key_by_a_uri_that_finds_it(self) -> None:
        async def work(it: StoreUnderTest) -> None:
            listed = [info for info in await it.store.list() if info.kind == "private-key"]
            assert all(isinstance(info, KeyInfo) for info in listed)
            found = [await it.store.find(info.uri) for info in listed]
            for uri in it.keys:
                wanted = (await it.store.find(uri)).uri
                assert wanted in [key.uri for key in found]
            json.dumps([asdict(info) for info in listed])

        self._run(work)

    def test_status_is_plain_data(self) -> None:
        async def work(it: StoreUnderTest) -> None:
            json.dumps(await it.store.status())

        self._run(work)

    def test_keys_survive_a_rescan(self) -> None:
        async def work(it: StoreUnderTest) -> None:
            uri, spki = next(iter(it.keys.items()))
            key = await it.store.find(uri)
            await it.store.rescan()
            for each in (key, await it.store.find(uri)):
                scheme = each.signature_schemes[0]
                assert holds(spki, scheme, b"after", await each.sign(scheme, b"after"))

        self._run(work)

    def test_no_key_departs_by_itself(self) -> None:
        async def work(it: StoreUnderTest) -> None:
            leaving = asyncio.ensure_future(it.store.departure([*it.keys]))
            done, _ = await asyncio.wait((leaving,), timeout=1.5)
            leaving.cancel()
            assert not done, leaving.result()

        self._run(work)

    def test_a_departure_is_told_and_the_key_is_not_found_until_it_is_back(self) -> None:
        async def work(it: StoreUnderTest) -> None:
            if it.pull is None:
                return
            for attempt in (1, 2):
                uri = next(iter(it.keys))
                await it.store.find(uri)
                leaving = asyncio.ensure_future(it.store.departure([uri]))
                await asyncio.sleep(0.1)
                it.pull(True)
                assert set(await asyncio.wait_for(leaving, 30)) == {uri}, attempt
                for ask in (it.store.find, it.store.reach):
                    with pytest.raises(KeyStoreError):
                        await ask(uri)
                it.pull(False)
                await _found_again(it.store, uri)

        self._run(work)

    def test_no_handle_shows_the_key(self) -> None:
        async def work(it: StoreUnderTest) -> None:
            for uri in it.keys:
                key = await it.store.find(uri)
                assert "PRIVATE" not in repr(key)
                assert len(repr(key)) < 1000

        self._run(work)

    def test_no_pin_outlives_the_store(self) -> None:
        given: list[Secret] = []

        async def work(it: StoreUnderTest) -> None:
            for uri in it.keys:
                key = await it.store.find(uri)
                await key.sign(key.signature_schemes[0], b"content")
            if it.typist is not None:
                given.extend(it.typist.given)
                assert given

        self._run(work)
        assert not any(given), "a PIN is wiped as soon as it has served, at the latest by `stop`"

    def test_stop_twice_does_no_harm(self) -> None:
        async def work(it: StoreUnderTest) -> None:
            await it.store.stop()
            await it.store.stop()

        self._run(work)
