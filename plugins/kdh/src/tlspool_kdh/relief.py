"""Quantum Relief in TLS 1.3: the session key of a ticket in the key schedule.

Theory of operation
-------------------
One extension travels in both hellos:

    method u16 (1: KDH) | ticket <len16> | peer name type u16 (0: none, 1: KRB5 principal and realm) | peer name <len16>, for type 1

*A client to a service* (type 0) sends a ticket for the service, and the service answers with an empty one.

*A user to a user* (type 1) sends its ticket-granting ticket with its own name.  The server, a user as well, has the KDC encrypt a
ticket for that name in the session key of what it was shown (ENC-TKT-IN-SKEY, RFC 4120 section 3.7.2), and answers with that ticket and
its own name.  So neither needs a key that lasts, and the KDC vouches for each of them to the other.  Names are DER KRB5PrincipalName
(RFC 4556 section 3.2.2).

Both then put, in the place of a PSK into the early secret (RFC 8446 section 7.1):

    PRK   = HKDF-Extract(salt = "TLS 1.3 Quantum Relief KDH", IKM = session key)
    value = HKDF-Expand(PRK, u16(enctype) | u16(group) | u8 length | transcript hash | Hash(ticket), length of Hash)

where Hash is that of the cipher suite, the ticket is the one with the session key in it, and the transcript goes up to ServerHello.  So
all keys depend on what only the two and the KDC know, and resist who breaks the (EC)DH some day.  Either Finished proves its sender to
hold the session key.  A server that leaves the extension out is refused, unless the client may do without.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tlspool_core.api import (
    AccessDenied,
    CertificateEntry,
    DecodeError,
    HandshakeFailure,
    IllegalParameter,
    InternalError,
    PeerCredential,
)
from tlspool_kdh.asn1 import KRB5PrincipalName, decode, encode
from tlspool_kdh.codes import METHOD_KDH, QUANTUM_RELIEF, TLS12, TLS13
from tlspool_kdh.crypto import KerberosKey
from tlspool_kdh.exchange import ServicePeer, TicketPeer, check_service
from tlspool_kdh.gate import KerberosError
from tlspool_kdh.tickets import ClientTicket, OpenedTicket, Principal, Service

LABEL: Final = b"TLS 1.3 Quantum Relief KDH"
_NO_NAME: Final = 0
_KRB5_NAME: Final = 1


@dataclass(frozen=True, slots=True)
class Content:
    """Content of the extension: a ticket (DER, may be empty), and between users the name of the sender."""

    ticket: bytes
    name: Principal | None = None


def derive(key: KerberosKey, ticket: bytes, group: int, transcript_hash: bytes) -> bytes:
    """What takes the place of the PSK, as long as the transcript hash."""
    algorithm = {32: SHA256(), 48: SHA384()}[len(transcript_hash)]
    hashed = hashlib.new(algorithm.name, ticket).digest()
    bound = b"".join((key.enctype.to_bytes(2, "big"), group.to_bytes(2, "big"), bytes((len(transcript_hash),)), transcript_hash))
    return HKDF(algorithm, len(transcript_hash), LABEL, bound + hashed).derive(key.value)


def build(ticket: bytes, name: Principal | None = None) -> bytes:
    """Content of the extension, with the sender's name between users."""
    kind = _NO_NAME if name is None else _KRB5_NAME
    head = METHOD_KDH.to_bytes(2, "big") + len(ticket).to_bytes(2, "big") + ticket + kind.to_bytes(2, "big")
    if name is None:
        return head
    values = {"realm": name.realm, "principalName": {"name-type": 1, "name-string": list(name.names)}}
    encoded = encode(KRB5PrincipalName, values)
    return head + len(encoded).to_bytes(2, "big") + encoded


def parse(content: bytes) -> Content:
    """The reverse of `build`. Raises DecodeError or IllegalParameter."""
    end = 4 + int.from_bytes(content[2:4], "big")
    if len(content) < max(end + 2, 6):
        raise DecodeError("the extension for Quantum Relief has a wrong length")
    if content[:2] != METHOD_KDH.to_bytes(2, "big"):
        raise IllegalParameter("the only known method of Quantum Relief is KDH")
    kind, rest = int.from_bytes(content[end : end + 2], "big"), content[end + 2 :]
    if kind == _KRB5_NAME:
        return Content(content[4:end], _parse_name(rest))
    if kind != _NO_NAME:
        raise IllegalParameter(f"Quantum Relief with a peer name of type {kind}")
    if rest:
        raise DecodeError("the extension for Quantum Relief has bytes behind its end")
    return Content(content[4:end])


def _parse_name(data: bytes) -> Principal:
    if len(data) < 2 or int.from_bytes(data[:2], "big") != len(data) - 2:
        raise DecodeError("the peer name of Quantum Relief has a wrong length")
    try:
        values = decode(KRB5PrincipalName, data[2:])
        return Principal.of(values["principalName"], values["realm"])
    except ValueError as error:
        raise DecodeError(f"the peer name of Quantum Relief is malformed: {error}") from None


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
    """To a service: offers a ticket; `ticket` may block, and is called once."""

    def __init__(self, ticket: Callable[[], ClientTicket], *, required: bool = True, code: int = QUANTUM_RELIEF) -> None:
        super().__init__(code)
        self._ticket, self._required = ticket, required
        self._held: ClientTicket | None = None
        self._agreed: ClientTicket | None = None

    def client_hello(self, retry: bool) -> bytes | None:
        """The ticket. Without one the session ends here, or goes on without where that is allowed."""
        if self._held is None:
            try:
                self._held = self._ticket()
            except KerberosError as error:
                if self._required:
                    raise AccessDenied(str(error)) from None
                return None
        return self._offer(self._held)

    def _offer(self, held: ClientTicket) -> bytes:
        return build(held.ticket)

    def received_server_hello(self, version: int, content: bytes | None) -> None:
        """The server's consent."""
        if content is not None and self._held is not None:
            self._agreed = self._agree(self._held, parse(content))
        elif self._required:
            raise HandshakeFailure("the server does not take part in Quantum Relief, or somebody removed it")

    def _agree(self, held: ClientTicket, answer: Content) -> ClientTicket:
        """The ticket whose session key both sides have."""
        if answer.ticket or answer.name is not None:
            raise IllegalParameter("the server answered with a ticket or name that nobody asked for")
        return held

    def psk_input(self, transcript_hash: Callable[[], bytes], group: int) -> bytes | None:
        """Out of the session key."""
        if self._agreed is None:
            return None
        return derive(self._agreed.session_key, self._agreed.ticket, group, transcript_hash())

    def peer_credential(self) -> PeerCredential | None:
        """The service of the ticket."""
        return None if self._agreed is None else ServicePeer(self._agreed.service)


class UserRelief(ClientRelief):
    """To a user: offers our ticket-granting ticket, and opens the server's ticket with its session key.

    `accepts` says whether a principal is the user that is wanted.
    """

    def __init__(
        self,
        granting: Callable[[], ClientTicket],
        service: Service,
        accepts: Callable[[Principal], bool],
        *,
        required: bool = True,
        code: int = QUANTUM_RELIEF,
    ) -> None:
        super().__init__(granting, required=required, code=code)
        self._service, self._accepts = service, accepts
        self._opened: OpenedTicket | None = None

    def _offer(self, held: ClientTicket) -> bytes:
        return build(held.ticket, held.client)

    def _agree(self, held: ClientTicket, answer: Content) -> ClientTicket:
        if answer.name is None:
            raise IllegalParameter("the server answered a user as if it were a service")
        opened = self._service.open(answer.ticket, held.session_key)
        if opened.service != held.client or not self._accepts(opened.client) or opened.client != answer.name:
            raise HandshakeFailure(
                f"the server's ticket is of {opened.client} for {opened.service}, which is not what was asked for"
            )
        self._opened = opened
        return ClientTicket(opened.service, opened.client, answer.ticket, opened.session_key, opened.ends)

    def peer_credential(self) -> PeerCredential | None:
        """The user whose ticket it is."""
        return None if self._opened is None else ServicePeer(self._opened.client, self._opened)


class _Errand(_Relief):
    """Sends nothing: it is there to have something fetched at its place in the handshake, in worker threads of its own.

    The pool has threads for each extension's code, so `code` must be no extension of ours.
    """

    versions = frozenset({TLS12, TLS13})
    quantum_safe = False

    def psk_input(self, transcript_hash: Callable[[], bytes], group: int) -> bytes | None:
        """None."""
        return None

    def peer_credential(self) -> PeerCredential | None:
        """Nobody."""
        return None


class Prefetch(_Errand):
    """A client's: have the ticket before ClientHello, whatever the version will be."""

    def __init__(self, ticket: Callable[[], object], *, required: bool = True, code: int) -> None:
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


class ServerPrefetch(_Errand):
    """A server's that is a user: have its ticket-granting ticket before it has to be shown."""

    def __init__(self, begin: Callable[[], None], *, code: int) -> None:
        super().__init__(code)
        self._begin = begin

    def received_client_hello(self, content: bytes | None) -> None:
        """Fetch."""
        try:
            self._begin()
        except KerberosError as error:
            raise InternalError(str(error)) from None


class ServerRelief(_Relief):
    """Opens tickets for the services that `accepts` agrees to.

    `for_user` gets a ticket for a user by that one's ticket-granting ticket, and raises KerberosError; None: this server does not do that.
    """

    def __init__(
        self,
        service: Service,
        accepts: Callable[[Principal], bool] = lambda _: True,
        *,
        for_user: Callable[[Principal, bytes], ClientTicket] | None = None,
        code: int = QUANTUM_RELIEF,
    ) -> None:
        super().__init__(code)
        self._service, self._accepts, self._for_user = service, accepts, for_user
        self._offered = Content(b"")
        self._opened: OpenedTicket | None = None
        self._ticket = b""

    def received_client_hello(self, content: bytes | None) -> None:
        """Keep what was offered."""
        if content is not None:
            self._offered = parse(content)

    def server_hello(self, version: int) -> bytes | None:
        """Open the ticket and consent with an empty one; or have one made for a user."""
        if self._offered.name is not None:
            return self._answer_user(self._offered.name, self._offered.ticket)
        self._ticket = self._offered.ticket
        self._opened = self._service.open(self._ticket)
        check_service(self._opened, self._accepts)
        return build(b"")

    def _answer_user(self, client: Principal, granting: bytes) -> bytes:
        if self._for_user is None:
            raise HandshakeFailure(f"{client} asked for Quantum Relief between users, and this server is none")
        try:
            made = self._for_user(client, granting)
        except KerberosError as error:
            raise HandshakeFailure(str(error)) from None
        self._ticket, self._opened = made.ticket, OpenedTicket(client, made.client, made.session_key, made.ends)
        return build(made.ticket, made.client)

    def psk_input(self, transcript_hash: Callable[[], bytes], group: int) -> bytes | None:
        """Out of the session key in the ticket."""
        if self._opened is None:
            return None
        return derive(self._opened.session_key, self._ticket, group, transcript_hash())

    def peer_credential(self) -> PeerCredential | None:
        """The owner of the ticket."""
        return None if self._opened is None else TicketPeer((CertificateEntry(self._ticket),), self._opened, self._service)
