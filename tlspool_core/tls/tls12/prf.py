"""The pseudo-random function of TLS 1.2, RFC 5246 section 5.

    PRF(secret, label, seed) = HMAC(secret, A(1) + label + seed) + HMAC(secret, A(2) + label + seed) + ...
    A(0) = label + seed, A(i) = HMAC(secret, A(i-1))

The key is set up once per call; each HMAC then works on a copy of that state, which halves its cost.
"""

from __future__ import annotations

import hmac


def prf(hash_name: str, secret: bytes, label: bytes, seed: bytes, length: int) -> bytes:
    """`length` bytes out of `secret`, with the HMAC of the cipher suite's hash ("sha256" or "sha384")."""
    keyed = hmac.new(secret, digestmod=hash_name)
    seed = label + seed
    chain, output = seed, b""
    while len(output) < length:
        chain = _digest(keyed, chain)
        output += _digest(keyed, chain + seed)
    return output[:length]


def _digest(keyed: hmac.HMAC, message: bytes) -> bytes:
    running = keyed.copy()
    running.update(message)
    return running.digest()
