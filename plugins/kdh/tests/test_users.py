"""Do two users meet in TLS 1.3, neither of whom has a key that lasts, and is everybody else refused for the right reason?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from kdh_helpers import PARTS, TicketAnswers, source
from tlspool_kdh.accounts import Realms
from tlspool_kdh.exchange import ServicePeer, TicketPeer
from tlspool_kdh.gate import KerberosError
from tlspool_kdh.mit import keytab_keys
from tlspool_kdh.relief import ClientRelief, ServerRelief, UserRelief, build, parse
from tlspool_kdh.sessions import ServerBox
from tlspool_kdh.tickets import ClientTicket, Principal, Service
from tlspool_kdh.wallet import Tickets

from tlspool_core.api import BadCertificate, DecodeError, HandshakeFailure, IllegalParameter, TlsError
from tlspool_core.testing.peers import Pair
from tlspool_core.tls import TlsConnection
from tlspool_core.tls.settings import TLS13, ClientSettings, ServerSettings

JOHN, MARY = Principal(("john",), "KDH.EXAMPLE"), Principal(("mary",), "KDH.EXAMPLE")
REALMS = Realms({"KDH.EXAMPLE": "kdh.example"})


@pytest.fixture(scope="module")
def tickets() -> Tickets:
    return Tickets()


@pytest.fixture
def johns(realm: Any, tickets: Tickets) -> ClientTicket:
    """John's ticket-granting ticket."""
    return tickets.granting(source("john@KDH.EXAMPLE", keytab=realm.users))


@pytest.fixture
def box(realm: Any, tickets: Tickets) -> ServerBox:
    """Mary is the server."""
    made = ServerBox(tickets, REALMS, MARY.__eq__, source("mary@KDH.EXAMPLE", password=lambda: b"sesame"))
    made.begin()
    return made


def meet(
    realm: Any,
    johns: ClientTicket,
    for_user: Callable[[Principal, bytes], ClientTicket] | None,
    wanted: Principal = MARY,
    client: type[ClientRelief] = UserRelief,
) -> Pair:
    service = Service(keytab_keys(realm.services))
    offer = client(lambda: johns, service, wanted.__eq__) if client is UserRelief else client(lambda: johns)
    common: Any = {"versions": (TLS13,), "extra_schemes": PARTS.signature_schemes, "extra_forms": PARTS.certificate_forms}
    first = ClientSettings(extensions=(offer,), **common)
    second = ServerSettings(extensions=(ServerRelief(service, MARY.__eq__, for_user=for_user),), **common)
    pair = Pair(TlsConnection(first), TlsConnection(second), TicketAnswers(), TicketAnswers(service=service))
    pair.run()
    return pair


def test_users_prove_each_other(realm: Any, johns: ClientTicket, box: ServerBox) -> None:
    pair = meet(realm, johns, box.for_user)
    assert pair.complete, (pair.client.failed, pair.server.failed)
    assert isinstance(pair.client.peer, ServicePeer) and pair.client.peer.principal == MARY
    assert isinstance(pair.server.peer, TicketPeer) and pair.server.peer.principal == JOHN
    for side in (pair.client, pair.server):
        assert side.facts.quantum_safe_exchange and side.facts.quantum_safe_authentication


def test_somebody_who_is_not_wanted(realm: Any, johns: ClientTicket, box: ServerBox) -> None:
    pair = meet(realm, johns, box.for_user, wanted=Principal(("anna",), "KDH.EXAMPLE"))
    assert isinstance(pair.client.failed, HandshakeFailure) and "ticket is of mary@KDH.EXAMPLE" in str(pair.client.failed)


def test_a_server_that_is_no_user(realm: Any, johns: ClientTicket) -> None:
    pair = meet(realm, johns, None)
    assert isinstance(pair.server.failed, HandshakeFailure) and "this server is none" in str(pair.server.failed)


def test_a_ticket_granting_ticket_is_no_ticket_for_a_user(realm: Any, johns: ClientTicket, box: ServerBox) -> None:
    """A client that takes the server for a service."""
    pair = meet(realm, johns, box.for_user, client=ClientRelief)
    assert isinstance(pair.server.failed, TlsError) and "krbtgt" in str(pair.server.failed)


def test_a_client_that_gives_another_name(realm: Any, johns: ClientTicket, box: ServerBox) -> None:
    pair = meet(realm, replace(johns, client=MARY), box.for_user)
    assert isinstance(pair.server.failed, HandshakeFailure) and "no ticket for mary@KDH.EXAMPLE" in str(pair.server.failed)


def test_a_client_that_has_only_seen_the_ticket(realm: Any, johns: ClientTicket, box: ServerBox) -> None:
    stolen = replace(johns, session_key=replace(johns.session_key, value=bytes(32)))
    pair = meet(realm, stolen, box.for_user)
    assert isinstance(pair.client.failed, BadCertificate)
    assert not pair.complete


@pytest.mark.parametrize("case", ["nonsense", "a ticket for a service", "another realm"])
def test_the_kdc_gets_nothing_else_of_a_client(realm: Any, johns: ClientTicket, box: ServerBox, case: str) -> None:
    mail = box.tickets.get(source("john@KDH.EXAMPLE", keytab=realm.users), (Principal.parse("imap/mail.kdh.example@KDH.EXAMPLE"),))
    shown = {"nonsense": b"nonsense", "a ticket for a service": mail.ticket}.get(case, johns.ticket)
    name = JOHN if case != "another realm" else Principal(("olga",), "OTHER.EXAMPLE")
    with pytest.raises(KerberosError, match=r"malformed|grants no tickets|no realm that is known"):
        box.for_user(name, shown)


def lies(box: ServerBox, change: Callable[[ClientTicket], ClientTicket]) -> Callable[[Principal, bytes], ClientTicket]:
    return lambda client, granting: change(box.for_user(client, granting))


def test_servers_that_lie(realm: Any, johns: ClientTicket, box: ServerBox) -> None:
    old = box.own
    assert old is not None
    for change, kind in (
        (lambda made: replace(made, ticket=old.ticket), BadCertificate),
        (lambda made: replace(made, client=JOHN), HandshakeFailure),
        (lambda made: replace(made, ticket=b""), BadCertificate),
        (lambda made: replace(made, session_key=old.session_key), TlsError),
    ):
        pair = meet(realm, johns, lies(box, change))
        assert isinstance(pair.client.failed, kind), pair.client.failed
        assert not pair.client.handshake_complete


def test_the_extension_with_a_name_byte_by_byte() -> None:
    """SEQUENCE of realm [0] GeneralString, principalName [1] SEQUENCE of name-type [0] 1, name-string [1] SEQUENCE of GeneralString."""
    realm = "a00d" + "1b0b" + b"KDH.EXAMPLE".hex()
    name = "a111" + "300f" + "a003020101" + "a108" + "3006" + "1b04" + b"john".hex()
    encoded = "3022" + realm + name
    built = build(b"abc", JOHN)
    assert built.hex() == "0001" + "0003" + b"abc".hex() + "0001" + "0024" + encoded
    assert parse(built).name == JOHN and parse(built).ticket == b"abc"


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_name_that_is_cut_off(cut: int) -> None:
    with pytest.raises((DecodeError, IllegalParameter)):
        parse(build(b"abc", JOHN)[:-cut])
    with pytest.raises(DecodeError):
        parse(build(b"abc", JOHN) + bytes(cut))
