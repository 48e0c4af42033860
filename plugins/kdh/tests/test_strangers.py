"""Can strangers wear a KDC down, or lock others out, by what they show to a server that is a user?"""

from __future__ import annotations

import threading
from contextvars import copy_context
from dataclasses import replace
from typing import Any, cast

import pytest
from kdh_helpers import source
from tlspool_kdh import mit
from tlspool_kdh.accounts import Realms
from tlspool_kdh.asn1 import Ticket, decode, encode
from tlspool_kdh.gate import KDC_UNREACHABLE, Gate, KerberosError
from tlspool_kdh.plugin import KerberosType
from tlspool_kdh.sessions import ServerBox
from tlspool_kdh.sessions import box as session_box
from tlspool_kdh.strangers import Strangers
from tlspool_kdh.tickets import ClientTicket, Principal
from tlspool_kdh.wallet import Tickets

from tlspool_core.api import DoNAI, LocalCredential, Role, SessionContext
from tlspool_core.testing.memory import MemoryBackend

JOHN, MARY = Principal(("john",), "KDH.EXAMPLE"), Principal(("mary",), "KDH.EXAMPLE")
REFUSED = 7  # some code of the KDC


def refuse() -> None:
    raise KerberosError("no", REFUSED)


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def strangers(clock: list[float]) -> Strangers:
    made = Strangers(lambda: clock[0])
    made.per_peer, made.in_all = 3, 5
    return made


def refused(strangers: Strangers, network: str, what: object) -> str:
    with pytest.raises(KerberosError) as caught:
        strangers.ask(network, what, refuse)
    return str(caught.value)


def test_one_peer_has_so_many_requests_in_a_minute(strangers: Strangers, clock: list[float]) -> None:
    assert [refused(strangers, "192.0.2.1", number) for number in range(3)] == ["no"] * 3
    assert "192.0.2.1 has had tickets asked for 3 times" in refused(strangers, "192.0.2.1", 3)
    assert refused(strangers, "192.0.2.2", 3) == "no"
    clock[0] = 61
    assert refused(strangers, "192.0.2.1", 3) == "no"


def test_what_succeeds_counts_too(strangers: Strangers) -> None:
    """Who has many good tickets, or has seen them on a wire, is bounded as well."""
    for number in range(3):
        assert strangers.ask("192.0.2.1", number, lambda: "a ticket") == "a ticket"
    assert "3 times" in refused(strangers, "192.0.2.1", 3)


def test_many_peers_are_bounded_together_but_lock_nobody_out_who_was_good(strangers: Strangers, clock: list[float]) -> None:
    strangers.ask("192.0.2.1", "good", lambda: None)
    clock[0] = 100
    assert [refused(strangers, f"198.51.100.{number}", number) for number in range(5)] == ["no"] * 5
    assert "strangers have had tickets asked for 5 times" in refused(strangers, "198.51.100.9", 9)
    assert strangers.ask("192.0.2.1", "again", lambda: "a ticket") == "a ticket"
    clock[0] = 161
    assert refused(strangers, "198.51.100.9", 9) == "no"


def test_without_addresses_all_count_together(strangers: Strangers) -> None:
    assert [refused(strangers, "", number) for number in range(5)] == ["no"] * 5
    assert "strangers have had" in refused(strangers, "", 9)


def test_what_was_refused_is_not_asked_again_soon(strangers: Strangers, clock: list[float]) -> None:
    asked: list[int] = []

    def ask(code: int) -> None:
        asked.append(code)
        raise KerberosError("no", code)

    for code, times in ((REFUSED, 1), (KDC_UNREACHABLE, 2), (0, 2)):
        for _ in range(2):
            with pytest.raises(KerberosError, match="no"):
                strangers.ask("", code, lambda code=code: ask(code))
        assert asked.count(code) == times
    clock[0] = 61
    with pytest.raises(KerberosError, match="no"):
        strangers.ask("", REFUSED, lambda: ask(REFUSED))
    assert asked.count(REFUSED) == 2


def test_memory_is_bounded(strangers: Strangers, clock: list[float]) -> None:
    strangers.in_all = 10**6
    for number in range(5000):
        strangers.ask(f"network {number}", number, lambda: None)
        refused(strangers, f"network {number}", number)
    assert max(map(len, (strangers._asked, strangers._known, strangers._refused))) <= 4096


def test_strangers_leave_a_turn_at_the_kdc(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, release, inside = Gate(), threading.Event(), threading.Semaphore(0)

    def slow() -> None:
        inside.release()
        release.wait(60)

    def stranger() -> None:
        gate.ask("KDH.EXAMPLE", slow, stranger=True)

    askers = [threading.Thread(target=stranger) for _ in range(2)]
    for asker in askers:
        asker.start()
    for _ in askers:
        assert inside.acquire(timeout=60)
    with pytest.raises(KerberosError, match="is slow"):
        gate.ask("KDH.EXAMPLE", lambda: "a third stranger", stranger=True)
    assert gate.ask("KDH.EXAMPLE", lambda: "our own ticket") == "our own ticket"
    release.set()
    for asker in askers:
        asker.join(60)
    for _ in range(4):
        assert gate.ask("KDH.EXAMPLE", lambda: "again", stranger=True) == "again"


# --- the server --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def johns(realm: Any) -> ClientTicket:
    return Tickets().granting(source("john@KDH.EXAMPLE", keytab=realm.users))


@pytest.fixture
def box(realm: Any) -> ServerBox:
    """Mary is the server."""
    whose = source("mary@KDH.EXAMPLE", password=lambda: b"sesame")
    made = ServerBox(Tickets(), Realms({"KDH.EXAMPLE": "kdh.example"}), MARY.__eq__, whose, peer_network="192.0.2.1")
    made.begin()
    return made


def made_up(johns: ClientTicket, number: int) -> bytes:
    """As anybody can make it who knows the name of the realm."""
    values = decode(Ticket, johns.ticket)
    values["enc-part"]["cipher"] = number.to_bytes(len(values["enc-part"]["cipher"]))
    return encode(Ticket, values)


def test_a_peer_makes_the_kdc_look_at_so_many_made_up_tickets(
    johns: ClientTicket, box: ServerBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []
    ask = mit.service_ticket

    def counted(purse: Any, services: Any, second: bytes = b"") -> ClientTicket:
        asked.append(second)
        return ask(purse, services, second)

    monkeypatch.setattr(mit, "service_ticket", counted)
    box.tickets.strangers.per_peer = 5
    for number in (0, *range(9)):
        with pytest.raises(KerberosError):
            box.for_user(JOHN, made_up(johns, number))
    assert len(asked) == len(set(asked)) == 5
    another = replace(box, peer_network="192.0.2.2")
    assert another.for_user(JOHN, johns.ticket).service == JOHN
    assert box.for_user(JOHN, johns.ticket).service == JOHN  # which is kept, so nobody is asked
    assert len(asked) == 6


def test_a_ticket_has_one_encoding(johns: ClientTicket, box: ServerBox) -> None:
    """Or else who has seen a good one could have the KDC asked again and again: with a length of three bytes, for one."""
    assert johns.ticket[:2] == b"\x61\x82"
    with pytest.raises(KerberosError, match=r"DER|malformed"):
        box.for_user(JOHN, b"\x61\x83\0" + johns.ticket[2:])


def test_the_configuration_says_how_much_and_the_connection_who() -> None:
    kind, unused = KerberosType(), cast("Any", None)
    kind.configure({"realms": {"KDH.EXAMPLE": "kdh.example"}, "asks_per_peer": 7, "asks_in_all": 70})
    local = DoNAI.parse("mary@kdh.example")
    credential = LocalCredential(local, "kerberos", Role.BOTH, "", b'{"keytab": "FILE:/nonexistent"}')
    context = SessionContext("server", "http", local, None, (credential,), MemoryBackend(), unused, unused, "[2001:db8::7]:443")

    def begin() -> object:
        kind.begin(context)
        return session_box.get()

    found = copy_context().run(begin)
    assert isinstance(found, ServerBox) and found.peer_network == "2001:db8::/64"
    assert (found.tickets.strangers.per_peer, found.tickets.strangers.in_all) == (7, 70)
    for key in ("asks_per_peer", "asks_in_all"):
        for wrong in (0, -1, "many", True):
            with pytest.raises(ValueError, match=key):
                kind.configure({key: wrong})
