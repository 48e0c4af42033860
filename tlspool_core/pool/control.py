"""Control keys: the 16 bytes by which applications name a session, and who may command it.

Theory of operation
-------------------
Whoever starts a session picks its control key; knowing the key is the proof of the right to it, so a key is compared only by
looking it up, and never logged.  A session has at most one controlling client at a time: its maker at first, nobody once it is
detached, and whoever reattaches it then.  Who controls it decides on PRNG, INFO and RENEGOTIATE; how long it lives is another
matter, and is decided by its maker's connection and the FORK flag (see `session`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from tlspool_core.wire.errors import ErrorCode, WireError

S = TypeVar("S")


class ControlEntry(Generic[S]):
    """A registered key, the session that it names, and the controlling client (None: detached)."""

    __slots__ = ("controller", "session")

    def __init__(self, session: S, controller: object | None) -> None:
        self.session = session
        self.controller = controller


class ControlKeys(Generic[S]):
    """All control keys of one process."""

    def __init__(self) -> None:
        self._entries: dict[bytes, ControlEntry[S]] = {}
        self._controlled: dict[object, set[bytes]] = {}  # by client, so that its end costs no search

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: bytes) -> bool:
        return key in self._entries

    def register(self, key: bytes, session: S, controller: object) -> None:
        """Name a new session. Raises WireError if the key names one already."""
        if key in self._entries:
            raise WireError(ErrorCode.CTLKEY_REGISTRATION_FAILED, "This control key is in use; pick another at random")
        entry = self._entries[key] = ControlEntry(session, None)
        self._give(entry, key, controller)

    def _give(self, entry: ControlEntry[S], key: bytes, controller: object | None) -> None:
        if entry.controller is not None:
            keys = self._controlled[entry.controller]
            keys.discard(key)
            if not keys:
                del self._controlled[entry.controller]
        entry.controller = controller
        if controller is not None:
            self._controlled.setdefault(controller, set()).add(key)

    def remove(self, key: bytes, session: S) -> object | None:
        """The session has ended; harmless if it is not there. Returns who controlled it."""
        entry = self._entries.get(key)
        if entry is None or entry.session is not session:
            return None
        controller = entry.controller
        self._give(entry, key, None)
        del self._entries[key]
        return controller

    def _find(self, key: bytes) -> ControlEntry[S]:
        entry = self._entries.get(key)
        if entry is None:
            raise WireError(ErrorCode.CTLKEY_NOT_FOUND, "No session has this control key")
        return entry

    def controlled(self, key: bytes, client: object) -> S:
        """The session that `client` controls under this key. Raises WireError."""
        entry = self._find(key)
        if entry.controller != client:
            raise WireError(ErrorCode.CTLKEY_NOT_YOURS, "This session is not under your control; reattach it first")
        return entry.session

    def detach(self, key: bytes, client: object) -> S:
        """Give up control. Raises WireError."""
        entry = self._find(key)
        if entry.controller is None:
            raise WireError(ErrorCode.CTLKEY_ALREADY_DETACHED, "This session is detached already")
        if entry.controller != client:
            raise WireError(ErrorCode.CTLKEY_NOT_YOURS, "This session is under another client's control")
        self._give(entry, key, None)
        return entry.session

    def reattach(self, key: bytes, client: object) -> S:
        """Take control of a detached session. Raises WireError."""
        entry = self._find(key)
        if entry.controller is not None:
            raise WireError(ErrorCode.CTLKEY_ALREADY_ATTACHED, "This session is under control; detach it there first")
        self._give(entry, key, client)
        return entry.session

    def release(self, client: object) -> None:
        """A client has gone: what it controlled is detached."""
        for key in self._controlled.pop(client, ()):
            self._entries[key].controller = None

    def sessions(self) -> Iterator[S]:
        return (entry.session for entry in list(self._entries.values()))
