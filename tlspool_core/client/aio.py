"""The asynchronous client, on anyio: the same names as the blocking one, to be awaited.

    session = await starttls_client(sock, remoteid="www.example.com", service="http")
    stream = await session.stream()

Theory of operation
-------------------
What differs from the blocking client is how to wait; requests, answers and facts are made and read by the same modules.  The
functions of this module use one `Pool` per path and event loop, which lives as long as the loop.
"""

from __future__ import annotations

import inspect
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self, Unpack

import anyio
import anyio.abc
import anyio.lowlevel

from tlspool_core.client import facts, options
from tlspool_core.client.aio_link import Link, Talk, patience
from tlspool_core.client.errors import PoolVanished, Refused
from tlspool_core.client.established import Established
from tlspool_core.client.reach import Backoff, attempt, plaintext_ends
from tlspool_core.wire.errors import ErrorCode
from tlspool_core.wire.flags import InfoKind, StartTlsFlags
from tlspool_core.wire.messages import (
    AccountingStart,
    ControlDetach,
    ControlReattach,
    Info,
    Ping,
    PlaintextConnect,
    StartTls,
    StartTlsData,
    StartTlsLocalid,
)

AsyncLocalidHook = Callable[[StartTlsLocalid], str | Awaitable[str | None] | None]


class AsyncWishes(options.Wishes, total=False):
    """What a caller may wish for. `localid_hook` may approve or change the local identity, or refuse with None; it may be async."""

    localid_hook: AsyncLocalidHook | None


class Control:
    """What the control key of a session allows; see `session.Control`."""

    def __init__(self, link: Link, ctlkey: bytes) -> None:
        self._link = link
        self.ctlkey = ctlkey

    async def export(self, label: str | bytes, context: bytes | None = None, length: int = 32) -> bytes:
        """Keying material of the session (RFC 5705, RFC 8446 section 7.5): 1 to 350 bytes for an IANA or EXPERIMENTAL label."""
        return facts.output(await self._link.ask(facts.prng(self.ctlkey, label, context, length)), length)

    async def info(self, kind: InfoKind | int) -> bytes | None:
        """One fact, or None if the session has none of that kind."""
        try:
            return facts.value(await self._link.ask(Info(self.ctlkey, kind)))
        except Refused as refusal:
            if refusal.code == ErrorCode.INFO_NOT_FOUND:
                return None
            raise

    async def check(self, kind: InfoKind | int, value: bytes) -> bool:
        """Whether a fact has this value (for alternative names: whether it is among them)."""
        try:
            await self._link.ask(Info(self.ctlkey, kind, value))
        except Refused as refusal:
            if refusal.code == ErrorCode.INFO_NOT_FOUND:
                return False
            raise
        return True

    async def text(self, kind: InfoKind | int) -> str | None:
        """One fact that is text."""
        fact = await self.info(kind)
        return None if fact is None else fact.decode("utf-8")

    async def channel_binding(self, name: str = "tls-exporter") -> bytes | None:
        """A channel binding by its IANA name, or None if the session has no such binding."""
        return await self.info(facts.binding_kind(name))

    async def alpn(self) -> str | None:
        """The application protocol that was agreed (RFC 7301)."""
        return await self.text(InfoKind.ALPN)

    async def version(self) -> str | None:
        """The protocol version, as "TLSv1.3"."""
        return await self.text(InfoKind.VERSION)

    async def cipher(self) -> str | None:
        """The cipher suite by its IANA name."""
        return await self.text(InfoKind.CIPHER_SUITE)

    async def detach(self, name: str = "") -> None:
        """Give up control; whoever has the control key may reattach."""
        await self._link.ask(ControlDetach(ctlkey=self.ctlkey, name=name))

    async def reattach(self, name: str = "") -> None:
        """Take control of a detached session."""
        await self._link.ask(ControlReattach(ctlkey=self.ctlkey, name=name))

    async def account(
        self, kind: str, instance: str, localid: str, remoteid: str, *, started: float | None = None, count: int | None = None
    ) -> Account:
        """Begin to account something to the identities of this session; the pool checks that they are."""
        start = AccountingStart(self.ctlkey, kind, instance, localid, remoteid, facts.microseconds(started), None, count)
        taken = facts.stamped(await self._link.ask(start))
        return Account(self._link, replace(start, started=taken.started))


@dataclass(slots=True)
class Account:
    """Something that is being accounted. The pool has taken over each report for which no exception was raised."""

    _link: Link = field(repr=False)
    record: AccountingStart

    async def interim(self, count: int | None = None) -> None:
        """Report the count so far."""
        await self._link.ask(self.record.interim(count))

    async def stop(self, count: int | None = None, *, ended: float | None = None, cause: int = 0) -> None:
        """Report the end: final count, moment (default: now), Acct-Terminate-Cause of RFC 2866 section 5.10."""
        await self._link.ask(self.record.stop(count, facts.microseconds(ended), cause))


class Session(Control, Established):
    """A session that this event loop set up. Use it in an `async with`, or close it."""

    def __init__(self, link: Link, answer: StartTlsData, plaintext: socket.socket | None) -> None:
        Control.__init__(self, link, answer.ctlkey)
        Established.__init__(self, answer, plaintext)

    async def stream(self) -> anyio.abc.SocketStream:
        """The plaintext connection as a byte stream of anyio, for the caller to own."""
        return await anyio.abc.SocketStream.from_socket(self.take())

    async def renegotiate(
        self, *, flags: StartTlsFlags = StartTlsFlags.NONE, remoteid: str = "", timeout: float | None = None
    ) -> None:
        """Ask for the peer's identity anew within the session; `localid` and `remoteid` are up to date afterwards."""
        again = self._again(flags, remoteid, timeout)
        answer = await self._link.ask(again.request, again.patience)
        if not isinstance(answer, StartTls):
            raise facts.unexpected(answer)
        self._answer = answer

    async def account_this(self, kind: str, instance: str, *, started: float | None = None, count: int | None = None) -> Account:
        """Begin to account something to the two identities of this session."""
        return await self.account(kind, instance, self.localid, self.remoteid, started=started, count=count)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Pool:
    """The application's relation to one daemon, in one event loop; see `blocking.Pool`."""

    def __init__(self, path: str | os.PathLike[str] | None = None, *, patience: float | None = None) -> None:
        """`patience`: seconds to go on trying to connect; None: fail at once the first time, wait a little for a restart later."""
        self._path = path
        self._patience = patience
        self._link: Link | None = None
        self._seen = False
        self._connecting = anyio.Lock()

    async def starttls_client(self, sock: socket.socket, **wishes: Unpack[AsyncWishes]) -> Session:
        """Be the TLS client on `sock`, which is the pool's from now on; see `blocking.Pool.starttls_client`. Raises PoolError."""
        return await self._starttls(options.CLIENT, sock, wishes)

    async def starttls_server(self, sock: socket.socket, **wishes: Unpack[AsyncWishes]) -> Session:
        """Be the TLS server on `sock`, which is the pool's from now on; see `blocking.Pool.starttls_server`. Raises PoolError."""
        return await self._starttls(options.SERVER, sock, wishes)

    async def starttls_peer(self, sock: socket.socket, **wishes: Unpack[AsyncWishes]) -> Session:
        """Be client or server on `sock`, as the two sides find out.  Raises PoolError."""
        return await self._starttls(options.PEER, sock, wishes)

    async def _starttls(self, roles: StartTlsFlags, sock: socket.socket, wishes: AsyncWishes) -> Session:
        hook = wishes.get("localid_hook")
        with sock, ExitStack() as undo:
            limit = options.limits(wishes.get("timeout"))
            asked = options.request(roles, sock, wishes, check=hook is not None)
            ours, theirs = plaintext_ends(wishes.get("plaintext"), asked.ipproto, undo)
            with patience(limit.patience), await self._begin(asked, sock.fileno()) as talk:
                sock.close()  # the pool has it; kept here, the connection would never end
                answer = await _converse(talk, asked, theirs, hook)
            undo.pop_all()
        if ours is not None:
            theirs.close()
        return Session(talk.link, answer, ours)

    async def _begin(self, asked: StartTls, descriptor: int) -> Talk:
        """Send the request; once more over a new connection if the old one turns out to be broken before anything went."""
        try:
            return await (await self.link()).begin(asked, descriptor)
        except PoolVanished:
            return await (await self.link()).begin(asked, descriptor)

    async def ping(self) -> Ping:
        """Who the pool is and which facilities it has."""
        try:
            answer = await (await self.link()).ask(Ping())
        except PoolVanished:
            answer = await (await self.link()).ask(Ping())
        if not isinstance(answer, Ping):
            raise facts.unexpected(answer)
        return answer

    async def control(self, ctlkey: bytes) -> Control:
        """The session with this control key; `reattach()` it first if another process set it up."""
        return Control(await self.link(), ctlkey)

    async def link(self) -> Link:
        """The live connection. Raises PoolUnreachable."""
        async with self._connecting:
            if self._link is None or not self._link.alive:
                self.close()
                limit = self._patience if self._patience is not None else options.RECONNECT_TIME * self._seen
                self._link = Link(await _connect(self._path, limit))
                self._seen = True
            return self._link

    def close(self) -> None:
        """Break the connection."""
        if self._link is not None:
            self._link.close()
            self._link = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


async def _converse(talk: Talk, asked: StartTls, theirs: socket.socket, hook: AsyncLocalidHook | None) -> StartTls:
    """Answer callbacks until the answer comes."""
    while True:
        packet = await talk.next()
        message = packet.message
        match message:
            case StartTlsLocalid() if packet.cbid and hook is not None:
                try:
                    decision = hook(message)
                    identity = await decision if inspect.isawaitable(decision) else decision
                except Exception:
                    await talk.reply(packet, options.localid_answer(message, None))
                    raise
                await talk.reply(packet, options.localid_answer(message, identity))
            case PlaintextConnect() if packet.cbid:
                options.confirm(asked, message)
                await talk.reply(packet, message.echo(), theirs.fileno())
            case StartTls() if not packet.cbid:
                options.confirm(asked, message)
                return message
            case _:
                raise facts.unexpected(message)


async def _connect(path: str | os.PathLike[str] | None, limit: float) -> socket.socket:
    """A connected socket; tries again with growing pauses for `limit` seconds. Raises PoolUnreachable."""
    backoff = Backoff(limit)
    while True:
        outcome = attempt(path)
        if isinstance(outcome, socket.socket):
            return outcome
        await anyio.sleep(backoff.after(outcome))


# --- one pool per path for the event loop --------------------------------------------------------------------------------------

_shared: anyio.lowlevel.RunVar[dict[str, Pool]] = anyio.lowlevel.RunVar("tlspool_shared")


def shared(path: str | os.PathLike[str] | None = None) -> Pool:
    """The event loop's own `Pool` for a path."""
    pools = _shared.get(None)
    if pools is None:
        _shared.set(pools := {})
    key = os.fspath(path) if path is not None else ""
    if key not in pools:
        pools[key] = Pool(path)
    return pools[key]


async def starttls_client(
    sock: socket.socket, *, path: str | os.PathLike[str] | None = None, **wishes: Unpack[AsyncWishes]
) -> Session:
    """`Pool.starttls_client` over the event loop's own connection to the pool."""
    return await shared(path).starttls_client(sock, **wishes)


async def starttls_server(
    sock: socket.socket, *, path: str | os.PathLike[str] | None = None, **wishes: Unpack[AsyncWishes]
) -> Session:
    """`Pool.starttls_server` over the event loop's own connection to the pool."""
    return await shared(path).starttls_server(sock, **wishes)


async def starttls_peer(
    sock: socket.socket, *, path: str | os.PathLike[str] | None = None, **wishes: Unpack[AsyncWishes]
) -> Session:
    """`Pool.starttls_peer` over the event loop's own connection to the pool."""
    return await shared(path).starttls_peer(sock, **wishes)


async def ping(*, path: str | os.PathLike[str] | None = None) -> Ping:
    """Who the pool is and which facilities it has. Raises PoolUnreachable if there is none."""
    return await shared(path).ping()


async def reattach(ctlkey: bytes, *, path: str | os.PathLike[str] | None = None, name: str = "") -> Control:
    """Take control of a session that another process set up and detached."""
    control = await shared(path).control(ctlkey)
    await control.reattach(name)
    return control
