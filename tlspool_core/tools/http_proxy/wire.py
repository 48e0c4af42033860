"""HTTP/1.1 over a socket that does not block: h11 knows the grammar, this knows how to wait, and for how long.

Theory of operation
-------------------
A request is parsed, and what goes on is built anew from what was understood: no byte of a head is passed on as it came, so client,
proxy and site cannot understand it differently (request smuggling).  What h11 takes and we do not: a message that says its length in
two ways (RFC 9112 section 6.3), a coding of transfer where there is none yet (HTTP/1.0, section 6.1), control characters, and more
fields than anybody needs.

Nothing waits for ever but the body of a response, which may be a stream of events; while we wait for that, `gone` notices a client that
does not.
"""

from __future__ import annotations

import asyncio
import re
import select
import socket
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

import h11

from tlspool_core.client.options import HANDSHAKE_TIME

HEAD: Final = 65536  # bytes of a head
FIELDS: Final = 200  # in a head
HEAD_TIME: Final = 30.0  # seconds until the first request begins, and for the head of a request, once it has begun
KEEP_TIME: Final = 120.0  # seconds until the next request begins
STALL_TIME: Final = 120.0  # seconds in which some of a request's body has to come, and some of what we send has to go
GUESS_TIME: Final = 1.0  # seconds that a wrong login waits for its answer
ANSWER_TIME: Final = 300.0 + HANDSHAKE_TIME  # seconds for a site to begin its answer
_CHUNK: Final = 65536
_LAST: Final = 1.0  # seconds and bytes that are still read from a client that is told to go
_LAST_BYTES: Final = 1 << 20

T = TypeVar("T")
Fields = list[tuple[bytes, bytes]]
Received = h11.Request | h11.InformationalResponse | h11.Response | h11.Data | h11.EndOfMessage | h11.ConnectionClosed

# RFC 9110 section 7.6.1, and what older clients say to proxies
_HOP_BY_HOP: Final = frozenset(
    b"connection keep-alive proxy-connection te trailer transfer-encoding upgrade content-length "
    b"proxy-authenticate proxy-authorization proxy-authentication-info".split()
)


_VERSIONS: Final = (b"1.0", b"1.1")
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # RFC 9110 section 5.5; h11 minds the three worst only


class Gone(OSError):
    """The other side has hung up."""


def reason(fault: h11.RemoteProtocolError) -> str:
    """What is wrong, without the bytes that h11 quotes: there may be a secret in them."""
    return str(fault).partition(":")[0]


def values(fields: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """All values of a field that is a list, each in lower case."""
    found = (value for key, value in fields if key.lower() == name)
    return [part.strip().lower() for value in found for part in value.split(b",") if part.strip()]


def end_to_end(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """The fields that are not for us, without those that say how long the body is."""
    fields = list(fields)
    dropped = _HOP_BY_HOP | frozenset(values(fields, b"connection"))
    return [(name, value) for name, value in fields if name.lower() not in dropped]


def hops_left(request: h11.Request) -> int | None:
    """How many more may forward a request; None if it does not say, or the word does not count (RFC 9110 section 7.6.2)."""
    said = values(request.headers, b"max-forwards")
    counts = request.method == b"OPTIONS" and len(said) == 1 and re.fullmatch(rb"[0-9]{1,9}", said[0])
    return int(said[0]) if counts else None


def framing(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """How long the body is, to be said to the next one. Raises h11.RemoteProtocolError if that is said in two ways."""
    fields = list(fields)
    coded, length = values(fields, b"transfer-encoding"), values(fields, b"content-length")
    if coded and length:
        raise h11.RemoteProtocolError("both Transfer-Encoding and Content-Length", error_status_hint=400)
    if coded:
        return [(b"Transfer-Encoding", b"chunked")]  # h11 takes no other
    return [(b"Content-Length", b"%d" % int(length[0]))] if length else []


class Party:
    """One end of an HTTP connection: a client of ours, or a site. Does not own the socket."""

    def __init__(self, sock: socket.socket, role: type[h11.CLIENT] | type[h11.SERVER]) -> None:
        """`role` is ours."""
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.http = h11.Connection(role, max_incomplete_event_size=HEAD)
        self.heard = False  # something since the last cycle
        self.method = b""  # of the request that is to be answered, even one that is refused
        self._patience = HEAD_TIME  # until the next request begins

    async def next(self, limit: float | None) -> Received:
        """What comes next, when it is whole; `limit` in seconds for each part that arrives.

        Raises h11.RemoteProtocolError, OSError (TimeoutError is one). `ConnectionClosed` is the end in good order.
        """
        loop = asyncio.get_running_loop()
        while True:
            event = self.http.next_event()
            if event is h11.PAUSED:  # h11's own signals are types
                raise h11.RemoteProtocolError("more than was asked for")
            if isinstance(event, h11.Request):
                self.method = event.method
            if not isinstance(event, type):
                return self._checked(cast("Received", event))
            async with asyncio.timeout(limit):
                data = await loop.sock_recv(self.sock, _CHUNK)
            self.heard = self.heard or bool(data)
            self.http.receive_data(data)

    @staticmethod
    def _checked(event: Received) -> Received:
        if isinstance(event, h11.Request | h11.InformationalResponse | h11.Response):
            if len(event.headers) > FIELDS:
                raise h11.RemoteProtocolError("too many fields", error_status_hint=431)
            if any(_CONTROL.search(value) for _, value in event.headers) or _CONTROL.search(getattr(event, "reason", b"")):
                raise h11.RemoteProtocolError("control characters in a head", error_status_hint=400)
            if event.http_version not in _VERSIONS:
                raise h11.RemoteProtocolError("not a version of HTTP that is spoken here", error_status_hint=505)
        return event

    async def request(self) -> h11.Request | None:
        """The next request of a client; None if it has none. Raises as `next`."""
        if not self.http.trailing_data[0]:
            try:
                async with asyncio.timeout(self._patience):
                    await readable(self.sock)
            except TimeoutError:
                return None
        async with asyncio.timeout(HEAD_TIME):
            event = await self.next(None)
        if not isinstance(event, h11.Request):
            return None
        if event.http_version == b"1.0" and values(event.headers, b"transfer-encoding"):
            raise h11.RemoteProtocolError("Transfer-Encoding in HTTP/1.0", error_status_hint=400)
        framing(event.headers)
        return event

    async def send(self, event: h11.Event) -> None:
        """Say something. Raises OSError, and h11.LocalProtocolError for what cannot be said now."""
        await self.write(self.http.send(event) or b"")

    async def write(self, data: bytes) -> None:
        """Send bytes; some of them have to go within the time. Raises OSError."""
        loop, view = asyncio.get_running_loop(), memoryview(data)
        while view:
            async with asyncio.timeout(STALL_TIME):
                await loop.sock_sendall(self.sock, view[:_CHUNK])
            view = view[_CHUNK:]

    async def gone(self) -> None:
        """Wait until the other side has hung up; data that comes stays where it is. Raises Gone."""
        await readable(self.sock)
        with suppress(BlockingIOError):
            if not self.sock.recv(1, socket.MSG_PEEK):
                raise Gone("hung up while it was answered")
        await asyncio.get_running_loop().create_future()  # it has more requests to make, in their time

    async def while_there(self, work: Coroutine[Any, Any, T]) -> T:
        """The outcome of some work, which is given up when the other side hangs up. Raises Gone, and what the work raises."""
        working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(self.gone())
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                leaving.result()
            return await working
        finally:
            await settle(working, leaving)

    @property
    def silent(self) -> bool:
        """Nothing came and nothing ended since, as far as can be told without waiting."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN | select.POLLRDHUP)
        return not poll.poll(0)

    @property
    def may_answer(self) -> bool:
        """Whether a response can begin."""
        return self.http.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    @property
    def done(self) -> bool:
        """Request and response have come to their ends, and there may be more."""
        return self.http.our_state is h11.DONE and self.http.their_state is h11.DONE

    def again(self) -> bool:
        """Whether the connection can take another request and its response; it is ready for it then."""
        if not self.done:
            return False
        self.http.start_next_cycle()
        self.heard = False
        self.method = b""
        self._patience = KEEP_TIME
        return True

    async def skip_body(self) -> None:
        """Read what is left of a request, if it is not much. Raises OSError, h11.RemoteProtocolError."""
        skipped = 0
        async with asyncio.timeout(_LAST):
            while self.http.their_state is h11.SEND_BODY and skipped < _LAST_BYTES:
                event = await self.next(None)
                skipped += len(event.data) if isinstance(event, h11.Data) else 0

    async def farewell(self) -> None:
        """Let what was said last arrive, although the other side may still be sending: a reset would overtake it."""
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(_LAST):
                for _ in range(_LAST_BYTES // _CHUNK):
                    if not await loop.sock_recv(self.sock, _CHUNK):
                        break


async def settle(*tasks: asyncio.Task[Any]) -> None:
    """End what still runs, and leave no outcome unread."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def readable(sock: socket.socket) -> None:
    """Wait until something can be read, or the other side has ended."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def is_ready() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock, is_ready)
    try:
        await ready
    finally:
        loop.remove_reader(sock)
