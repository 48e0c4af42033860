"""The servers of one function: priority, retry, failover, health, dead time.

Theory of operation
-------------------
Servers are asked in the order of their priority, each with a number of tries.  One that did not answer is dead for its dead time, and is
passed over as long as another one lives; after that time it is asked again.  With `status_server` a dead one is asked for its
health (Status-Server, RFC 5997) while it is dead, comes back with its first answer, and costs no request any wait.  If all are
dead, all are asked in order nevertheless: dead is a suspicion.  The time for the whole is limited.

A refusal is an answer: nobody else is asked then.  An answer that is not believed is none, and yet no silence: `NoAnswer` says so.  Nor is
it silence if there was no place, no descriptor and no time for a server to be asked: a flood of claims would permit itself otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Sequence
from typing import Final

from tlspool_radius.attributes import Attributes
from tlspool_radius.packets import STATUS_SERVER, Reply
from tlspool_radius.radsec import RadSec
from tlspool_radius.settings import Function, Server
from tlspool_radius.transport import MakeTransport, Silent, Transport, Udp

log = logging.getLogger("tlspool.radius")

_MOST_AT_ONCE: Final = 256  # requests under way to the servers of one function
_FIRST_PROBE: Final = 0.5  # seconds, doubled each time up to the dead time


class NoAnswer(Exception):
    """No server answered; says what became of each. `silent`: they were asked, and nothing at all came from any of them."""

    def __init__(self, reason: str, *, silent: bool) -> None:
        super().__init__(reason)
        self.silent = silent


def transport(server: Server, port: int) -> Transport:
    """The way that the server's section names. Raises ValueError if its files cannot be used."""
    return Udp(server, port) if server.transport == "udp" else RadSec(server, port)


class Peer:
    """One server for one function, and what is known of its health."""

    def __init__(self, server: Server, way: Transport) -> None:
        self.server = server
        self.way = way
        self.dead_until = 0.0
        self._probe: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        return time.monotonic() >= self.dead_until

    async def ask(self, code: int, attributes: Attributes, timeout: float, tries: int, doubts: list[str]) -> Reply:
        """Raises Silent, and is dead from then on if it was to blame."""
        try:
            reply = await self.way.ask(code, attributes, timeout, tries, doubts)
        except Silent as silent:
            if not silent.ours:
                self._died(str(silent), timeout, attributes)
            raise
        self._lives()
        return reply

    def _lives(self) -> None:
        if self.dead_until:
            self.dead_until = 0.0
            log.info("RADIUS server %s answers again", self.server.name)

    def _died(self, reason: str, timeout: float, attributes: Attributes) -> None:
        if self.alive:
            log.warning("RADIUS server %s does not answer: %s", self.server.name, reason)
        if not self.server.dead_time:
            return
        self.dead_until = time.monotonic() + self.server.dead_time
        if self.server.status_server and (self._probe is None or self._probe.done()):
            identifier = [pair for pair in attributes if pair[0] == 32]  # NAS-Identifier
            self._probe = asyncio.get_running_loop().create_task(self._ask_for_health(identifier, timeout))

    async def _ask_for_health(self, attributes: Attributes, timeout: float) -> None:
        wait = _FIRST_PROBE
        while self.dead_until:
            await asyncio.sleep(min(wait, self.server.dead_time))
            wait *= 2
            with contextlib.suppress(Silent):
                await self.way.ask(STATUS_SERVER, attributes, timeout, 1, [])
                self._lives()
                return
            self.dead_until = max(self.dead_until, time.monotonic() + min(wait, self.server.dead_time) + timeout)

    async def close(self) -> None:
        """Ask no more."""
        if self._probe is not None:
            self._probe.cancel()
        await self.way.close()


class Servers:
    """Those of one function."""

    def __init__(self, function: Function, accounting: bool = False, make: MakeTransport = transport) -> None:
        """Raises ValueError if files of a server cannot be used."""
        self.function = function
        self.peers = [Peer(one, make(one, one.accounting_port if accounting else one.port)) for one in function.servers]
        self._places = asyncio.Semaphore(_MOST_AT_ONCE)

    def _order(self) -> Sequence[Peer]:
        living = [peer for peer in self.peers if peer.alive]
        return living or self.peers

    async def ask(self, code: int, attributes: Attributes) -> Reply:
        """The first answer. Raises NoAnswer, or ValueError if the request cannot be encoded."""
        outcomes: list[str] = []
        doubts: dict[Peer, list[str]] = {}
        asked, unable = math.inf, False
        try:
            async with asyncio.timeout(self.function.limit), self._places:
                asked = time.monotonic()
                for peer in self._order():
                    try:
                        doubts[peer] = []
                        return await peer.ask(code, attributes, self.function.timeout, self.function.tries, doubts[peer])
                    except Silent as silent:
                        unable = unable or silent.ours
                        outcomes.append(f"{peer.server.name}: {silent}")
        except TimeoutError:
            outcomes.append(f"{self.function.limit:g} seconds have passed{'' if doubts else ' in a queue of requests'}")
            unable = unable or time.monotonic() - asked < self.function.timeout  # not even one try had its time
        raise NoAnswer(f"no RADIUS server answers ({'; '.join(outcomes)})", silent=not unable and not any(doubts.values()))

    async def close(self) -> None:
        for peer in self.peers:
            await peer.close()
