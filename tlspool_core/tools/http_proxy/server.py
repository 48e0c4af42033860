"""Listens for clients of the proxy, on this machine unless its owner says otherwise.

Theory of operation
-------------------
Whoever reaches the proxy goes to the configured sites with the person's credential.  So it listens on loopback; another address has to
be permitted in so many words, and then clients have to log in.  All users of a machine reach loopback, so the kernel is asked whose
each connection is: those of the proxy's own user are served, and of those whom its owner has named.  Where clients log in, that decides.
"""

from __future__ import annotations

import base64
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tlspool_core.tools.endpoints import Acceptor, Endpoint, EndpointError, listen, log
from tlspool_core.tools.http_proxy.conversation import Office, serve
from tlspool_core.tools.http_proxy.rules import Rules, Target, address_of
from tlspool_core.tools.http_proxy.upstream import Reach

DEFAULT_LISTEN: Final = "127.0.0.1:8118"
_MOST: Final = 65536  # bytes of a file that is read


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """A proxy as configured. `pool` is the pool's socket, None for the usual places; `limit` counts connections at a time.

    `users` are numbers of those who may connect without login, beside our own and root.
    """

    rules: Rules
    listen: Endpoint
    open_to_network: bool = False
    login_file: Path | None = None
    authority: Path | None = None
    limit: int = 256
    pool: Path | None = None
    users: frozenset[int] = frozenset()

    def fault(self) -> tuple[str, str] | None:
        """What does not go together: a key, and what is wrong with it."""
        if self.listen.path or self.listen.host == "localhost":
            return None
        address = address_of(self.listen.host)
        if address is not None and address.is_loopback:
            return None
        if not self.open_to_network:
            return "listen", "is not on loopback; if others are to use your credential, say open_to_network = true, and login_file"
        if self.login_file is None:
            return "login_file", "is needed where the network reaches the proxy"
        return None


def read_login(path: Path) -> bytes:
    """What a client has to send (RFC 7617): from a file with the line `USER:PASSWORD`. Raises EndpointError."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            line = file.read(_MOST).removesuffix(b"\n").removesuffix(b"\r")
    except OSError as error:
        raise EndpointError(f"login_file: {path}: {error.strerror}") from None
    if status.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise EndpointError(f"login_file: {path} can be read or changed by others; remove that with: chmod o=,g-w {path}")
    user, colon, password = line.partition(b":")
    if not (user and colon and password) or b"\n" in line:
        raise EndpointError(f"login_file: {path} does not hold one line USER:PASSWORD")
    return base64.b64encode(line)


def _read_authority(path: Path) -> bytes:
    """Raises EndpointError."""
    try:
        content = path.read_bytes()[:_MOST]
    except OSError as error:
        raise EndpointError(f"authority: {path}: {error.strerror}") from None
    if not content.startswith(b"-----BEGIN CERTIFICATE-----"):
        raise EndpointError(f"authority: {path} is no certificate in PEM")
    return content


def read_files(settings: ProxySettings) -> tuple[bytes, bytes]:
    """The login that clients have to give, and the authority's certificate, each empty if there is none. Raises EndpointError."""
    login = read_login(settings.login_file) if settings.login_file is not None else b""
    return login, _read_authority(settings.authority) if settings.authority is not None else b""


async def run(settings: ProxySettings) -> None:
    """Serve until cancelled. Raises EndpointError if that cannot begin."""
    login, authority = read_files(settings)
    sockets = listen(settings.listen)
    ports = frozenset(sock.getsockname()[1] for sock in sockets if sock.family != socket.AF_UNIX)
    ourselves = Target(settings.listen.host or "localhost", min(ports, default=0))
    reach = Reach(ports, settings.pool)
    office = Office(settings.rules, reach, ourselves, login, authority, settings.pool, None if login else settings.users)
    log.info("proxy: listens on %s", settings.listen)

    async def handle(sock: socket.socket) -> None:
        await serve(office, sock)

    try:
        await Acceptor("proxy", sockets, handle, settings.limit).run()
    finally:
        reach.close()
        for sock in sockets:
            sock.close()
