"""Are the PRF and the keys derived with it those of RFC 5246, RFC 7627 and RFC 5705?"""

from __future__ import annotations

import hashlib
import hmac

import pytest

from tlspool_core.tls.suites import CORE_SUITES
from tlspool_core.tls.tls12.key_schedule import KeySchedule, master_secret
from tlspool_core.tls.tls12.prf import prf

RANDOMS = (bytes(range(32)), bytes(range(32, 64)))

# published on the IETF list of the TLS working group for P_SHA256, P_SHA384 and P_SHA512 (2009-02, "test vectors for TLS 1.2 PRF")
VECTORS = [
    (
        "sha256",
        "9bbe436ba940f017b17652849a71db35",
        "a0ba9f936cda311827a6f796ffd5198c",
        "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a6b301791e90d35c9c9a46b4e14baf9af"
        "0fa022f7077def17abfd3797c0564bab4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff701"
        "87347b66",
    ),
    (
        "sha384",
        "b80b733d6ceefcdc71566ea48e5567df",
        "cd665cf6a8447dd6ff8b27555edb7465",
        "7b0c18e9ced410ed1804f2cfa34a336a1c14dffb4900bb5fd7942107e81c83cde9ca0faa60be9fe34f82b1233c9146a0"
        "e534cb400fed2700884f9dc236f80edd8bfa961144c9e8d792eca722a7b32fc3d416d473ebc2c5fd4abfdad05d918425"
        "9b5bf8cd4d90fa0d31e2dec479e4f1a26066f2eea9a69236a3e52655c9e9aee691c8f3a26854308d5eaa3be85e0990703"
        "d73e56f",
    ),
]


@pytest.mark.parametrize(("hash_name", "secret", "seed", "output"), VECTORS)
def test_published_vectors(hash_name: str, secret: str, seed: str, output: str) -> None:
    expected = bytes.fromhex(output)
    assert prf(hash_name, bytes.fromhex(secret), b"test label", bytes.fromhex(seed), len(expected)) == expected


def definition(hash_name: str, secret: bytes, seed: bytes, length: int) -> bytes:
    """P_hash written down as in RFC 5246 section 5."""
    chain, output = seed, b""
    while len(output) < length:
        chain = hmac.new(secret, chain, hash_name).digest()
        output += hmac.new(secret, chain + seed, hash_name).digest()
    return output[:length]


@pytest.mark.parametrize("hash_name", ["sha256", "sha384"])
@pytest.mark.parametrize("length", [1, 12, 31, 32, 33, 48, 100, 256])
def test_every_length_is_a_prefix_of_the_definition(hash_name: str, length: int) -> None:
    assert prf(hash_name, b"secret", b"label", b"seed", length) == definition(hash_name, b"secret", b"labelseed", length)


def test_a_long_secret_is_hashed_first() -> None:
    long = bytes(200)
    assert prf("sha256", long, b"l", b"s", 40) == definition("sha256", hashlib.sha256(long).digest(), b"ls", 40)


def test_master_secrets() -> None:
    suite = CORE_SUITES[0xC02F]
    plain = master_secret(suite, b"premaster", RANDOMS, None)
    assert plain.secret == prf("sha256", b"premaster", b"master secret", RANDOMS[0] + RANDOMS[1], 48) and not plain.extended
    extended = master_secret(suite, b"premaster", RANDOMS, b"hash")
    assert extended.secret == prf("sha256", b"premaster", b"extended master secret", b"hash", 48) and extended.extended


@pytest.mark.parametrize("code", [0xC02B, 0xC030, 0xCCA8])
def test_key_block_gives_each_side_its_own_keys(code: int) -> None:
    """What one side's write keys seal, the other's read keys open; the two directions differ."""
    keys = KeySchedule(CORE_SUITES[code], bytes(48), RANDOMS, extended=True)
    sealed = [protection.seal(23, b"hello") for protection in keys.protections()]
    assert sealed[0] != sealed[1]
    for record, protection in zip(sealed, keys.protections(), strict=True):
        assert protection.open(record[:5], record[5:]) == (23, b"hello")


def test_exporter() -> None:
    keys = KeySchedule(CORE_SUITES[0xC02F], b"m" * 48, RANDOMS, extended=True)
    seed = RANDOMS[0] + RANDOMS[1]
    assert keys.export(b"EXPORTER-x", None, 20) == prf("sha256", b"m" * 48, b"EXPORTER-x", seed, 20)
    assert keys.export(b"EXPORTER-x", b"", 20) == prf("sha256", b"m" * 48, b"EXPORTER-x", seed + b"\0\0", 20)
    with pytest.raises(ValueError, match="reserved"):
        keys.export(b"master secret", None, 20)
