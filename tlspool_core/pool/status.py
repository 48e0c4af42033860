"""What an operator may want to know of a running pool: counts, sessions, key stores; as JSON over a socket of its own.

Theory of operation
-------------------
Whoever connects gets one JSON object, and the end.  The socket is by default for the pool's own user only (mode 0600): counts and
names of tokens are not secret, and not everybody's business either.  With several workers, the one that accepts asks the others, and
shows each under `workers`; a monitor adds up as it likes.  Counters only grow, from the start of the process.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from tlspool_core.interfaces import Denied, KeyStoreError
from tlspool_core.secret import locking_fault
from tlspool_core.wire.errors import ErrorCode

if TYPE_CHECKING:
    from tlspool_core.pool.core import Pool
    from tlspool_core.pool.listeners import Listener

log = logging.getLogger("tlspool.status")

_TIME_LIMIT = 5.0  # seconds for all that is asked, and for whoever reads the answer
_MOST = 16  # readers at a time


class Counters:
    """What happened in this process since it started; all numbers but `seconds` are whole."""

    def __init__(self) -> None:
        self.started = time.time()
        self.established: Counter[str] = Counter()  # by role
        self.resumed = 0
        self.refused: Counter[str] = Counter()  # by the name of the error
        self.octets_in = 0
        self.octets_out = 0
        self.ended = 0

    def refuse(self, code: int) -> None:
        name = ErrorCode(code).name if code in ErrorCode.__members__.values() else str(code)
        self.refused[name.lower()] += 1

    def end(self, octets_in: int, octets_out: int) -> None:
        self.ended += 1
        self.octets_in += octets_in
        self.octets_out += octets_out


async def worker_status(pool: Pool) -> dict[str, Any]:
    """Of this process."""
    counters = pool.counters
    return {
        "pid": os.getpid(),
        "started": round(counters.started, 3),
        "stopping": pool.stopping,
        "sessions": len(pool.sessions),
        "established": dict(counters.established),
        "resumed": counters.resumed,
        "refused": dict(counters.refused),
        "ended": counters.ended,
        "octets_in": counters.octets_in,
        "octets_out": counters.octets_out,
        "locking_fault": locking_fault(),  # why a PIN could be swapped to disk; else empty
        "key_stores": {name: await _store_status(pool, name) for name in pool.plugins.key_stores},
    }


async def _store_status(pool: Pool, name: str) -> Mapping[str, Any]:
    try:
        return await pool.guard(name, pool.plugins.key_stores[name].status, timeout=_TIME_LIMIT / 2)
    except (Denied, KeyStoreError) as error:
        return {"fault": str(error)}


async def pool_status(pool: Pool) -> dict[str, Any]:
    """Of all workers, this one first."""
    workers = [await worker_status(pool)]
    if pool.mesh is not None:
        workers += [json.loads(told) for told in await pool.mesh.ask_all(b"", _TIME_LIMIT)]
    return {"version": version("tlspool-core"), "configuration": pool.config.name, "workers": workers}


class StatusServer:
    """Answers on one listening socket."""

    def __init__(self, pool: Pool, listener: Listener) -> None:
        self._pool = pool
        self._listener = listener
        self._readers = 0
        pool.loop.add_reader(listener.socket.fileno(), self._accept)

    def close(self) -> None:
        """Answer no more; the listener stays its owner's."""
        self._pool.loop.remove_reader(self._listener.socket.fileno())

    def _accept(self) -> None:
        try:
            connected, _ = self._listener.socket.accept()
        except OSError:
            return
        if self._readers >= _MOST:
            connected.close()
            return
        self._readers += 1
        self._pool.keep(self._pool.loop.create_task(self._answer(connected)))

    async def _answer(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        try:
            with connected, suppress(OSError, TimeoutError):
                async with asyncio.timeout(2 * _TIME_LIMIT):
                    text = json.dumps(await pool_status(self._pool), default=str)
                    await self._pool.loop.sock_sendall(connected, text.encode() + b"\n")
        except Exception:
            log.exception("fault while telling the status")
        finally:
            self._readers -= 1
