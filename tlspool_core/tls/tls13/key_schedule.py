"""The TLS 1.3 key schedule, RFC 8446 section 7: one type per stage.

Theory of operation
-------------------
    EarlySecret(hash, psk)  --.handshake(shared)-->  HandshakeSecret  --.master()-->  MasterSecret
        .binder(...)              .client(h) .server(h)                  .client(h) .server(h) .exporter(h) .resumption(h)

Each stage yields `TrafficSecret`s, from which come record protection, Finished and the next generation.  A stage is used
once and dropped, so no secret outlives its purpose.

Every derivation but the exporter fits one block of HKDF-Expand (RFC 5869 section 2.3), which is a single HMAC; labels are put
together once per hash, and so is all that does not depend on the handshake: the early secret without PSK.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import cache
from typing import Final

from tlspool_core.tls.codec import u16, vector8
from tlspool_core.tls.protection import CIPHERS, Protection, protection13

HASH_LENGTHS: Final = {"sha256": 32, "sha384": 48}


def hkdf_extract(hash_name: str, salt: bytes, input_key: bytes) -> bytes:
    """RFC 5869 section 2.2."""
    return hmac.digest(salt, input_key, hash_name)


def hkdf_expand(hash_name: str, secret: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 section 2.3; `length` in bytes, at most 255 blocks."""
    block = output = b""
    counter = 1
    while len(output) < length:
        block = hmac.digest(secret, block + info + counter.to_bytes(1, "big"), hash_name)
        output += block
        counter += 1
    return output[:length]


@cache
def _label(label: bytes, length: int) -> bytes:
    """The head of HkdfLabel: all but the context (RFC 8446 section 7.1)."""
    return u16(length) + vector8(b"tls13 " + label)


def expand_label(hash_name: str, secret: bytes, label: bytes, context: bytes, length: int) -> bytes:
    """HKDF-Expand-Label, RFC 8446 section 7.1."""
    info = _label(label, length) + vector8(context)
    if length <= len(secret):
        return hmac.digest(secret, info + b"\1", hash_name)[:length]
    return hkdf_expand(hash_name, secret, info, length)


class HashKind:
    """What depends on the hash alone, computed once."""

    __slots__ = ("_derived_info", "_infos", "empty_digest", "first_salt", "length", "name", "zeros")

    def __init__(self, name: str) -> None:
        self.name = name
        self.length = HASH_LENGTHS[name]
        self.zeros = bytes(self.length)
        self.empty_digest = hashlib.new(name).digest()
        self._infos = {
            label: _label(label, self.length) + bytes((self.length,))
            for label in (b"c hs traffic", b"s hs traffic", b"c ap traffic", b"s ap traffic", b"exp master", b"res master")
        }
        self._derived_info = _label(b"derived", self.length) + vector8(self.empty_digest) + b"\1"
        self.first_salt = self.derived(hkdf_extract(name, self.zeros, self.zeros))

    def derive(self, secret: bytes, label: bytes, digest: bytes) -> bytes:
        """Derive-Secret with a transcript hash, RFC 8446 section 7.1."""
        return hmac.digest(secret, self._infos[label] + digest + b"\1", self.name)

    def derived(self, secret: bytes) -> bytes:
        """The salt of the next stage."""
        return hmac.digest(secret, self._derived_info, self.name)


_KINDS: Final = {name: HashKind(name) for name in HASH_LENGTHS}


def _key_info(length: int, label: bytes) -> bytes:
    return _label(label, length) + b"\0\1"


_FINISHED_INFOS: Final = {name: _key_info(length, b"finished") for name, length in HASH_LENGTHS.items()}
_UPDATE_INFOS: Final = {name: _key_info(length, b"traffic upd") for name, length in HASH_LENGTHS.items()}
_KEY_INFOS: Final = {kind.name: _key_info(kind.key_length, b"key") for kind in CIPHERS.values()}
_IV_INFO: Final = _key_info(12, b"iv")


class TrafficSecret:
    """One direction's secret of one stage or generation."""

    __slots__ = ("hash_name", "secret")

    def __init__(self, hash_name: str, secret: bytes) -> None:
        self.hash_name = hash_name
        self.secret = secret

    def protection(self, cipher: str) -> Protection:
        """Record protection with this secret's keys, RFC 8446 section 7.3."""
        key = hmac.digest(self.secret, _KEY_INFOS[cipher], self.hash_name)[: CIPHERS[cipher].key_length]
        return protection13(cipher, key, hmac.digest(self.secret, _IV_INFO, self.hash_name)[:12])

    def verify_data(self, digest: bytes) -> bytes:
        """Content of Finished over a transcript hash, RFC 8446 section 4.4.4."""
        key = hmac.digest(self.secret, _FINISHED_INFOS[self.hash_name], self.hash_name)
        return hmac.digest(key, digest, self.hash_name)

    def next_generation(self) -> TrafficSecret:
        """After a KeyUpdate, RFC 8446 section 7.2."""
        return TrafficSecret(self.hash_name, hmac.digest(self.secret, _UPDATE_INFOS[self.hash_name], self.hash_name))


class EarlySecret:
    """First stage; `psk` is None without a pre-shared key."""

    __slots__ = ("_kind", "_secret")

    def __init__(self, hash_name: str, psk: bytes | None = None) -> None:
        self._kind = _KINDS[hash_name]
        self._secret = None if psk is None else hkdf_extract(hash_name, self._kind.zeros, psk)

    def binder(self, digest: bytes, *, external: bool) -> bytes:
        """PSK binder over the hash of a truncated ClientHello, RFC 8446 section 4.2.11.2."""
        assert self._secret is not None, "there are no binders without a PSK"
        kind = self._kind
        label = b"ext binder" if external else b"res binder"
        binder_key = expand_label(kind.name, self._secret, label, kind.empty_digest, kind.length)
        return TrafficSecret(kind.name, binder_key).verify_data(digest)

    def handshake(self, shared_secret: bytes) -> HandshakeSecret:
        """Mix in the (EC)DHE secret."""
        kind = self._kind
        salt = kind.first_salt if self._secret is None else kind.derived(self._secret)
        return HandshakeSecret(kind, hkdf_extract(kind.name, salt, shared_secret))


class HandshakeSecret:
    """Second stage; the digests cover ClientHello...ServerHello."""

    __slots__ = ("_kind", "_secret")

    def __init__(self, kind: HashKind, secret: bytes) -> None:
        self._kind = kind
        self._secret = secret

    def client(self, digest: bytes) -> TrafficSecret:
        return TrafficSecret(self._kind.name, self._kind.derive(self._secret, b"c hs traffic", digest))

    def server(self, digest: bytes) -> TrafficSecret:
        return TrafficSecret(self._kind.name, self._kind.derive(self._secret, b"s hs traffic", digest))

    def master(self) -> MasterSecret:
        """The last stage takes no further input."""
        kind = self._kind
        return MasterSecret(kind, hkdf_extract(kind.name, kind.derived(self._secret), kind.zeros))


class MasterSecret:
    """Last stage; digests cover ClientHello...server Finished, for `resumption` ...client Finished."""

    __slots__ = ("_kind", "_secret")

    def __init__(self, kind: HashKind, secret: bytes) -> None:
        self._kind = kind
        self._secret = secret

    def client(self, digest: bytes) -> TrafficSecret:
        return TrafficSecret(self._kind.name, self._kind.derive(self._secret, b"c ap traffic", digest))

    def server(self, digest: bytes) -> TrafficSecret:
        return TrafficSecret(self._kind.name, self._kind.derive(self._secret, b"s ap traffic", digest))

    def exporter(self, digest: bytes) -> bytes:
        """exporter_master_secret."""
        return self._kind.derive(self._secret, b"exp master", digest)

    def resumption(self, digest: bytes) -> bytes:
        """resumption_master_secret."""
        return self._kind.derive(self._secret, b"res master", digest)


def resumption_psk(hash_name: str, resumption_secret: bytes, nonce: bytes) -> bytes:
    """The PSK that goes with a ticket, RFC 8446 section 4.6.1."""
    return expand_label(hash_name, resumption_secret, b"resumption", nonce, HASH_LENGTHS[hash_name])


def export_keying_material(hash_name: str, exporter_secret: bytes, label: bytes, context: bytes, length: int) -> bytes:
    """TLS-Exporter, RFC 8446 section 7.5: no context is the same as an empty one."""
    kind = _KINDS[hash_name]
    secret = expand_label(hash_name, exporter_secret, label, kind.empty_digest, kind.length)
    return expand_label(hash_name, secret, b"exporter", hashlib.new(hash_name, context).digest(), length)
