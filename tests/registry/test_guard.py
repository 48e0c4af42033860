"""Is every failure of plugin code a denial, does nothing of it stop the event loop, and does a hanging plugin cost only itself?"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import threading
from collections.abc import Callable

import pytest

from tlspool_core.interfaces import ConfigError, Denied, KeyStoreError
from tlspool_core.registry import Guard, PluginFault
from tlspool_core.tls.alerts import DecodeError


def test_blocking_code_runs_in_a_thread_and_returns() -> None:
    async def main() -> None:
        guard = Guard()
        assert await guard("p", lambda a, b: (threading.current_thread() is threading.main_thread(), a + b), 1, 2) == (False, 3)
        guard.close()

    asyncio.run(main())


def test_coroutines_are_awaited_however_they_are_made() -> None:
    async def answer() -> int:
        return 42

    def makes_one() -> object:
        return answer()

    async def main() -> None:
        guard = Guard()
        assert await guard("p", answer) == 42
        assert await guard("p", makes_one) == 42

    asyncio.run(main())


@pytest.mark.parametrize("error", [Denied("no"), KeyStoreError("no token"), ConfigError("no file"), DecodeError("no")])
@pytest.mark.parametrize("coroutine", [False, True])
def test_what_the_contract_declares_passes(error: Exception, coroutine: bool) -> None:
    def raises() -> None:
        raise error

    async def raises_later() -> None:
        raise error

    async def main() -> None:
        with pytest.raises(type(error)) as caught:
            await Guard()("p", raises_later if coroutine else raises)
        assert caught.value is error

    asyncio.run(main())


@pytest.mark.parametrize(
    "error", [ValueError("secret"), SystemExit(1), StopIteration(), concurrent.futures.CancelledError(), MemoryError()]
)
@pytest.mark.parametrize("coroutine", [False, True])
def test_anything_else_is_a_denial_that_keeps_the_reason_to_the_log(
    error: BaseException, coroutine: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def raises() -> None:
        raise error

    async def raises_later() -> None:
        raise error

    async def main() -> None:
        with pytest.raises(PluginFault, match=r"^the plugin p failed$"):
            await Guard()("p", raises_later if coroutine else raises)

    asyncio.run(main())
    assert "plugin p failed" in caplog.text


def test_hanging_code_is_denied_and_starves_no_other_plugin() -> None:
    gate = threading.Event()

    async def main() -> None:
        guard = Guard(timeout=0.05, threads_per_plugin=2)
        for _ in range(4):  # more than the plugin has threads
            with pytest.raises(PluginFault, match="did not answer in time"):
                await guard("hangs", gate.wait)
        assert await guard("other", lambda: 1, timeout=5) == 1
        with pytest.raises(PluginFault, match="did not answer in time"):
            await guard("waits", asyncio.Event().wait)
        gate.set()
        assert await guard("hangs", lambda: 2, timeout=5) == 2  # its threads are back

    asyncio.run(main())


def test_a_coroutine_that_will_not_be_cancelled_is_left_behind() -> None:
    async def stubborn() -> None:
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()

    async def main() -> None:
        with pytest.raises(PluginFault, match="did not answer in time"):
            await Guard(timeout=0.05)("p", stubborn)
        released.set()

    released = asyncio.Event()
    asyncio.run(main())


def test_threads_are_limited_and_used_again() -> None:
    names: set[str] = set()
    lock = threading.Lock()

    def work() -> None:
        with lock:
            names.add(threading.current_thread().name)

    async def main() -> None:
        guard = Guard(threads_per_plugin=3)
        await asyncio.gather(*(guard("p", work) for _ in range(200)))

    asyncio.run(main())
    assert 1 <= len(names) <= 3


def test_the_session_goes_along_into_the_thread() -> None:
    session: contextvars.ContextVar[str] = contextvars.ContextVar("session")

    async def main() -> None:
        session.set("s1")
        assert await Guard()("p", session.get) == "s1"

    asyncio.run(main())


def test_a_cancelled_call_is_cancelled_not_denied() -> None:
    async def main() -> None:
        task = asyncio.create_task(_call(Guard(), asyncio.Event().wait))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def _call(guard: Guard, call: Callable[..., object]) -> object:
        return await guard("p", call)

    asyncio.run(main())
