"""HMAC (RFC 2104), as the key schedules of both versions need it: many short messages under few keys.

Theory of operation
-------------------
Setting up a key costs more than what is hashed under it afterwards: two blocks, and the library's search for the algorithm.  So a key
with several uses is set up once by `keyed_hash`, and each `digest_under` works on a copy of that state.  The states are the
library's own objects, which wipe what they held; whoever made one drops it with the secret that it stands for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256, SHA384, HashAlgorithm
from cryptography.hazmat.primitives.hmac import HMAC

_ALGORITHMS: Final[Mapping[str, HashAlgorithm]] = {"sha256": SHA256(), "sha384": SHA384()}


def keyed_hash(hash_name: str, key: bytes) -> HMAC:
    """HMAC under `key` before any message; `hash_name` as cipher suites have it, "sha256" or "sha384"."""
    return HMAC(key, _ALGORITHMS[hash_name])


def digest_under(keyed: HMAC, message: bytes) -> bytes:
    """HMAC of a whole message; `keyed` stays as it is."""
    running = keyed.copy()
    running.update(message)
    return running.finalize()


def digest_once(hash_name: str, key: bytes, message: bytes) -> bytes:
    """HMAC under a key that has no other use."""
    running = HMAC(key, _ALGORITHMS[hash_name])
    running.update(message)
    return running.finalize()
