"""RADIUS over TLS (RadSec, RFC 6614).

Theory of operation
-------------------
Each function has one connection to a server, opened when it is needed, over which up to 256 requests wait at a time, told apart by
their identifiers.  Both sides show certificates.  When a connection ends, those that wait on it ask again over a new one, as often as
they have tries; servers close connections that are idle, and that must not cost a session.  A connection over which nothing comes while
a request waits in vain is given up as well: its other end may have gone without a word.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from dataclasses import dataclass
from typing import Final

from tlspool_radius.attributes import Attributes
from tlspool_radius.names import Address
from tlspool_radius.packets import BadReply, Reply, Request
from tlspool_radius.settings import Server
from tlspool_radius.transport import TOO_LATE, Silent, disbelieved

log = logging.getLogger("tlspool.radius")

_MAX_PACKET: Final = 4096
_IDENTIFIERS: Final = 256
_MOST_STRAYS: Final = 1024  # packets in a row that answer nothing; late answers are no more than identifiers


class _Ended(Exception):
    """The connection has ended; says why."""


def client_context(server: Server) -> ssl.SSLContext:
    """What we show and demand in RADIUS over TLS. Raises ValueError if a file or the server's name cannot be used."""
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=server.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(server.certificate_file, server.key_file or None, _no_password)
    except OSError as error:
        raise ValueError(f"server.{server.name}: the files for TLS cannot be used: {error}") from None
    try:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=_name_of(server))
    except ValueError as error:
        raise ValueError(f"server.{server.name}.server_name: {_name_of(server)!r} cannot be in a certificate: {error}") from None
    return context


def _name_of(server: Server) -> str:
    """What the server's certificate must have."""
    return server.server_name or server.address


def _no_password() -> str:
    """OpenSSL would ask at a terminal otherwise, and wait. Raises OSError."""
    raise OSError("the key is encrypted, and there is nobody to ask for its password")


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request without an answer so far."""

    request: Request
    reply: asyncio.Future[Reply]
    doubts: list[str]


class _Connection:
    """One connection, and who waits on it."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._writer = writer
        self._waiting: dict[int, _Waiting] = {}
        self._last = 0
        self._strays = 0
        self.heard = 0.0  # when something came, by the monotonic clock
        self._reading = asyncio.get_running_loop().create_task(self._read(reader))

    @property
    def open(self) -> bool:
        return not self._reading.done() and not self._writer.is_closing()

    async def ask(self, code: int, attributes: Attributes, doubts: list[str]) -> Reply:
        """Raises _Ended, Silent, or ValueError if it cannot be encoded."""
        identifier = self._identifier()
        request = Request.make(code, attributes, self._server.secret, identifier)
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[identifier] = _Waiting(request, reply, doubts)
        try:
            self._writer.write(request.raw)
            await self._writer.drain()
            return await reply
        except ConnectionError as error:
            raise _Ended(error.strerror or str(error)) from None
        finally:
            del self._waiting[identifier]
            if not reply.cancel() and not reply.cancelled():
                reply.exception()  # seen, even if nobody waits any more

    def _identifier(self) -> int:
        """One that is free. Raises Silent."""
        for step in range(1, _IDENTIFIERS + 1):
            candidate = (self._last + step) % _IDENTIFIERS
            if candidate not in self._waiting:
                self._last = candidate
                return candidate
        raise Silent(f"{_IDENTIFIERS} requests wait for an answer already", ours=True)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Hand replies to those who wait, until the connection ends."""
        reason = "the connection ended"
        try:
            while True:
                header = await reader.readexactly(4)
                length = int.from_bytes(header[2:], "big")
                if not 20 <= length <= _MAX_PACKET:
                    raise BadReply("the length of the packet is wrong")  # and we cannot know where the next begins
                self._take(header + await reader.readexactly(length - 4))
        except asyncio.IncompleteReadError:
            pass
        except (OSError, BadReply) as error:
            reason = str(error) or reason
        finally:
            self._writer.transport.abort()
            for waiting in self._waiting.values():
                if not waiting.reply.done():
                    waiting.reply.set_exception(_Ended(reason))

    def _take(self, data: bytes) -> None:
        """Raises BadReply if the server does not stop to send what nobody asked for."""
        self.heard = time.monotonic()
        self._strays += 1
        if self._strays > _MOST_STRAYS:
            raise BadReply("too many packets that answer nothing")
        waiting = self._waiting.get(data[1])
        if waiting is None or waiting.reply.done():
            return
        try:
            waiting.reply.set_result(waiting.request.read(data))
            waiting.doubts.append(TOO_LATE)
            self._strays = 0
        except BadReply as error:
            if waiting.doubts:
                return
            waiting.doubts.append(str(error))
            log.warning("a packet from RADIUS server %s is not believed: %s", self._server.name, error)

    async def close(self) -> None:
        """All that wait are told that it has ended."""
        self._writer.transport.abort()  # as a reader that never began does not do it
        self._reading.cancel()
        await asyncio.wait([self._reading])


class RadSec:
    """RADIUS over TLS."""

    def __init__(self, server: Server, port: int) -> None:
        """Raises ValueError if a file cannot be used."""
        self._server = server
        self._port = port
        self._address = Address(server.address)
        self._context = client_context(server)
        self._opening = asyncio.Lock()
        self._connection: _Connection | None = None

    async def ask(self, code: int, attributes: Attributes, timeout: float, tries: int, doubts: list[str]) -> Reply:
        connection, sent, reason = None, 0.0, ""
        try:
            async with asyncio.timeout(timeout * tries):
                for _ in range(tries):
                    connection = await self._open()
                    sent = time.monotonic()
                    try:
                        return await connection.ask(code, attributes, doubts)
                    except _Ended as ended:
                        reason = str(ended)
        except TimeoutError:
            if connection is not None and connection.heard < sent:
                await connection.close()
            raise Silent(disbelieved(doubts) or "no answer in time") from None
        except OSError as error:
            raise Silent.because(error) from None
        raise Silent(reason)

    async def _open(self) -> _Connection:
        async with self._opening:
            if self._connection is None or not self._connection.open:
                address = await self._address.find()
                name = _name_of(self._server)
                reader, writer = await asyncio.open_connection(address, self._port, ssl=self._context, server_hostname=name)
                self._connection = _Connection(self._server, reader, writer)
            return self._connection

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                await self._connection.close()
