"""Ways to a server: UDP (RFC 2865), and RADIUS over TLS (see `radsec`). All of this runs on the plugin's own event loop.

Theory of operation
-------------------
UDP: each request has a socket of its own, connected to the server, so that the kernel picks a port at random and drops what others send.
All tries of a request are the same bytes from the same socket: the server takes them for duplicates, and answers once.  A forged
packet is dropped and the wait goes on; after too many the request counts as not answered.

Not answered is not the same as answered by something that cannot be believed: whoever asks has a list of doubts filled, and silence that
was not quite silent permits nothing, whatever configuration says of servers that are silent.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable
from typing import Final, Protocol

from tlspool_radius.attributes import Attributes
from tlspool_radius.names import Address
from tlspool_radius.packets import BadReply, Reply, Request
from tlspool_radius.settings import Server

log = logging.getLogger("tlspool.radius")

TOO_LATE: Final = "it came when nobody waited any more"  # unless somebody did
_MOST_FORGERIES: Final = 64  # bad packets in answer to one request
_OURS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EAGAIN})


class Silent(Exception):
    """The server gave no answer; says what is known of the reason. `ours`: the server cannot be blamed."""

    def __init__(self, reason: str, *, ours: bool = False) -> None:
        super().__init__(reason)
        self.ours = ours

    @classmethod
    def because(cls, error: OSError) -> Silent:
        """Of an error of the operating system, or of TLS, which says more."""
        reason = getattr(error, "verify_message", "") or error.strerror or str(error) or "the server closed the connection"
        return cls(reason, ours=error.errno in _OURS)


def disbelieved(doubts: list[str]) -> str:
    """What is said of a server whose answers were not believed; "" if it did not answer at all."""
    return f"its answer is not believed: {doubts[-1]}" if doubts else ""


class Transport(Protocol):
    """A way to one server, for one of its ports."""

    async def ask(self, code: int, attributes: Attributes, timeout: float, tries: int, doubts: list[str]) -> Reply:
        """Send, and wait for the reply: `timeout` seconds, `tries` times. Raises Silent, or ValueError if it cannot be encoded.

        `doubts` gets the reasons why something that came was not believed, and TOO_LATE with what is: this may be called off in that very
        moment, and then there was an answer nevertheless.
        """

    async def close(self) -> None: ...


class _Answer(asyncio.DatagramProtocol):
    """Waits for the reply to one request."""

    def __init__(self, request: Request, where: str, doubts: list[str]) -> None:
        self.reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._request = request
        self._where = where
        self._doubts = doubts
        self._forgeries = 0

    def datagram_received(self, data: bytes, address: object) -> None:
        if self.reply.done() or self._forgeries >= _MOST_FORGERIES:
            return
        try:
            self.reply.set_result(self._request.read(data))
            self._doubts.append(TOO_LATE)
        except BadReply as error:
            self._forgeries += 1
            if self._forgeries == 1:  # whoever sends more of them shall not fill the log
                self._doubts.append(str(error))
                log.warning("a packet from RADIUS server %s is not believed: %s", self._where, error)

    def error_received(self, error: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(Silent(f"{getattr(error, 'strerror', None) or error}"))


class Udp:
    """RADIUS over UDP."""

    def __init__(self, server: Server, port: int) -> None:
        self._server = server
        self._port = port
        self._address = Address(server.address)

    async def ask(self, code: int, attributes: Attributes, timeout: float, tries: int, doubts: list[str]) -> Reply:
        request = Request.make(code, attributes, self._server.secret)
        channel, answer = await self._open(request, timeout * tries, doubts)
        try:
            for _ in range(tries):
                channel.sendto(request.raw)
                await asyncio.wait([answer.reply], timeout=timeout)
                if answer.reply.done():
                    return answer.reply.result()
            raise Silent(disbelieved(doubts) or f"no answer to {tries} tries")
        finally:
            channel.close()
            if not answer.reply.cancel() and not answer.reply.cancelled():
                answer.reply.exception()  # seen, even if nobody waits any more

    async def _open(self, request: Request, time_limit: float, doubts: list[str]) -> tuple[asyncio.DatagramTransport, _Answer]:
        """A socket for one request. Raises Silent."""
        try:
            async with asyncio.timeout(time_limit):
                address = await self._address.find()
            return await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: _Answer(request, self._server.name, doubts), remote_addr=(address, self._port)
            )
        except TimeoutError:
            raise Silent(f"{self._server.address} is not resolved in time") from None
        except OSError as error:
            raise Silent.because(error) from None

    async def close(self) -> None:
        """There is nothing that stays open."""


MakeTransport = Callable[[Server, int], Transport]
