"""Is every signature right, whichever mechanism the token has left for it?"""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tlspool_pkcs11.check import verifies
from tlspool_pkcs11.mechanisms import BY_CODE, MECHANISMS, SCHEMES, BadSignature, ecdsa_to_der, emsa_pss, schemes
from tlspool_pkcs11.publickeys import PublicKey, from_spki

from tlspool_core.api import KeyStoreError
from tlspool_core.testing.keystore import holds

KEYS = {
    "p256": ["ecdsa_secp256r1_sha256"],
    "p384": ["ecdsa_secp384r1_sha384"],
    "p521": ["ecdsa_secp521r1_sha512"],
    "ed25519": ["ed25519"],
    "ed448": ["ed448"],
    "rsa": [
        *("rsa_pss_rsae_sha256", "rsa_pss_rsae_sha384", "rsa_pss_rsae_sha512"),
        *("rsa_pss_pss_sha256", "rsa_pss_pss_sha384", "rsa_pss_pss_sha512"),
        *("rsa_pkcs1_sha256", "rsa_pkcs1_sha384", "rsa_pkcs1_sha512"),
    ],
}
HASHING_RSA = [name for name in MECHANISMS if "SHA" in name and "RSA" in name]
RESTRICTIONS = {
    "the token hashes": [],
    "the token pads but cannot hash": HASHING_RSA,
    "the token has raw RSA only": [*HASHING_RSA, "CKM_RSA_PKCS", "CKM_RSA_PKCS_PSS"],
}


async def sign_and_verify(store: Any, name: str) -> list[str]:
    key = await store.find(f"pkcs11:object={name}")
    assert key.public_key
    for code in key.signature_schemes:
        for content in (b"", b"x" * 130, bytes(100_000)):
            signature = await key.sign(code, content)
            assert holds(key.public_key, code, content, signature)
            assert verifies(key.public_key, code, content, signature)
            assert not verifies(key.public_key, code, content + b"!", signature)
    return [BY_CODE[code].name for code in key.signature_schemes]


@pytest.mark.parametrize("name", KEYS)
def test_every_scheme_of_every_key_verifies_and_comes_best_first(hsm: Any, name: str) -> None:
    async def work(store: Any) -> None:
        assert await sign_and_verify(store, name) == KEYS[name]

    hsm.use(work)


@pytest.mark.parametrize("restriction", RESTRICTIONS)
def test_rsa_falls_back_to_what_the_token_can(hsm: Any, restriction: str) -> None:
    async def work(store: Any) -> None:
        assert await sign_and_verify(store, "rsa") == KEYS["rsa"]

    hsm.use(work, disable_mechanisms=RESTRICTIONS[restriction])


def test_a_scheme_without_any_mechanism_is_not_offered(hsm: Any) -> None:
    async def work(store: Any) -> None:
        assert (await store.find("pkcs11:object=p256")).signature_schemes == ()
        key = await store.find("pkcs11:object=ed25519")
        with pytest.raises(KeyStoreError, match=r"cannot make ecdsa_secp256r1_sha256; it can make: ed25519"):
            await key.sign(0x0403, b"content")

    hsm.use(work, disable_mechanisms=["CKM_ECDSA"])


def test_a_mechanism_that_the_token_promises_and_refuses_is_passed_over(hsm: Any) -> None:
    # SoftHSM 2.6 does not have this one, so that it refuses what the configuration promises in its name
    async def work(store: Any) -> None:
        key = await store.find("pkcs11:object=p256")
        assert await sign_and_verify(store, "p256") == KEYS["p256"]
        worker = hsm.inner(store).present
        await key.sign(0x0403, b"content")
        first_try = worker._number
        await key.sign(0x0403, b"content")
        # the second signature begins with what worked
        assert worker._number - first_try == 1
        assert hsm.inner(store).restarts == 0

    hsm.use(work, extra_mechanisms=["CKM_ECDSA_SHA256"])


def test_a_key_that_may_not_sign_is_found_but_makes_nothing(hsm: Any) -> None:
    async def work(store: Any) -> None:
        key = await store.find("pkcs11:object=mute")
        assert key.signature_schemes == ()
        with pytest.raises(KeyStoreError, match="nothing that TLS knows"):
            await key.sign(0x0403, b"content")

    hsm.use(work)


def test_a_key_that_wants_the_pin_for_each_signature_gets_it(hsm: Any) -> None:
    async def work(store: Any) -> None:
        assert await sign_and_verify(store, "careful") == KEYS["p256"]
        # keys without that demand are not disturbed in between
        assert await sign_and_verify(store, "p256") == KEYS["p256"]
        assert await sign_and_verify(store, "careful") == KEYS["p256"]

    hsm.use(work)


def test_the_key_found_by_a_uri_with_an_identifier_is_that_one(hsm: Any) -> None:
    async def work(store: Any) -> None:
        by_id = await store.find("pkcs11:id=%01")
        assert by_id.uri == (await store.find("pkcs11:object=p256")).uri
        assert "pin" not in by_id.uri
        with pytest.raises(KeyStoreError, match="names 9 objects; say which: pkcs11:token=Web"):
            await store.find("pkcs11:token=Web")
        with pytest.raises(KeyStoreError, match="type=cert names no private key"):
            await store.find("pkcs11:object=p256;type=cert")
        with pytest.raises(KeyStoreError, match="is not there"):
            await store.find("pkcs11:token=Wob;object=p256")

    hsm.use(work)


# --- what no token at hand does ------------------------------------------------------------------------------------------------


def test_ecdsa_in_the_tokens_form_becomes_der() -> None:
    # RFC 3279 section 2.2.3: a SEQUENCE of two INTEGERs, which are signed and shortest
    assert ecdsa_to_der(32, bytes(31) + b"\x01" + b"\xff" * 32) == bytes.fromhex("3026020101022100" + "ff" * 32)
    # leading zeros stripped by the library, of both numbers alike
    assert ecdsa_to_der(32, b"\x02\x03") == bytes.fromhex("3006020102020103")
    for length in (0, 3, 63, 65, 66, 70):
        with pytest.raises(BadSignature):
            ecdsa_to_der(32, bytes(length))


@pytest.mark.parametrize("bits", [1024, 1025, 1026, 1032, 2048])
def test_our_pss_padding_verifies_for_moduli_of_any_length(bits: int) -> None:
    # RFC 8017 section 9.1.1: emBits is one less than the modulus's, so the first octet may be missing altogether
    key = rsa.generate_private_key(65537, bits)
    assert key.key_size == bits
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    numbers = key.private_numbers()
    for code, hash_name in ((0x0804, "sha256"), (0x0805, "sha384")):
        padded = emsa_pss(hash_name, bits, b"content")
        assert len(padded) == (bits + 7) // 8
        raw = pow(int.from_bytes(padded, "big"), numbers.d, numbers.public_numbers.n)
        assert verifies(spki, code, b"content", raw.to_bytes((bits + 7) // 8, "big"))


def test_rsa_schemes_that_do_not_fit_the_modulus_are_left_out() -> None:
    everything = set(MECHANISMS.values())
    small = [BY_CODE[code].name for code in schemes(PublicKey("rsa", 1024, None), everything)]
    assert "rsa_pss_rsae_sha384" in small
    # 2 * 64 + 2 octets do not go into 128
    assert "rsa_pss_rsae_sha512" not in small
    assert "rsa_pkcs1_sha512" in small


def test_each_kind_of_key_knows_its_schemes() -> None:
    made = {
        "mldsa44": mldsa.MLDSA44PrivateKey,
        "mldsa65": mldsa.MLDSA65PrivateKey,
        "mldsa87": mldsa.MLDSA87PrivateKey,
        "ed25519": ed25519.Ed25519PrivateKey,
    }
    for name, kind in made.items():
        public = from_spki(kind.generate().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        assert public is not None
        assert [BY_CODE[code].name for code in schemes(public, set(MECHANISMS.values()))] == [name]
    strange = ec.generate_private_key(ec.SECP256K1()).public_key()
    assert from_spki(strange.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)) is None


def test_the_scheme_table_is_that_of_the_engine() -> None:
    from tlspool_core.tls.signatures import CORE_SCHEMES

    assert {scheme.code: scheme.name for scheme in SCHEMES} == {code: row.name for code, row in CORE_SCHEMES.items()}
