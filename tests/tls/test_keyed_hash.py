"""Are the keyed hashes HMAC, and the same after every use?"""

from __future__ import annotations

import hmac

import pytest

from tlspool_core.tls.keyed_hash import digest_once, digest_under, keyed_hash

# RFC 4231 sections 4.2, 4.3 and 4.7: key, data, HMAC-SHA-256, first half of HMAC-SHA-384
VECTORS = {
    "short": (
        b"\x0b" * 20,
        b"Hi There",
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec6",
    ),
    "shorter than the output": (
        b"Jefe",
        b"what do ya want for nothing?",
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47",
    ),
    "longer than a block": (
        b"\xaa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f",
    ),
}


@pytest.mark.parametrize(("key", "data", "sha256", "sha384"), VECTORS.values(), ids=VECTORS)
def test_published_vectors(key: bytes, data: bytes, sha256: str, sha384: str) -> None:
    assert digest_once("sha256", key, data).hex() == sha256
    assert digest_once("sha384", key, data).hex().startswith(sha384)


@pytest.mark.parametrize("hash_name", ["sha256", "sha384"])
def test_a_key_can_be_used_again_and_again(hash_name: str) -> None:
    keyed = keyed_hash(hash_name, b"key")
    for message in (b"one", b"", b"two" * 100, b"one"):
        assert digest_under(keyed, message) == hmac.digest(b"key", message, hash_name)
