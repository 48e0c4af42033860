"""Where a server is: a literal address, or what its name stands for.

Theory of operation
-------------------
The resolver of the C library blocks for as long as it likes, and cannot be called off.  So each look-up has a daemon thread of its own,
which keeps neither an event loop nor the end of the process waiting; there is one at a time for a server.  What was found is used for a
minute; after that it is looked up anew while the old address is still in use, so that only the first request ever waits.  A look-up
that fails leaves the old address in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

_KEPT: Final = 60.0  # seconds

LookUp = Callable[[str], str]


def look_up(name: str) -> str:
    """The address that the resolver prefers; blocks. Raises OSError."""
    return str(socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)[0][4][0])


class Address:
    """Of one server; its methods are for one event loop."""

    def __init__(self, name: str, look_up: LookUp = look_up) -> None:
        self._name = name
        self._look_up = look_up
        self._found = name if _literal(name) else ""
        self._until = float("inf") if self._found else 0.0
        self._looking: asyncio.Future[str] | None = None

    async def find(self) -> str:
        """The address as digits. Raises OSError if the name cannot be resolved; waits for as long as the resolver does."""
        if time.monotonic() >= self._until and self._looking is None:
            self._start()
        if self._found:
            return self._found
        assert self._looking is not None
        return await asyncio.shield(self._looking)  # others wait for it, too

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        looking = self._looking = loop.create_future()
        looking.add_done_callback(self._done)

        def run() -> None:
            outcome: str | OSError
            try:
                outcome = self._look_up(self._name)
            except OSError as error:
                outcome = error
            except (
                Exception
            ) as error:  # a name that is none, says the codec "idna"; whoever waits has to hear of anything else, too
                outcome = OSError(f"cannot be resolved: {error}")
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(_settle, looking, outcome)

        threading.Thread(target=run, name="radius-names", daemon=True).start()

    def _done(self, looking: asyncio.Future[str]) -> None:
        self._looking = None
        self._until = time.monotonic() + _KEPT
        if not looking.cancelled() and looking.exception() is None:
            self._found = looking.result()
        elif not self._found:
            self._until = 0.0


def _settle(looking: asyncio.Future[str], outcome: str | OSError) -> None:
    if not looking.done():
        if isinstance(outcome, str):
            looking.set_result(outcome)
        else:
            looking.set_exception(outcome)


def _literal(name: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return False
