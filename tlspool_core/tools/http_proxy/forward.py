"""One request to a site and its response back, both bodies at once, with nobody running ahead of the slower one.

Theory of operation
-------------------
Heads are built anew: fields for the hop are left out (RFC 9110 section 7.6.1), Host is the one of the target whatever the client said,
Via is added.  Bodies pass in pieces of what was read last, so a slow reader slows the writer.  A client that waits for 100 (Continue) gets
what the site says.  The request's body and the response go on at the same time; a site may answer before it has heard all.

A response that breaks off must not look like a whole one.  If its head has not gone yet, there is a page instead; after that the
connection to the client ends in the middle of the body, which it notices by length or chunks.  Only a body that ends with the connection
says neither, so the pool is asked whether the site ended it.  And a client of HTTP/1.0 knows no chunks: a TCP connection is reset then, but
what runs inside of TLS, or over a UNIX socket, always seems to end well, so there such a body is not begun.

WebSocket (RFC 6455) is the one protocol that a connection may be upgraded to.
"""

from __future__ import annotations

import asyncio
import socket

import h11

from tlspool_core.tools.http_proxy import problems
from tlspool_core.tools.http_proxy.upstream import Upstream
from tlspool_core.tools.http_proxy.wire import (
    ANSWER_TIME,
    STALL_TIME,
    Fields,
    Gone,
    Party,
    Received,
    end_to_end,
    framing,
    hops_left,
    reason,
    settle,
    values,
)
from tlspool_core.tools.tunnel import relay

_BODILESS = (204, 304)
_NOT_FOR_SITES = frozenset((b"host", b"via"))
_NOT_FOR_CLIENTS = frozenset((b"alt-svc",))  # it would lead around the proxy


class Broken(OSError):
    """A response broke off in the middle."""


class Stale(OSError):
    """A connection that was kept had ended before it took the request."""


def wants_websocket(request: h11.Request) -> bool:
    """Whether this is an opening handshake (RFC 6455 section 4.1)."""
    upgrade, connection = values(request.headers, b"upgrade"), values(request.headers, b"connection")
    return request.method == b"GET" and upgrade == [b"websocket"] and b"upgrade" in connection and not framing(request.headers)


def outgoing(request: h11.Request, path: bytes, host: str, via: str) -> h11.Request:
    """The request as the site gets it."""
    kept = [(name, value) for name, value in end_to_end(request.headers.raw_items()) if name.lower() not in _NOT_FOR_SITES]
    passed = b", ".join(
        (*(value for name, value in request.headers if name == b"via"), f"{request.http_version.decode()} {via}".encode())
    )
    if left := hops_left(request):
        kept = [(name, b"%d" % (left - 1) if name.lower() == b"max-forwards" else value) for name, value in kept]
    fields: Fields = [(b"Host", host.encode()), *kept, (b"Via", passed), *framing(request.headers)]
    if wants_websocket(request):
        fields += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
    return h11.Request(method=request.method, target=path, headers=fields)


class Exchange:
    """One request, which is `outgoing`'s, and its response."""

    def __init__(self, client: Party, upstream: Upstream, request: h11.Request) -> None:
        self._client = client
        self._upstream = upstream
        self._site = upstream.party
        self._request = request
        self._ready = asyncio.Event()  # the request's head has gone to the site
        self._switched = False
        self._answered = False  # the response's head has gone to the client

    async def run(self) -> bool:
        """Whether the client's connection can go on, as far as the site is concerned.

        Raises Problem as long as there is something to say to the client instead, Stale if the request can be made again, else OSError.
        """
        hearing = asyncio.ensure_future(self._hear_client())
        answering = asyncio.ensure_future(self._exchange())
        try:
            await asyncio.wait((hearing, answering), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                hearing.result()
            await answering
        except problems.Problem as problem:
            if self._answered:
                raise Broken(str(problem)) from None
            raise
        finally:
            await settle(hearing, answering)
        if self._switched:
            await self._relay()
        return not self._switched

    # --- to the site

    async def _hear_client(self) -> None:
        """Pass the request's body on, then see whether the client stays. Ends by exception only."""
        await self._ready.wait()
        try:
            while self._client.http.their_state is h11.SEND_BODY:
                event = await self._body()
                await self._site.send(h11.EndOfMessage() if isinstance(event, h11.EndOfMessage) else event)
            if self._site.http.our_state is h11.SEND_BODY:  # the second attempt at a request that was heard to its end
                await self._site.send(h11.EndOfMessage())
        except (ConnectionError, TimeoutError, h11.LocalProtocolError):
            pass  # the site has heard enough; what it has to say about that is on its way
        await self._client.gone()

    async def _body(self) -> Received:
        """The next piece of the request's body. Raises Problem or Gone."""
        try:
            event = await self._client.next(STALL_TIME)
        except h11.RemoteProtocolError as fault:
            raise problems.malformed(reason(fault), fault.error_status_hint) from None
        except TimeoutError:
            raise problems.malformed("its body did not come in time", 408) from None
        except OSError as fault:
            raise Gone(str(fault)) from None
        if isinstance(event, h11.ConnectionClosed):
            raise Gone("hung up in the middle of a request")
        return event

    # --- to the client

    async def _exchange(self) -> None:
        try:
            await self._site.send(self._request)
            self._ready.set()
            await self._answer()
        except h11.RemoteProtocolError as fault:
            self._fail(reason(fault))
        except TimeoutError:
            if not self._answered:
                raise problems.silent(self._upstream.target) from None
            raise
        except ConnectionError as fault:
            self._fail(fault.strerror or str(fault))

    def _fail(self, reason: str) -> None:
        """Raises what fits the moment."""
        if self._answered:
            raise Broken(f"{self._upstream.target}: {reason}")
        again = self._request.method in (b"GET", b"HEAD", b"OPTIONS") and not framing(self._request.headers)
        if again and self._upstream.reused and not self._site.heard:
            raise Stale(reason)
        raise problems.no_answer(self._upstream.target, reason[:1].upper() + reason[1:])

    async def _answer(self) -> None:
        head = await self._head()
        if head is None:
            return
        response = self._response(head)
        if self._has_body(head) and not self._end_shows(head):
            raise problems.malformed("a client of HTTP/1.0 could not tell the end of the answer from its loss", 505)
        self._answered = True
        await self._client.send(response)
        while isinstance(event := await self._site.next(None), h11.Data):
            await self._client.send(h11.Data(data=event.data))
        if not isinstance(event, h11.EndOfMessage):
            self._fail("ended in the middle of a response")
        if self._has_body(head) and not framing(head.headers) and not await self._upstream.ended_well():
            self._fail("was cut off")
        await self._client.send(h11.EndOfMessage())

    async def _head(self) -> h11.Response | None:
        """The final response; None if the site speaks another protocol now."""
        while True:
            event = await self._site.next(ANSWER_TIME)
            if isinstance(event, h11.Response):
                if event.status_code == 407:
                    self._fail("took itself for a proxy")  # the client would take it for a word of ours
                return event
            if not isinstance(event, h11.InformationalResponse):
                self._fail("ended the connection in place of an answer")
            elif event.status_code == 101:
                self._answered = self._switched = True
                switch = [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
                await self._client.send(h11.InformationalResponse(status_code=101, headers=[*end_to_end(event.headers), *switch]))
                return None
            elif self._client.http.their_http_version == b"1.1":
                await self._client.send(
                    h11.InformationalResponse(status_code=event.status_code, headers=end_to_end(event.headers), reason=event.reason)
                )

    @staticmethod
    def _response(head: h11.Response) -> h11.Response:
        """The response's head as the client gets it; h11 adds how its body ends if the site does not say."""
        kept = [(name, value) for name, value in end_to_end(head.headers.raw_items()) if name.lower() not in _NOT_FOR_CLIENTS]
        length = framing(head.headers) if head.status_code != 204 else []  # RFC 9112 section 6
        return h11.Response(status_code=head.status_code, headers=[*kept, *length], reason=head.reason)

    def _has_body(self, head: h11.Response) -> bool:
        return self._request.method != b"HEAD" and head.status_code not in _BODILESS

    def _end_shows(self, head: h11.Response) -> bool:
        """Whether the client notices if a body breaks off."""
        measured = any(name == b"Content-Length" for name, _ in framing(head.headers))
        return measured or self._client.http.their_http_version != b"1.0" or self._client.sock.family != socket.AF_UNIX

    async def _relay(self) -> None:
        """Bytes both ways, after an upgrade."""
        await self._client.write(self._site.http.trailing_data[0])
        await self._site.write(self._client.http.trailing_data[0])
        await relay(self._client.sock, self._site.sock)
