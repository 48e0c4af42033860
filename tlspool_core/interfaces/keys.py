"""Key stores: private keys and secrets that are used where they lie, and named by URIs."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tlspool_core.interfaces.common import Measurement
from tlspool_core.secret import Secret


class KeyStoreError(Exception):
    """The key store cannot do what was asked; the text names token, object and remedy, never a PIN."""


class Key(Protocol):
    """A handle on a private key in a key store. Never the key."""

    @property
    def uri(self) -> str: ...

    @property
    def public_key(self) -> bytes | None:
        """DER SubjectPublicKeyInfo if the store knows it."""

    @property
    def signature_schemes(self) -> Sequence[int]:
        """TLS SignatureScheme code points this key can make with the mechanisms that its token has, best first."""

    async def sign(self, scheme: int, content: bytes) -> bytes:
        """Signature in TLS's encoding (ECDSA as DER). Raises KeyStoreError."""


@dataclass(frozen=True, slots=True)
class PinRequest:
    """A question for a PIN; answered with a Secret of 1 to 127 bytes of UTF-8, or None to give up."""

    manufacturer: str
    model: str
    serial: str
    label: str
    attempt: int
    prompt: str


AskPin = Callable[[PinRequest], Awaitable[Secret | None]]


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """One usable object as `tlspool token list` shows it."""

    uri: str
    kind: str  # "private-key", "certificate", "secret"
    algorithm: str
    label: str
    signature_schemes: tuple[str, ...] = ()
    note: str = ""


class KeyStore(ABC):
    """Holds private keys: finds them by URI, signs with them. All but one of its methods are coroutines on the pool's event loop."""

    name: str
    uri_schemes: tuple[str, ...]

    @abstractmethod
    async def start(self, settings: Mapping[str, Any], ask_pin: AskPin) -> None:
        """Take the section [keystore.NAME] of the configuration, and get ready; `stop` will be called if this returns.

        `ask_pin` asks a person for a PIN, now or at any time later.  What it gives is the store's to wipe, right after use; a store that
        keeps it to log in again keeps that Secret, and wipes it in `stop`.  It raises nothing; None means that nobody gave a PIN.
        Raises ValueError for a fault in the section, KeyStoreError if the store cannot be used as things are.
        """

    def configure(self, settings: Mapping[str, Any]) -> bool:
        """Take the section anew at a reload, if it has changed; whether it can. What follows from it is for `rescan`, which comes next.

        Must not block. Raises ValueError for a fault in the section; then all of the old configuration stays in force. If another
        section has a fault, it is called once more, with what was before. The default takes no changes: the pool's log then says that a
        restart is needed.
        """
        return False

    @abstractmethod
    async def find(self, uri: str) -> Key:
        """The one private key that the URI names, if it is there now. Raises KeyStoreError if there is none, more than one, or no login."""

    @abstractmethod
    async def read_secret(self, uri: str) -> bytes:
        """Value of a secret or data object (a password kept on the token). Raises KeyStoreError."""

    async def reach(self, uri: str) -> None:
        """Make sure that what the URI names, a key or a secret, can be used now. Raises KeyStoreError if it cannot.

        The pool asks before a session begins that is to end with it (flag KEY_BOUND). The default is for stores that have keys only.
        """
        await self.find(uri)

    async def agree(self, uri: str, peer_public: bytes) -> bytes:
        """ECDH inside the store: the secret that the private key at `uri` shares with `peer_public`, DER SubjectPublicKeyInfo.

        Returns the x coordinate in full length (SEC 1 section 3.3.1), to be put through a key derivation. For credential types
        that bind a secret to a token. Raises KeyStoreError, as does every store that cannot do it.
        """
        raise KeyStoreError(f"the key store {self.name} agrees on no keys")

    async def departure(self, uris: Collection[str]) -> Collection[str]:
        """Wait until keys that these URIs name cannot be reached any more, as when a token was pulled; returns the URIs of those.

        The pool calls it while sessions depend on these keys (flag KEY_BOUND), and cancels it when that changes; sessions under what
        is returned end.  A key that is not there to begin with has departed.  From then on `find` must not return the key until it
        is back.  The default is for stores whose keys do not come and go: it never returns.  An exception counts as the loss of
        all these keys.
        """
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    @abstractmethod
    async def list(self) -> Sequence[KeyInfo]: ...

    @abstractmethod
    async def status(self) -> Mapping[str, Any]: ...

    def measurements(self) -> Sequence[Measurement]:
        """Numbers for monitors, as they are now; must not block."""
        return ()

    @abstractmethod
    async def rescan(self) -> None:
        """Look for tokens anew (SIGHUP, or a token that was inserted), by the settings of today."""

    @abstractmethod
    async def stop(self) -> None: ...
