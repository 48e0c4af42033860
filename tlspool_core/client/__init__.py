"""What an application needs: hand a connected socket to the pool, get a plaintext socket and two identities back.

    session = starttls_client(sock, remoteid="www.example.com", service="http")
    session.plaintext.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    print(session.remoteid)

`aio` has the same for coroutines, `ssl_shim` for code that was written for `ssl.SSLContext`, `streams` for asyncio's streams,
`desks` for programs that answer PIN requests or choose local identities.  See docs/quickstart-application.md.
"""

from __future__ import annotations

import os
import socket
from typing import Unpack

from tlspool_core.client.blocking import BlockingWishes, LocalidHook, Pool, shared
from tlspool_core.client.errors import PoolError, PoolTimeout, PoolUnreachable, PoolVanished, Refused
from tlspool_core.client.session import Account, Control, Session
from tlspool_core.wire.errors import ErrorCode
from tlspool_core.wire.flags import InfoKind, StartTlsFlags
from tlspool_core.wire.messages import Ping

PathLike = str | os.PathLike[str]


def starttls_client(sock: socket.socket, *, path: PathLike | None = None, **wishes: Unpack[BlockingWishes]) -> Session:
    """`Pool.starttls_client` over the process's own connection to the pool."""
    return shared(path).starttls_client(sock, **wishes)


def starttls_server(sock: socket.socket, *, path: PathLike | None = None, **wishes: Unpack[BlockingWishes]) -> Session:
    """`Pool.starttls_server` over the process's own connection to the pool."""
    return shared(path).starttls_server(sock, **wishes)


def starttls_peer(sock: socket.socket, *, path: PathLike | None = None, **wishes: Unpack[BlockingWishes]) -> Session:
    """`Pool.starttls_peer` over the process's own connection to the pool."""
    return shared(path).starttls_peer(sock, **wishes)


def ping(*, path: PathLike | None = None) -> Ping:
    """Who the pool is and which facilities it has. Raises PoolUnreachable if there is none."""
    return shared(path).ping()


def reattach(ctlkey: bytes, *, path: PathLike | None = None, name: str = "") -> Control:
    """Take control of a session that another process set up and detached."""
    control = shared(path).control(ctlkey)
    control.reattach(name)
    return control


__all__ = [
    "Account",
    "Control",
    "ErrorCode",
    "InfoKind",
    "LocalidHook",
    "Ping",
    "Pool",
    "PoolError",
    "PoolTimeout",
    "PoolUnreachable",
    "PoolVanished",
    "Refused",
    "Session",
    "StartTlsFlags",
    "ping",
    "reattach",
    "starttls_client",
    "starttls_peer",
    "starttls_server",
]
