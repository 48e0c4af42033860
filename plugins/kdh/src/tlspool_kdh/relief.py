"""Quantum Relief in TLS 1.3: the session key of a ticket in the key schedule.

Theory of operation
-------------------
One extension travels in both hellos:

    method u16 (1: KDH) | ticket <len16> | peer name type u16 (0: none)

The client sends a ticket for the service, the server answers with an empty one.  Both then put, in the place of a PSK into the early
secret (RFC 8446 section 7.1):

    PRK   = HKDF-Extract(salt = "TLS 1.3 Quantum Relief KDH", IKM = session key)
    value = HKDF-Expand(PRK, u16(enctype) | u16(group) | u8 length | transcript hash | Hash(ticket), length of Hash)

where Hash is that of the cipher suite and the transcript goes up to ServerHello.  So all keys depend on what only the client, the KDC
and the service know, and resist who breaks the (EC)DH some day.  Either Finished proves its sender: the client to hold the session
key, the server to have opened the ticket.  A server that leaves the extension out is refused, unless the client may do without.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tlspool_core.api import AccessDenied, CertificateEntry, DecodeError, HandshakeFailure, IllegalParameter, PeerCredential
from tlspool_kdh.codes import METHOD_KDH, QUANTUM_RELIEF, TLS12, TLS13
from tlspool_kdh.crypto import KerberosKey
from tlspool_kdh.exchange import ServicePeer, TicketPeer, check_service
from tlspool_kdh.mit import KerberosError
from tlspool_kdh.tickets import ClientTicket, OpenedTicket, Principal, Service

LABEL: Final = b"TLS 1.3 Quantum Relief KDH"
_NO_NAME: Final = 0


def derive(key: KerberosKey, ticket: bytes, group: int, transcript_hash: bytes) -> bytes:
    """What takes the place of the PSK, as long as the transcript hash."""
    algorithm = {32: SHA256(), 48: SHA384()}[len(transcript_hash)]
    hashed = hashlib.new(algorithm.name, ticket).digest()
    bound = b"".join((key.enctype.to_bytes(2, "big"), group.to_bytes(2, "big"), bytes((len(transcript_hash),)), transcript_hash))
    return HKDF(algorithm, len(transcript_hash), LABEL, bound + hashed).derive(key.value)


def build(ticket: bytes) -> bytes:
    """Content of the extension without a peer name."""
    return METHOD_KDH.to_bytes(2, "big") + len(ticket).to_bytes(2, "big") + ticket + _NO_NAME.to_bytes(2, "big")


def parse(content: bytes) -> bytes:
    """The ticket in the content of the extension. Raises DecodeError or IllegalParameter."""
    if len(content) < 6 or int.from_bytes(content[2:4], "big") != len(content) - 6:
        raise DecodeError("the extension for Quantum Relief has a wrong length")
    if content[:2] != METHOD_KDH.to_bytes(2, "big"):
        raise IllegalParameter("the only known method of Quantum Relief is KDH")
    if content[-2:] != _NO_NAME.to_bytes(2, "big"):
        raise IllegalParameter("Quantum Relief between users is not served here")
    return content[4:-2]


class _Relief:
    """What both sides have in common."""

    versions = frozenset({TLS13})
    quantum_safe = True  # the value comes of a symmetric key that the KDC gave to both

    def __init__(self, code: int = QUANTUM_RELIEF) -> None:
        self.code = code

    def received_client_hello(self, content: bytes | None) -> None:
        """Only a server is asked."""

    def received_server_hello(self, version: int, content: bytes | None) -> None:
        """Only a client is asked."""

    def client_hello(self, retry: bool) -> bytes | None:
        """Only a client is asked."""
        return None

    def server_hello(self, version: int) -> bytes | None:
        """Only a server is asked."""
        return None


class ClientRelief(_Relief):
    """Offers a ticket; `ticket` may block, and is called once."""

    def __init__(self, ticket: Callable[[], ClientTicket], *, required: bool = True, code: int = QUANTUM_RELIEF) -> None:
        super().__init__(code)
        self._ticket, self._required = ticket, required
        self._held: ClientTicket | None = None
        self._agreed = False

    def client_hello(self, retry: bool) -> bytes | None:
        """The ticket. Without one the session ends here, or goes on without where that is allowed."""
        if self._held is None:
            try:
                self._held = self._ticket()
            except KerberosError as error:
                if self._required:
                    raise AccessDenied(str(error)) from None
                return None
        return build(self._held.ticket)

    def received_server_hello(self, version: int, content: bytes | None) -> None:
        """The server's consent."""
        if content is not None and parse(content):
            raise IllegalParameter("the server answered with a ticket that nobody asked for")
        self._agreed = content is not None
        if self._required and not self._agreed:
            raise HandshakeFailure("the server does not take part in Quantum Relief, or somebody removed it")

    def psk_input(self, transcript_hash: Callable[[], bytes], group: int) -> bytes | None:
        """Out of the session key."""
        if not self._agreed or self._held is None:
            return None
        return derive(self._held.session_key, self._held.ticket, group, transcript_hash())

    def peer_credential(self) -> PeerCredential | None:
        """The service of the ticket."""
        return ServicePeer(self._held.service) if self._agreed and self._held is not None else None


class Prefetch(_Relief):
    """Sends nothing: it is there to have the ticket fetched before ClientHello, in a worker thread, whatever the version will be."""

    versions = frozenset({TLS12, TLS13})
    quantum_safe = False

    def __init__(self, ticket: Callable[[], ClientTicket], *, required: bool = True, code: int) -> None:
        super().__init__(code)
        self._ticket, self._required = ticket, required

    def client_hello(self, retry: bool) -> bytes | None:
        """Fetch; where that fails the session ends, or goes on without Kerberos if that is allowed."""
        try:
            self._ticket()
        except KerberosError as error:
            if self._required:
                raise AccessDenied(str(error)) from None
        return None

    def received_server_hello(self, version: int, content: bytes | None) -> None:
        """Nothing was offered, so there is no answer."""
        if content is not None:
            raise IllegalParameter(f"the server answered extension {self.code:#06x}, which was not offered")

    def psk_input(self, transcript_hash: Callable[[], bytes], group: int) -> bytes | None:
        """None."""
        return None

    def peer_credential(self) -> PeerCredential | None:
        """Nobody."""
        return None


class ServerRelief(_Relief):
    """Opens tickets for the services that `accepts` agrees to.

    It knows the extension in TLS 1.2 as well, to pass over it: a client that can do both versions offers it before it knows.
    """

    versions = frozenset({TLS12, TLS13})

    def __init__(
        self, service: Service, accepts: Callable[[Principal], bool] = lambda _: True, *, code: int = QUANTUM_RELIEF
    ) -> None:
        super().__init__(code)
        self._service, self._accepts = service, accepts
        self._ticket = b""
        self._opened: OpenedTicket | None = None

    def received_client_hello(self, content: bytes | None) -> None:
        """Keep the ticket."""
        self._ticket = b"" if content is None else parse(content)

    def server_hello(self, version: int) -> bytes | None:
        """Open the ticket; consent, with an empty one."""
        if version != TLS13:
            return None
        self._opened = self._service.open(self._ticket)
        check_service(self._opened, self._accepts)
        return build(b"")

    def psk_input(self, transcript_hash: Callable[[], bytes], group: int) -> bytes | None:
        """Out of the session key in the ticket."""
        if self._opened is None:
            return None
        return derive(self._opened.session_key, self._ticket, group, transcript_hash())

    def peer_credential(self) -> PeerCredential | None:
        """The owner of the ticket."""
        return None if self._opened is None else TicketPeer((CertificateEntry(self._ticket),), self._opened, self._service)
