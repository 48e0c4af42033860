"""Does a real FreeRADIUS note all that a real pool accounts, once, whatever ends or is full meanwhile?"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from freeradius import FreeRadius
from radius_pools import Meeting, PoolProcess, Pools, eventually, works
from tlspool_radius.ledger import waiting

from tlspool_core.client import ErrorCode, Pool, PoolError, aio

FIELDS = ("event", "id", "user", "out", "delay", "what", "classes", "in", "seconds", "cause", "session", "local")


def section(*servers: dict[str, Any], **more: Any) -> dict[str, Any]:
    names = [f"s{number}" for number in range(len(servers))]
    function = {"servers": names, "timeout": 2.0, "tries": 4, "limit": 12}
    return {
        "server": dict(zip(names, servers, strict=True)),
        "authorization": {"servers": names},
        "accounting": function,
    } | more


def records(server: FreeRadius, kind: str = "") -> list[dict[str, str]]:
    """What the server noted, of one kind of thing."""
    noted = [dict(zip(FIELDS, line.split("|"), strict=True)) for line in server.lines("records")]
    return [one for one in noted if one["what"].startswith(kind)]


@pytest.fixture
def own(own_servers: list[FreeRadius]) -> FreeRadius:
    """A server of this test's own; not started."""
    return own_servers[0]


def test_a_session_is_accounted_with_octets_duration_cause_and_class(pools: Pools, clients: PoolProcess, own: FreeRadius) -> None:
    own.start()
    asking = pools(section(own.section()), accounting=["radius"], account_sessions=True)
    with Meeting(asking.pool, clients.pool, "john") as met:
        met.client.plaintext.sendall(b"x" * 70_000)
        received = 0
        while received < 70_000:
            received += len(met.server.plaintext.recv(70_000))
        met.server.plaintext.sendall(b"thanks")
        assert met.client.plaintext.recv(10) == b"thanks"
        eventually(lambda: records(own))
    eventually(lambda: len(records(own)) == 2)
    start, stop = records(own, "session")
    assert (start["event"], stop["event"], start["id"]) == ("Start", "Stop", stop["id"])
    assert (stop["in"], stop["out"], stop["cause"]) == ("70000", "6", "User-Request")
    assert int(stop["seconds"]) >= 0
    assert start["what"] == f"session {start['session']}"
    eventually(lambda: start["session"] in asking.text)
    for one in (start, stop):
        assert (one["user"], one["local"], one["classes"]) == ("john@example.com", "www.example.com", "0x676f6c64,0x6e69676874")


@pytest.mark.parametrize(("user", "cause"), [("short", "Session-Timeout"), ("idle", "Idle-Timeout")])
def test_the_cause_of_an_end_is_told(pools: Pools, clients: PoolProcess, own: FreeRadius, user: str, cause: str) -> None:
    own.start()
    asking = pools(section(own.section()), accounting=["radius"], account_sessions=True)
    with Meeting(asking.pool, clients.pool, user) as met:
        assert met.client.plaintext.recv(1) == b""
        eventually(lambda: len(records(own)) == 2)
    assert records(own)[1]["cause"] == cause


def test_an_application_accounts_over_the_socket(pools: Pools, clients: PoolProcess, own: FreeRadius) -> None:
    own.start()
    asking = pools(section(own.section()), accounting=["radius"])
    with Meeting(asking.pool, clients.pool, "john") as met:
        account = met.server.account_this("pages", "job 7")
        account.interim(3)
        account.stop(5_000_000_000, cause=1)
        with pytest.raises(PoolError) as caught:
            met.server.account("pages", "job 8", met.server.localid, "bob@example.com")
        assert caught.value.code == ErrorCode.ACCOUNTING_IDENTITY
        with pytest.raises(PoolError, match='The kind "session" is for what the TLS Pool itself accounts'):
            met.server.account_this("session", "1")
    eventually(lambda: len(records(own)) == 3)
    assert [(one["event"], one["out"]) for one in records(own)] == [
        ("Start", ""),
        ("Interim-Update", "3"),
        ("Stop", str(5_000_000_000 % 2**32)),
    ]
    assert {(one["what"], one["user"], one["local"]) for one in records(own)} == {
        ("pages job 7", "john@example.com", "www.example.com")
    }
    assert len({one["id"] for one in records(own)}) == 1


def test_an_asynchronous_application_accounts_too(pools: Pools, clients: PoolProcess, own: FreeRadius) -> None:
    own.start()
    asking = pools(section(own.section()), accounting=["radius"])

    async def account(key: bytes, met: Meeting) -> None:
        async with aio.Pool(asking.path) as application:
            control = await application.control(key)
            await control.reattach()
            account = await control.account("minutes", "call 1", met.server.localid, met.server.remoteid)
            await account.interim(1)
            await account.stop(2)

    with Meeting(asking.pool, clients.pool, "john") as met:
        met.server.detach()
        asyncio.run(account(met.server.ctlkey, met))
    eventually(lambda: len(records(own)) == 3)
    assert [(one["event"], one["out"]) for one in records(own)] == [("Start", ""), ("Interim-Update", "1"), ("Stop", "2")]


def test_nothing_is_accounted_to_a_peer_that_is_not_validated(pools: Pools, clients: PoolProcess, own: FreeRadius) -> None:
    own.start()
    more = {"accounting": ["radius"], "account_sessions": True, "parallel": ["authorization"]}
    asking = pools(section(own.section()), **more)
    met = Meeting(asking.pool, clients.pool, "john", "slow")
    eventually(lambda: own.lines("requests"))  # permitted already, and not validated yet
    asking.outcome.write_text("revoked")
    met.close()
    asking.outcome.write_text("clean")
    works(asking, clients, "bob")
    eventually(lambda: len(records(own)) == 2)
    assert {one["user"] for one in records(own)} == {"bob@example.com"}


def test_workers_share_the_queue_and_nothing_counts_twice(pools: Pools, clients: PoolProcess, own: FreeRadius) -> None:
    own.start()
    asking = pools(section(own.section()), top="workers = 3", accounting=["radius"], account_sessions=True)
    for _ in range(4):
        met = [(pool, Meeting(pool, clients.pool, "john")) for pool in (Pool(asking.path) for _ in range(5))]
        for pool, one in met:
            one.close()
            pool.close()
    eventually(lambda: len(records(own)) >= 40)
    noted = [(one["id"], one["event"]) for one in records(own)]
    assert len(noted) == len(set(noted)) == 40


def test_records_wait_for_the_server_and_survive_the_death_of_the_pool(pools: Pools, clients: PoolProcess, own: FreeRadius) -> None:
    asking = pools(section(own.section()), authorization=[], accounting=["radius"], account_sessions=True)
    queue = asking.home / "queue"
    for _ in range(5):
        works(asking, clients)
    eventually(lambda: waiting(queue)[0] == 10)
    asking.stop(kill=True)
    own.start()
    asking.start()
    works(asking, clients)
    eventually(lambda: len(records(own)) >= 12 and waiting(queue)[0] == 0)
    noted = [(one["id"], one["event"]) for one in records(own)]
    assert len(noted) == len(set(noted)) == 12
    assert [event for _, event in noted] == ["Start", "Stop"] * 6
    assert int(records(own)[0]["delay"]) >= int(records(own)[-1]["delay"])


def test_what_is_open_when_the_pool_dies_is_stopped_by_the_next_one(pools: Pools, clients: PoolProcess, own: FreeRadius) -> None:
    own.start()
    asking = pools(section(own.section()), authorization=[], accounting=["radius"], account_sessions=True)
    with Meeting(asking.pool, clients.pool, "john") as met:
        met.server.account_this("pages", "job 7").interim(5)
        eventually(lambda: len(records(own)) == 3 and waiting(asking.home / "queue")[0] == 0)  # it knows that they have arrived
        asking.stop(kill=True)
    asking.start()
    eventually(lambda: len(records(own)) == 5)
    works(asking, clients)
    eventually(lambda: len(records(own)) == 7)
    (session,) = [one for one in records(own, "session")[:-2] if one["event"] == "Stop"]
    (pages,) = [one for one in records(own, "pages") if one["event"] == "Stop"]
    assert (session["cause"], session["user"]) == ("NAS-Reboot", "john@example.com")
    assert (pages["cause"], pages["out"]) == ("NAS-Reboot", "5")
    assert session["id"] == records(own, "session")[0]["id"] and pages["id"] == records(own, "pages")[0]["id"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", place], check=False).returncode:
        pytest.skip("only root can mount a small file system")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_told_and_loses_no_stop(pools: Pools, clients: PoolProcess, own: FreeRadius, small_disk: Path) -> None:
    asking = pools(
        section(own.section(), queue=str(small_disk / "queue")), authorization=[], accounting=["radius"], account_sessions=True
    )
    with Meeting(asking.pool, clients.pool, "john") as met:
        eventually(lambda: waiting(small_disk / "queue")[0] == 1)
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        with pytest.raises(PoolError) as caught:
            for number in range(2000):  # what SQLite still has in hand is used up
                met.server.account_this("pages", str(number)).stop(1)
        assert caught.value.code == ErrorCode.ACCOUNTING_UNAVAILABLE
        assert "the disk of the accounting queue is full" in caught.value.text
        with Meeting(asking.pool, clients.pool, "bob") as refused:
            assert isinstance(refused.server, PoolError) and refused.server.code == ErrorCode.ACCOUNTING_UNAVAILABLE
    eventually(lambda: "accounting is put off" in asking.text)
    ballast.unlink()
    own.start()
    ended = [("john@example.com", "Start"), ("john@example.com", "Stop")]
    eventually(lambda: [(one["user"], one["event"]) for one in records(own, "session") if one["user"].startswith("john")] == ended)
    works(asking, clients)
