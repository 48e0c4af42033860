"""What one session has of Kerberos: its box, on either side.

Theory of operation
-------------------
What `load` makes is the same for all sessions, and a ticket is not.  So each session has a box, found by a context variable (asyncio
and the pool's worker threads keep one for each session), and credentials show what is in the box of the session at hand.  Boxes are
filled where it may block: by the hooks of hello extensions and by the key exchange.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field

from tlspool_core.api import AccessDenied, CertificateEntry, DoNAI, Role
from tlspool_kdh.accounts import Realms
from tlspool_kdh.asn1 import Ticket, decode, encode
from tlspool_kdh.codes import CHECKSUMS, TICKET_TYPE
from tlspool_kdh.exchange import check_service
from tlspool_kdh.gate import KerberosError
from tlspool_kdh.mit import Source
from tlspool_kdh.tickets import ClientTicket, OpenedTicket, Principal, Service
from tlspool_kdh.wallet import Services, Tickets


def check_granting(ticket: bytes, realms: Realms) -> None:
    """Whether a peer's ticket-granting ticket is for a KDC of a known realm: libkrb5 and the KDC get nothing else from peers.

    Raises KerberosError.
    """
    try:
        outer = decode(Ticket, ticket)
        names, realm = Principal.of(outer["sname"], outer["realm"]).names, outer["realm"]
    except ValueError as error:
        raise KerberosError(f"the peer's ticket-granting ticket is malformed: {error}") from None
    if encode(Ticket, outer) != ticket:
        raise KerberosError("the peer's ticket-granting ticket is not in DER")
    if names != ("krbtgt", realm) or realm not in realms.domains:
        raise KerberosError(
            f"the peer shows a ticket for {'/'.join(names)}@{realm}, which grants no tickets in a realm that is known here"
        )


@dataclass(slots=True)
class ClientBox:
    """A client's: its ticket for the service or user, and between users its own ticket-granting ticket."""

    tickets: Tickets
    realms: Realms
    source: Source
    services: Services  # by which the KDC may know the remote
    held: ClientTicket | None = None
    kdh_only: bool = False  # then Authenticators have a subkey
    to_user: bool = False
    used: Callable[[], None] = lambda: None  # called when the session has a ticket of ours, new or kept

    def begin(self) -> object:
        """Before ClientHello, where it may block: have what the session will need in any case. Raises KerberosError."""
        return self.granting() if self.to_user else self.fill()

    def fill(self) -> ClientTicket:
        """The ticket for the remote, by its own key. Raises KerberosError."""
        if self.held is None:
            self.held = self.tickets.get(self.source, self.services)
        self.used()
        return self.held

    def kept(self) -> bool:
        """Whether `fill` has nothing to wait for. Does not block."""
        self.held = None if self.to_user else self.tickets.held(self.source, self.services)
        return self.held is not None

    def granting(self) -> ClientTicket:
        """Our ticket-granting ticket. Raises KerberosError."""
        found = self.tickets.granting(self.source)
        self.used()
        return found

    def prepare(self, granting: bytes) -> None:
        """KDH-only was agreed on; the server may have shown a ticket-granting ticket. Raises AccessDenied."""
        self.kdh_only = True
        try:
            if granting:
                check_granting(granting, self.realms)
                self.held = self.tickets.get(self.source, self.services, granting)
                self.used()
            else:
                self.fill()
        except KerberosError as error:
            raise AccessDenied(str(error)) from None


@dataclass(slots=True)
class ServerBox:
    """A server's: whom it accepts tickets for, and its own ticket-granting ticket if it is a user."""

    tickets: Tickets
    realms: Realms
    accepts: Callable[[Principal], bool]
    source: Source | None = None  # of its own tickets; None: it is no user
    needs_own: bool = True  # whether a session is of no use without a ticket-granting ticket
    own: ClientTicket | None = field(default=None, repr=False)
    used: Callable[[], None] = lambda: None  # called when the session has a ticket of ours, new or kept
    peer_network: str = ""

    def begin(self) -> None:
        """When ClientHello is here. Raises KerberosError where nothing but Kerberos can prove this server."""
        if self.source is None:
            return
        try:
            self.own = self.tickets.granting(self.source)
        except KerberosError:
            if self.needs_own:
                raise
        else:
            self.used()

    def for_user(self, client: Principal, granting: bytes) -> ClientTicket:
        """A ticket of ours for a user who shows a ticket-granting ticket. Raises KerberosError."""
        if self.source is None:
            raise KerberosError("this server is no user")
        if client.realm not in self.realms.domains:
            raise KerberosError(f"{client} is in no realm that is known here")
        check_granting(granting, self.realms)
        return self.tickets.get(self.source, (client,), granting, self.peer_network)

    def open(self, service: Service, ticket: bytes) -> OpenedTicket:
        """A client's ticket for this session, by our own ticket-granting ticket if that was shown. Raises a TlsError."""
        key = self.own.session_key if self.own is not None and _is_for(ticket, self.own.client) else None
        opened = service.open(ticket, key)
        check_service(opened, self.accepts)
        return opened


def _is_for(ticket: bytes, principal: Principal) -> bool:
    try:
        outer = decode(Ticket, ticket)
        return Principal.of(outer["sname"], outer["realm"]) == principal
    except ValueError:
        return False  # `Service.open` says what is wrong with it


box: ContextVar[ClientBox | ServerBox | None] = ContextVar("tlspool_kdh_box", default=None)


class SessionCredential:
    """Shows what is in the box of the session at hand: a client's ticket, or the ticket-granting ticket of a server that is a user."""

    certificate_type = TICKET_TYPE
    issuers: Sequence[bytes] = ()

    def __init__(self, roles: Role) -> None:
        self.roles = roles

    @property
    def signature_schemes(self) -> Sequence[int]:
        """None before there is a ticket, and for a server: then the credential does not fit where something is to be signed."""
        return tuple(CHECKSUMS) if self.held is not None else ()

    @property
    def entries(self) -> Sequence[CertificateEntry]:
        """The ticket."""
        found = box.get()
        shown = found.own if isinstance(found, ServerBox) else self.held
        return (CertificateEntry(shown.ticket),) if shown is not None else ()

    @property
    def held(self) -> ClientTicket | None:
        """The ticket of a client."""
        found = box.get()
        return found.held if isinstance(found, ClientBox) else None

    @property
    def kdh_only(self) -> bool:
        """Whether Authenticators of this session have a subkey."""
        found = box.get()
        return isinstance(found, ClientBox) and found.kdh_only


def accepts_for(realms: Realms, local: DoNAI, service: str) -> Callable[[Principal], bool]:
    """Which principals of tickets stand for a server: those of its identity, and of the service at hand, or `host`, if it is a host."""

    def accepts(principal: Principal) -> bool:
        if realms.identity(principal) != local:
            return False
        return len(principal.names) == 1 or not service or principal.names[0].lower() in (service.lower(), "host")

    return accepts
