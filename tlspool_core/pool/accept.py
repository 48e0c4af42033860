"""Accepts applications on the listening sockets, within limits, and notes who each one is.

Theory of operation
-------------------
The kernel tells user, groups and process of whoever connected (SO_PEERCRED and SO_PEERGROUPS, unix(7)); these are taken at accept
time, when they are certain, and stay with the connection.  What does not fit the limits is closed at once with a line in the log,
no more than one a second, so that a flood of connections is no flood of log lines.  When descriptors run out the pool stops to
accept for a moment, and serves those that it has.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tlspool_core import fdpass
from tlspool_core.pool.listeners import Listener
from tlspool_core.pool.logs import say
from tlspool_core.pool.settings import Limits

log = logging.getLogger("tlspool.accept")

_CREDENTIALS = struct.Struct("iII")
_SO_PEERGROUPS = 59  # asm-generic/socket.h; Python has no name for it
_GROUPS_SIZE = 1024  # bytes, the most that Python asks for: 256 groups
_BATCH = 32  # connections taken per readiness event, so that sessions get their turn
_PAUSE = 0.5
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class PeerProcess:
    """Who is at the other end of a UNIX socket, at the time when it connected."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] = field(default=frozenset(), repr=False)  # `gid` and the supplementary ones


def peer_process(connected: socket.socket) -> PeerProcess:
    """Ask the kernel."""
    pid, uid, gid = _CREDENTIALS.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return PeerProcess(pid, uid, gid, frozenset((gid, *_supplementary_groups(connected))))


def _supplementary_groups(connected: socket.socket) -> Iterable[int]:
    """None of them if the kernel does not tell, or if there are more than 256: they can only permit."""
    try:
        packed = connected.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_SIZE)
    except OSError:
        return ()
    return (gid for (gid,) in struct.iter_unpack("I", packed))


class Acceptor:
    """Takes connections while it is open; counts those that are open, by user."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listeners: list[Listener],
        limits: Limits,
        serve: Callable[[socket.socket, PeerProcess], None],
    ) -> None:
        """`serve` becomes the owner of the socket, and calls `gone` once it has closed it."""
        self._loop = loop
        self._listeners = listeners
        self._serve = serve
        self._open: Counter[int] = Counter()
        self._complained = 0.0
        self.limits = limits

    def start(self) -> None:
        for listener in self._listeners:
            self._loop.add_reader(listener.socket, self._ready, listener)

    def stop(self) -> None:
        """Accept no more; connections that are open stay."""
        for listener in self._listeners:
            self._loop.remove_reader(listener.socket)
        self._listeners = []

    def gone(self, process: PeerProcess) -> None:
        """A connection was closed."""
        self._open[process.uid] -= 1
        if not self._open[process.uid]:
            del self._open[process.uid]

    def _ready(self, listener: Listener) -> None:
        for _ in range(_BATCH):
            try:
                connected, _address = listener.socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._pause(listener, error)
                return
            self._admit(connected)

    def _admit(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        process = peer_process(connected)
        if self._open.total() >= self.limits.clients:
            self._refuse(connected, process, "limits.clients")
        elif self._open[process.uid] >= self.limits.clients_per_uid and process.uid != 0:
            self._refuse(connected, process, "limits.clients_per_uid")
        else:
            self._open[process.uid] += 1
            self._serve(connected, process)

    def _refuse(self, connected: socket.socket, process: PeerProcess, limit: str) -> None:
        fdpass.close_connection(connected)
        now = time.monotonic()
        if now - self._complained >= 1:
            self._complained = now
            say(log, logging.WARNING, "client refused", limit=limit, uid=process.uid, pid=process.pid)

    def _pause(self, listener: Listener, error: OSError) -> None:
        say(log, logging.ERROR, "cannot accept for a moment", reason=error.strerror)
        self._loop.remove_reader(listener.socket)
        self._loop.call_later(_PAUSE, self._resume, listener)

    def _resume(self, listener: Listener) -> None:
        if listener in self._listeners:
            self._loop.add_reader(listener.socket, self._ready, listener)
