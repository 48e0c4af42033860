"""The handshake transcript: what Finished, signatures, binders and secrets are bound to.

Theory of operation
-------------------
Until the hash is known (it follows from the cipher suite) the messages are kept as bytes; `start` turns them into a running hash.
TLS 1.2 signs the messages themselves and may ask for `messages` as well, so `start(keep=True)` goes on keeping the bytes.
HelloRetryRequest replaces the first ClientHello by its hash (RFC 8446 section 4.4.1).

The hash is of the library that the key schedule uses, too: Python's own would call another one, for which the caches are cold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256, SHA384, Hash, HashAlgorithm

from tlspool_core.tls.enums import HandshakeType

_ALGORITHMS: Final[Mapping[str, HashAlgorithm]] = {"sha256": SHA256(), "sha384": SHA384()}


def _hash_of(hash_name: str, data: bytes) -> Hash:
    """A running hash by the name that cipher suites use."""
    running = Hash(_ALGORITHMS[hash_name])
    running.update(data)
    return running


class Transcript:
    """All handshake messages so far, each with its four-byte header."""

    __slots__ = ("_hash", "_messages", "hash_name")

    def __init__(self) -> None:
        self._messages: list[bytes] | None = []
        self._hash: Hash | None = None
        self.hash_name = ""

    def add(self, message: bytes) -> None:
        """Append one whole message."""
        if self._messages is not None:
            self._messages.append(message)
        if self._hash is not None:
            self._hash.update(message)

    def start(self, hash_name: str, *, keep: bool = False) -> None:
        """The hash is known. With `keep`, `messages` remains available until `forget_messages`."""
        self.hash_name = hash_name
        self._hash = _hash_of(hash_name, self.messages)
        if not keep:
            self._messages = None

    @property
    def started(self) -> bool:
        """True once the hash is known."""
        return self._hash is not None

    @property
    def messages(self) -> bytes:
        """All messages as bytes; only while they are kept."""
        assert self._messages is not None, "the messages are no longer kept"
        return b"".join(self._messages)

    def forget_messages(self) -> None:
        """The bytes are not needed any more, the hash goes on."""
        self._messages = None

    def digest(self) -> bytes:
        """Hash of everything so far."""
        assert self._hash is not None, "the hash is not known yet"
        return self._hash.copy().finalize()

    def digest_with(self, more: bytes, hash_name: str = "") -> bytes:
        """Hash of everything so far and `more`, which is not added; `hash_name` where the transcript's is not known yet."""
        running = self._hash.copy() if self._hash is not None else _hash_of(hash_name, self.messages)
        running.update(more)
        return running.finalize()

    def replace_by_message_hash(self, hash_name: str) -> None:
        """HelloRetryRequest: ClientHello1 becomes a synthetic message_hash message."""
        digest = _hash_of(hash_name, self.messages).finalize()
        self._messages = [bytes((HandshakeType.MESSAGE_HASH, 0, 0, len(digest))) + digest]
        self._hash = None

    def copy(self) -> Transcript:
        """An independent transcript that starts as this one is."""
        other = Transcript()
        other._messages = None if self._messages is None else list(self._messages)
        other._hash = None if self._hash is None else self._hash.copy()
        other.hash_name = self.hash_name
        return other
