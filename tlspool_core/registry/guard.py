"""Calls into plugin code: off the event loop, within a time limit, and with every failure turned into a denial.

Theory of operation
-------------------
A plugin's coroutine is awaited; anything else runs in a thread.  Each plugin has threads of its own, a limited number of them, so
that one that hangs uses up its own and no other's: a thread cannot be killed, so once all of a plugin's threads hang, further
calls wait in vain for one and are denied by the time limit.  The threads are daemons: none keeps the program from ending.

What the contract lets a plugin raise (a refusal, an alert, a key store's or database's error) passes; whatever else it raises is
logged under its name, and becomes `PluginFault`, which is a denial.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import inspect
import logging
import queue
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from tlspool_core.interfaces import ConfigError, Denied, KeyStoreError
from tlspool_core.tls.alerts import TlsError

log = logging.getLogger("tlspool.plugins")

T = TypeVar("T")
Job = tuple["concurrent.futures.Future[Any]", Callable[[], Any]]

# what the interfaces declare; nothing else that a plugin raises means anything to its caller
DECLARED = (Denied, TlsError, KeyStoreError, ConfigError)


class PluginFault(Denied):
    """A plugin failed, or did not answer in time. The text is for the application; the log has the reason."""

    def __init__(self, who: str, problem: str) -> None:
        super().__init__(f"the plugin {who} {problem}")
        self.who = who


class _Threads:
    """The threads of one plugin: started when needed, up to a limit, idle ones are used again."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._idle = 0
        self._count = 0
        self._lock = threading.Lock()

    def submit(self, work: Callable[[], T]) -> concurrent.futures.Future[T]:
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        with self._lock:
            self._jobs.put((future, work))
            if self._idle:
                self._idle -= 1  # promised to this job
            elif self._count < self._limit:
                self._count += 1
                threading.Thread(target=self._run, name=f"plugin-{self._name}-{self._count}", daemon=True).start()
        return future

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, work = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:
                    future.set_exception(_carried(error))
            del job, future, work  # an idle thread holds on to nothing
            with self._lock:
                if self._jobs.empty():
                    self._idle += 1

    def stop(self) -> None:
        for _ in range(self._count):
            self._jobs.put(None)


def _carried(error: BaseException) -> Exception:
    """An exception that a future may carry to its waiter: what asyncio takes for its own signals is wrapped."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration | concurrent.futures.CancelledError):
        return error
    wrapped = RuntimeError(f"raised {error!r}")
    wrapped.__cause__ = error
    return wrapped


async def _contained(awaitable: Awaitable[T]) -> T:
    """Await a plugin's coroutine; its SystemExit does not end the pool."""
    try:
        return await awaitable
    except SystemExit as error:
        raise _carried(error) from error


class Guard:
    """Runs plugin code for the event loop; one for the process."""

    def __init__(self, timeout: float = 15.0, threads_per_plugin: int = 8) -> None:
        """`timeout` in seconds, for calls that name no other."""
        self._timeout = timeout
        self._limit = threads_per_plugin
        self._threads: dict[str, _Threads] = {}

    async def __call__(self, who: str, call: Callable[..., Awaitable[T] | T], /, *args: object, timeout: float | None = None) -> T:
        """What `call(*args)` returns; awaited if it is a coroutine, else run in a thread of the plugin `who`.

        Raises what the contract declares (Denied, TlsError, KeyStoreError, ConfigError); anything else becomes PluginFault.
        """
        limit = self._timeout if timeout is None else timeout
        if inspect.iscoroutinefunction(call):
            return cast("T", await self._settle(who, asyncio.ensure_future(_contained(call(*args))), limit))
        context = contextvars.copy_context()  # so that the log knows the session
        result = await self._settle(who, asyncio.wrap_future(self._threads_of(who).submit(lambda: context.run(call, *args))), limit)
        if inspect.isawaitable(result):
            result = await self._settle(who, asyncio.ensure_future(_contained(result)), limit)
        return cast("T", result)

    async def _settle(self, who: str, future: asyncio.Future[Any], limit: float) -> Any:
        """The outcome of plugin code that is under way, within `limit` seconds."""
        try:
            # not asyncio.timeout(): a plugin that swallows the cancellation would keep the session waiting
            await asyncio.wait((future,), timeout=limit)
        finally:
            future.cancel()
        if not future.done() or future.cancelled():
            log.warning("plugin %s did not answer within %g s", who, limit)
            raise PluginFault(who, "did not answer in time")
        try:
            return future.result()
        except DECLARED:
            raise
        except Exception as error:
            log.exception("plugin %s failed", who)
            raise PluginFault(who, "failed") from error

    def _threads_of(self, who: str) -> _Threads:
        threads = self._threads.get(who)
        if threads is None:
            threads = self._threads[who] = _Threads(who, self._limit)
        return threads

    def close(self) -> None:
        """Let idle threads end; the guard can be used no more."""
        for threads in self._threads.values():
            threads.stop()
        self._threads.clear()
