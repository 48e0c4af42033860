"""One module: the worker that serves it now, and how it gets another one.

Theory of operation
-------------------
A worker is replaceable.  It is replaced when its process ended or hangs, when the token library reports that sessions, handles
or the token went away, and when somebody asks to look for tokens anew, as libraries often see only those that were there when
they were initialised.  The new one is started beside the old one, and takes over once it has loaded the library and looked at
the tokens; the old one then answers what it has been asked, and ends.

Several losses in a short time mean that replacing does not help.  The next start then waits, twice as long each time; whoever
needs a key of this module meanwhile is told so at once, since a handshake has no time to wait.  Other modules are not
concerned.

A library that is asked for its tokens tells of one that was pulled, though maybe not of one that came.  `glance` asks it, and
believes the answer for a moment.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from tlspool_core.api import KeyStoreError, Measurement
from tlspool_pkcs11 import protocol as wire
from tlspool_pkcs11.client import TokenFault, WorkerClient, WorkerGone
from tlspool_pkcs11.faults import Cure
from tlspool_pkcs11.login import token_key
from tlspool_pkcs11.settings import ModuleSettings

log = logging.getLogger("tlspool.pkcs11")
# a program that sets up no logs shows the same faults in its own words
log.addHandler(logging.NullHandler())

# a worker that served for so long was no failure
_CALM: Final = 30.0
_FIRST_DELAY: Final = 0.25
_MAX_DELAY: Final = 30.0
# how long a caller may be kept waiting for a start that is not allowed yet
_PATIENCE: Final = 1.0
# how long the start of the pool waits for one module
_START_PATIENCE: Final = 5.0


class Module:
    """A configured module and its present worker."""

    # seconds between fresh workers that look for a token that is not there
    look_interval = 2.0
    # seconds for which it is believed that the tokens are still there
    glance_interval = 0.5

    def __init__(self, settings: ModuleSettings) -> None:
        self.settings = settings
        self.restarts = -1
        self.last_error = ""
        self._current: WorkerClient | None = None
        self._starting: asyncio.Task[WorkerClient] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._losses = 0
        self._swappable = ""  # why the worker's memory for PINs may be swapped
        self._started_at = float("-inf")
        self._not_before = float("-inf")
        self._stopped = False

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def present(self) -> WorkerClient | None:
        """The worker that serves now, if one does."""
        return self._current if self._current is not None and not self._current.gone else None

    async def worker(self) -> WorkerClient:
        """The worker to send requests to. Raises KeyStoreError if none can be had."""
        current = self._current
        if current is None:
            return await self._fresh()
        if not current.gone:
            return current
        return await self.replace(current, current.gone)

    async def first_worker(self) -> None:
        """Start, and wait for a while: the pool comes up although a token library hangs. Raises KeyStoreError."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.worker(), _START_PATIENCE)

    async def replace(self, worker: WorkerClient, why: str) -> WorkerClient:
        """A worker in the place of one that does not help any more. Raises KeyStoreError."""
        if worker is not self._current:
            # somebody else had it replaced meanwhile
            return await self.worker()
        if self._starting is None and self._delay() <= 0 and not self._stopped:
            log.warning("module %s: worker %d is replaced: %s", self.name, worker.pid, why)
            if asyncio.get_running_loop().time() - self._started_at > _CALM:
                self._losses = 0
            self._note_loss(why)
        if worker.gone and worker is self._current:
            self._current = None
            self._retire_soon(worker)
        return await self._fresh()

    async def rescan(self) -> None:
        """Start a fresh worker beside the present one and swap. Raises KeyStoreError."""
        self._not_before = float("-inf")
        self._losses = 0
        await self._fresh()

    async def glance(self) -> WorkerClient:
        """A worker whose tokens are there now, or were a moment ago. Raises KeyStoreError.

        If one has gone, a fresh worker serves the others: handles of a token that was pulled, and maybe is back, are not to be trusted.
        """
        worker = await self.worker()
        now = asyncio.get_running_loop().time()
        if now - worker.looked_at < self.glance_interval:
            return worker
        worker.looked_at = now
        try:
            tokens = (await worker.call(wire.ListTokens(), wire.Tokens)).tokens
        except WorkerGone as error:
            return await self.replace(worker, str(error))
        except TokenFault as fault:
            if fault.cure is Cure.FRESH_WORKER:
                return await self.replace(worker, str(fault))
            raise KeyStoreError(f"module {self.name}: {fault}; {fault.remedy}") from None
        remaining = {token_key(token) for token in tokens}
        gone = [token.label for token in worker.tokens if token_key(token) not in remaining]
        worker.tokens = tokens
        if not gone:
            return worker
        log.warning("module %s: no longer there: %s", self.name, ", ".join(gone))
        return await self._fresh() if worker is self._current else await self.worker()

    async def look_again(self) -> WorkerClient:
        """A worker that knows of tokens which came lately; a new one, if the present one is not very new itself. Raises KeyStoreError."""
        if asyncio.get_running_loop().time() - self._started_at < self.look_interval:
            return await self.glance()
        return await self._fresh()

    def _note_loss(self, why: str) -> None:
        now = asyncio.get_running_loop().time()
        # the first loss costs no time: most often the token was pulled and is back
        delay = min(_FIRST_DELAY * 2.0 ** (self._losses - 1), _MAX_DELAY) if self._losses else 0.0
        self._losses = min(self._losses + 1, 16)
        self._not_before = now + delay
        self.last_error = why

    def _delay(self) -> float:
        """Seconds until the next start is allowed; not above 0 if it is now."""
        return self._not_before - asyncio.get_running_loop().time()

    async def _fresh(self) -> WorkerClient:
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(self._launch())
            self._starting.add_done_callback(self._launched)
        # a caller that gives up does not stop the start: others wait for it
        return await asyncio.shield(self._starting)

    def _launched(self, task: asyncio.Task[WorkerClient]) -> None:
        self._starting = None
        if not task.cancelled():
            # each waiter has the exception already; the last one may be gone
            task.exception()

    async def _launch(self) -> WorkerClient:
        wait = self._delay()
        if self._stopped:
            raise KeyStoreError(f"module {self.name} was stopped, or is configured no more")
        if wait > _PATIENCE:
            raise KeyStoreError(f"module {self.name} is down ({self.last_error}); the next try is in {wait:.0f} seconds")
        await asyncio.sleep(max(wait, 0))
        old = self._current
        if old is not None and self.settings.exclusive:
            await self._retire(old)
        try:
            fresh = await WorkerClient.start(self.settings)
        except (WorkerGone, TokenFault) as error:
            self._note_loss(str(error))
            raise KeyStoreError(f"module {self.name} ({self.settings.path}): {error}") from None
        self._take_over(fresh, old)
        return fresh

    def _take_over(self, fresh: WorkerClient, old: WorkerClient | None) -> None:
        self._current = fresh
        self._started_at = asyncio.get_running_loop().time()
        self.restarts += 1
        if fresh.info and fresh.info.locking_fault and not self._swappable:
            log.warning(
                "module %s: PINs in its process may be swapped to disk (%s): raise RLIMIT_MEMLOCK",
                self.name,
                fresh.info.locking_fault,
            )
        self._swappable = fresh.info.locking_fault if fresh.info else ""
        labels = ", ".join(token.label for token in fresh.tokens) or "none"
        log.info("module %s: worker %d serves; tokens: %s", self.name, fresh.pid, labels)
        if old is not None:
            self._retire_soon(old)

    def _retire_soon(self, worker: WorkerClient) -> None:
        task = asyncio.get_running_loop().create_task(self._retire(worker))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _retire(self, worker: WorkerClient) -> None:
        """Let a worker finish what it was asked, within its time limit, and end it; at once, if the store stops meanwhile."""
        try:
            await worker.drained(self.settings.timeout)
        finally:
            worker.end("it was replaced")
            await worker.closed()

    async def leave(self) -> None:
        """It is configured no more: let the worker finish what it was asked, within its time limit, and end all processes."""
        if self._current is not None:
            await self._current.drained(self.settings.timeout)
        await self.stop()

    async def stop(self) -> None:
        """End all processes."""
        self._stopped = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        if self._current is not None:
            self._current.end("its module was stopped, or is configured no more")
            await self._current.closed()
        for task in list(self._retiring):
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)

    def measurements(self) -> Sequence[Measurement]:
        """For `KeyStore.measurements`."""
        worker, labels = self.present, {"module": self.name}
        return [
            Measurement("module_up", int(worker is not None), "1 if the process with the token library serves.", labels),
            Measurement("module_restarts_total", max(self.restarts, 0), "How often that process was replaced.", labels),
            Measurement("tokens", len(worker.tokens) if worker else 0, "Tokens that are there.", labels),
            Measurement("tokens_logged_in", len(worker.logged_in) if worker else 0, "Tokens that are logged in to.", labels),
            Measurement(
                "requests_pending", worker.pending if worker else 0, "Requests that the token library has not answered.", labels
            ),
        ]

    def status(self) -> Mapping[str, Any]:
        """For `KeyStore.status`: plain values that JSON can carry."""
        worker = self.present
        wait = self._delay()
        described = {
            "name": self.name,
            "path": self.settings.path,
            "state": "up" if worker else "starting" if self._starting else "down",
            "restarts": max(self.restarts, 0),
            "last_error": self.last_error,
            "next_try_in": max(round(wait, 1), 0.0) if not worker and wait > 0 else 0.0,
        }
        if worker and worker.info:
            info = worker.info
            library = f"{info.manufacturer} {info.description} {info.version_major}.{info.version_minor}"
            described |= {"pid": worker.pid, "library": library, "pending": worker.pending, "locking_fault": self._swappable}
        return described
