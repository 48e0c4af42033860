"""The blocking client: `starttls_client` and `starttls_server` for programs with sockets and threads.

Theory of operation
-------------------
A `Pool` is the application's relation to the daemon: one connection, made when first needed, shared by threads, and made anew with
growing pauses when the daemon was restarted.  The functions of this module use one `Pool` per path for the whole process; it lives
as long as the process, because sessions end with the connection that set them up.

The socket that is handed over belongs to the pool from then on, whatever comes of it: our descriptor for it is closed, as the
original library does, or else the peer would never see the end of the connection.
"""

from __future__ import annotations

import atexit
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self, Unpack

from tlspool_core.client import options
from tlspool_core.client.errors import PoolUnreachable, PoolVanished
from tlspool_core.client.facts import unexpected
from tlspool_core.client.link import Deadline, Link, Talk
from tlspool_core.client.reach import Backoff, attempt, plaintext_ends
from tlspool_core.client.session import Control, Session
from tlspool_core.wire.flags import StartTlsFlags
from tlspool_core.wire.messages import Message, Packet, Ping, PlaintextConnect, StartTls, StartTlsLocalid

LocalidHook = Callable[[StartTlsLocalid], str | None]


class BlockingWishes(options.Wishes, total=False):
    """What a caller may wish for. `localid_hook` may approve or change the local identity, or refuse with None."""

    localid_hook: LocalidHook | None


class Pool:
    """The application's relation to one daemon. Closing it ends the sessions that were set up without FORK."""

    def __init__(self, path: str | os.PathLike[str] | None = None, *, patience: float | None = None) -> None:
        """`patience`: seconds to go on trying to connect; None: fail at once the first time, wait a little for a restart later."""
        self._path = path
        self._patience = patience
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._seen = False
        _pools.add(self)

    # --- sessions ----------------------------------------------------------------------------------------------------------------

    def starttls_client(self, sock: socket.socket, **wishes: Unpack[BlockingWishes]) -> Session:
        """Be the TLS client on `sock`, which is the pool's from now on.

        Give `remoteid`, whom to reach: the pool refuses a server that does not prove it.  `localid` is who to be, empty for what
        the disclosure database says.  All that can be wished for is described at `options.Wishes`.  Raises PoolError.
        """
        return self._starttls(options.CLIENT, sock, wishes)

    def starttls_server(self, sock: socket.socket, **wishes: Unpack[BlockingWishes]) -> Session:
        """Be the TLS server on `sock`, which is the pool's from now on.

        `localid` is the name that we serve, empty for the one that the client asks for.  Unless the flags say REQUEST_REMOTEID or
        IGNORE_REMOTEID, a client that shows no identity is refused.  Raises PoolError.
        """
        return self._starttls(options.SERVER, sock, wishes)

    def starttls_peer(self, sock: socket.socket, **wishes: Unpack[BlockingWishes]) -> Session:
        """Be client or server on `sock`, as the two sides find out.  Raises PoolError."""
        return self._starttls(options.PEER, sock, wishes)

    def _starttls(self, roles: StartTlsFlags, sock: socket.socket, wishes: BlockingWishes) -> Session:
        hook = wishes.get("localid_hook")
        with sock, ExitStack() as undo:
            limit = options.limits(wishes.get("timeout"))
            asked = options.request(roles, sock, wishes, check=hook is not None)
            ours, theirs = plaintext_ends(wishes.get("plaintext"), asked.ipproto, undo)
            with self._begin(asked, sock.fileno()) as talk:
                sock.close()  # the pool has it; kept here, the connection would never end
                answer = _converse(talk, asked, theirs, hook, Deadline(limit.patience))
            undo.pop_all()
        if ours is not None:
            theirs.close()
        return Session(talk.link, answer, ours)

    # --- everything else ---------------------------------------------------------------------------------------------------------

    def ping(self) -> Ping:
        """Who the pool is and which facilities it has."""
        answer = self.ask(Ping())
        if not isinstance(answer, Ping):
            raise unexpected(answer)
        return answer

    def control(self, ctlkey: bytes) -> Control:
        """The session with this control key; `reattach()` it first if another process set it up."""
        return Control(self.link(), ctlkey)

    def ask(self, message: Message, timeout: float | None = options.ANSWER_TIME) -> Message:
        """One request that may be repeated, one answer; a pool that was restarted meanwhile is asked again."""
        try:
            return self.link().ask(message, timeout)
        except PoolVanished:
            return self.link().ask(message, timeout)

    def link(self) -> Link:
        """The live connection. Raises PoolUnreachable."""
        with self._lock:
            if self._link is None or not self._link.alive:
                if self._link is not None:
                    self._link.close()
                patience = self._patience if self._patience is not None else options.RECONNECT_TIME * self._seen
                self._link = Link(connect(self._path, patience))
                self._seen = True
            return self._link

    def close(self) -> None:
        """Break the connection."""
        with self._lock:
            if self._link is not None:
                self._link.close()
                self._link = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _begin(self, asked: StartTls, descriptor: int) -> Talk:
        """Send the request; once more over a new connection if the old one turns out to be broken before anything went."""
        try:
            return self.link().begin(asked, descriptor)
        except PoolVanished:
            return self.link().begin(asked, descriptor)

    def _forked(self) -> None:
        self._lock = threading.Lock()
        if self._link is not None:
            self._link.forsake()
            self._link = None


def _converse(talk: Talk, asked: StartTls, theirs: socket.socket, hook: LocalidHook | None, deadline: Deadline) -> StartTls:
    """Answer callbacks until the answer comes."""
    while True:
        packet = talk.next(deadline)
        message = packet.message
        match message:
            case StartTlsLocalid() if packet.cbid and hook is not None:
                talk.reply(packet, options.localid_answer(message, _decide(talk, packet, hook, message)))
            case PlaintextConnect() if packet.cbid:
                options.confirm(asked, message)
                talk.reply(packet, message.echo(), theirs.fileno())
            case StartTls() if not packet.cbid:
                options.confirm(asked, message)
                return message
            case _:
                raise unexpected(message)


def _decide(talk: Talk, packet: Packet, hook: LocalidHook, proposal: StartTlsLocalid) -> str | None:
    """Ask the application's hook; if it fails, the identity is refused, and the failure goes on to the caller."""
    try:
        return hook(proposal)
    except BaseException:
        talk.reply(packet, options.localid_answer(proposal, None))
        raise


# --- connecting ----------------------------------------------------------------------------------------------------------------


def connect(path: str | os.PathLike[str] | None, patience: float) -> socket.socket:
    """A connected socket; tries again with growing pauses for `patience` seconds. Raises PoolUnreachable."""
    backoff = Backoff(patience)
    while isinstance(outcome := attempt(path), PoolUnreachable):
        time.sleep(backoff.after(outcome))
    return outcome


# --- one pool per path for the process -----------------------------------------------------------------------------------------

_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_shared: dict[str, Pool] = {}
_shared_lock = threading.Lock()


def shared(path: str | os.PathLike[str] | None = None) -> Pool:
    """The process's own `Pool` for a path."""
    with _shared_lock:
        key = os.fspath(path) if path is not None else ""
        if key not in _shared:
            _shared[key] = Pool(path)
        return _shared[key]


@atexit.register
def _close_shared() -> None:
    for pool in _shared.values():
        pool.close()


def _after_fork() -> None:
    global _shared_lock  # another thread may have held it when the process forked
    _shared_lock = threading.Lock()
    for pool in tuple(_pools):
        pool._forked()


os.register_at_fork(after_in_child=_after_fork)
