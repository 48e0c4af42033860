"""How a pool is reached: one attempt at its socket, and the plaintext sockets of a session; for both kinds of client."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

from tlspool_core.client import options
from tlspool_core.client.errors import PoolUnreachable
from tlspool_core.wire.errors import ErrorCode


def attempt(path: str | os.PathLike[str] | None) -> socket.socket | PoolUnreachable:
    """A connected socket to the first pool that answers, or the exception that says where we looked and what to do.

    Connecting to a UNIX socket does not wait for the other side, unless that side's queue is full.
    """
    faults: list[tuple[Path, OSError]] = []
    for candidate in options.socket_paths(path):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
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
    return refused


def plaintext_ends(given: socket.socket | None, ipproto: int, undo: ExitStack) -> tuple[socket.socket | None, socket.socket]:
    """Our end (None if the caller keeps it) and the pool's. What is made here is closed by `undo` if the rest fails."""
    if given is not None:
        return None, given
    ours, theirs = options.plaintext_pair(ipproto)
    undo.callback(ours.close)
    undo.callback(theirs.close)
    return ours, theirs
