"""Ways to a server: UDP (RFC 2865), and RADIUS over TLS (RadSec, RFC 6614). All of this runs on the plugin's own event loop.

Theory of operation
-------------------
UDP: each request has a socket of its own, connected to the server, so that the kernel picks a port at random and drops what others send.
All tries of a request are the same bytes from the same socket: the server takes them for duplicates, and answers once.  A forged
packet is dropped and the wait goes on; after too many the request counts as not answered.

TLS: one connection for each server and port, opened when it is needed, over which up to 256 requests wait at a time, told apart by their
identifiers.  Both sides show certificates.  When the connection breaks, all that wait on it have no answer.  TCP delivers, so
nothing is sent twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from typing import Final, Protocol

from tlspool_radius.attributes import Attributes
from tlspool_radius.packets import BadReply, Reply, Request
from tlspool_radius.settings import Server

log = logging.getLogger("tlspool.radius")

_MOST_FORGERIES: Final = 64  # bad packets in answer to one request
_MAX_PACKET: Final = 4096


class Silent(Exception):
    """The server gave no answer; says what is known of the reason."""


class Transport(Protocol):
    """A way to one server, for one of its ports."""

    async def ask(self, code: int, attributes: Attributes, timeout: float, tries: int) -> Reply:
        """Send, and wait for the reply: `timeout` seconds, `tries` times. Raises Silent, or ValueError if it cannot be encoded."""

    async def close(self) -> None: ...


def transport(server: Server, port: int) -> Transport:
    """The way that the server's section names."""
    return Udp(server, port) if server.transport == "udp" else RadSec(server, port)


class _Answer(asyncio.DatagramProtocol):
    """Waits for the reply to one request."""

    def __init__(self, request: Request, where: str) -> None:
        self.reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._request = request
        self._where = where
        self._forgeries = 0

    def datagram_received(self, data: bytes, address: object) -> None:
        if self.reply.done() or self._forgeries >= _MOST_FORGERIES:
            return
        try:
            self.reply.set_result(self._request.read(data))
        except BadReply as error:
            self._forgeries += 1
            log.warning("a packet from RADIUS server %s is not believed: %s", self._where, error)

    def error_received(self, error: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(Silent(f"{getattr(error, 'strerror', None) or error}"))


class Udp:
    """RADIUS over UDP."""

    def __init__(self, server: Server, port: int) -> None:
        self._server = server
        self._port = port

    async def ask(self, code: int, attributes: Attributes, timeout: float, tries: int) -> Reply:
        request = Request.make(code, attributes, self._server.secret)
        address = (self._server.address, self._port)
        try:
            channel, answer = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: _Answer(request, self._server.name), remote_addr=address
            )
        except OSError as error:
            raise Silent(error.strerror or str(error)) from None
        try:
            for _ in range(tries):
                channel.sendto(request.raw)
                await asyncio.wait([answer.reply], timeout=timeout)
                if answer.reply.done():
                    return answer.reply.result()
            raise Silent(f"no answer to {tries} tries")
        finally:
            channel.close()
            if not answer.reply.cancel() and not answer.reply.cancelled():
                answer.reply.exception()  # seen, even if nobody waits any more

    async def close(self) -> None:
        """There is nothing that stays open."""


def client_context(server: Server) -> ssl.SSLContext:
    """What we show and demand in RADIUS over TLS. Raises ValueError if a file cannot be used."""
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=server.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(server.certificate_file, server.key_file or None)
    except OSError as error:
        raise ValueError(f"server.{server.name}: the files for TLS cannot be used: {error}") from None
    return context


class RadSec:
    """RADIUS over TLS."""

    def __init__(self, server: Server, port: int) -> None:
        """Raises ValueError if a file cannot be used."""
        self._server = server
        self._port = port
        self._context = client_context(server)
        self._opening = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: dict[int, tuple[Request, asyncio.Future[Reply]]] = {}
        self._last = 0

    async def ask(self, code: int, attributes: Attributes, timeout: float, tries: int) -> Reply:
        try:
            async with asyncio.timeout(timeout * tries):
                writer = await self._open()
                identifier = self._identifier()
                request = Request.make(code, attributes, self._server.secret, identifier)
                reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
                self._waiting[identifier] = (request, reply)
                try:
                    writer.write(request.raw)
                    await writer.drain()
                    return await reply
                finally:
                    del self._waiting[identifier]
        except TimeoutError:
            raise Silent("no answer in time") from None
        except OSError as error:  # an error of TLS is one, too
            raise Silent(getattr(error, "verify_message", "") or error.strerror or str(error)) from None

    def _identifier(self) -> int:
        """One that is free. Raises Silent."""
        for step in range(1, 257):
            candidate = (self._last + step) % 256
            if candidate not in self._waiting:
                self._last = candidate
                return candidate
        raise Silent("256 requests wait for an answer already")

    async def _open(self) -> asyncio.StreamWriter:
        async with self._opening:
            if self._writer is None or self._writer.is_closing():
                name = self._server.server_name or self._server.address
                reader, self._writer = await asyncio.open_connection(
                    self._server.address, self._port, ssl=self._context, server_hostname=name
                )
                self._reader = asyncio.get_running_loop().create_task(self._read(reader, self._writer))
            return self._writer

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hand replies to those who wait, until the connection ends."""
        reason = "the connection ended"
        try:
            while True:
                header = await reader.readexactly(4)
                length = int.from_bytes(header[2:], "big")
                if not 20 <= length <= _MAX_PACKET:
                    raise BadReply("the length of the packet is wrong")  # and we cannot know where the next begins
                self._take(header + await reader.readexactly(length - 4))
        except (OSError, EOFError, BadReply) as error:
            reason = str(error) or reason
        finally:
            writer.close()
            for _, reply in self._waiting.values():
                if not reply.done():
                    reply.set_exception(Silent(reason))

    def _take(self, data: bytes) -> None:
        request, reply = self._waiting.get(data[1], (None, None))
        if request is None or reply is None or reply.done():
            return
        try:
            reply.set_result(request.read(data))
        except BadReply as error:
            log.warning("a packet from RADIUS server %s is not believed: %s", self._server.name, error)

    async def close(self) -> None:
        """Close the connection."""
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        if self._writer is not None:
            self._writer.transport.abort()


MakeTransport = Callable[[Server, int], Transport]
