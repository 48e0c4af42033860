"""Does the identity desk decide whom a client is, is the choice remembered only if it works, and who may decide for whom?"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from deskhouse import LATER, UNTRUSTED, House, Person, eventually

from tlspool_core.client import ErrorCode, PoolError, Session
from tlspool_core.client.desks import IdentityDesk, IdentityRequest
from tlspool_core.identity import DoNAI
from tlspool_core.pool.desks_identity import may_skip
from tlspool_core.wire.codec import PACKET_SIZE, decode, encode
from tlspool_core.wire.flags import LidentryFlags as F
from tlspool_core.wire.messages import Error, LidentryCallback, LidentryRegister, Packet, Ping, StartTls

JOHN, MARY, WEB = "john@example.com", "mary@example.com", "www.example.com"


@pytest.fixture
def house(houses: Callable[..., House]) -> House:
    return houses()


def served(house: House, answer: Callable[[IdentityRequest], None], **wishes: Any) -> tuple[list[Any], list[IdentityRequest]]:
    """One session while a desk answers in its way; the outcomes, and what the desk was asked."""
    asked: list[IdentityRequest] = []

    def serve() -> None:
        try:
            for request in desk:
                asked.append(request)
                answer(request)
        except PoolError:
            return  # closed

    before = house.daemon.text.count("desk registered")
    with IdentityDesk(house.path, **({"maxlevels": 8, "timeout": 10} | wishes)) as desk:
        desk.register()
        eventually(lambda: house.daemon.text.count("desk registered") > before)
        thread = threading.Thread(target=serve)
        thread.start()
        outcomes = house.connect()
        desk.close()
        thread.join(10)
    return outcomes, asked


def client_of(outcomes: list[Any]) -> str:
    """Whom the client was, as both ends say."""
    server, client = outcomes
    assert isinstance(server, Session), outcomes
    assert isinstance(client, Session), outcomes
    assert server.remoteid == client.localid
    found = client.localid
    server.close()
    client.close()
    return str(found)


def test_a_choice_among_entries(house: House) -> None:
    house.disclose(".example.com", JOHN, MARY)
    outcomes, asked = served(house, lambda request: request.choose(request.entries[1]))
    assert [request.entries for request in asked] == [(JOHN, MARY)]
    assert (asked[0].remoteid, asked[0].maxlevels) == (WEB, 3)
    assert client_of(outcomes) == MARY
    assert house.disclosed(".example.com") == [JOHN, MARY]
    assert client_of(house.connect()) == JOHN  # without the desk the database decides


def test_without_entries(house: House) -> None:
    outcomes, asked = served(house, lambda request: request.choose(MARY))
    assert asked[0].entries == ()
    assert client_of(outcomes) == MARY
    assert house.disclosed(WEB) is None


def test_an_application_that_names_its_identity_is_not_asked_about(house: House) -> None:
    asked: list[IdentityRequest] = []
    with IdentityDesk(house.path) as desk:
        desk.register()
        eventually(lambda: "desk registered" in house.daemon.text)
        assert client_of(house.connect({"localid": JOHN})) == JOHN
    assert asked == []


@pytest.mark.parametrize(
    ("before", "flags", "selector", "after"),
    [
        (None, F.DBINSERT, WEB, [MARY]),
        ([JOHN], F.DBINSERT, WEB, [MARY, JOHN]),
        ([JOHN], F.DBAPPEND, WEB, [JOHN, MARY]),
        ([JOHN, MARY], F.DBINSERT, WEB, [JOHN, MARY]),
        ([JOHN, MARY], F.DBINSERT | F.DBREORDER, WEB, [MARY, JOHN]),
        ([MARY, JOHN], F.DBAPPEND | F.DBREORDER, WEB, [JOHN, MARY]),
        ([JOHN, MARY], F.DBREORDER, WEB, [JOHN, MARY]),
        ([JOHN], F.DBINSERT, ".com", [MARY, JOHN]),
        (None, F.DBAPPEND, ".", [MARY]),
    ],
)
def test_what_is_remembered(house: House, before: list[str] | None, flags: F, selector: str, after: list[str]) -> None:
    if before is not None:
        house.disclose(selector, *before)
    outcomes, _ = served(house, lambda request: request.choose(MARY, selector=selector, flags=flags))
    assert client_of(outcomes) == MARY
    eventually(lambda: house.disclosed(selector) == after)


def test_a_choice_that_does_not_work_is_not_remembered(house: House) -> None:
    outcomes, _ = served(house, lambda request: request.choose("nobody@example.com", flags=F.DBINSERT))
    assert outcomes[1].code == ErrorCode.LOCALID_NOT_FOUND
    assert house.disclosed(WEB) is None


def test_selectors_that_were_not_offered(house: House) -> None:
    for selector, levels in ((".com", 1), ("other.example.org", 8), ("@.", 8), ("*", 8)):
        choose = lambda request, s=selector: request.choose(MARY, selector=s, flags=F.DBINSERT)  # noqa: E731
        outcomes, _ = served(house, choose, maxlevels=levels)
        assert outcomes[1].code == ErrorCode.LIDENTRY_REFUSED
        assert house.disclosed(selector) is None


def test_declined(house: House) -> None:
    house.disclose(".example.com", JOHN)
    outcomes, _ = served(house, lambda request: request.decline())
    assert outcomes[0].code == ErrorCode.REMOTEID_MISSING  # nobody was shown


def test_new_waits(house: House) -> None:
    def create(request: IdentityRequest) -> None:
        request.choose(LATER, flags=F.NEW)
        threading.Timer(0.5, house.add, (LATER,)).start()

    outcomes, _ = served(house, create)
    assert client_of(outcomes) == LATER


@pytest.mark.parametrize(
    ("flags", "selector", "remote", "skips"),
    [
        (F.WANT_DBENTRY, WEB, WEB, False),
        (F.SKIP_DBENTRY, WEB, WEB, True),
        (F.SKIP_DBENTRY, ".", WEB, True),
        (F.SKIP_NOTROOT, ".", WEB, False),
        (F.SKIP_NOTROOT, ".com", WEB, True),
        (F.SKIP_DOMAIN_SAME, WEB, WEB, True),
        (F.SKIP_DOMAIN_SAME, ".example.com", WEB, False),
        (F.SKIP_DOMAIN_ONEUP, WEB, WEB, False),
        (F.SKIP_DOMAIN_ONEUP, ".example.com", WEB, True),
        (F.SKIP_DOMAIN_ONEUP, ".com", WEB, False),
        (F.SKIP_DOMAIN_SUB, WEB, WEB, True),
        (F.SKIP_DOMAIN_SUB, ".example.com", WEB, True),
        (F.SKIP_DOMAIN_SUB, ".com", WEB, False),
        (F.SKIP_USER, "john@example.com", "john@example.com", True),
        (F.SKIP_USER, "john@.com", "john@example.com", True),
        (F.SKIP_USER, "@example.com", "john@example.com", False),
        (F.SKIP_USER | F.SKIP_DOMAIN_SAME, "john@.com", "john@example.com", False),
    ],
)
def test_what_a_desk_leaves_to_the_database(flags: F, selector: str, remote: str, skips: bool) -> None:
    assert may_skip(flags, DoNAI.parse(remote), selector) is skips


def test_skipping(house: House) -> None:
    house.disclose(".example.com", JOHN)
    outcomes, asked = served(house, lambda request: request.choose(MARY), flags=F.SKIP_DBENTRY)
    assert (client_of(outcomes), asked) == (JOHN, [])


# --- programs at the socket -----------------------------------------------------------------------------------------------------------


class Desk:
    """Registers as existing programs do: in the first packet, with flag 0x100 and 300 seconds."""

    def __init__(self, house: House, timeout: int = 300) -> None:
        self.link = socket.socket(socket.AF_UNIX)
        house.links.append(self.link)
        self.link.settimeout(15)
        self.link.connect(str(house.path))
        self.link.sendall(encode(Packet(0, 0, LidentryRegister(F.WANT_DBENTRY, 0, timeout))))

    def read(self) -> Packet:
        data = self.link.recv(PACKET_SIZE, socket.MSG_WAITALL)
        assert len(data) == PACKET_SIZE
        return decode(data, answer=True)

    def send(self, packet: Packet) -> None:
        self.link.sendall(encode(packet))


def begin(house: House, count: int = 1) -> tuple[threading.Thread, list[Any]]:
    eventually(lambda: house.daemon.text.count("desk registered") >= count)
    outcomes: list[Any] = []
    thread = threading.Thread(target=lambda: outcomes.extend(house.connect()))
    thread.start()
    return thread, outcomes


def test_the_dialogue_in_packets(house: House) -> None:
    house.disclose(".example.com", JOHN, MARY)
    desk = Desk(house)
    thread, outcomes = begin(house)
    shown = []
    while True:
        packet = desk.read()
        message = packet.message
        assert isinstance(message, LidentryCallback)
        assert packet.cbid
        if not message.flags & F.DBENTRY:
            break
        shown.append((message.localid, message.remoteid, message.maxlevels))
        desk.send(packet)  # by its echo
    assert shown == [(JOHN, ".example.com", 1), (MARY, ".example.com", 1)]
    assert (message.localid, message.remoteid, message.maxlevels) == ("", WEB, 0)
    desk.send(Packet(packet.reqid, packet.cbid, message.echo(localid=JOHN, remoteid=WEB)))
    thread.join(20)
    assert client_of(outcomes) == JOHN


def test_two_desks_at_once(house: House) -> None:
    Desk(house)
    eventually(lambda: "desk registered" in house.daemon.text)
    refusal = Desk(house).read().message
    assert isinstance(refusal, Error)
    assert refusal.tlserrno == ErrorCode.LIDENTRY_NOT_VACANT


def test_a_desk_that_dies(house: House) -> None:
    desk = Desk(house)
    thread, outcomes = begin(house)
    desk.read()
    desk.link.close()
    thread.join(20)
    assert outcomes[1].code == ErrorCode.LIDENTRY_REFUSED
    house.disclose(".", JOHN)
    assert client_of(house.connect()) == JOHN


def test_a_desk_that_hangs(house: House) -> None:
    desk = Desk(house, timeout=1)
    thread, outcomes = begin(house)
    desk.read()
    thread.join(20)
    assert outcomes[1].code == ErrorCode.LIDENTRY_TIMEOUT
    Desk(house)
    eventually(lambda: house.daemon.text.count("desk registered") == 2)
    refusal = desk.read().message
    assert isinstance(refusal, Error)
    assert refusal.tlserrno == ErrorCode.LIDENTRY_NOT_VACANT


@pytest.mark.parametrize("localid", ["not an identity", "*@example.com", "127.0.0.1"])
def test_a_desk_that_lies(house: House, localid: str) -> None:
    desk = Desk(house)
    thread, outcomes = begin(house)
    packet = desk.read()
    assert isinstance(packet.message, LidentryCallback)
    desk.send(Packet(packet.reqid, packet.cbid, packet.message.echo(localid=localid)))
    thread.join(20)
    assert outcomes[1].code == ErrorCode.LIDENTRY_REFUSED


@pytest.mark.parametrize("answer", [Ping(), Error(1, "no"), StartTls()])
def test_a_desk_that_answers_something_else(house: House, answer: Any) -> None:
    desk = Desk(house)
    thread, outcomes = begin(house)
    packet = desk.read()
    desk.send(Packet(packet.reqid, packet.cbid, answer))
    thread.join(20)
    assert outcomes[1].code in (ErrorCode.LIDENTRY_REFUSED, ErrorCode.CIPHER_SOCKET_NEEDED)
    house.pool.ping()


def test_an_identity_that_nobody_trusts(house: House) -> None:
    """The server refuses it when the client's side of the handshake is complete, and has succeeded (TLS 1.3)."""
    outcomes, _ = served(house, lambda request: request.choose(UNTRUSTED, flags=F.DBINSERT))
    assert outcomes[0].code == ErrorCode.REMOTEID_REFUSED
    eventually(lambda: house.daemon.text.count("ended") + house.daemon.text.count("refused") >= 2)
    assert client_of(house.connect({"localid": JOHN})) == JOHN
    assert house.disclosed(WEB) is None


def test_workers(houses: Callable[..., House]) -> None:
    house = houses(extra="workers = 3\n---\n")
    outcomes, asked = served(house, lambda request: request.choose(MARY, selector=".example.com", flags=F.DBINSERT))
    assert len(asked) == 1
    assert client_of(outcomes) == MARY
    eventually(lambda: house.disclosed(".example.com") == [MARY])


# --- a person --------------------------------------------------------------------------------------------------------------------------


def test_a_person_chooses(house: House, person: Callable[..., Person]) -> None:
    house.disclose(".example.com", JOHN)
    at = person("choose", "--socket", str(house.path))
    at.sees("waiting for questions")
    thread, outcomes = begin(house)
    at.sees(f"Whom to be towards {WEB}?")
    at.sees(f"1  {JOHN}")
    at.types("7\n")
    at.sees("there is no number 7")
    at.types(f"{MARY} forever\n")
    at.sees("'forever' is none of")
    at.types(f"{MARY} always .example.com\n")
    at.sees(f"{WEB} sees {MARY}")
    thread.join(20)
    assert client_of(outcomes) == MARY
    eventually(lambda: house.disclosed(".example.com") == [MARY, JOHN])
    thread, outcomes = begin(house)
    at.sees(f"2  {JOHN}")
    at.types("2\n")
    at.sees(f"sees {JOHN}")
    thread.join(20)
    assert client_of(outcomes) == JOHN
    thread, outcomes = begin(house)
    at.sees("> ")
    at.types("\n")
    at.sees("sees nobody")
    thread.join(20)
    assert outcomes[0].code == ErrorCode.REMOTEID_MISSING
    assert at.interrupts() == 0
