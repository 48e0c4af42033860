"""The TLS 1.3 key schedule, RFC 8446 section 7: one type per stage.

Theory of operation
-------------------
    EarlySecret(hash, psk)  --.handshake(shared)-->  HandshakeSecret  --.master()-->  MasterSecret
        .binder(...)              .client(h) .server(h)                  .client(h) .server(h) .exporter(h) .resumption(h)

Each stage yields `TrafficSecret`s, from which come record protection, Finished and the next generation.  A stage is used
once and dropped, so no secret outlives its purpose.

Every derivation but the exporter fits one block of HKDF-Expand (RFC 5869 section 2.3), which is a single HMAC.  A stage is the
key of several, so it is kept as a keyed hash.  Labels are put together once per hash, and so is all that does not depend on the
handshake: the salts of the first stages, and the early secret without PSK.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.hazmat.primitives.hmac import HMAC

from tlspool_core.tls.codec import u16, vector8
from tlspool_core.tls.keyed_hash import digest_once, digest_under, keyed_hash
from tlspool_core.tls.protection import CIPHERS, Protection, XorNonce13

HASH_LENGTHS: Final = {"sha256": 32, "sha384": 48}


def _hkdf_expand(hash_name: str, secret: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 section 2.3; `length` in bytes, at most 255 blocks."""
    keyed = keyed_hash(hash_name, secret)
    block = output = b""
    counter = 1
    while len(output) < length:
        block = digest_under(keyed, block + info + counter.to_bytes(1, "big"))
        output += block
        counter += 1
    return output[:length]


def _label(label: bytes, length: int) -> bytes:
    """The head of HkdfLabel: all but the context (RFC 8446 section 7.1)."""
    return u16(length) + vector8(b"tls13 " + label)


def expand_label(hash_name: str, secret: bytes, label: bytes, context: bytes, length: int) -> bytes:
    """HKDF-Expand-Label, RFC 8446 section 7.1."""
    return _hkdf_expand(hash_name, secret, _label(label, length) + vector8(context), length)


def _block_info(label: bytes, length: int, context: bytes = b"") -> bytes:
    """What HKDF-Expand-Label hashes where the output fits one block."""
    return _label(label, length) + vector8(context) + b"\1"


class HashKind:
    """What depends on the hash alone, computed once."""

    __slots__ = (
        "_derived",
        "_heads",
        "binders",
        "early",
        "empty_digest",
        "finished",
        "first",
        "length",
        "name",
        "ticket",
        "update",
        "zeros",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.length = length = HASH_LENGTHS[name]
        self.zeros = bytes(length)
        self.empty_digest = hashlib.new(name).digest()
        self._heads = {
            label: _label(label, length) + bytes((length,))
            for label in (b"c hs traffic", b"s hs traffic", b"c ap traffic", b"s ap traffic", b"exp master", b"res master")
        }
        self._derived = _block_info(b"derived", length, self.empty_digest)
        # RFC 8446 section 7.1, and RFC 9258 section 5.2 for a key that was imported
        self.binders = {origin: _block_info(origin + b" binder", length, self.empty_digest) for origin in (b"res", b"ext", b"imp")}
        self.finished = _block_info(b"finished", length)
        self.update = _block_info(b"traffic upd", length)
        self.ticket = _label(b"resumption", length)
        # HKDF-Extract of a PSK, and of the (EC)DHE secret where there is no PSK
        self.early = keyed_hash(name, self.zeros)
        self.first = keyed_hash(name, self.derived(keyed_hash(name, digest_under(self.early, self.zeros))))

    def derive(self, stage: HMAC, label: bytes, digest: bytes) -> bytes:
        """Derive-Secret with a transcript hash, RFC 8446 section 7.1."""
        running = stage.copy()
        running.update(self._heads[label] + digest + b"\1")
        return running.finalize()

    def derived(self, stage: HMAC) -> bytes:
        """The salt of the next stage."""
        return digest_under(stage, self._derived)


_KINDS: Final = {name: HashKind(name) for name in HASH_LENGTHS}
_KEY_INFOS: Final = {kind.name: _block_info(b"key", kind.key_length) for kind in CIPHERS.values()}
_IV_INFO: Final = _block_info(b"iv", 12)


class TrafficSecret:
    """One direction's secret of one stage or generation."""

    __slots__ = ("hash_name", "secret")

    def __init__(self, hash_name: str, secret: bytes) -> None:
        self.hash_name = hash_name
        self.secret = secret

    def _keyed_hash(self) -> HMAC:
        return keyed_hash(self.hash_name, self.secret)

    def protection(self, cipher: str) -> Protection:
        """Record protection with this secret's keys, RFC 8446 section 7.3."""
        kind = CIPHERS[cipher]
        keyed = self._keyed_hash()
        key = digest_under(keyed, _KEY_INFOS[cipher])
        return XorNonce13(kind, key[: kind.key_length], digest_under(keyed, _IV_INFO)[:12])

    def verify_data(self, digest: bytes) -> bytes:
        """Content of Finished over a transcript hash, RFC 8446 section 4.4.4."""
        return digest_once(self.hash_name, digest_under(self._keyed_hash(), _KINDS[self.hash_name].finished), digest)

    def next_generation(self) -> TrafficSecret:
        """After a KeyUpdate, RFC 8446 section 7.2."""
        return TrafficSecret(self.hash_name, digest_once(self.hash_name, self.secret, _KINDS[self.hash_name].update))


class HandshakeTrafficSecret(TrafficSecret):
    """One direction's secret of the handshake itself: it makes keys and a Finished, and is gone soon, so its keyed hash is kept."""

    __slots__ = ("_keyed",)

    def __init__(self, hash_name: str, secret: bytes) -> None:
        super().__init__(hash_name, secret)
        self._keyed = keyed_hash(hash_name, secret)

    def _keyed_hash(self) -> HMAC:
        return self._keyed


class EarlySecret:
    """First stage; `psk` is None without a pre-shared key."""

    __slots__ = ("_kind", "_stage")

    def __init__(self, hash_name: str, psk: bytes | None = None) -> None:
        kind = self._kind = _KINDS[hash_name]
        self._stage = None if psk is None else keyed_hash(hash_name, digest_under(kind.early, psk))

    def binder(self, digest: bytes, origin: bytes) -> bytes:
        """PSK binder over the hash of a truncated ClientHello, RFC 8446 section 4.2.11.2; `origin` is b"res", b"ext" or b"imp"."""
        assert self._stage is not None, "there are no binders without a PSK"
        kind = self._kind
        return TrafficSecret(kind.name, digest_under(self._stage, kind.binders[origin])).verify_data(digest)

    def handshake(self, shared_secret: bytes) -> HandshakeSecret:
        """Mix in the (EC)DHE secret."""
        kind = self._kind
        salted = kind.first if self._stage is None else keyed_hash(kind.name, kind.derived(self._stage))
        return HandshakeSecret(kind, digest_under(salted, shared_secret))


class HandshakeSecret:
    """Second stage; the digests cover ClientHello...ServerHello."""

    __slots__ = ("_kind", "_stage")

    def __init__(self, kind: HashKind, secret: bytes) -> None:
        self._kind = kind
        self._stage = keyed_hash(kind.name, secret)

    def client(self, digest: bytes) -> TrafficSecret:
        return HandshakeTrafficSecret(self._kind.name, self._kind.derive(self._stage, b"c hs traffic", digest))

    def server(self, digest: bytes) -> TrafficSecret:
        return HandshakeTrafficSecret(self._kind.name, self._kind.derive(self._stage, b"s hs traffic", digest))

    def master(self) -> MasterSecret:
        """The last stage takes no further input."""
        kind = self._kind
        return MasterSecret(kind, digest_once(kind.name, kind.derived(self._stage), kind.zeros))


class MasterSecret:
    """Last stage; digests cover ClientHello...server Finished, for `resumption` ...client Finished."""

    __slots__ = ("_kind", "_stage")

    def __init__(self, kind: HashKind, secret: bytes) -> None:
        self._kind = kind
        self._stage = keyed_hash(kind.name, secret)

    def client(self, digest: bytes) -> TrafficSecret:
        return TrafficSecret(self._kind.name, self._kind.derive(self._stage, b"c ap traffic", digest))

    def server(self, digest: bytes) -> TrafficSecret:
        return TrafficSecret(self._kind.name, self._kind.derive(self._stage, b"s ap traffic", digest))

    def exporter(self, digest: bytes) -> bytes:
        """exporter_master_secret."""
        return self._kind.derive(self._stage, b"exp master", digest)

    def resumption(self, digest: bytes) -> ResumptionSecret:
        return ResumptionSecret(self._kind, self._kind.derive(self._stage, b"res master", digest))


class ResumptionSecret:
    """resumption_master_secret, of which tickets are made."""

    __slots__ = ("_kind", "_secret")

    def __init__(self, kind: HashKind, secret: bytes) -> None:
        self._kind = kind
        self._secret = secret

    def psk(self, nonce: bytes) -> bytes:
        """The PSK that goes with the ticket of this nonce, RFC 8446 section 4.6.1."""
        return digest_once(self._kind.name, self._secret, self._kind.ticket + vector8(nonce) + b"\1")


def export_keying_material(hash_name: str, exporter_secret: bytes, label: bytes, context: bytes, length: int) -> bytes:
    """TLS-Exporter, RFC 8446 section 7.5: no context is the same as an empty one."""
    kind = _KINDS[hash_name]
    secret = expand_label(hash_name, exporter_secret, label, kind.empty_digest, kind.length)
    return expand_label(hash_name, secret, b"exporter", hashlib.new(hash_name, context).digest(), length)
