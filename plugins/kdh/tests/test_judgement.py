"""Is a ticket believed only where it is meant to be used, and does one role of a session leave nothing to the other?"""

from __future__ import annotations

from contextvars import copy_context
from typing import Any

import pytest
from tlspool_kdh.crypto import KerberosKey
from tlspool_kdh.exchange import ServicePeer, TicketPeer
from tlspool_kdh.plugin import KerberosType
from tlspool_kdh.sessions import box
from tlspool_kdh.tickets import OpenedTicket, Principal, Service

from tlspool_core.api import DoNAI, Finding, LocalCredential, Role, SessionContext, Verdict
from tlspool_core.testing.memory import MemoryBackend
from tlspool_core.testing.policy import peer_context

JOHN, WEB = DoNAI.parse("john@kdh.example"), DoNAI.parse("web.kdh.example")
HERE = ((2, bytes((192, 0, 2, 1))),)


@pytest.fixture
def kind() -> KerberosType:
    made = KerberosType()
    made.configure({"realms": {"KDH.EXAMPLE": "kdh.example"}})
    return made


def opened(service: str, client: str = "john@KDH.EXAMPLE", addresses: Any = ()) -> OpenedTicket:
    key = KerberosKey(18, bytes(32))
    return OpenedTicket(Principal.parse(client), Principal.parse(service), key, 0.0, addresses)


def judge(kind: KerberosType, peer: Any, **context: Any) -> Finding:
    (predicate,) = kind.predicates()
    found = predicate.establish(peer_context(**({"peer": peer, "local_identity": WEB, "offered_role": "client"} | context)))
    assert isinstance(found, Finding)
    return found


def client(service: str, **more: Any) -> TicketPeer:
    return TicketPeer((), opened(service, **more), Service(lambda *_: KerberosKey(18, bytes(32))))


@pytest.mark.parametrize(
    ("service", "context", "verdict"),
    [
        ("http/web.kdh.example@KDH.EXAMPLE", {}, Verdict.STRICT),
        ("HTTP/web.kdh.example@KDH.EXAMPLE", {}, Verdict.STRICT),
        ("host/web.kdh.example@KDH.EXAMPLE", {}, Verdict.STRICT),
        ("imap/web.kdh.example@KDH.EXAMPLE", {}, Verdict.FALSE),
        ("imap/web.kdh.example@KDH.EXAMPLE", {"service": ""}, Verdict.STRICT),
        ("http/old.kdh.example@KDH.EXAMPLE", {}, Verdict.FALSE),
        ("http/web.kdh.example@KDH.EXAMPLE", {"local_identity": None}, Verdict.FALSE),
        ("john@KDH.EXAMPLE", {"local_identity": JOHN}, Verdict.STRICT),
    ],
)
def test_tickets_are_for_an_identity_and_a_service(kind: KerberosType, service: str, context: Any, verdict: Verdict) -> None:
    """Also where the server's identity followed from the server name, so that no box could tell when the ticket was opened."""
    found = judge(kind, client(service), **context)
    assert found.verdict is verdict
    assert verdict is Verdict.STRICT or found.reason == f"the ticket is for {service}"


@pytest.mark.parametrize(
    ("address", "good"), [("192.0.2.1:443", True), ("[::ffff:192.0.2.1]:443", True), ("192.0.2.2:443", False), ("", False)]
)
def test_tickets_are_good_from_their_addresses(kind: KerberosType, address: str, good: bool) -> None:
    """A client's for a service; and a user's own, which a client sees."""
    user = ServicePeer(Principal.parse("mary@KDH.EXAMPLE"), opened("john@KDH.EXAMPLE", "mary@KDH.EXAMPLE", HERE))
    for peer in (client("http/web.kdh.example@KDH.EXAMPLE", addresses=HERE), user):
        found = judge(kind, peer, peer_address=address)
        assert (found.verdict is Verdict.STRICT) is good and (good or "addresses" in found.reason)
        kind.checks_addresses = False
        assert judge(kind, peer, peer_address=address).verdict is Verdict.STRICT
        kind.checks_addresses = True


def test_a_role_that_was_left_leaves_nothing_behind(kind: KerberosType) -> None:
    local = LocalCredential(JOHN, "kerberos", Role.CLIENT, "", b'{"keytab": "FILE:/nonexistent"}')

    def begin(role: str) -> Any:
        unused: Any = None
        kind.begin(SessionContext(role, "http", JOHN, WEB, (local,), MemoryBackend(), unused, unused))
        return box.get()

    def session() -> None:
        assert begin("client") is not None
        assert begin("server") is None

    copy_context().run(session)


class Closed(MemoryBackend):
    """Databases that nobody may read."""

    def read(self) -> Any:
        raise AssertionError("databases are read on the event loop")


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("identity", [JOHN, WEB])
def test_a_session_begins_without_waiting_for_databases(kind: KerberosType, identity: DoNAI, role: str) -> None:
    local = LocalCredential(identity, "kerberos", Role.BOTH, "", b'{"keytab": "FILE:/nonexistent"}')
    unused: Any = None
    context = SessionContext(role, "http", identity, JOHN, (local,), Closed(), unused, unused)
    assert copy_context().run(kind.begin, context).extensions
