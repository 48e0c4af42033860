"""Does the store cope with what tokens do that are not at hand: ML-DSA, PIN pads, quirks, and return values of all kinds?"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tlspool_pkcs11 import library as ck
from tlspool_pkcs11.faults import CryptokiError
from tlspool_pkcs11.mechanisms import MECHANISMS

from tlspool_core.api import KeyStoreError, PinRequest, Secret
from tlspool_core.testing.keystore import holds

P256 = bytes.fromhex("06082a8648ce3d030107")
URI = "pkcs11:token=Fake"
CKF_PAD, COUNT_LOW, FINAL_TRY, LOCKED = 0x100, 0x10000, 0x20000, 0x40000


def raw_ecdsa(key: ec.EllipticCurvePrivateKey, digest: bytes) -> bytes:
    """What CKM_ECDSA answers: r and s."""
    r, s = utils.decode_dss_signature(key.sign(digest, ec.ECDSA(utils.Prehashed(SHA256()))))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


@pytest.fixture
def ecdsa(fake: Any) -> Any:
    """A library with one P-256 key, whose public key object has the point without an OCTET STRING around it."""
    key = ec.generate_private_key(ec.SECP256R1())
    objects = {
        1: fake.key_object(ck.CKO_PRIVATE_KEY, 3, EC_PARAMS=P256),
        2: fake.key_object(ck.CKO_PUBLIC_KEY, 3, EC_PARAMS=P256, EC_POINT=point(key)),
    }
    return fake.FakeLibrary(objects, signer=lambda mechanism, parameters, data: raw_ecdsa(key, data), flags=0x400)


async def works(store: Any, scheme: int = 0x0403) -> bool:
    key = await store.find(URI)
    return holds(key.public_key, scheme, b"content", await key.sign(scheme, b"content"))


def test_a_key_that_needs_no_login_gets_none(ecdsa: Any, with_library: Any) -> None:
    async def work(store: Any) -> None:
        assert await works(store)
        assert "C_Login" not in ecdsa.names()

    with_library(ecdsa, work)


def test_login_always_and_never(ecdsa: Any, with_library: Any) -> None:
    async def answer(request: PinRequest) -> Secret:
        return Secret.of(b"1234")

    async def work(store: Any) -> None:
        assert await works(store)

    ecdsa.flags = 0x404
    with_library(ecdsa, work, login="never")
    assert "C_Login" not in ecdsa.names()
    ecdsa.flags = 0x400
    with_library(ecdsa, work, answer, login="always")
    assert ecdsa.names().count("C_Login") == 1


@pytest.mark.parametrize(("number", "scheme", "kind"), [(1, 0x0904, 44), (2, 0x0905, 65), (3, 0x0906, 87)])
def test_ml_dsa(fake: Any, with_library: Any, number: int, scheme: int, kind: int) -> None:
    key = getattr(mldsa, f"MLDSA{kind}PrivateKey").generate()
    public = {"PARAMETER_SET": fake.ulong(number), "VALUE": key.public_key().public_bytes_raw()}
    objects = {
        1: fake.key_object(ck.CKO_PRIVATE_KEY, 0x4A, PARAMETER_SET=fake.ulong(number)),
        2: fake.key_object(ck.CKO_PUBLIC_KEY, 0x4A, **public),
    }
    library = fake.FakeLibrary(objects, 0x400, [MECHANISMS["CKM_ML_DSA"]], lambda mechanism, parameters, data: key.sign(data))

    async def work(store: Any) -> None:
        found = await store.find(URI)
        assert found.signature_schemes == (scheme,)
        assert await works(store, scheme)

    with_library(library, work)


def test_a_public_key_by_the_newer_standard_in_the_private_key_object(ecdsa: Any, with_library: Any) -> None:
    async def before(store: Any) -> None:
        spki.append((await store.find(URI)).public_key)

    spki: list[bytes] = []
    with_library(ecdsa, before)
    del ecdsa.objects[2]
    ecdsa.objects[1][ck.CKA_PUBLIC_KEY_INFO] = spki[0]

    async def work(store: Any) -> None:
        assert (await store.find(URI)).public_key == spki[0]
        assert await works(store)

    with_library(ecdsa, work)


def test_a_key_whose_public_half_is_nowhere_signs_but_says_so(ecdsa: Any, with_library: Any) -> None:
    del ecdsa.objects[2]

    async def work(store: Any) -> None:
        key = await store.find(URI)
        assert key.public_key is None
        assert key.signature_schemes == (0x0403,)
        assert await key.sign(0x0403, b"content")

    with_library(ecdsa, work)


def test_the_same_identifier_on_another_kind_of_key_misleads_nobody(ecdsa: Any, fake: Any, with_library: Any) -> None:
    other = ec.generate_private_key(ec.SECP384R1())
    wrong = fake.key_object(ck.CKO_PUBLIC_KEY, 3, EC_PARAMS=bytes.fromhex("06052b81040022"), EC_POINT=point(other))
    ecdsa.objects = {1: ecdsa.objects[1], 3: wrong, 2: ecdsa.objects[2]}

    async def work(store: Any) -> None:
        assert await works(store)

    with_library(ecdsa, work)


def test_a_key_with_a_list_of_allowed_mechanisms_keeps_to_it(ecdsa: Any, fake: Any, with_library: Any) -> None:
    ecdsa.objects[1][ck.CKA_ALLOWED_MECHANISMS] = fake.ulong(MECHANISMS["CKM_ECDSA_SHA256"])

    async def work(store: Any) -> None:
        assert (await store.find(URI)).signature_schemes == ()

    with_library(ecdsa, work)
    ecdsa.objects[1][ck.CKA_ALLOWED_MECHANISMS] = fake.ulong(1) + fake.ulong(MECHANISMS["CKM_ECDSA"])

    async def allowed(store: Any) -> None:
        assert await works(store)

    with_library(ecdsa, allowed)


def test_a_token_that_wants_parameters_for_ed25519_gets_them(fake: Any, with_library: Any) -> None:
    key = ed25519.Ed25519PrivateKey.generate()

    def signer(mechanism: int, parameters: tuple[int, ...], data: bytes) -> bytes:
        if parameters != (0, 0, 0):
            raise CryptokiError("C_SignInit", 0x71)
        return key.sign(data)

    curve = {"EC_PARAMS": b"\x13\x0cedwards25519"}
    raw = b"\x04\x20" + key.public_key().public_bytes_raw()
    objects = {
        1: fake.key_object(ck.CKO_PRIVATE_KEY, 0x40, **curve),
        2: fake.key_object(ck.CKO_PUBLIC_KEY, 0x40, **curve, EC_POINT=raw),
    }

    async def work(store: Any) -> None:
        assert await works(store, 0x0807)

    with_library(fake.FakeLibrary(objects, 0x400, [MECHANISMS["CKM_EDDSA"]], signer), work)


def test_a_signature_of_an_impossible_length_is_not_handed_on(ecdsa: Any, with_library: Any) -> None:
    ecdsa.signer = lambda mechanism, parameters, data: bytes(65)

    async def work(store: Any) -> None:
        key = await store.find(URI)
        with pytest.raises(KeyStoreError, match="65 octets"):
            await key.sign(0x0403, b"content")

    with_library(ecdsa, work)


@pytest.mark.parametrize("value", [0x05, 0x30, 0x32, 0x60, 0xB3, 0xE0, 0x101, 0x190, 0x80000042])
def test_a_token_that_went_away_is_found_again_by_a_fresh_worker(ecdsa: Any, with_library: Any, value: int) -> None:
    async def work(store: Any) -> None:
        key = await store.find(URI)
        # twice: the quick attempt, and the careful one that sees it
        ecdsa.faults["C_SignInit"] = [value, value]
        assert holds(key.public_key, 0x0403, b"content", await key.sign(0x0403, b"content"))
        status = (await store.status())["modules"][0]
        assert status["restarts"] == 1
        assert "CKR" in status["last_error"]

    with_library(ecdsa, work)


def test_a_fault_that_stays_is_told_with_its_name_and_a_remedy(ecdsa: Any, with_library: Any) -> None:
    async def work(store: Any) -> None:
        key = await store.find(URI)
        ecdsa.faults["C_Sign"] = [0x30] * 9
        with pytest.raises(KeyStoreError, match=r"C_Sign: CKR_DEVICE_ERROR; the pool looks for the token again"):
            await key.sign(0x0403, b"content")
        assert (await store.status())["modules"][0]["restarts"] == 1

    with_library(ecdsa, work)


def test_content_beyond_any_handshake_is_refused(ecdsa: Any, with_library: Any) -> None:
    async def work(store: Any) -> None:
        with pytest.raises(KeyStoreError, match="more than any handshake"):
            await (await store.find(URI)).sign(0x0403, bytes(1024 * 1024 + 1))

    with_library(ecdsa, work)


# --- PIN pads, and tokens that are about to lock ---------------------------------------------------------------------------------


def test_a_token_with_a_pin_pad_gets_no_pin_from_us(ecdsa: Any, with_library: Any) -> None:
    ecdsa.flags = 0x404 | CKF_PAD

    async def work(store: Any) -> None:
        assert await works(store)
        assert [call[3] for call in ecdsa.calls if call[0] == "C_Login"] == [None]

    with_library(ecdsa, work)


def test_a_pin_pad_is_not_lit_for_a_list(ecdsa: Any, with_library: Any) -> None:
    ecdsa.flags = 0x404 | CKF_PAD

    async def work(store: Any) -> None:
        await store.list()
        assert "C_Login" not in ecdsa.names()

    with_library(ecdsa, work)


def test_a_wrong_pin_at_the_pad_is_not_asked_for_again_by_itself(ecdsa: Any, with_library: Any) -> None:
    ecdsa.flags = 0x404 | CKF_PAD
    ecdsa.faults["C_Login"] = [0xA0]

    async def work(store: Any) -> None:
        with pytest.raises(KeyStoreError, match="CKR_PIN_INCORRECT"):
            await store.find(URI)
        ecdsa.flags |= COUNT_LOW
        with pytest.raises(KeyStoreError, match="a wrong PIN was entered before"):
            await store.find(URI)
        assert ecdsa.names().count("C_Login") == 1
        await store.rescan()
        assert await works(store)

    with_library(ecdsa, work)


@pytest.mark.parametrize(("flag", "reason"), [(FINAL_TRY, "one more wrong PIN locks it"), (LOCKED, "its PIN is locked")])
def test_a_token_at_the_brink_gets_no_pin_from_anybody(ecdsa: Any, with_library: Any, flag: int, reason: str) -> None:
    async def answer(request: PinRequest) -> Secret:
        raise AssertionError("nobody is to be asked")

    ecdsa.flags = 0x404 | COUNT_LOW | flag

    async def work(store: Any) -> None:
        with pytest.raises(KeyStoreError, match=reason):
            await store.find(URI)
        await store.rescan()
        with pytest.raises(KeyStoreError, match=reason):
            await store.find(URI)
        assert "C_Login" not in ecdsa.names()
        assert (await store.status())["modules"][0]["tokens"][0]["pin"]

    with_library(ecdsa, work, answer)


def test_a_human_is_not_asked_a_third_time_at_the_brink(ecdsa: Any, with_library: Any) -> None:
    asked: list[PinRequest] = []

    async def answer(request: PinRequest) -> Secret:
        asked.append(request)
        ecdsa.flags |= COUNT_LOW | (FINAL_TRY if len(asked) == 2 else 0)
        return Secret.of(f"{len(asked)}000".encode())

    ecdsa.flags = 0x404
    ecdsa.faults["C_Login"] = [0xA0, 0xA0]

    async def work(store: Any) -> None:
        with pytest.raises(KeyStoreError, match="one more wrong PIN locks it"):
            await store.find(URI)
        assert len(asked) == 2

    with_library(ecdsa, work, answer)


def test_a_careful_key_at_a_pin_pad_has_the_token_ask_for_each_signature(ecdsa: Any, with_library: Any) -> None:
    ecdsa.flags = 0x404 | CKF_PAD
    ecdsa.objects[1][ck.CKA_ALWAYS_AUTHENTICATE] = b"\1"

    async def work(store: Any) -> None:
        assert await works(store)
        users = [call[2:] for call in ecdsa.calls if call[0] == "C_Login"]
        assert users == [(ck.CKU_USER, None), (ck.CKU_CONTEXT_SPECIFIC, None)]

    with_library(ecdsa, work)


def test_a_careful_key_whose_pin_is_refused_gets_it_once(ecdsa: Any, with_library: Any, tmp_path: Any) -> None:
    pin = tmp_path / "pin"
    pin.write_text("1234")
    pin.chmod(0o600)
    ecdsa.flags = 0x404
    ecdsa.objects[1][ck.CKA_ALWAYS_AUTHENTICATE] = b"\1"

    async def nobody(request: PinRequest) -> None:
        return None

    async def work(store: Any) -> None:
        key = await store.find(URI)
        ecdsa.faults["C_Login"] = [0xA0]
        for _ in range(3):
            with pytest.raises(KeyStoreError, match="Fake"):
                await key.sign(0x0403, b"content")
        specific = [call for call in ecdsa.calls if call[0] == "C_Login" and call[2] == ck.CKU_CONTEXT_SPECIFIC]
        assert len(specific) == 1

    with_library(ecdsa, work, nobody, pin_file=str(pin))


def test_two_pools_with_one_wrong_pin_file_send_it_once(hsm: Any) -> None:
    # two processes of the pool share nothing but the file and the token
    sent = []

    async def main() -> None:
        hsm.set_pin("654321")

        async def nobody(request: PinRequest) -> None:
            return None

        async with hsm.store(ask=nobody) as one, hsm.store(ask=nobody) as two:
            results = await asyncio.gather(
                one.find("pkcs11:token=Web;object=p256"), two.find("pkcs11:token=Web;object=p256"), return_exceptions=True
            )
            sent.extend(str(result) for result in results)

    asyncio.run(main())
    assert sum("CKR_PIN_INCORRECT" in text for text in sent) == 1
    assert sum("a wrong PIN was entered before" in text for text in sent) == 1
