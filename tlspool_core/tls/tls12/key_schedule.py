"""From premaster secret to keys in TLS 1.2: RFC 5246 sections 6.3 and 8.1, RFC 7627, RFC 5705."""

from __future__ import annotations

from typing import Final

from tlspool_core.tls.alerts import InternalError
from tlspool_core.tls.codec import vector16
from tlspool_core.tls.protection import CIPHERS, MACS, Protection, protection12
from tlspool_core.tls.seams import CipherSuite
from tlspool_core.tls.tls12.prf import prf

MASTER_SECRET_LENGTH: Final = 48

# labels that the protocol itself uses, so that no exporter may (RFC 5705 section 4)
_RESERVED: Final = frozenset(
    (b"client finished", b"server finished", b"master secret", b"key expansion", b"extended master secret")
)


class KeySchedule:
    """The master secret of one session, with the randoms of one connection."""

    __slots__ = ("_randoms", "_suite", "extended", "secret")

    def __init__(self, suite: CipherSuite, secret: bytes, randoms: tuple[bytes, bytes], *, extended: bool) -> None:
        """`randoms` are the client's and the server's; `extended` says that the secret is bound to the transcript (RFC 7627)."""
        self._suite = suite
        self._randoms = randoms
        self.secret = secret
        self.extended = extended

    def protections(self) -> tuple[Protection, Protection]:
        """Record protection of what the client writes, and of what the server writes (RFC 5246 section 6.3)."""
        suite = self._suite
        kind = CIPHERS[suite.cipher]
        mac, key, iv = MACS[suite.mac] if suite.mac else 0, kind.key_length, kind.iv12
        client_random, server_random = self._randoms
        block = prf(suite.hash_name, self.secret, b"key expansion", server_random + client_random, 2 * (mac + key + iv))
        keys, ivs = 2 * mac, 2 * (mac + key)
        client = protection12(suite.cipher, block[keys : keys + key], block[ivs : ivs + iv], block[:mac], suite.mac)
        server = protection12(suite.cipher, block[keys + key : ivs], block[ivs + iv :], block[mac:keys], suite.mac)
        return client, server

    def verify_data(self, role: str, digest: bytes) -> bytes:
        """Content of the Finished that `role` sends, over a transcript hash (RFC 5246 section 7.4.9)."""
        suite = self._suite
        return prf(suite.hash_name, self.secret, role.encode() + b" finished", digest, suite.verify_data_length)

    def export(self, label: bytes, context: bytes | None, length: int) -> bytes:
        """Keying material exporter, RFC 5705 section 4; no context differs from an empty one. Raises ValueError."""
        if label in _RESERVED:
            raise ValueError(f"the label {label!r} is reserved")
        seed = b"".join(self._randoms)
        if context is not None:
            seed += vector16(context)
        return prf(self._suite.hash_name, self.secret, label, seed, length)


def master_secret(suite: CipherSuite, premaster: bytes, randoms: tuple[bytes, bytes], session_hash: bytes | None) -> KeySchedule:
    """With a `session_hash` the extended one (RFC 7627 section 4), else that of RFC 5246 section 8.1."""
    if not premaster:
        raise InternalError("a key exchange made an empty premaster secret")
    if session_hash is not None:
        secret = prf(suite.hash_name, premaster, b"extended master secret", session_hash, MASTER_SECRET_LENGTH)
    else:
        secret = prf(suite.hash_name, premaster, b"master secret", b"".join(randoms), MASTER_SECRET_LENGTH)
    return KeySchedule(suite, secret, randoms, extended=session_hash is not None)
