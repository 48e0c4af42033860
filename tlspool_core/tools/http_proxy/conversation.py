"""The requests of one client, one after the other; and what becomes of each.

Theory of operation
-------------------
On the connection that a client opened, a request is CONNECT, or has an absolute URL, or is about the proxy itself.  After a CONNECT to
a configured destination TLS begins on that connection, and a second conversation is held inside of it, with the browser's own requests
for one site; whatever names another site there is refused (421), as it would get a credential that is not for it.

Each request is answered by the site, or by a page.  A client whose request was not read to its end gets the answer and is
let go, since what follows cannot be told from the rest of the body.

A client that has gone is noticed while a connection to a site is made, too: otherwise those who come and go would use up all connections.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import socket
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import h11

from tlspool_core.client import PoolError, StartTlsFlags, aio
from tlspool_core.tools import whose
from tlspool_core.tools.endpoints import log
from tlspool_core.tools.http_proxy import pages, problems
from tlspool_core.tools.http_proxy.forward import Broken, Exchange, Stale, outgoing
from tlspool_core.tools.http_proxy.rules import HTTP, HTTPS, BadTarget, Destination, Rules, Target
from tlspool_core.tools.http_proxy.upstream import Reach, Upstream
from tlspool_core.tools.http_proxy.wire import GUESS_TIME, Gone, Party, framing, hops_left, reason, values
from tlspool_core.tools.tunnel import relay

_ONTHEFLY = StartTlsFlags.LOCALID_ONTHEFLY | StartTlsFlags.IGNORE_REMOTEID | StartTlsFlags.KEY_BOUND
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Office:
    """What all conversations of a proxy share. `login`: what clients must say in Basic authentication, empty if nothing.

    `ourselves` is where browsers reach the proxy, `authority` the certificate (PEM) under which the pool makes those for the browser.
    `users` are those of this machine who may connect beside our own and root; None is everybody.
    """

    rules: Rules
    reach: Reach
    ourselves: Target
    login: bytes = b""
    authority: bytes = b""
    pool: Path | None = None
    users: Collection[int] | None = None
    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(16), repr=False)

    def via(self, target: Target) -> str:
        """Our name for a site: always the same one, so that a loop is noticed, and another for each, so that they cannot compare."""
        return f"tlspool-{hmac.digest(self._secret, str(target).encode(), 'sha256')[:4].hex()}"


@dataclass(frozen=True, slots=True)
class Errand:
    """Where a request goes, and what it asks for there. `secure`: as the client sees it."""

    target: Target
    destination: Destination | None
    path: bytes
    secure: bool

    @property
    def host(self) -> str:
        return self.target.authority(HTTPS if self.secure or self.destination is not None else HTTP)


class Conversation:
    """With one client, over a connection that is ours to talk on but not to close."""

    def __init__(self, office: Office, client: Party, within: tuple[Target, Destination] | None = None) -> None:
        """`within`: the site that the client believes to talk to."""
        self._office = office
        self._client = client
        self._within = within
        self._upstream: Upstream | None = None

    async def run(self) -> None:
        """Until the client has no more requests, or cannot be told anything any more. Raises OSError."""
        try:
            while await self._one():
                pass
        finally:
            self._leave_site()

    async def turn_away(self, problem: problems.Problem) -> None:
        """Have nothing of a client but tell it why; it holds its place no longer than that takes. Raises OSError."""
        log.info("proxy: %s", problem)
        await self._say(pages.of_problem(problem, None))

    async def _one(self) -> bool:
        """Serve a request; whether there may be another."""
        request = None
        try:
            request = await self._client.request()
            if request is None:
                return False
            goes_on = await self._serve(request)
        except h11.RemoteProtocolError as fault:
            goes_on = await self._tell(problems.malformed(reason(fault), fault.error_status_hint), None)
        except TimeoutError:
            goes_on = await self._tell(problems.malformed("it did not come in time", 408), None)
        except problems.Problem as problem:
            goes_on = await self._tell(problem, request)
        return goes_on and self._client.again()

    async def _serve(self, request: h11.Request) -> bool:
        if request.method == b"TRACE":
            raise problems.malformed("it would show your credentials to whoever asks for them", 405)
        if self._within is not None:
            return await self._forward(request, self._inner_errand(request, *self._within))
        if request.target.startswith(b"/"):
            return await self._show(self._own_page(request))
        await self._check_login(request)
        if request.method == b"CONNECT":
            await self._connect(request)
            return False
        return await self._forward(request, self._errand(request))

    async def _tell(self, problem: problems.Problem, request: h11.Request | None) -> bool:
        log.info("proxy: %s", problem)
        return await self._show(pages.of_problem(problem, request))

    async def _show(self, page: pages.Page) -> bool:
        """A response of our own; whether the connection can go on after it."""
        if not self._client.may_answer:
            raise Broken("there is more to say than can be said")
        with suppress(h11.RemoteProtocolError, TimeoutError):
            if self._client.http.their_state is h11.SEND_BODY and not self._client.http.they_are_waiting_for_100_continue:
                await self._client.skip_body()
        await self._say(page)
        if self._client.done:
            return True
        await self._client.farewell()
        return False

    async def _say(self, page: pages.Page) -> None:
        await self._client.send(page.response())
        if self._client.method != b"HEAD":
            await self._client.send(h11.Data(data=page.body))
        await self._client.send(h11.EndOfMessage())

    # --- who is meant

    def _errand(self, request: h11.Request) -> Errand:
        """An absolute URL (RFC 9112 section 3.2.2). Raises Problem."""
        scheme, mark, rest = request.target.decode("ascii").partition("://")
        scheme = scheme.lower()
        if not mark or scheme not in ("http", "https"):
            raise problems.malformed("it is for an absolute URL with http or https, or CONNECT")
        target, path = _split(rest, HTTPS if scheme == "https" else HTTP)
        if path == b"/" and rest[-1:] != "/" and request.method == b"OPTIONS":
            path = b"*"  # RFC 9112 section 3.2.4
        secured = Target(target.host, HTTPS) if scheme == "http" and target.port == HTTP else target
        destination = self._destination(secured)
        if destination is not None:
            return Errand(secured, destination, path, secure=False)
        if scheme == "https":
            raise problems.malformed("URLs with https are for configured destinations; for others a client uses CONNECT", 501)
        self._check_passable(target)
        return Errand(target, None, path, secure=False)

    def _inner_errand(self, request: h11.Request, target: Target, destination: Destination) -> Errand:
        """A request inside of TLS, for the site that the certificate names. Raises Problem."""
        path = request.target
        if request.method == b"CONNECT":
            raise problems.malformed("there is no proxy in here", 405)
        if path.startswith(b"/") or (path == b"*" and request.method == b"OPTIONS"):
            named = _host_field(request, HTTPS)
        else:
            scheme, mark, rest = path.decode("ascii").partition("://")
            if not mark or scheme.lower() != "https":
                raise problems.malformed("what it asks for is not a path")
            named, path = _split(rest, HTTPS)
        if named != target:
            raise problems.malformed(f"it is for another site than {target}", 421)
        return Errand(target, destination, path, secure=True)

    def _destination(self, target: Target) -> Destination | None:
        """The destination that is configured for a target, if there is one. Raises Problem if it cannot be had."""
        found = self._office.rules.destination(target)
        if found is not None and target.unproven:
            raise problems.unproven(target, target.unproven)
        return found

    def _check_passable(self, target: Target) -> None:
        """Raises Problem."""
        if not self._office.rules.passes:
            raise problems.refused(target, "It is not among the configured destinations.")
        if target.port not in self._office.rules.ports:
            raise problems.refused(target, f"Port {target.port} is not among those of other sites (pass_ports).")

    async def _check_login(self, request: h11.Request) -> None:
        """Raises Problem, after a pause if it was wrong: guessing takes its time."""
        if not self._office.login:
            return
        said = b"".join(value for name, value in request.headers if name == b"proxy-authorization")
        scheme, _, word = said.partition(b" ")
        if scheme.lower() != b"basic" or not hmac.compare_digest(word.strip(), self._office.login):
            if said:
                await asyncio.sleep(GUESS_TIME)
            raise problems.Problem(
                407, "http_request_denied", "This proxy wants to know who you are.", "Give its user name and password."
            )

    # --- what happens

    async def _forward(self, request: h11.Request, errand: Errand) -> bool:
        """Have the site answer. Raises Problem, OSError."""
        if hops_left(request) == 0:
            return await self._show(pages.Page(200, "text/plain; charset=utf-8", b""))  # we are whom it was meant for
        via = self._office.via(errand.target)
        if any(value.split()[-1:] == [via.encode()] for value in values(request.headers, b"via")):
            raise problems.loop(errand.target)
        sent = outgoing(request, errand.path, errand.host, via)
        for _ in range(2):
            upstream = await self._site(errand)
            try:
                goes_on = await Exchange(self._client, upstream, sent).run()
            except Stale:
                self._leave_site()
                continue
            except BaseException:
                self._leave_site()
                raise
            if not upstream.again():
                self._leave_site()
            if goes_on and not self._client.done:
                await self._client.farewell()
            return goes_on
        raise problems.no_answer(errand.target, "It ended the connection twice")

    async def _site(self, errand: Errand) -> Upstream:
        """The connection that was kept, or a new one. Raises Problem."""
        if self._upstream is not None and not self._upstream.usable_for(errand.target):
            self._leave_site()
        if self._upstream is None:
            self._upstream = await self._client.while_there(self._office.reach.open(errand.target, errand.destination))
        return self._upstream

    def _leave_site(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.close()

    async def _connect(self, request: h11.Request) -> None:
        """CONNECT (RFC 9110 section 9.3.6). Raises Problem, OSError."""
        if framing(request.headers):
            raise problems.malformed("CONNECT has no body")
        try:
            target = Target.parse(request.target.decode("ascii"))
        except BadTarget as fault:
            raise problems.malformed(f"its target is {fault}") from None
        destination = self._destination(target)
        early = self._client.http.trailing_data[0]
        if destination is not None:
            if early:
                raise problems.malformed("the client went on before it was answered")
            await self._intercept(target, destination)
            return
        self._check_passable(target)
        with await self._client.while_there(self._office.reach.plain(target, None)) as site:
            await self._client.write(_ESTABLISHED)
            if early:
                await Party(site, h11.CLIENT).write(early)
            await relay(self._client.sock, site)

    async def _intercept(self, target: Target, destination: Destination) -> None:
        """Be the site towards the browser, and hear what it wants there."""
        await self._client.write(_ESTABLISHED)
        sock = self._client.sock
        try:
            session = await aio.starttls_server(sock, path=self._office.pool, localid=target.host, service="https", flags=_ONTHEFLY)
        except PoolError as error:
            log.warning("proxy: no certificate for %s, or the browser does not trust it: %s", target, error)
            return
        async with session:
            session.plaintext.setblocking(False)
            await Conversation(self._office, Party(session.plaintext, h11.SERVER), (target, destination)).run()

    # --- about ourselves

    def _own_page(self, request: h11.Request) -> pages.Page:
        """Raises Problem. Names that lead here by tricks of the DNS get nothing (rebinding)."""
        office = self._office
        target, ours = _host_field(request, HTTP), office.ourselves
        if target.port != ours.port or not (target.host in ("localhost", ours.host) or target.is_address):
            raise problems.malformed(f"this proxy is not {target}", 421)
        if request.method not in (b"GET", b"HEAD"):
            raise problems.malformed("the proxy's own pages are to be read", 405)
        path = request.target.partition(b"?")[0]
        if path == b"/proxy.pac":
            return pages.pac([one for each in office.rules.destinations for one in each.patterns], target)
        if path == b"/authority.crt" and office.authority:
            return pages.Page(200, "application/x-x509-ca-cert", office.authority)
        if path == b"/":
            return pages.about(target, bool(office.authority))
        raise problems.malformed("there is no such page here", 404)


def _split(rest: str, port: int) -> tuple[Target, bytes]:
    """What stands behind `://`: the target, and path with query. Raises Problem."""
    end = next((at for at, letter in enumerate(rest) if letter in "/?#"), len(rest))
    authority, path = rest[:end], rest[end:].partition("#")[0]
    return _host(authority, port), (path if path.startswith("/") else f"/{path}").encode()


def _host(text: str, port: int) -> Target:
    """Raises Problem."""
    try:
        return Target.parse(text, port)
    except BadTarget as fault:
        raise problems.malformed(f"its host is {fault}") from None


def _host_field(request: h11.Request, port: int) -> Target:
    """What the one field Host says; h11 takes no two. Raises Problem."""
    return _host(b"".join(value for name, value in request.headers if name == b"host").decode("ascii", "replace"), port)


async def serve(office: Office, sock: socket.socket) -> None:
    """One connection of a client, to its end."""
    try:
        conversation = Conversation(office, Party(sock, h11.SERVER))
        if office.users is not None and (why := whose.refusal(sock, office.users)):
            await conversation.turn_away(problems.stranger(f"The connection is refused: {why}."))
        else:
            await conversation.run()
    except (Gone, Broken, ConnectionError, TimeoutError) as fault:
        log.info("proxy: a connection ended: %s", fault or type(fault).__name__)
        reset(sock)


def reset(sock: socket.socket) -> None:
    """Have a client see that something broke off, where it cannot tell by what it has read."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
