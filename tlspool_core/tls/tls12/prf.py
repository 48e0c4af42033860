"""The pseudo-random function of TLS 1.2, RFC 5246 section 5.

PRF(secret, label, seed) = HMAC(secret, A(1) + label + seed) + HMAC(secret, A(2) + label + seed) + ...
A(0) = label + seed, A(i) = HMAC(secret, A(i-1))
"""

from __future__ import annotations

from tlspool_core.tls.keyed_hash import digest_under, keyed_hash


def prf(hash_name: str, secret: bytes, label: bytes, seed: bytes, length: int) -> bytes:
    """`length` bytes out of `secret`, with the HMAC of the cipher suite's hash ("sha256" or "sha384")."""
    keyed = keyed_hash(hash_name, secret)
    seed = label + seed
    chain, output = seed, b""
    while len(output) < length:
        chain = digest_under(keyed, chain)
        output += digest_under(keyed, chain + seed)
    return output[:length]
