"""Targets for the HTTP proxy: whatever clients and sites say, what goes on is what was understood, by the strict grammar, and no more.

Theory of operation
-------------------
Both run the proxy's own code over socket pairs, with the other end played here: it says all at once, takes what comes, and hangs up once
nothing moves any more.  So nothing waits for a clock.  What came out is read by `strict_http`, which shares no line with the proxy.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from typing import Any

import h11

from tests.fuzz import strict_http
from tests.fuzz.target import Target as FuzzTarget
from tlspool_core.tools.http_proxy.conversation import Conversation, Office
from tlspool_core.tools.http_proxy.forward import Exchange, outgoing
from tlspool_core.tools.http_proxy.problems import Problem
from tlspool_core.tools.http_proxy.rules import Destination, Pattern, Rules, Target
from tlspool_core.tools.http_proxy.upstream import Upstream
from tlspool_core.tools.http_proxy.wire import Party

SITE = Target("site.example", 443)
DESTINATION = Destination((Pattern.parse("site.example"),))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SWITCH = b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
QUIET = 8  # turns of the loop in which nothing came
HOP_BY_HOP = {b"proxy-authorization", b"proxy-connection", b"keep-alive", b"te", b"trailer"}


class End:
    """One end of a connection, played here; the other end is the proxy's."""

    def __init__(self) -> None:
        self.sock, self.theirs = socket.socketpair()
        for each in (self.sock, self.theirs):
            each.setblocking(False)
        self.heard = b""

    def hear(self) -> bool:
        """Whether something came."""
        before = len(self.heard)
        with suppress(BlockingIOError, ConnectionResetError):
            while data := self.sock.recv(65536):
                self.heard += data
        return len(self.heard) > before

    def say(self, data: bytes) -> None:
        with suppress(OSError):
            self.sock.send(data)  # a socket pair has room for more than a fuzzer says

    def hang_up(self) -> None:
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()
        self.theirs.close()


class Site(End):
    """Answers each request that is complete; holds all of them against the grammar, and against whom it is."""

    def __init__(self, host: str, raw: bool) -> None:
        super().__init__()
        self._host = host.encode()
        self._raw = raw
        self.requests: list[strict_http.Message] = []

    def hear(self) -> bool:
        came = super().hear()
        with suppress(strict_http.Incomplete):
            while self.heard and not self._raw:
                request, self.heard = strict_http.request(self.heard)
                self._check(request)
                self.requests.append(request)
                self._raw = b"websocket" in request.values(b"upgrade")
                self.say(SWITCH if self._raw else OK)
        return came

    def _check(self, request: strict_http.Message) -> None:
        assert request.values(b"host") == [self._host]
        assert len(request.values(b"via")) == 1
        assert request.start[1].startswith(b"/") or request.start[1] == b"*"
        assert request.start[0] not in (b"CONNECT", b"TRACE")
        names = {name.lower() for name, _ in request.fields}
        assert not names & HOP_BY_HOP
        assert request.values(b"connection") == [b"Upgrade"] if request.values(b"upgrade") else b"connection" not in names


class Sites:
    """In place of `Reach`: every site is there."""

    def __init__(self) -> None:
        self.made: list[Site] = []

    async def open(self, target: Target, destination: Destination | None) -> Upstream:
        return Upstream(target, None, self._site(target, destination, raw=False).theirs)

    async def plain(self, target: Target, destination: Destination | None) -> socket.socket:
        return self._site(target, destination, raw=True).theirs

    def _site(self, target: Target, destination: Destination | None, raw: bool) -> Site:
        self.made.append(Site(target.authority(80 if destination is None else 443), raw))
        return self.made[-1]


async def _until_quiet(ends: list[Any], working: asyncio.Task[Any]) -> None:
    quiet = 0
    while quiet < QUIET and not working.done():
        await asyncio.sleep(0)
        quiet = 0 if sum(end.hear() for end in ends) else quiet + 1


async def _play(ends: list[Any], work: Coroutine[Any, Any, Any]) -> BaseException | None:
    """Let both sides talk, then hang up; what the work raised. `ends` may grow meanwhile, its first is the client."""
    working = asyncio.ensure_future(work)
    await _until_quiet(ends, working)
    for end in list(ends):
        end.hang_up()
        await _until_quiet(ends, working)
    for end in ends:
        end.sock.close()
    await asyncio.wait((working,), timeout=30)
    assert working.done(), "it goes on although everybody has gone"
    return working.exception()


def proxy_requests(data: bytes) -> None:
    """First byte: whether a client asks a proxy, or a site within TLS. The rest is what it says."""
    inner = data[0] & 1
    sites, client = Sites(), End()
    office = Office(Rules(passes=True), sites, Target("127.0.0.1", 8118))  # type: ignore[arg-type]
    conversation = Conversation(office, Party(client.theirs, h11.SERVER), (SITE, DESTINATION) if inner else None)
    ends = _Growing(client, sites.made)
    client.say(data[1:])
    try:
        fault = asyncio.run(_play(ends, conversation.run()))  # type: ignore[arg-type]
        if fault is not None and not isinstance(fault, OSError):
            raise fault
        assert not client.heard or client.heard.startswith(b"HTTP/1.1 ")
        if inner:
            assert not sites.made or _is_for_the_site(data[1:])
    finally:
        for end in ends:
            end.close()


def _is_for_the_site(said: bytes) -> bool:
    """Whether the only request is for the site of the certificate, as far as the grammar can tell."""
    try:
        first, more = strict_http.request(said)
    except (strict_http.Bad, strict_http.Incomplete):
        return True
    if more:
        return True
    if not first.start[1].startswith((b"/", b"*")):
        return first.start[1].lower().startswith(b"https://site.example")
    return all(re.fullmatch(rb"(?i)site\.example\.?(:0*443)?", host) for host in first.values(b"host"))


class _Growing:
    """The client, and the sites that are there by now."""

    def __init__(self, client: End, made: list[Site]) -> None:
        self._client = client
        self._made = made

    def __iter__(self) -> Any:
        return iter([self._client, *self._made])


REQUESTS = (
    (b"\0", b"GET http://a.example/x?y HTTP/1.1\r\nHost: b\r\nTE: x\r\nConnection: close, X\r\nX: 1\r\n\r\n"),
    (b"\0", b"POST http://a.example:80/ HTTP/1.1\r\nHost: b\r\nContent-Length: 5\r\n\r\nhelloGET http://a.example/ HTTP/1.1\r\nHost: b\r\n\r\n"),
    (b"\0", b"PUT http://a.example HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nT: x\r\n\r\n"),
    (b"\0", b"CONNECT a.example:443 HTTP/1.1\r\nHost: b\r\n\r\n\x16\x03\x01"),
    (b"\0", b"GET http://a.example/ HTTP/1.1\r\nHost: b\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
    (b"\0", b"OPTIONS http://a.example HTTP/1.0\r\nProxy-Authorization: x\r\nVia: 1.0 c, 1.1 d\r\n\r\n"),
    (b"\0", b"GET /proxy.pac HTTP/1.1\r\nHost: 127.0.0.1:8118\r\n\r\n"),
    (b"\1", b"POST / HTTP/1.1\r\nHost: site.example\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab"),
    (b"\1", b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n"),
    (b"\1", b"GET https://site.example:443/x HTTP/1.1\r\nHost: c\r\n\r\nHEAD / HTTP/1.1\r\nHost: site.example:443\r\n\r\n"),
)  # fmt: skip


def proxy_response(data: bytes) -> None:
    """First byte: what was asked for, and by whom. The rest is what the site says before it hangs up."""
    method, version = (b"GET", b"HEAD")[data[0] & 1], (b"1.1", b"1.0")[data[0] >> 1 & 1]
    client, site = End(), End()
    party = Party(client.theirs, h11.SERVER)
    party.http.receive_data(b"%s / HTTP/%s\r\nHost: a\r\n\r\n" % (method, version))
    request = party.http.next_event()
    assert isinstance(request, h11.Request) and isinstance(party.http.next_event(), h11.EndOfMessage)
    exchange = Exchange(party, Upstream(Target("a", 80), None, site.theirs), outgoing(request, b"/", "a", "v"))
    site.say(data[1:])
    try:
        fault = asyncio.run(_play([site, client], exchange.run()))
        if fault is not None and not isinstance(fault, OSError | Problem):
            raise fault
        _compare(data[1:], client.heard, method, fault)
    finally:
        client.close()
        site.close()


def _compare(said: bytes, heard: bytes, method: bytes, fault: BaseException | None) -> None:
    """What looks whole to the client is whole, and is what the site said."""
    with suppress(strict_http.Incomplete):
        got, rest = _final(heard, method)
        assert not rest, "more than one answer"
        if isinstance(fault, Problem):
            assert got is None, "an answer has begun, so no page can follow"
        if got is None:
            return
        told = got.values(b"content-length") or got.values(b"transfer-encoding")
        assert fault is None or not told or not got.body, "it broke off, and does not show that"
        with suppress(strict_http.Bad):  # the proxy takes more than this grammar does; then there is nothing to compare with
            sent, _ = _final(said, method)
            assert sent is not None and (fault or (got.start[0], got.body) == (sent.start[0], sent.body))


def _final(data: bytes, method: bytes) -> tuple[strict_http.Message | None, bytes]:
    """The final response, behind those that are not, and what follows. Raises Incomplete or Bad."""
    while data:
        message, data = strict_http.response(data, method)
        if int(message.start[0]) >= 200:
            return message, data
    return None, b""


RESPONSES = (
    b"\0HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSet-Cookie: a\r\n\r\nhello",
    b"\0HTTP/1.1 103 Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"\0HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nuntil the end",
    b"\1HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    b"\0HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"\0HTTP/1.1 304 Same\r\nContent-Length: 9\r\nETag: \"x\"\r\n\r\n",
    b"\2HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: X\r\nX: y\r\n\r\nabc",
    b"\2HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    b"\0HTTP/1.1 407 Login\r\nContent-Length: 0\r\n\r\n",
    b"\0HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
)  # fmt: skip


def request_seeds() -> Iterable[bytes]:
    return (kind + text for kind, text in REQUESTS)


TARGETS = (
    FuzzTarget("proxy_requests", proxy_requests, request_seeds, 25),
    FuzzTarget("proxy_response", proxy_response, lambda: RESPONSES, 25),
)
