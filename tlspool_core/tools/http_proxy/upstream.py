"""Connections to sites: with the person's credential through the pool, or in plaintext, or none because that would be wrong.

Theory of operation
-------------------
A connection is opened when a request needs one, and kept for the next request of the same client to the same site; it serves no other
client.  One that was kept may have ended in the meantime, which often shows only when it is used.

Names are looked up in threads, as the system's resolver waits.  Whoever names sites chooses whose name servers are asked, and those may
let us wait: so the names of other sites have threads of their own, and configured destinations are reached all the same.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import h11

from tlspool_core.client import PoolError, StartTlsFlags, aio
from tlspool_core.tools.endpoints import Endpoint, connect
from tlspool_core.tools.http_proxy import problems
from tlspool_core.tools.http_proxy.rules import Destination, Target, may_be_reached
from tlspool_core.tools.http_proxy.wire import Party
from tlspool_core.wire.flags import InfoKind

_LOOKUPS: Final = 32  # names of other sites that are looked up at a time


@dataclass(frozen=True, slots=True)
class Reach:
    """How sites are reached. `own_ports` are those that the proxy listens on; `pool` is the pool's socket, None for the usual places."""

    own_ports: Collection[int]
    pool: Path | None = None
    _others: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_LOOKUPS), compare=False)

    async def plain(self, target: Target, destination: Destination | None) -> socket.socket:
        """A TCP connection to a site; only a configured one may be on this machine. Raises Problem."""
        endpoint = Endpoint(target.host, target.port)
        try:
            if destination is not None:
                sock = await connect(destination.connect or endpoint)
            else:
                sock = await connect(endpoint, may_be_reached, self._others)
        except PermissionError:
            raise problems.address_forbidden(target) from None
        except TimeoutError:
            raise problems.too_slow(target) from None
        except socket.gaierror as fault:
            raise problems.name_unknown(target, fault.strerror or "unknown") from None
        except OSError as fault:
            raise problems.not_reached(target, fault.strerror or str(fault)) from None
        if self._leads_back(sock):
            sock.close()
            raise problems.loop(target)
        return sock

    def close(self) -> None:
        """Look up no more names."""
        self._others.shutdown(wait=False, cancel_futures=True)

    def _leads_back(self, sock: socket.socket) -> bool:
        if sock.family == socket.AF_UNIX:
            return False
        theirs = sock.getpeername()
        return theirs[1] in self.own_ports and theirs[0] == sock.getsockname()[0]

    async def open(self, target: Target, destination: Destination | None) -> Upstream:
        """A connection to send requests on: with TLS to a configured destination, else without. Raises Problem."""
        sock = await self.plain(target, destination)
        if destination is None:
            return Upstream(target, None, sock)
        try:
            session = await aio.starttls_client(
                sock,
                path=self.pool,
                localid=destination.localid,
                remoteid=destination.remoteid or target.host,
                service=destination.service,
                flags=StartTlsFlags.KEY_BOUND,
            )
        except PoolError as error:
            raise problems.of_pool(target, destination.localid, error) from None
        session.plaintext.setblocking(False)
        return Upstream(target, session, session.plaintext)


class Upstream:
    """A connection to a site. Owns the socket."""

    def __init__(self, target: Target, session: aio.Session | None, sock: socket.socket) -> None:
        self.target = target
        self.reused = False
        self.party = Party(sock, h11.CLIENT)
        self._session = session

    async def ended_well(self) -> bool:
        """Whether an end that was seen was the site's own: the pool knows the session of one whose close_notify came.

        A session that the pool ended, or that an attacker cut off, is gone from its books.  Without TLS nobody knows.
        """
        if self._session is None:
            return True
        with suppress(PoolError):
            return await self._session.info(InfoKind.VERSION) is not None
        return False

    def again(self) -> bool:
        """Whether it can be kept for another request."""
        self.reused = True
        return self.party.again() and not self.party.http.trailing_data[0]

    def usable_for(self, target: Target) -> bool:
        """Whether it was kept for this site, and did not end."""
        return self.target == target and self.party.silent

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
        self.party.sock.close()
