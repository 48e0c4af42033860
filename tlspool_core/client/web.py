"""Web servers behind the pool: how a connection comes in, and what the application is told of who is at its other end.

Theory of operation
-------------------
A web server accepts a connection and, before it reads a byte of HTTP, has an `Entrance` make it an `Arrival`: a plaintext socket, the
addresses of the two ends, and what was proven.  There are two: `ByPool` has the pool do TLS on the connection; `ByTunnel` takes connections
of a `tlspool tunnel` in front, which tells the same in a header of the PROXY protocol.  `asgi` and `gunicorn` lead servers through them.

The identity comes from the entrance, and belongs to the connection.  No byte that a client sends reaches the places where the application
finds it: in ASGI an extension of the scope, in WSGI variables that are set or removed for each request after the server has made its own.

A tunnel's header is believed if the kernel says that its sender is root, our own user or one that is named (UNIX sockets), or if the address
is one that is named (TCP); nobody else gets in, with or without a header.

Sessions outlive the connection to the pool (FORK), so that a server that ends does not cut short what it has answered; they end with their
plaintext sockets.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import struct
import time
from collections.abc import Collection, MutableMapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final, Protocol

from tlspool_core.client import aio, proxy_header
from tlspool_core.client.options import GRACE, REMOTE_IDENTITY
from tlspool_core.wire.errors import ErrorCode
from tlspool_core.wire.flags import InfoKind, StartTlsFlags

log = logging.getLogger("tlspool.client")

HANDSHAKES: Final = 256  # in progress at a time, in one process of a web server
_VERSIONS: Final = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
_PEER_CREDENTIALS: Final = struct.Struct("iII")  # SO_PEERCRED: process, user, group
_VARIABLES: Final = (
    "REMOTE_USER",
    "AUTH_TYPE",
    "TLSPOOL_LOCALID",
    "TLSPOOL_REMOTEID",
    "TLSPOOL_SERVICE",
    "TLSPOOL_VERSION",
    "TLSPOOL_CIPHER",
    "TLSPOOL_ALPN",
)


@dataclass(frozen=True, slots=True)
class Proven:
    """The facts of a connection. Empty texts: nobody, or not known."""

    localid: str = ""
    remoteid: str = ""
    service: str = ""
    version: str = ""  # as "TLSv1.3"
    cipher: str = ""  # IANA's name
    alpn: str = ""
    subject: str = ""  # of the client's certificate, if it showed one (RFC 4514)

    def extensions(self) -> dict[str, dict[str, Any]]:
        """For the `extensions` of an ASGI scope: "tlspool", and "tls" of the ASGI TLS extension (which has certificates; we do not)."""
        tlspool = {name: getattr(self, name) for name in ("localid", "remoteid", "service", "version", "cipher", "alpn")}
        tls = {
            "server_cert": None,
            "client_cert_chain": (),
            "client_cert_name": self.subject or None,
            "client_cert_error": None,
            "tls_version": _VERSIONS.get(self.version),
            "cipher_suite": None,
        }
        return {"tls": tls, "tlspool": tlspool}

    def environ(self) -> dict[str, str]:
        """Variables of a WSGI environ, in the encoding of PEP 3333: UTF-8 seen as Latin-1."""
        user = {"REMOTE_USER": self.remoteid, "AUTH_TYPE": "TLS"} if self.remoteid else {}
        told = {f"TLSPOOL_{name.upper()}": value for name, value in self.extensions()["tlspool"].items() if value}
        return {name: value.encode().decode("latin-1") for name, value in (user | told).items()}


def tell_wsgi(environ: MutableMapping[str, Any], proven: Proven | None) -> None:
    """Put what was proven in the place of whatever claims the same."""
    for name in _VARIABLES:
        environ.pop(name, None)
    if proven is not None:
        environ["wsgi.url_scheme"] = "https"
        environ["HTTPS"] = "on"
        environ.update(proven.environ())


@dataclass(frozen=True, slots=True)
class Arrival:
    """A connection that may speak HTTP. `socket` has one owner: who gets this. Without TLS nothing is proven."""

    socket: socket.socket
    client: Any
    server: Any
    proven: Proven | None


class Entrance(Protocol):
    """How connections come in."""

    async def admit(self, sock: socket.socket) -> Arrival:
        """Owns `sock` from the start. Raises OSError (PoolError is one), also TimeoutError: then it is closed."""


@dataclass(frozen=True)
class ByPool:
    """TLS by the pool, as server; what the fields mean is said at `options.Wishes`.

    `remote_identity` is "required", "requested" or "ignored"; `path` is the pool's socket, None for the usual places; `timeout` is for the
    handshake, in seconds.
    """

    localid: str = ""
    remote_identity: str = "required"
    service: str = "http"
    timeout: float = 10.0
    path: str | None = None

    def __post_init__(self) -> None:
        if self.remote_identity not in REMOTE_IDENTITY:
            raise ValueError(f"remote_identity is one of {', '.join(REMOTE_IDENTITY)}, not {self.remote_identity!r}")

    async def admit(self, sock: socket.socket) -> Arrival:
        """See `Entrance`."""
        with sock:
            client, server = sock.getpeername(), sock.getsockname()
            async with asyncio.timeout(self.timeout + GRACE):  # with the time to reach a pool that was restarted
                session = await aio.starttls_server(
                    sock,
                    path=self.path,
                    localid=self.localid,
                    service=self.service,
                    flags=REMOTE_IDENTITY[self.remote_identity] | StartTlsFlags.FORK,
                    timeout=self.timeout,
                )
                async with session:
                    return Arrival(client=client, server=server, proven=await _proven(session), socket=session.take())


async def _proven(session: aio.Session) -> Proven:
    kinds = (InfoKind.VERSION, InfoKind.CIPHER_SUITE, InfoKind.ALPN, InfoKind.PEERCERT_SUBJECT_TEXT)
    version, cipher, alpn, subject = await asyncio.gather(*map(session.text, kinds))
    subject = subject if session.remoteid else ""  # of a certificate that nobody was accepted for, it would be taken for proof
    return Proven(session.localid, session.remoteid, session.service, version or "", cipher or "", alpn or "", subject or "")


@dataclass(frozen=True)
class ByTunnel:
    """Connections of a `tlspool tunnel` with `proxy_protocol`.

    `uids` are users beside root and our own that may connect to a UNIX socket; `peers` are addresses or networks that may connect by TCP;
    `timeout` is for the header, in seconds.  Raises ValueError for what is no network.
    """

    uids: Collection[int] = ()
    peers: Collection[str] = ()
    service: str = "http"
    timeout: float = 10.0
    _networks: tuple[IPv4Network | IPv6Network, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_networks", tuple(map(ip_network, self.peers)))

    async def admit(self, sock: socket.socket) -> Arrival:
        """See `Entrance`."""
        try:
            return await self._arrival(sock)
        except proxy_header.MalformedHeader as fault:
            sock.close()
            raise ConnectionAbortedError(f"the tunnel's header is wrong: {fault}") from None
        except BaseException:
            sock.close()
            raise

    async def _arrival(self, sock: socket.socket) -> Arrival:
        sock.setblocking(False)
        self._require_trust(sock)
        async with asyncio.timeout(self.timeout):
            fixed = await _exactly(sock, proxy_header.FIXED_SIZE)
            facts = proxy_header.parse(fixed, await _exactly(sock, proxy_header.body_size(fixed)))
        if facts is None or not facts.secure:
            return Arrival(sock, sock.getpeername(), sock.getsockname(), None)
        proven = Proven(facts.localid, facts.remoteid, self.service, facts.version, facts.cipher, facts.alpn)
        return Arrival(sock, facts.source or sock.getpeername(), facts.target or sock.getsockname(), proven)

    def _require_trust(self, sock: socket.socket) -> None:
        """Raises PermissionError for who may not say who somebody is."""
        if sock.family == socket.AF_UNIX:
            packed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
            uid = _PEER_CREDENTIALS.unpack(packed)[1]
            trusted, who = uid in (0, os.geteuid(), *self.uids), f"user {uid}"
        else:
            address = ip_address(sock.getpeername()[0].partition("%")[0])
            address = getattr(address, "ipv4_mapped", None) or address  # what a socket for both calls an IPv4 address
            trusted, who = any(address in network for network in self._networks), str(address)
        if not trusted:
            raise PermissionError(f"{who} is not trusted to be a tunnel; name it in ByTunnel(uids=..., peers=...)")


async def _exactly(sock: socket.socket, size: int) -> bytes:
    """So many bytes and no more: what follows is the server's. Raises ConnectionResetError at an early end."""
    data = b""
    while len(data) < size:
        piece = await asyncio.get_running_loop().sock_recv(sock, size - len(data))
        if not piece:
            raise ConnectionResetError("the tunnel's header is cut off")
        data += piece
    return data


# --- what did not get in ----------------------------------------------------------------------------------------------------------

# refusals that no client causes: our own configuration, or the pool's absence
_OURS: Final = frozenset(
    {
        ErrorCode.CLIENT_DISCONNECT,
        ErrorCode.LIMIT_REACHED,
        ErrorCode.POOL_STOPPING,
        ErrorCode.LOCALID_NOT_YOURS,
        ErrorCode.CREDENTIAL_UNAVAILABLE,
        ErrorCode.FACILITY_STARTTLS,
    }
)
# and what no client alone causes
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_complained = 0.0


def _is_ours(fault: OSError) -> bool:
    return isinstance(fault, PermissionError) or fault.errno in EXHAUSTED or getattr(fault, "code", None) in _OURS


def log_refusal(fault: Exception) -> None:
    """Why somebody did not get in: clients' faults quietly; what keeps everybody out aloud, but no more than once a second."""
    global _complained
    if isinstance(fault, OSError) and not _is_ours(fault):
        log.info("refused: %s", str(fault) or type(fault).__name__)
        return
    now = time.monotonic()
    if now - _complained >= 1:
        _complained = now
        log.error("nobody gets in: %s", fault, exc_info=None if isinstance(fault, OSError) else fault)
