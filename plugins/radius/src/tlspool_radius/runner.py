"""An event loop in a thread of its own, on which all of RADIUS runs.

Theory of operation
-------------------
The pool's event loop hands over a coroutine and awaits its result; sockets, decoding and files are the business of this thread.  Should
anything here ever hang, the pool's time limit refuses the session or the record, and the pool goes on.  The thread is a daemon
thread, so that it cannot keep the process from ending either.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

_END: Final = 2.0  # seconds to wait for the thread's end


class Runner:
    """The thread; `run` may be awaited on any event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="radius", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Its result or exception; when the caller is cancelled, so is the work."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def stop(self) -> None:
        """End the thread; what still runs in it is cancelled."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        await asyncio.to_thread(self._thread.join, _END)

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._loop.shutdown_default_executor()
        await asyncio.sleep(0.01)  # connections that were closed let their sockets go in the turns that follow
        self._loop.call_soon(self._loop.stop)
