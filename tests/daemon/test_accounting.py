"""Is everything that is accounted handed to the plugin once, in order, for proven identities, and always stopped?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import DaemonProcess, both, eventually
from toyplugin import CLIENT, SERVER

from tlspool_core.client import ErrorCode, Pool, PoolError, Session, StartTlsFlags, options
from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import Aaa, AaaDecision, AaaRequest, AccountingRecord, Denied
from tlspool_core.pool import accounting
from tlspool_core.pool.accounting import AccountingDesk
from tlspool_core.testing.aaa import accounting_record
from tlspool_core.wire.errors import WireError
from tlspool_core.wire.messages import AccountingInterim, AccountingStart, AccountingStop

RULES = """
[aaa]
authorization = ["site"]
accounting = ["site"]
account_sessions = {sessions}
[aaa.site]
records = "{records}"
"""


@pytest.fixture
def records(tmp_path: Path) -> Path:
    return tmp_path / "records"


@pytest.fixture
def daemon(daemons: Callable[..., DaemonProcess], records: Path) -> DaemonProcess:
    return daemons(RULES.format(sessions="false", records=records))


def read(records: Path, event: str = "") -> list[dict[str, Any]]:
    lines = records.read_text().splitlines() if records.exists() else []
    return [record for record in map(json.loads, lines) if event in ("", record["event"])]


def pair(daemon: DaemonProcess, pool: Pool | None = None) -> tuple[Session, Session]:
    server, client = both(
        pool or daemon.pool,
        daemon.pool,
        {"localid": SERVER, "flags": StartTlsFlags.NONE},
        {"localid": CLIENT, "remoteid": SERVER},
    )
    assert isinstance(server, Session) and isinstance(client, Session), (server, client)
    return server, client


def code_of(call: Callable[[], object]) -> int:
    with pytest.raises(PoolError) as caught:
        call()
    return caught.value.code


def test_start_interim_and_stop_arrive_in_order_and_belong_together(daemon: DaemonProcess, records: Path) -> None:
    server, client = pair(daemon)
    with server, client:
        account = server.account_this("pages", "job 7", started=1000.5)
        account.interim(3)
        account.stop(8, cause=1)
        assert code_of(lambda: account.stop(9)) == ErrorCode.ACCOUNTING_UNKNOWN
    taken = read(records)
    assert [(record["event"], record["count"], record["sequence"]) for record in taken] == [
        ("start", None, 0),
        ("interim", 3, 1),
        ("stop", 8, 2),
    ]
    assert len({record["record_id"] for record in taken}) == 1
    assert all(record["started"] == 1000.5 and record["instance"] == "job 7" for record in taken)
    assert taken[2]["ended"] > 1_700_000_000 and taken[2]["attributes"]["cause"] == 1
    assert taken[0]["attributes"]["classes"] == ["gold"]


def test_a_start_that_is_repeated_counts_once(daemon: DaemonProcess, records: Path) -> None:
    server, client = pair(daemon)
    with server, client:
        first = server.account_this("pages", "x")
        assert server.account_this("pages", "x").record.started == first.record.started
        server.account_this("pages", "y")
    assert len(read(records, "start")) == 2


def test_a_request_that_failed_is_repeated_with_the_same_record(daemon: DaemonProcess, records: Path) -> None:
    server, client = pair(daemon)
    with server, client:
        with pytest.raises(PoolError, match="accounting by site: the disk is full"):
            server.account_this("failing", "x")
        server.account_this("failing", "x")
    first, second = read(records, "start")
    assert (first["record_id"], first["sequence"]) == (second["record_id"], second["sequence"])


def test_identities_that_the_session_did_not_prove_are_refused(daemon: DaemonProcess, records: Path) -> None:
    server, client = pair(daemon)
    with server, client:
        for local, remote in ((CLIENT, SERVER), (SERVER, SERVER), (SERVER, ""), ("", "")):
            call = lambda local=local, remote=remote: server.account("pages", "x", local, remote)  # noqa: E731
            assert code_of(call) == ErrorCode.ACCOUNTING_IDENTITY
    assert read(records) == []


@pytest.mark.parametrize(
    ("kind", "instance"), [("session", "1"), ("session 1", ""), ("", "session 1"), (" session\u200b1", ""), ("session\n", "1")]
)
def test_nothing_can_be_accounted_that_reads_as_a_session_of_the_pool(
    daemon: DaemonProcess, records: Path, kind: str, instance: str
) -> None:
    server, client = pair(daemon)
    with server, client:
        assert code_of(lambda: server.account_this(kind, instance)) == ErrorCode.ACCOUNTING_UNAVAILABLE
        server.account_this("sessions", "1")
    assert {record["kind"] for record in read(records)} <= {"sessions"}


def test_the_final_count_can_come_after_the_session(daemon: DaemonProcess, records: Path) -> None:
    server, client = pair(daemon)
    account = server.account_this("pages", "x")
    client.close()
    eventually(lambda: "ended" in daemon.text)
    server.close()
    with Pool(daemon.path) as stranger:
        call = lambda: stranger.control(server.ctlkey).account("pages", "y", SERVER, CLIENT)  # noqa: E731
        assert code_of(call) == ErrorCode.CTLKEY_NOT_YOURS
    account.stop(4)
    assert [record["count"] for record in read(records, "stop")] == [4]
    assert code_of(account.interim) == ErrorCode.CTLKEY_NOT_FOUND


def test_what_an_application_leaves_open_is_stopped(daemon: DaemonProcess, records: Path) -> None:
    with Pool(daemon.path) as application:
        server, client = pair(daemon, application)
        server.account_this("pages", "x").interim(5)
        server.account_this("minutes", "x")
    eventually(lambda: len(read(records, "stop")) == 2)
    assert {(record["kind"], record["count"], record["attributes"]["cause"]) for record in read(records, "stop")} == {
        ("pages", 5, 3),
        ("minutes", None, 3),
    }
    server.close()
    client.close()


def test_what_is_open_is_stopped_with_the_pool(daemon: DaemonProcess, records: Path) -> None:
    server, client = pair(daemon)
    server.account_this("pages", "x")
    server.close()
    client.close()
    assert daemon.stop() == 0
    assert len(read(records, "stop")) == 1


def test_sessions_of_the_pool_are_accounted(daemons: Callable[..., DaemonProcess], records: Path) -> None:
    daemon = daemons(RULES.format(sessions="true", records=records))
    server, client = pair(daemon)
    with server, client:
        client.plaintext.sendall(b"12345")
        assert server.plaintext.recv(10) == b"12345"
        assert len(read(records, "start")) == 2
    eventually(lambda: len(read(records, "stop")) == 2)
    stops = {record["attributes"]["role"]: record for record in read(records, "stop")}
    assert stops["server"]["kind"] == "session" and stops["server"]["instance"] == stops["server"]["attributes"]["session"]
    assert stops["server"]["attributes"]["octets_in"] == 5 and stops["client"]["attributes"]["octets_out"] == 5
    assert (stops["server"]["local_identity"]["domain"], stops["server"]["remote_identity"]["user"]) == (SERVER, "john")


def test_without_a_plugin_accounting_is_unavailable(daemons: Callable[..., DaemonProcess]) -> None:
    server, client = pair(daemons())
    with server, client:
        assert code_of(lambda: server.account_this("pages", "x")) == ErrorCode.ACCOUNTING_UNAVAILABLE


def test_any_worker_takes_records(daemons: Callable[..., DaemonProcess], records: Path) -> None:
    daemon = daemons("workers = 3\n---\n" + RULES.format(sessions="false", records=records))
    server, client = pair(daemon)
    server.detach()
    for number in range(8):
        with Pool(daemon.path) as application:
            control = application.control(server.ctlkey)
            control.reattach()
            account = control.account("pages", str(number), SERVER, CLIENT)
            account.stop(number)
            control.detach()
    assert len(read(records, "stop")) == len(read(records, "start")) == 8
    server.close()
    client.close()


def test_a_control_key_that_is_used_again_is_another_session(
    daemon: DaemonProcess, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first session left open is stopped, and the first application may leave after the second one."""
    real, key = options.request, bytes(range(16))

    def request(roles: StartTlsFlags, *arguments: Any, **more: Any) -> Any:
        made = real(roles, *arguments, **more)
        return made.echo(ctlkey=key) if roles == options.SERVER else made

    with Pool(daemon.path) as first, Pool(daemon.path) as second:
        other = pair(daemon, first)
        monkeypatch.setattr(options, "request", request)
        for number, application in enumerate((first, second), 1):
            server, client = pair(daemon, application)
            server.account_this("pages", f"job {number}")
            client.close()
            server.close()
            eventually(lambda number=number: daemon.text.count("ended") == 2 * number)
        assert [record["instance"] for record in read(records, "stop")] == ["job 1"]
        second.close()
        eventually(lambda: len(read(records, "stop")) == 2)
    with other[0], other[1]:
        assert other[1].plaintext.recv(1) == b"", "sessions end with the application that left"
    assert "fault" not in daemon.text


class Full(Aaa):
    """Takes nothing until there is space."""

    name = "full"

    def __init__(self, space_after: int, *, final: bool = False) -> None:
        self.offered: list[AccountingRecord] = []
        self._space_after = space_after
        self._final = final

    async def authorize(self, request: AaaRequest) -> AaaDecision:
        raise Denied("not asked")

    async def account(self, record: AccountingRecord) -> None:
        self.offered.append(record)
        if len(self.offered) <= self._space_after:
            raise Denied("the disk is full", final=self._final)


def desk(*plugins: Aaa) -> AccountingDesk:
    made = AccountingDesk()
    made.configure(plugins, sessions=True, time_limit=5.0)
    return made


async def idle(desk: AccountingDesk) -> None:
    """Wait until it has nothing to hand over."""
    async with asyncio.timeout(20):
        while desk._tasks:  # noqa: ASYNC110 - the desk has no event
            await asyncio.sleep(0.001)


def test_a_stop_that_nobody_could_repeat_is_offered_until_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounting, "_PAUSE", (0.001, 0.002))
    full, stop = Full(3), accounting_record("stop")

    async def main() -> None:
        made = desk(full)
        made.later(stop)
        while len(full.offered) < 4:  # noqa: ASYNC110 - the plugin has no event
            await asyncio.sleep(0.001)
        await made.flush()

    asyncio.run(main())
    assert full.offered == [stop] * 4


def test_waiting_is_told_once_and_who_has_taken_a_stop_is_not_asked_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accounting, "_PAUSE", (0.001, 0.002))
    slow, quick, stop = Full(3), Full(0), accounting_record("stop")

    async def main() -> None:
        made = desk(slow, quick)
        made.later(stop)
        await idle(made)

    asyncio.run(main())
    assert (len(slow.offered), quick.offered) == (4, [stop])
    assert caplog.text.count("put off") == 1


@pytest.mark.parametrize(("final", "longest"), [(True, 60.0), (False, 0.0)])
def test_what_can_never_be_taken_has_an_end_and_holds_up_no_other_plugin(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, final: bool, longest: float
) -> None:
    """It is said to be final, or nobody has taken it for the longest time."""
    monkeypatch.setattr(accounting, "_PAUSE", (0.001, 0.002))
    monkeypatch.setattr(accounting, "_LONGEST", longest)
    never, other, stop = Full(1000, final=final), Full(0), accounting_record("stop")

    async def main() -> None:
        made = desk(never, other)
        made.later(stop)
        await idle(made)

    asyncio.run(main())
    assert len(never.offered) <= 2 and other.offered == [stop]
    assert caplog.text.count("not accounted") == 1


def some_session() -> Any:
    """As much of a session as is accounted."""
    told = {"id": "s-1", "role": "server", "peer_type": None, "peer_address": "192.0.2.7:4711", "local": SERVER, "remote": CLIENT}
    more = {"request": SimpleNamespace(service="http"), "decision": AaaDecision(), "identity": DoNAI.parse}
    return SimpleNamespace(**told, **more)


def start_a_session(*plugins: Aaa, patience: float = 60.0) -> None:
    """Account for the start of a session in vain, and let the desk finish what follows."""

    async def main() -> None:
        made = desk(*plugins)
        with pytest.raises((WireError, TimeoutError)):
            async with asyncio.timeout(patience):
                await made.session_started(some_session())
        await idle(made)

    asyncio.run(main())


def test_a_start_that_was_refused_for_good_is_stopped_where_it_was_taken(caplog: pytest.LogCaptureFixture) -> None:
    never, other = Full(1000, final=True), Full(0)
    start_a_session(never)
    assert [record.event for record in never.offered] == ["start"] and "not accounted" not in caplog.text
    start_a_session(other, never)
    assert [record.event for record in other.offered] == ["start", "stop"]


class Slow(Full):
    """Takes a start, but does not say so."""

    async def account(self, record: AccountingRecord) -> None:
        await super().account(record)
        await asyncio.sleep(60 if record.event == "start" else 0)


def test_a_start_that_is_called_off_is_stopped() -> None:
    slow = Slow(0)
    start_a_session(slow, patience=0.01)
    assert [record.event for record in slow.offered] == ["start", "stop"]


@pytest.mark.parametrize("limit", [10_000, 0])  # 0: there are too many of them already
def test_what_is_never_taken_ends_with_the_pool_and_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, limit: int
) -> None:
    monkeypatch.setattr(accounting, "_PUT_OFF", limit)
    full = Full(1000)

    async def main() -> None:
        made = desk(full)
        made.later(accounting_record("stop"))
        while not full.offered:  # noqa: ASYNC110 - the plugin has no event
            await asyncio.sleep(0)
        await made.flush()

    asyncio.run(main())
    assert len(full.offered) == (2 if limit else 1)
    assert "not accounted" in caplog.text


class Picky(Full):
    """Does not take the stop of one thing."""

    async def account(self, record: AccountingRecord) -> None:
        self.offered.append(record)
        if (record.event, record.instance) == ("stop", "first"):
            raise Denied("not this one")


def test_a_stop_that_has_to_wait_holds_up_no_other() -> None:
    picky = Picky(0)

    async def main() -> None:
        made = desk(picky)
        for instance in ("first", "second", "third"):
            await made.begin(some_session(), AccountingStart(bytes(16), "pages", instance, SERVER, CLIENT))
        made.session_ended(bytes(16), None)
        async with asyncio.timeout(20):
            while {one.instance for one in picky.offered if one.event == "stop"} != {"first", "second", "third"}:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await made.flush()

    asyncio.run(main())


@pytest.mark.parametrize("detached", [False, True])
def test_what_is_open_stays_with_whoever_left_it_when_the_control_key_is_used_again(detached: bool) -> None:
    """By a session that accounts for nothing."""
    full, stop = Full(0), AccountingStop(bytes(16), "pages", "x", SERVER, CLIENT, count=9)
    first, second = object(), None if detached else object()

    async def main() -> None:
        made = desk(full)
        await made.begin(some_session(), AccountingStart(bytes(16), "pages", "x", SERVER, CLIENT))
        made.session_ended(bytes(16), first)
        made.session_ended(bytes(16), second)
        with pytest.raises(WireError) as caught:
            await made.resume(stop, object() if detached else second)
        assert caught.value.code == ErrorCode.CTLKEY_NOT_YOURS
        made.release(second)
        await made.resume(stop, first)
        made.release(first)

    asyncio.run(main())
    assert [(record.event, record.count) for record in full.offered] == [("start", None), ("stop", 9)]


@pytest.mark.parametrize("last", [AccountingStop, AccountingInterim])
def test_a_count_that_was_told_in_vain_is_not_lost(last: type[AccountingStop | AccountingInterim]) -> None:
    """The disk was full when the application told it, and the application has gone since."""
    full, who = Full(0), (SERVER, CLIENT)

    async def main() -> None:
        made = desk(full)
        await made.begin(some_session(), AccountingStart(bytes(16), "pages", "x", *who))
        full.offered, full._space_after = [], 1
        with pytest.raises(WireError):
            await made.begin(some_session(), last(bytes(16), "pages", "x", *who, count=8))
        made.session_ended(bytes(16), None)
        await idle(made)

    asyncio.run(main())
    in_vain, stop = full.offered
    assert (stop.event, stop.count) == ("stop", 8)
    assert (stop == in_vain) is (last is AccountingStop)
