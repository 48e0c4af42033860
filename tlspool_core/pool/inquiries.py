"""Connections of those who ask how the pool is: a few at a time, each for a short time, and at the expense of nobody else.

Theory of operation
-------------------
`status` and `monitor` bring what is said on a connection (`_converse`); it is closed after that, or once its time is over.  One too many is
closed at once.  When descriptors run out, nothing is accepted for a moment: who waits at the listening socket would be told of without end.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from tlspool_core.pool.core import Pool
    from tlspool_core.pool.listeners import Listener

_MOST: Final = 16  # connections at a time
_PAUSE: Final = 0.5  # seconds


class Inquiries(ABC):
    """Answers on one listening socket."""

    time_limit: ClassVar[float]  # seconds from connection to the end
    log: ClassVar[logging.Logger]

    def __init__(self, pool: Pool, listener: Listener) -> None:
        self._pool = pool
        self._listener = listener
        self._connections = 0
        self._pause: asyncio.TimerHandle | None = None
        self._resume()

    def close(self) -> None:
        """Answer no more; the listener stays its owner's."""
        self._pool.loop.remove_reader(self._listener.socket.fileno())
        if self._pause is not None:
            self._pause.cancel()

    def _resume(self) -> None:
        self._pool.loop.add_reader(self._listener.socket.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            connected, _ = self._listener.socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:
            self._pool.loop.remove_reader(self._listener.socket.fileno())
            self._pause = self._pool.loop.call_later(_PAUSE, self._resume)
            return
        if self._connections >= _MOST:
            connected.close()
            return
        self._connections += 1
        self._pool.keep(self._pool.loop.create_task(self._serve(connected)))

    async def _serve(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        try:
            with connected, suppress(OSError, TimeoutError):
                async with asyncio.timeout(self.time_limit):
                    await self._converse(connected)
        except Exception:
            self.log.exception("fault while telling how the pool is")
        finally:
            self._connections -= 1

    @abstractmethod
    async def _converse(self, connected: socket.socket) -> None:
        """Whatever is said; the connection does not block, and is closed by the caller."""
