"""Ticket keys of the server role, and the sessions that the client role may resume.

Theory of operation
-------------------
A ticket is session state under AES-256-GCM (RFC 5077 section 4 in spirit): epoch, nonce, ciphertext.  There is one key an epoch of
`rotation` seconds.  The keys form a chain: each epoch's chain value is an HKDF of the one before, the ticket key another HKDF of
the chain value, and chain values are forgotten once no living ticket needs them.  So processes that start from one seed agree on
every key without talking to each other, and what is stolen today does not open tickets whose epoch is gone.  The seed is random in
a process of its own, handed down by the supervisor, or kept in a file that all processes (and hosts, if it is copied) share;
whoever rotates writes the file anew, so that it forgets, too.

A ticket that shall be used once is remembered until it expires; if more are in use than can be remembered, the newest are refused
a resumption, never accepted twice.  The client's side uses each ticket once (RFC 8446 appendix C.4), always.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from tlspool_core.pool.settings import TicketConfig
from tlspool_core.tls.settings import StoredSession

_EPOCH = struct.Struct("!Q")
_FILE = struct.Struct("!8sQ32s")
_MAGIC = b"TLSPTK01"
_NONCE = 12
_MAX_STEPS = 100_000  # epochs to step over after a long sleep; beyond that, a new chain is started
_MAX_REMEMBERED = 100_000
_MAX_STATE = 16_384  # bytes


def _derive(chain: bytes, label: bytes) -> bytes:
    return HKDFExpand(SHA256(), 32, b"tlspool " + label).derive(chain)


@dataclass(slots=True)
class Seed:
    """Where the chain of keys stands: the chain value of an epoch."""

    epoch: int
    chain: bytes

    @classmethod
    def fresh(cls, rotation: int, now: float) -> Seed:
        return cls(int(now) // rotation, os.urandom(32))

    def __repr__(self) -> str:
        return f"Seed(epoch={self.epoch})"


class SeedFile:
    """A seed in a file, mode 0600, changed only under a lock."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def advance(self, rotation: int, now: float, oldest: int) -> Seed:
        """Read the file (made if there is none), forget chain values before epoch `oldest`, write back. Raises OSError."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            found = os.read(descriptor, _FILE.size + 1)
            seed = self._parse(found) if found else Seed.fresh(rotation, now)
            stepped = step(seed, oldest) if seed.epoch < oldest else seed
            written = _FILE.pack(_MAGIC, stepped.epoch, stepped.chain)
            if written != found:
                os.pwrite(descriptor, written, 0)
                os.fsync(descriptor)
            return stepped
        finally:
            os.close(descriptor)

    def _parse(self, content: bytes) -> Seed:
        if len(content) != _FILE.size or not content.startswith(_MAGIC):
            raise OSError(f"{self._path} is no ticket key file; remove it, and a new one is made")
        _, epoch, chain = _FILE.unpack(content)
        return Seed(epoch, chain)


def step(seed: Seed, epoch: int) -> Seed:
    """Follow the chain to a later epoch; a new chain if that is absurdly far."""
    if epoch - seed.epoch > _MAX_STEPS:
        return Seed(epoch, os.urandom(32))
    chain = seed.chain
    for _ in range(epoch - seed.epoch):
        chain = _derive(chain, b"next")
    return Seed(epoch, chain)


class TicketKeys:
    """Seals and opens tickets. Not bound to any connection; one for the process."""

    def __init__(self, config: TicketConfig, seed: Seed | None = None, clock: Callable[[], float] = time.time) -> None:
        """With `key_file` configured the file's seed counts. Raises OSError if it cannot be used."""
        self._config = config
        self._clock = clock
        self._file = SeedFile(Path(config.key_file)) if config.key_file else None
        self._seed = seed or Seed.fresh(config.rotation, clock())
        self._keys: dict[int, AESGCM] = {}
        self._used: OrderedDict[bytes, float] = OrderedDict()
        self._advance()

    def _now_epoch(self) -> int:
        return int(self._clock()) // self._config.rotation

    def _oldest(self, now: int) -> int:
        """The first epoch whose tickets may still live in epoch `now`."""
        return now - (self._config.lifetime // self._config.rotation + 1)

    def _advance(self) -> None:
        """Forget what no living ticket needs."""
        oldest = self._oldest(self._now_epoch())
        if self._file is not None:
            self._seed = self._file.advance(self._config.rotation, self._clock(), oldest)
        elif self._seed.epoch < oldest:
            self._seed = step(self._seed, oldest)
        for epoch in [epoch for epoch in self._keys if epoch < oldest]:
            del self._keys[epoch]

    def _key(self, epoch: int) -> AESGCM | None:
        """The key of an epoch from the oldest that counts to the one after now (clocks of hosts differ a little)."""
        now = self._now_epoch()
        if not self._oldest(now) <= epoch <= now + 1:
            return None
        if epoch not in self._keys:
            self._advance()
            if epoch < self._seed.epoch:
                return None
            self._keys[epoch] = AESGCM(_derive(step(self._seed, epoch).chain, b"ticket"))
        return self._keys[epoch]

    def seal(self, state: bytes, scope: bytes) -> bytes | None:
        """A ticket for `state` that opens only with the same `scope` (say, the service).

        None for a state that would make ClientHello absurdly large: it holds what the client showed, which may be much.
        """
        if len(state) > _MAX_STATE:
            return None
        epoch = self._now_epoch()
        key = self._keys.get(epoch) or self._key(epoch)
        if key is None:
            return None
        nonce = os.urandom(_NONCE)
        header = _EPOCH.pack(epoch)
        return header + nonce + key.encrypt(nonce, _EPOCH.pack(int(self._clock())) + state, header + scope)

    def open(self, ticket: bytes, scope: bytes) -> bytes | None:
        """The state inside, or None: not ours, too old, forged, or used before where that counts."""
        if len(ticket) < _EPOCH.size + _NONCE + 16 + _EPOCH.size:
            return None
        header, nonce, sealed = ticket[:8], ticket[8 : 8 + _NONCE], ticket[8 + _NONCE :]
        key = self._key(_EPOCH.unpack(header)[0])
        if key is None:
            return None
        try:
            content = key.decrypt(nonce, sealed, header + scope)
        except InvalidTag:
            return None
        age = self._clock() - _EPOCH.unpack_from(content)[0]
        if age > self._config.lifetime or (self._config.single_use and not self._first_use(ticket)):
            return None
        return content[8:]

    def _first_use(self, ticket: bytes) -> bool:
        now = self._clock()
        while self._used and next(iter(self._used.values())) < now:
            self._used.popitem(last=False)
        name = hashlib.sha256(ticket).digest()
        if name in self._used or len(self._used) >= _MAX_REMEMBERED:
            return False
        self._used[name] = now + self._config.lifetime + 1
        return True


@dataclass(frozen=True, slots=True)
class Resumable:
    """A session that a client may resume, the local identity that it showed in it ("" for none), and the keys behind that."""

    session: StoredSession
    local: str
    keys: frozenset[str] = frozenset()


class ClientSessions:
    """Sessions to resume as a client, by whatever tells destinations and identities apart; the least recently stored go first."""

    def __init__(self, capacity: int, per_key: int = 2, lifetime: float = 604800, clock: Callable[[], float] = time.time) -> None:
        self._capacity = capacity
        self._per_key = per_key
        self._lifetime = lifetime
        self._clock = clock
        self._sessions: OrderedDict[Hashable, tuple[Resumable, ...]] = OrderedDict()

    def take(self, key: Hashable) -> Resumable | None:
        """The newest session for `key`, which is not kept any longer."""
        kept = self._sessions.pop(key, ())
        if not kept:
            return None
        if len(kept) > 1:
            self._sessions[key] = kept[:-1]
        return kept[-1] if self._clock() - kept[-1].session.obtained <= self._lifetime else None

    def store(self, key: Hashable, sessions: Sequence[StoredSession], local: str, keys: frozenset[str] = frozenset()) -> None:
        """Keep the newest few."""
        if not self._capacity or not sessions:
            return
        self._sessions[key] = (*self._sessions.pop(key, ()), *(Resumable(one, local, keys) for one in sessions))[-self._per_key :]
        while len(self._sessions) > self._capacity:
            self._sessions.popitem(last=False)

    def forget(self) -> None:
        """Drop everything, after policy or trust has changed so that nothing old shall live on."""
        self._sessions.clear()
