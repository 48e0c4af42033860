"""The pool in the shape of the `ssl` module, for code that takes an `ssl.SSLContext`.

    context = PoolContext(service="https")
    http.client.HTTPSConnection("www.example.com", context=context)

Theory of operation
-------------------
`PoolContext.wrap_socket` does a STARTTLS and returns a `PoolSocket`: the plaintext socket, with the questions that an `SSLSocket`
answers, and with the addresses of the connection that TLS runs over.  What an `ssl.SSLContext` decides by itself is the pool's to
decide: trust, keys, suites.  So keys are refused here rather than ignored, a client cannot switch the proof of the server off, and
what can be checked afterwards (ALPN, the least version) is checked.  `ssl.MemoryBIO` has no equivalent: for asyncio see `streams`.

With `peer=True` the two ends find out who is client and who is server of TLS, and `server_side` is no more than who was called.  Both
ends have to prove themselves then, whatever their roles.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterable
from typing import Any, Final

from tlspool_core.client.blocking import shared
from tlspool_core.client.errors import PoolError, Refused
from tlspool_core.client.session import Session
from tlspool_core.wire.errors import ErrorCode
from tlspool_core.wire.flags import StartTlsFlags

_ABOUT_THE_PEER: Final = frozenset({ErrorCode.REMOTEID_REFUSED, ErrorCode.REMOTEID_MISSING})
_TRANSPORT_LEVELS: Final = frozenset({socket.IPPROTO_IP, socket.IPPROTO_IPV6, socket.IPPROTO_TCP})
_VERSIONS: Final = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


class PoolSSLError(PoolError, ssl.SSLError):
    """What the pool refused, for code that expects `ssl.SSLError`."""

    def __init__(self, code: int, text: str = "", remedy: str = "") -> None:
        PoolError.__init__(self, code, text, remedy)
        self.library = "TLSPOOL"
        self.reason = self.text


class PoolCertVerificationError(PoolSSLError, ssl.SSLCertVerificationError):
    """The peer's identity was refused, for code that expects `ssl.SSLCertVerificationError`."""

    def __init__(self, code: int, text: str = "", remedy: str = "") -> None:
        PoolSSLError.__init__(self, code, text, remedy)
        self.verify_code = code
        self.verify_message = self.text


class PoolSocket(socket.socket):
    """The plaintext connection in the shape of an `ssl.SSLSocket`. `localid` and `remoteid` are the proven identities."""

    def __init__(self, session: Session, context: PoolContext, wrapped: _Wrapped, server_hostname: str | None) -> None:
        super().__init__(fileno=session.take().detach())
        self.settimeout(wrapped.timeout)
        self.session_of_pool = session
        self.context = context
        self.server_side = session.role == "server" if context.peer else wrapped.server_side
        self.server_hostname = server_hostname
        self._addresses = wrapped.addresses

    @property
    def local_identity(self) -> str:
        """Who we are towards the peer; empty if we showed no identity."""
        return self.session_of_pool.localid

    @property
    def remote_identity(self) -> str:
        """Who the peer proved to be; empty if it showed no identity."""
        return self.session_of_pool.remoteid

    def getpeercert(self, binary_form: bool = False) -> dict[str, Any] | bytes | None:
        """The proven identity as `ssl` would show it; never the certificate, which may not even be one."""
        identity = self.remote_identity
        if binary_form or not identity:
            return None
        return {"subject": (), "subjectAltName": (("email" if "@" in identity else "DNS", identity),)}

    def version(self) -> str | None:
        """As "TLSv1.3"."""
        return self.session_of_pool.version()

    def cipher(self) -> tuple[str, str, int] | None:
        """Name of the suite, version, secret bits."""
        name = self.session_of_pool.cipher()
        return None if name is None else (name, self.version() or "", 128 if "_128_" in name else 256)

    def selected_alpn_protocol(self) -> str | None:
        """The application protocol that was agreed."""
        return self.session_of_pool.alpn()

    def selected_npn_protocol(self) -> None:
        """NPN has gone; there never is one."""

    def compression(self) -> None:
        """TLS's own compression is not used."""

    def shared_ciphers(self) -> None:
        """What both sides could have used is the pool's knowledge."""

    def get_channel_binding(self, cb_type: str = "tls-unique") -> bytes | None:
        """A channel binding by its IANA name; beyond `ssl`, tls-exporter and tls-server-end-point are known."""
        return self.session_of_pool.channel_binding(cb_type)

    def verify_client_post_handshake(self) -> None:
        """Ask the client for its identity now."""
        self.session_of_pool.renegotiate()

    def do_handshake(self, block: bool = False) -> None:
        """It was done when the socket was wrapped."""

    def pending(self) -> int:
        """Nothing is held back here: `select` tells all."""
        return 0

    def read(self, len: int = 1024, buffer: bytearray | None = None) -> int | bytes:
        """Like `recv`, or `recv_into` if there is a buffer."""
        return self.recv(len) if buffer is None else self.recv_into(buffer, len)

    def write(self, data: bytes) -> int:
        """Like `send`."""
        return self.send(data)

    def unwrap(self) -> socket.socket:
        """Raises OSError: the connection below is the pool's, and cannot come back."""
        raise PoolSSLError(ErrorCode.COMMAND_NOT_IMPLEMENTED, "The TLS Pool does not hand a connection back after TLS")

    def getpeername(self) -> Any:
        """The peer's address on the connection that TLS runs over."""
        return self._addresses[1]

    def getsockname(self) -> Any:
        """Our address on the connection that TLS runs over."""
        return self._addresses[0]

    def setsockopt(self, level: int, optname: int, *value: Any) -> None:
        """Options of the transport have no meaning here and are passed over; others are set."""
        if level not in _TRANSPORT_LEVELS:
            super().setsockopt(level, optname, *value)


class PoolListener(socket.socket):
    """A listening socket whose connections are wrapped as they are accepted."""

    def __init__(self, sock: socket.socket, context: PoolContext) -> None:
        timeout = sock.gettimeout()
        super().__init__(fileno=sock.detach())
        self.settimeout(timeout)
        self.context = context

    def accept(self) -> tuple[PoolSocket, Any]:
        """The next connection, after its handshake. A peer that is refused is an `ssl.SSLError` here, as with `ssl`."""
        sock, address = super().accept()
        with sock:  # which is the pool's once it was wrapped, and nobody's if it was not
            return self.context.wrap_connected(sock, server_side=True), address


class _Wrapped:
    """What is remembered of the socket that was handed over."""

    def __init__(self, sock: socket.socket, server_side: bool) -> None:
        self.timeout = sock.gettimeout()
        self.server_side = server_side
        self.addresses = (sock.getsockname(), sock.getpeername())


class PoolContext:
    """Looks like an `ssl.SSLContext` to code that calls `wrap_socket`."""

    def __init__(
        self,
        purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH,
        *,
        service: str = "",
        localid: str = "",
        flags: StartTlsFlags = StartTlsFlags.NONE,
        path: str | os.PathLike[str] | None = None,
        peer: bool = False,
    ) -> None:
        """`purpose` as for `ssl.create_default_context`: SERVER_AUTH makes a client's context, CLIENT_AUTH a server's.

        `peer`: be client or server of TLS, as both ends find out; after the handshake, `PoolSocket.server_side` tells which.
        """
        self.peer = peer
        self.service = service
        self.localid = localid
        self.flags = flags
        self.path = path
        self.verify_mode = ssl.CERT_REQUIRED if peer or purpose is ssl.Purpose.SERVER_AUTH else ssl.CERT_NONE
        self.check_hostname = purpose is ssl.Purpose.SERVER_AUTH
        self.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        self.protocol = ssl.PROTOCOL_TLS_CLIENT if purpose is ssl.Purpose.SERVER_AUTH else ssl.PROTOCOL_TLS_SERVER
        # callers read these, and set what they mean to be stricter; the pool's policy is stricter than any of it
        self.options = ssl.Options(0)
        self.verify_flags = ssl.VERIFY_DEFAULT
        self.post_handshake_auth: bool | None = None
        self._alpn: tuple[str, ...] = ()

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Protocols that the caller can speak. What is offered is the pool's, by `service`; another outcome fails the connection."""
        self._alpn = tuple(alpn_protocols)

    def load_default_certs(self, purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH) -> None:
        """Trust is the pool's: there is nothing to load."""

    def set_default_verify_paths(self) -> None:
        """Trust is the pool's: there is nothing to set."""

    def load_cert_chain(self, certfile: Any, keyfile: Any = None, password: Any = None) -> None:
        """Raises ValueError: keys do not belong into applications that use the pool."""
        raise ValueError("keys are the TLS Pool's: add the identity with `tlspool localid add`, and name it as `localid`")

    def load_verify_locations(self, cafile: Any = None, capath: Any = None, cadata: Any = None) -> None:
        """Raises ValueError: who is trusted is decided for all applications at once."""
        raise ValueError("trust is the TLS Pool's: add the anchor with `tlspool trust add`")

    def wrap_socket(
        self,
        sock: socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | None = None,
        session: object = None,
    ) -> PoolSocket | PoolListener:
        """Do TLS over a connected socket, which is the pool's from now on; or wrap a server's listening socket.

        Raises PoolSSLError (an `ssl.SSLError`) if the pool refuses, PoolError if there is no pool, ValueError for what cannot be.
        """
        if server_side and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return PoolListener(sock, self)
        return self.wrap_connected(sock, server_side=server_side, server_hostname=server_hostname)

    def wrap_connected(self, sock: socket.socket, *, server_side: bool = False, server_hostname: str | None = None) -> PoolSocket:
        """Do TLS over a connected socket."""
        if sock.gettimeout() == 0:
            raise ValueError("the handshake waits: make the socket blocking or give it a timeout, or use tlspool_core.client.aio")
        flags = self._demand(server_side, server_hostname)
        wrapped = _Wrapped(sock, server_side)
        pool = shared(self.path)
        handshake = pool.starttls_peer if self.peer else pool.starttls_server if server_side else pool.starttls_client
        try:
            remoteid = (server_hostname or "").rstrip(".")
            session = handshake(
                sock, localid=self.localid, remoteid=remoteid, service=self.service, flags=flags, timeout=wrapped.timeout
            )
        except Refused as refusal:
            kind = PoolCertVerificationError if refusal.code in _ABOUT_THE_PEER else PoolSSLError
            raise kind(refusal.code, refusal.text, refusal.advice) from refusal
        plain = PoolSocket(session, self, wrapped, server_hostname)
        try:
            self._check_outcome(plain)
        except BaseException:
            plain.close()
            raise
        return plain

    def _demand(self, server_side: bool, server_hostname: str | None) -> StartTlsFlags:
        """What `verify_mode` means in flags."""
        if not server_side:
            if self.verify_mode == ssl.CERT_NONE:
                raise ValueError("the TLS Pool always proves the server; say whom to trust with `tlspool trust add`")
            if not server_hostname:
                raise ValueError("server_hostname is needed: it is whom the TLS Pool proves the server to be")
            return self.flags
        if self.verify_mode == ssl.CERT_NONE:
            if self.peer:
                raise ValueError("a peer has to prove itself, as it may turn out to be the server")
            return self.flags | StartTlsFlags.IGNORE_REMOTEID
        return self.flags | (StartTlsFlags.REQUEST_REMOTEID if self.verify_mode == ssl.CERT_OPTIONAL else StartTlsFlags.NONE)

    def _check_outcome(self, plain: PoolSocket) -> None:
        """Hold the caller's conditions against what came out. Raises PoolSSLError."""
        if self._alpn:
            protocol = plain.selected_alpn_protocol()
            if protocol is not None and protocol not in self._alpn:
                raise PoolSSLError(ErrorCode.HANDSHAKE_FAILED, f"The peer speaks {protocol}, not {' or '.join(self._alpn)}")
        if self.minimum_version != ssl.TLSVersion.MINIMUM_SUPPORTED:
            version = plain.version() or ""
            if _VERSIONS.get(version, ssl.TLSVersion.MINIMUM_SUPPORTED) < self.minimum_version:
                raise PoolSSLError(ErrorCode.HANDSHAKE_FAILED, f"{version or 'The protocol'} is older than the application permits")
