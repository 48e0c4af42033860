"""Do sessions get credentials that are made for them, as server and as client, and only when they ask?"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from deskhouse import House, eventually

from tlspool_core.client import ErrorCode, InfoKind, PoolError, Session, StartTlsFlags
from tlspool_core.client.desks import IdentityDesk
from tlspool_core.wire.flags import LidentryFlags

SHOP, JOHN, GUEST = "shop.example.org", "john@example.com", "guest@example.org"
ONTHEFLY = StartTlsFlags.LOCALID_ONTHEFLY


@pytest.fixture
def house(houses: Callable[..., House]) -> House:
    return houses(issuing=True)


def test_a_server(house: House) -> None:
    for _ in range(2):
        server, client = house.connect({"remoteid": SHOP, "localid": JOHN}, {"localid": SHOP, "flags": ONTHEFLY, "service": "imap"})
        assert isinstance(server, Session), server
        assert isinstance(client, Session), client
        assert (server.localid, client.remoteid, server.remoteid) == (SHOP, SHOP, JOHN)
        assert client.text(InfoKind.PEERCERT_ISSUER) == "CN=Proxy CA"


def test_a_server_that_goes_by_the_name_that_is_asked_for(house: House) -> None:
    server, client = house.connect({"remoteid": SHOP, "localid": JOHN}, {"localid": "", "flags": ONTHEFLY})
    assert isinstance(server, Session), server
    assert (server.localid, client.remoteid) == (SHOP, SHOP)


def test_a_client(house: House) -> None:
    server, client = house.connect({"localid": GUEST, "flags": ONTHEFLY})
    assert isinstance(server, Session), server
    assert (client.localid, server.remoteid) == (GUEST, GUEST)


def test_a_desk_may_say_so(house: House) -> None:
    def serve() -> None:
        try:
            for request in desk:
                request.choose(GUEST, flags=LidentryFlags.ONTHEFLY)
        except PoolError:
            return

    with IdentityDesk(house.path) as desk:
        desk.register()
        eventually(lambda: "desk registered" in house.daemon.text)
        thread = threading.Thread(target=serve)
        thread.start()
        server, client = house.connect()
        desk.close()
        thread.join(10)
    assert isinstance(server, Session), server
    assert (client.localid, server.remoteid) == (GUEST, GUEST)


@pytest.mark.parametrize(("flags", "code"), [(0, ErrorCode.LOCALID_NOT_FOUND), (ONTHEFLY, ErrorCode.CREDENTIAL_UNAVAILABLE)])
def test_not_without_the_flag_nor_without_an_issuing_key(houses: Callable[..., House], flags: Any, code: ErrorCode) -> None:
    house = houses()
    server, _ = house.connect({"remoteid": SHOP, "localid": JOHN}, {"localid": SHOP, "flags": StartTlsFlags(flags)})
    assert server.code == code
