"""Is what is demanded in one's own name demanded of every peer: however a client's name was found, whether or not the server asks, and later?"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from deskhouse import House, eventually

from tlspool_core.client import ErrorCode, PoolError, Session, StartTlsFlags
from tlspool_core.client.desks import IdentityDesk
from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import Role

JOHN, MARY, WEB = "john@example.com", "mary@example.com", "www.example.com"
VERSIONS = ("1.3", "1.2")


@pytest.fixture
def house(houses: Callable[..., House], request: pytest.FixtureRequest) -> House:
    version = getattr(request, "param", "1.3")
    return houses(extra=f'[tls]\nversions = ["{version}"]\n')


def demand(house: House, name: str, expression: str) -> None:
    """From now on, of all whom this identity talks with."""
    with house.backend.write() as databases:
        entry = databases.localid(DoNAI.parse(name))
        assert entry is not None
        databases.put_localid(replace(entry, expression=expression))


def reason(outcomes: list[Any]) -> str:
    """Why the client refused the server."""
    error = outcomes[1]
    assert isinstance(error, PoolError), outcomes
    assert error.code == ErrorCode.REMOTEID_REFUSED
    return error.text


def client(outcomes: list[Any]) -> Session:
    assert isinstance(outcomes[1], Session), outcomes
    return outcomes[1]


@pytest.mark.parametrize("house", VERSIONS, indirect=True)
@pytest.mark.parametrize("server", [{}, {"flags": StartTlsFlags.IGNORE_REMOTEID}], ids=["asks", "does not ask"])
@pytest.mark.parametrize("named", [True, False], ids=["named", "disclosed"])
def test_it_holds_for_an_identity_that_is_named_or_disclosed(house: House, named: bool, server: dict[str, Any]) -> None:
    house.disclose(WEB, JOHN)
    wishes = {"localid": JOHN} if named else {}
    client(house.connect(wishes, server))
    demand(house, JOHN, "TD&")
    assert "D" in reason(house.connect(wishes, server))
    demand(house, MARY, "D")  # somebody else's
    demand(house, JOHN, "T")
    client(house.connect(wishes, server))


def test_it_takes_the_place_of_the_default(house: House) -> None:
    demand(house, JOHN, "0~")
    with house.backend.write() as databases:
        for record in list(databases.trusts()):
            databases.delete_trust(record.key)
    assert "T" in reason(house.connect({"localid": MARY}, {"flags": StartTlsFlags.IGNORE_REMOTEID}))
    client(house.connect({"localid": JOHN}, {"flags": StartTlsFlags.IGNORE_REMOTEID}))


@pytest.mark.parametrize("house", VERSIONS, indirect=True)
def test_it_holds_for_an_identity_that_the_application_says_when_it_is_asked(house: House) -> None:
    house.disclose(WEB, JOHN)
    wishes = {"localid_hook": lambda _: MARY}
    assert client(house.connect(wishes)).localid == MARY
    demand(house, MARY, "D")
    outcomes = house.connect(wishes)
    assert "D" in reason(outcomes)
    assert isinstance(outcomes[0], PoolError)  # so nobody was shown to it


@pytest.mark.parametrize("house", VERSIONS, indirect=True)
def test_it_holds_for_an_identity_that_a_desk_chooses(house: House) -> None:
    def serve() -> None:
        with suppress(PoolError):  # it is closed in the end
            for request in desk:
                request.choose(MARY)

    desk = IdentityDesk(house.path, maxlevels=8, timeout=10)
    thread = threading.Thread(target=serve)
    try:
        desk.register()
        eventually(lambda: "desk registered" in house.daemon.text)
        thread.start()
        assert client(house.connect()).localid == MARY
        demand(house, MARY, "D")
        assert "D" in reason(house.connect())
    finally:
        desk.close()
        thread.join(10)


@pytest.mark.parametrize(("roles", "accepted"), [(Role.CLIENT, True), (Role.BOTH, False)])
def test_a_credential_for_clients_only_can_be_demanded(house: House, roles: Role, accepted: bool) -> None:
    """C in its strict form looks at what would be shown, as that is shown once the server was judged."""
    with house.backend.write() as databases:
        entry = databases.localid(DoNAI.parse(JOHN))
        assert entry is not None
        credentials = tuple(replace(credential, roles=roles) for credential in entry.credentials)
        databases.put_localid(replace(entry, expression="C", credentials=credentials))
    outcomes = house.connect({"localid": JOHN})
    if accepted:
        client(outcomes)
    else:
        assert "C" in reason(outcomes)


def again(outcomes: list[Any]) -> str:
    """Why the server, which asks the client anew who it is, refused the client; empty if it did not."""
    server = outcomes[0]
    assert isinstance(server, Session), outcomes
    try:
        server.renegotiate()
    except PoolError as error:
        return error.text
    return ""


def test_it_holds_for_a_client_that_a_server_asks_later(house: House) -> None:
    outcomes = house.connect({"localid": JOHN})
    demand(house, MARY, "D")  # somebody else's
    assert not again(outcomes)
    demand(house, WEB, "D")
    assert "D" in again(outcomes)


@pytest.mark.parametrize(("roles", "accepted"), [(Role.SERVER, True), (Role.BOTH, False)])
def test_what_a_server_has_shown_counts_when_it_asks_later(house: House, roles: Role, accepted: bool) -> None:
    with house.backend.write() as databases:
        entry = databases.localid(DoNAI.parse(WEB))
        assert entry is not None
        databases.put_localid(replace(entry, credentials=tuple(replace(one, roles=roles) for one in entry.credentials)))
    outcomes = house.connect({"localid": JOHN})
    demand(house, WEB, "S")
    assert bool(again(outcomes)) is not accepted
