"""Do two ends that leave their roles to the pools prove themselves by tickets alone, whichever of them becomes the client?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kdh_pool import ANNA, FAR, JOHN, OLGA, WEB, World

from tlspool_core.client import PoolError, StartTlsFlags
from tlspool_core.testing.crossing import Crossing, meet

ONLY_CLIENT = StartTlsFlags.LOCALROLE_CLIENT | StartTlsFlags.REMOTEROLE_PEER


def check(outcomes: list[Any], one: str, other: str) -> tuple[str, str]:
    """Each knows the other, and data goes both ways; the roles."""
    ours, theirs = outcomes
    assert not isinstance(ours, PoolError) and not isinstance(theirs, PoolError), outcomes
    with ours, theirs:
        assert (ours.localid, ours.remoteid, theirs.localid, theirs.remoteid) == (one, other, other, one)
        ours.plaintext.sendall(b"ping")
        theirs.plaintext.sendall(b"pong")
        assert (ours.plaintext.recv(10), theirs.plaintext.recv(10)) == (b"pong", b"ping")
        return ours.role, theirs.role


def crossed(world: World, one: str, other: str, first: Any = None, **more: Any) -> tuple[str, str]:
    """Both speak at once; the roles that came of it."""
    crossing, call = Crossing(), world.pool.starttls_peer
    common = {"service": "http", "timeout": 20} | more
    ours, theirs = {"localid": one, "remoteid": other}, {"localid": other, "remoteid": one}
    roles = check(meet(first or call, call, common | ours, common | theirs, crossing.ends), one, other)
    crossing.close()
    assert crossing.crossed
    return roles


@pytest.mark.parametrize("pool", ["world", "older"])
@pytest.mark.parametrize(("one", "other"), [(JOHN, ANNA), (OLGA, JOHN), (WEB, FAR), (JOHN, WEB)])
def test_both_speak_at_once(request: pytest.FixtureRequest, pool: str, one: str, other: str) -> None:
    """Users, services, and one of each, of one realm and of two. The first can only be the client, so that each is it once."""
    world: World = request.getfixturevalue(pool)

    def only_client(sock: Any, **wishes: Any) -> Any:
        return world.pool._starttls(ONLY_CLIENT, sock, wishes)  # type: ignore[arg-type]

    for ours, theirs in ((one, other), (other, one)):
        assert crossed(world, ours, theirs, only_client) == ("client", "server")


@pytest.mark.parametrize("pool", ["world", "older"])
def test_the_lot_decides(request: pytest.FixtureRequest, pool: str) -> None:
    world, seen = request.getfixturevalue(pool), set()
    for _ in range(40):
        seen.add(crossed(world, JOHN, ANNA))
        if len(seen) == 2:
            return
    pytest.fail(f"40 lots, all of them {seen}")


def test_the_application_approves_its_identity_once(world: World) -> None:
    asked: list[str] = []

    def approve(proposal: Any) -> str:
        asked.append(proposal.localid)
        return str(proposal.localid)

    hook: dict[str, Callable[[Any], str]] = {"localid_hook": approve}
    for _ in range(4):
        crossed(world, JOHN, ANNA, **hook)
        assert sorted(asked) == [ANNA, JOHN]
        asked.clear()
