"""How a pool is reached: one attempt at its socket, and the plaintext sockets of a session; for both kinds of client."""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack
from pathlib import Path

from tlspool_core.client import options
from tlspool_core.client.errors import PoolUnreachable
from tlspool_core.wire.errors import ErrorCode


def attempt(path: str | os.PathLike[str] | None) -> socket.socket | PoolUnreachable:
    """A connected socket to the first pool that answers, or the exception that says where we looked and what to do.

    This never waits: a UNIX socket connects at once, or says that the pool's queue is full.
    """
    faults: list[tuple[Path, OSError]] = []
    for candidate in options.socket_paths(path):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            sock.connect(str(candidate))
        except OSError as fault:
            sock.close()
            faults.append((candidate, fault))
        else:
            return sock
    return _unreachable(faults)


def _unreachable(faults: list[tuple[Path, OSError]]) -> PoolUnreachable:
    tried = "; ".join(f"{path}: {fault.strerror or fault}" for path, fault in faults)
    refused = PoolUnreachable(
        ErrorCode.CLIENT_DISCONNECT,
        f"No TLS Pool can be reached ({tried})",
        "Start it with `tlspool serve`, or name its socket in TLSPOOL_SOCKET.",
    )
    if any(isinstance(fault, PermissionError) for _, fault in faults):
        refused.advice = "Put this program's user into the group that owns the socket."
        refused.hopeless = True
    refused.busy = any(isinstance(fault, BlockingIOError) for _, fault in faults)
    return refused


class Backoff:
    """Pauses between attempts to connect: growing ones, until patience ends."""

    def __init__(self, patience: float) -> None:
        self._start = time.monotonic()
        self._patience = patience
        self._pause, self._longest = options.BACKOFF

    def after(self, refused: PoolUnreachable) -> float:
        """Seconds to wait before the next attempt; raises the exception if there is none. A busy pool is worth some patience."""
        patience = max(self._patience, options.ANSWER_TIME) if refused.busy else self._patience
        pause, self._pause = self._pause, min(2 * self._pause, self._longest)
        if refused.hopeless or time.monotonic() + pause > self._start + patience:
            raise refused
        return pause


def plaintext_ends(given: socket.socket | None, ipproto: int, undo: ExitStack) -> tuple[socket.socket | None, socket.socket]:
    """Our end (None if the caller keeps it) and the pool's. What is made here is closed by `undo` if the rest fails."""
    if given is not None:
        return None, given
    ours, theirs = options.plaintext_pair(ipproto)
    undo.callback(ours.close)
    undo.callback(theirs.close)
    return ours, theirs
