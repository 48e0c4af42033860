"""Sessions that live no longer than the keys behind them can be reached: pulling a token ends them.

Theory of operation
-------------------
A session asks for this with the flag KEY_BOUND, or the configuration does for all (`policy.key_bound`).  The keys behind it are those
that its own credential was made with: the private key, the issuing key of a credential on the fly, or what a credential type asked
the key store for.  For each key store one task waits in `KeyStore.departure`, for as long as sessions depend on keys in it.  When
keys have gone, credentials that were ready are forgotten, and every session under one of these keys is closed.

A store that fails to tell is taken to have lost its keys, and so is one that is not there: a person who pulls a token relies on it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from contextvars import Context
from typing import Any, Protocol, TypeVar

from tlspool_core.interfaces import KeyStore, KeyStoreError
from tlspool_core.pool.logs import say

log = logging.getLogger("tlspool.keys")

CAUSE = "key gone"

T = TypeVar("T")


def noting(keys: set[str], ask: Callable[..., T]) -> Callable[..., T]:
    """A way to ask key stores for what belongs to a URI, which puts the URI among the keys that a session rests on.

    A plugin may keep it for longer than the session lasts, so it holds on to nothing else of that.
    """

    def asked(uri: str, *more: Any) -> T:
        keys.add(uri)
        return ask(uri, *more)

    return asked


class Bound(Protocol):
    """A session as far as it matters here."""

    def close(self, reason: str) -> None: ...


class KeyWatch:
    """Which sessions depend on which keys; one for the process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, store_of: Callable[[str], KeyStore], on_gone: Callable[[], None]) -> None:
        """`store_of` finds the store that serves a URI or raises KeyStoreError, `on_gone` is called before sessions are closed."""
        self._loop = loop
        self._store_of = store_of
        self._on_gone = on_gone
        self._sessions: dict[str, set[Bound]] = {}  # by the URI of a key
        self._tasks: dict[KeyStore, tuple[frozenset[str], asyncio.Task[None]]] = {}
        self._due = False

    def add(self, session: Bound, uris: Collection[str]) -> None:
        """Close the session when one of these keys has gone."""
        for uri in uris:
            self._sessions.setdefault(uri, set()).add(session)
        self._tend_soon()

    def discard(self, session: Bound, uris: Collection[str]) -> None:
        """The session has ended; harmless if it was not added."""
        for uri in uris:
            depending = self._sessions.get(uri, set())
            depending.discard(session)
            if not depending and self._sessions.pop(uri, None) is not None:
                self._tend_soon()

    def close(self) -> None:
        """Wait for nothing any more."""
        for _, task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        self._sessions.clear()

    def _tend_soon(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._tend)

    def _tend(self) -> None:
        """Have each store watched for exactly the keys that matter now."""
        self._due = False
        wanted, lost = self._by_store()
        for store, (uris, task) in list(self._tasks.items()):
            if frozenset(wanted.get(store, ())) != uris:
                task.cancel()
                del self._tasks[store]
        for store, needed in wanted.items():
            if store not in self._tasks:
                uris = frozenset(needed)  # watched in a context of its own: the log is to name no session
                self._tasks[store] = (uris, self._loop.create_task(self._watch(store, uris), context=Context()))
        if lost:
            self._ended(frozenset(lost))

    def _by_store(self) -> tuple[dict[KeyStore, set[str]], set[str]]:
        """The keys that matter now, by their stores, and those that have none: they must not keep others from being watched."""
        wanted: dict[KeyStore, set[str]] = {}
        lost = set()
        for uri in self._sessions:
            try:
                wanted.setdefault(self._store_of(uri), set()).add(uri)
            except KeyStoreError:
                lost.add(uri)
        return wanted, lost

    async def _watch(self, store: KeyStore, uris: frozenset[str]) -> None:
        try:
            gone = uris & frozenset(await store.departure(uris))
        except Exception:
            log.exception("key store %s failed to watch its keys", store.name)
            gone = uris
        del self._tasks[store]
        self._ended(gone or uris)

    def _ended(self, gone: frozenset[str]) -> None:
        ending = {session for uri in gone for session in self._sessions.pop(uri, ())}
        say(
            log,
            logging.WARNING,
            "keys have gone",
            keys=" ".join(sorted(uri.partition("?")[0] for uri in gone)),
            sessions=len(ending),
        )
        self._on_gone()
        for session in ending:
            session.close(CAUSE)
        self._tend_soon()
