"""renegotiation_info: each handshake is bound to the one before it on the same connection (RFC 5746).

The first handshake of a connection is bound to nothing, and says so by empty values; so one rule serves them all.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from tlspool_core.tls.alerts import HandshakeFailure
from tlspool_core.tls.codec import vector8
from tlspool_core.tls.enums import EMPTY_RENEGOTIATION_INFO_SCSV
from tlspool_core.tls.enums import ExtensionType as Ext
from tlspool_core.tls.messages import ClientHello


@dataclass(frozen=True, slots=True)
class Binding:
    """The verify_data of both sides of the handshake before this one."""

    client: bytes = field(default=b"", repr=False)
    server: bytes = field(default=b"", repr=False)

    @property
    def initial(self) -> bool:
        """There was no handshake before this one."""
        return not self.client

    def client_info(self) -> bytes:
        """renegotiation_info of a ClientHello, RFC 5746 section 3.5."""
        return vector8(self.client)

    def server_info(self) -> bytes:
        """renegotiation_info of a ServerHello, section 3.7."""
        return vector8(self.client + self.server)

    def check_client(self, hello: ClientHello, info: bytes | None) -> bool:
        """Server: judge what the client sent; returns whether it is to be answered (sections 3.6 and 3.7).

        Raises HandshakeFailure.
        """
        scsv = EMPTY_RENEGOTIATION_INFO_SCSV in hello.cipher_suites
        if not self.initial and (scsv or info is None):
            raise HandshakeFailure("renegotiation that is not bound to the connection")
        if info is not None and not hmac.compare_digest(info, self.client):
            raise HandshakeFailure("renegotiation_info does not match")
        return scsv or info is not None

    def check_server(self, info: bytes | None) -> None:
        """Client: judge the answer (sections 3.4 and 3.5); a server that does not know of RFC 5746 is refused (section 4.1)."""
        if info is None:
            raise HandshakeFailure("the server does not secure renegotiation (RFC 5746)")
        if not hmac.compare_digest(info, self.client + self.server):
            raise HandshakeFailure("renegotiation_info does not match")


INITIAL = Binding()
EXTENSION = Ext.RENEGOTIATION_INFO
