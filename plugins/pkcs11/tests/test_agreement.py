"""Does a token agree on the same secret as other code does with the public half, and on nothing it should not?"""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from tlspool_pkcs11 import library as ck

from tlspool_core.api import KeyStoreError

CURVES = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}
P256 = bytes.fromhex("06082a8648ce3d030107")


def spki(key: Any) -> bytes:
    made: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return made


def test_softhsm_agrees_as_cryptography_does(hsm: Any) -> None:
    async def work(store: Any) -> None:
        for name, curve in CURVES.items():
            uri = f"pkcs11:token=Web;object={name};type=private"
            public = load_der_public_key((await store.find(uri)).public_key)
            # several, as one in 256 secrets begins with a zero octet
            for _ in range(20):
                other = ec.generate_private_key(curve)
                assert await store.agree(uri, spki(other)) == other.exchange(ec.ECDH(), public)
        # the secrets that the token made on the way are gone
        worker = hsm.inner(store).present
        token = (await store.find("pkcs11:token=Web;object=p256"))._found.token
        for records in worker.objects.values():
            assert not [record for record in records if record.object_class == ck.CKO_SECRET_KEY]
        listed = await store.list()
        assert token.label == "Web"
        assert [info.label for info in listed if info.kind == "secret"] == ["password"]

    hsm.use(work)


def test_a_lost_worker_is_replaced(hsm: Any) -> None:
    async def work(store: Any) -> None:
        other = ec.generate_private_key(ec.SECP256R1())
        key = await store.find("pkcs11:token=Web;object=p256")
        before = await key.agree(spki(other))
        hsm.inner(store).present.end("as a test")
        assert await key.agree(spki(other)) == before

    hsm.use(work)


@pytest.mark.parametrize(
    ("name", "reason"), [("p384", "not on the curve"), ("rsa", "not on the curve"), ("careful", "may not agree")]
)
def test_a_key_that_cannot_is_refused(hsm: Any, name: str, reason: str) -> None:
    async def work(store: Any) -> None:
        with pytest.raises(KeyStoreError, match=reason):
            await store.agree(f"pkcs11:token=Web;object={name};type=private", spki(ec.generate_private_key(ec.SECP256R1())))

    hsm.use(work)


def test_a_point_that_is_on_no_curve_never_reaches_the_token(hsm: Any) -> None:
    good = spki(ec.generate_private_key(ec.SECP256R1()))
    bad = good[:-1] + bytes([good[-1] ^ 1])

    async def work(store: Any) -> None:
        for wrong in (
            bad,
            b"",
            good[:-1],
            spki(ed25519.Ed25519PrivateKey.generate()),
            spki(ec.generate_private_key(ec.SECP256K1())),
        ):
            with pytest.raises(KeyStoreError, match="curve"):
                await store.agree("pkcs11:token=Web;object=p256;type=private", wrong)

    hsm.use(work)


@pytest.fixture
def deriving(fake: Any) -> Any:
    objects = {1: fake.key_object(ck.CKO_PRIVATE_KEY, 3, EC_PARAMS=P256, DERIVE=b"\1")}
    return fake.FakeLibrary(objects, 0x400)


def test_leading_zeros_that_a_token_lost_come_back_and_excess_does_not(deriving: Any, with_library: Any) -> None:
    peer = spki(ec.generate_private_key(ec.SECP256R1()))

    async def work(store: Any) -> None:
        deriving.agreed = b"\7" * 31
        assert await store.agree("pkcs11:token=Fake", peer) == b"\0" + b"\7" * 31
        for wrong in (b"", bytes(33)):
            deriving.agreed = wrong
            with pytest.raises(KeyStoreError, match="octets"):
                await store.agree("pkcs11:token=Fake", peer)

    with_library(deriving, work)


def test_a_token_that_keeps_the_secret_says_so(deriving: Any, with_library: Any) -> None:
    async def work(store: Any) -> None:
        deriving.faults["C_DeriveKey"] = [0xD1]
        with pytest.raises(KeyStoreError, match=r"CKR_TEMPLATE_INCONSISTENT; the token does not give away"):
            await store.agree("pkcs11:token=Fake", spki(ec.generate_private_key(ec.SECP256R1())))

    with_library(deriving, work)
