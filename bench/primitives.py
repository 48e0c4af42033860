"""What a TLS 1.3 server's handshake cannot do without: the calls into libraries, and nothing around them.

Theory of operation
-------------------
`full` and `resumed` make the calls of such a handshake in its order, with X25519, SHA-256 and AES-128-GCM: what RFC 8446 has a server
compute, in the cheapest way known from Python.  A secret that is the key of several HMACs is set up once and copied.  They are
generators that stop where a server waits for its client, so that they can be run at the places of a real handshake, where they
find the caches as an engine finds them; in a loop of their own they are a sixth quicker.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.hmac import HMAC

Sign = Callable[[bytes], bytes]

_SHA256: Final = SHA256()
_SECRET: Final = b"s" * 32
_LABEL: Final = b"l" * 50  # an HkdfLabel, with the transcript's hash
_CONSTANT: Final = HMAC(_SECRET, _SHA256)  # a salt that is the same in all handshakes
_THEIRS: Final = X25519PrivateKey.generate().public_key().public_bytes_raw()


def _keyed(secret: bytes) -> HMAC:
    return HMAC(secret, _SHA256)


def _derive(keyed: HMAC, message: bytes = _LABEL) -> bytes:
    running = keyed.copy()
    running.update(message)
    return running.finalize()


def _once(secret: bytes, message: bytes = _LABEL) -> bytes:
    running = HMAC(secret, _SHA256)
    running.update(message)
    return running.finalize()


def _hash(message: bytes) -> Hash:
    running = Hash(_SHA256)
    running.update(message)
    return running


def _exchange() -> bytes:
    private = X25519PrivateKey.generate()
    private.public_key().public_bytes_raw()
    return private.exchange(X25519PublicKey.from_public_bytes(_THEIRS))


def full(sign: Sign) -> Iterator[None]:
    """With Certificate and CertificateVerify, and two tickets."""
    yield from _handshake(lambda shared: _keyed(_derive(_CONSTANT, shared)), sign, tickets=2)


def resumed() -> Iterator[None]:
    """The binder is checked, nothing is signed, and one ticket is given. What opens and seals tickets is not counted here."""
    early = _keyed(_derive(_CONSTANT))
    _hash(b"x" * 400).finalize()
    binder = _keyed(_derive(early))
    _once(_derive(binder))
    yield from _handshake(lambda shared: _keyed(_derive(_keyed(_derive(early)), shared)), None, tickets=1)


def _handshake(handshake_secret: Callable[[bytes], HMAC], sign: Sign | None, tickets: int) -> Iterator[None]:
    os.urandom(32)
    shared = _exchange()
    transcript = _hash(b"x" * 400)
    transcript.update(b"x" * 120)
    handshake = handshake_secret(shared)
    transcript.copy().finalize()
    client, server = _keyed(_derive(handshake)), _keyed(_derive(handshake))
    for secret in (client, server):
        _derive(secret), _derive(secret)  # key and IV
    transcript.update(b"x" * 20)  # EncryptedExtensions
    if sign is not None:
        transcript.update(b"x" * 450)
        transcript.update(sign(b"x" * 98 + transcript.copy().finalize()))
    transcript.update(_once(_derive(server), transcript.copy().finalize()))
    AESGCM(b"k" * 16).encrypt(b"n" * 12, b"x" * (600 if sign is not None else 60), b"h" * 5)
    master = _keyed(_once(_derive(handshake)))
    transcript.copy().finalize()
    _derive(master)  # exporter
    for secret in (_keyed(_derive(master)), _keyed(_derive(master))):
        _derive(secret), _derive(secret)
    yield
    transcript.update(_once(_derive(client), transcript.copy().finalize()))
    opening = AESGCM(b"k" * 16)
    opening.decrypt(b"n" * 12, _FINISHED, b"h" * 5)
    transcript.copy().finalize()
    resumption = _derive(master)
    for _ in range(tickets):
        os.urandom(4)
        _once(resumption)
    AESGCM(b"k" * 16).encrypt(b"n" * 12, b"x" * 60 * tickets, b"h" * 5)


_FINISHED: Final = AESGCM(b"k" * 16).encrypt(b"n" * 12, b"x" * 37, b"h" * 5)
