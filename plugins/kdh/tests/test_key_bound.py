"""Does a session by a ticket end with the token that the ticket's password lies in, though the ticket was had before and is kept?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kdh_helpers import soon
from kdh_pool import JOHN, MARY, WEB, World, needs_token

from tlspool_core.client import ErrorCode, PoolError, Session, StartTlsFlags

pytestmark = needs_token
BOUND = StartTlsFlags.KEY_BOUND


class House(World):
    """A pool whose token is pulled and plugged in."""

    @contextlib.contextmanager
    def without_token(self) -> Iterator[None]:
        slots, drawer = self.base / "tokens", self.base / "drawer"
        drawer.mkdir(exist_ok=True)
        _move(slots, drawer)
        try:
            yield
        finally:
            _move(drawer, slots)

    def start(self, server: str, client: str, **flags: StartTlsFlags) -> list[Any]:
        return self.both({"localid": server} | flags, {"localid": client, "remoteid": server} | flags)


def _move(source: Path, target: Path) -> None:
    for one in [*source.iterdir()]:
        one.rename(target / one.name)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, realm: Any) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("house"), realm)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def annexe(tmp_path_factory: pytest.TempPathFactory, realm: Any, house: House) -> Iterator[House]:
    """For TLS 1.2, with the same token."""
    made = House(tmp_path_factory.mktemp("annexe"), realm, '[tls]\nversions = ["1.2"]', like=house)
    yield made
    made.stop()


def ended(session: Session) -> bool:
    session.plaintext.settimeout(0.01)
    with contextlib.suppress(TimeoutError):
        return session.plaintext.recv(1) == b""
    return False


def alive(server: Session, client: Session) -> bool:
    client.plaintext.sendall(b"still here")
    server.plaintext.settimeout(10)
    return server.plaintext.recv(100) == b"still here"


@pytest.mark.parametrize(("server", "client", "marys"), [(WEB, MARY, 1), (MARY, JOHN, 0)])
@pytest.mark.parametrize("which", ["house", "annexe"])
def test_pulling_the_token_ends_all_sessions_of_its_tickets(
    request: pytest.FixtureRequest, which: str, server: str, client: str, marys: int
) -> None:
    """As a client and as a server, with a ticket that was had for the session, and with one that was had before it."""
    house: House = request.getfixturevalue(which)
    with contextlib.ExitStack() as stack:
        free, *bound = (house.start(server, client, **flags) for flags in ({}, {"flags": BOUND}, {"flags": BOUND}))
        for outcomes in (free, *bound):
            assert all(isinstance(one, Session) for one in outcomes), outcomes
            for session in outcomes:
                stack.enter_context(session)
        with house.without_token():
            soon(lambda: all(ended(outcomes[marys]) for outcomes in bound))
            assert alive(*free)
            refused = house.start(server, client, flags=BOUND)[marys]
            assert isinstance(refused, PoolError) and refused.code == ErrorCode.CREDENTIAL_UNAVAILABLE, refused
            assert "realm" in str(refused)  # the token's label
    soon(lambda: begun(house, server, client))


def begun(house: House, server: str, client: str) -> bool:
    outcomes = house.start(server, client, flags=BOUND)
    for one in outcomes:
        if isinstance(one, Session):
            one.close()
    return all(isinstance(one, Session) for one in outcomes)
