"""What an operator may want to know of a running pool: counts, sessions, key stores; as JSON over a socket of its own.

Theory of operation
-------------------
Whoever connects gets one JSON object, and the end.  The socket is by default for the pool's own user only (mode 0600): counts and
names of tokens are not secret, and not everybody's business either.  With several workers, the one that accepts asks the others, and
shows each under `workers`; a monitor adds up as it likes.  Counters only grow, from the start of the process.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from tlspool_core.interfaces import Aaa, CredentialType, Denied, KeyStore, KeyStoreError, Measurement
from tlspool_core.pool.inquiries import Inquiries
from tlspool_core.secret import locking_fault
from tlspool_core.wire.errors import ErrorCode

if TYPE_CHECKING:
    from tlspool_core.pool.core import Pool

log = logging.getLogger("tlspool.status")

_TIME_LIMIT = 5.0  # seconds for all that is asked, and for whoever reads the answer
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}").fullmatch  # of what plugins measure


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
        self.reloaded = self.started
        self.reload_fault = ""  # why the newest configuration was refused; empty if it serves

    def reload(self) -> None:
        """The configuration was read anew, and serves."""
        self.reloaded = time.time()
        self.reload_fault = ""

    def refuse(self, code: int) -> None:
        name = ErrorCode(code).name if code in ErrorCode.__members__.values() else str(code)
        self.refused[name.lower()] += 1

    def end(self, octets_in: int, octets_out: int) -> None:
        self.ended += 1
        self.octets_in += octets_in
        self.octets_out += octets_out


async def worker_status(pool: Pool) -> dict[str, Any]:
    """Of this process."""
    counters, plugins = pool.counters, pool.plugins
    return {
        "pid": os.getpid(),
        "number": pool.mesh.worker if pool.mesh is not None else 0,
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
        "reloaded": round(counters.reloaded, 3),
        "reload_fault": counters.reload_fault,
        "plugins_failed": plugins.registry.failed,
        "measurements": measured([*plugins.key_stores.items(), *plugins.credential_types.items(), *plugins.aaa.items()]),
        "key_stores": {name: await _store_status(pool, name) for name in plugins.key_stores},
    }


def measured(offers: Iterable[tuple[str, KeyStore | CredentialType | Aaa]]) -> dict[str, list[dict[str, Any]]]:
    """What plugins measure, by the name of what they offer; one that fails there is left out."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, offer in offers:
        try:
            numbers = [asdict(one) for one in offer.measurements() if _sound(one)]
        except Exception:
            log.exception("plugin %s failed to tell what it measures", name)
            continue
        if numbers:
            found.setdefault(name, []).extend(numbers)
    return found


def _sound(one: Measurement) -> bool:
    return _NAME(one.name) is not None and math.isfinite(one.value)


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


class StatusServer(Inquiries):
    """Answers on one listening socket."""

    time_limit = 2 * _TIME_LIMIT
    log = log

    async def _converse(self, connected: socket.socket) -> None:
        text = json.dumps(await pool_status(self._pool), default=str)
        await self._pool.loop.sock_sendall(connected, text.encode() + b"\n")
