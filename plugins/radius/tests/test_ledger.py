"""Does the queue on disk keep each record until it has arrived, and not a moment longer, whatever becomes of the disk and the process?"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from freeradius import FreeRadius, starts
from radius_helpers import plugin
from tlspool_radius import attributes as a
from tlspool_radius.accounting import describe, with_delay
from tlspool_radius.ledger import Entry, Ledger, LedgerError, waiting
from tlspool_radius.orphans import stop_of
from tlspool_radius.packets import ACCOUNTING_REQUEST, Request

from tlspool_core.api import AccountingRecord, DoNAI

ATTRIBUTES = [(1, b"john@example.com")]


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    return tmp_path / "queue"


def run(path: Path, work: Callable[[Ledger], Coroutine[Any, Any, None]], limit: int = 100) -> None:
    """With an open ledger that delivers."""

    async def main() -> None:
        ledger = Ledger(path, limit)
        await ledger.open()
        assert await ledger.mine()
        await work(ledger)
        await ledger.close()

    asyncio.run(main())


async def add(ledger: Ledger, *records: str) -> None:
    for record in records:
        await ledger.add(record, 0, ATTRIBUTES)


async def names(ledger: Ledger) -> list[str]:
    return [entry.record for entry in await ledger.first()]


def test_what_was_acknowledged_is_not_sent_again_after_a_sudden_end(queue: Path) -> None:
    async def before(ledger: Ledger) -> None:
        await add(ledger, "a", "b", "c")
        for entry in (await ledger.first())[:2]:
            ledger.acknowledge(entry)  # and here it ends, before anything is removed

    async def after(ledger: Ledger) -> None:
        assert await names(ledger) == ["c"]
        ledger.acknowledge((await ledger.first())[0])
        await ledger.remove()

    run(queue, before)
    assert waiting(queue)[0] == 3
    run(queue, after)
    assert waiting(queue)[0] == 0


def test_a_queue_from_a_backup_is_sent(queue: Path, tmp_path: Path) -> None:
    """Rather twice than never: a mark of other records does not count."""

    async def first(ledger: Ledger) -> None:
        await add(ledger, "a")

    async def second(ledger: Ledger) -> None:
        await add(ledger, "b", "c")
        for entry in await ledger.first():
            ledger.acknowledge(entry)
        await ledger.remove()

    async def restored(ledger: Ledger) -> None:
        await add(ledger, "x", "y")  # which get the numbers of b and c
        assert await names(ledger) == ["a", "x", "y"]

    run(queue, first)
    shutil.copy(queue, tmp_path / "backup")
    run(queue, second)
    shutil.copy(tmp_path / "backup", queue)
    run(queue, restored)


def test_a_mark_that_is_no_mark_is_ignored(queue: Path) -> None:
    async def work(ledger: Ledger) -> None:
        await add(ledger, "a")
        assert await names(ledger) == ["a"]

    for noise in (b"", b"\xff" * 300, b"[1]", b"{}", b'["a", "b", "c"]', b"[1, [], {}]"):
        Path(f"{queue}.lock").write_bytes(noise)
        queue.unlink(missing_ok=True)
        run(queue, work)


def test_a_full_queue_takes_stops_only(queue: Path) -> None:
    async def work(ledger: Ledger) -> None:
        await add(ledger, "a")
        outcomes = await asyncio.gather(
            ledger.add("b", 0, ATTRIBUTES),
            ledger.add("c", 0, ATTRIBUTES),
            ledger.add("a", 1, ATTRIBUTES, final=True),
            return_exceptions=True,
        )
        assert [isinstance(one, LedgerError) for one in outcomes] == [False, True, False]
        assert "is full: 2 records wait" in str(outcomes[1])
        assert await names(ledger) == ["a", "b", "a"]

    run(queue, work, limit=2)


def fill(ledger: Ledger) -> None:
    """As if the disk were full: SQLite says what it says then."""
    for connection in (ledger._adding, ledger._removing):
        connection.execute("PRAGMA max_page_count = 1")


def test_a_full_disk_is_named_and_taken_from_there_when_there_is_space(queue: Path) -> None:
    async def work(ledger: Ledger) -> None:
        await ledger._run(lambda: fill(ledger))
        with pytest.raises(LedgerError, match="the disk of the accounting queue is full"):
            for number in range(100):  # until the pages that are there are used up
                await ledger.add(f"r{number}", 0, [(1, bytes(250))] * 4)
        kept = await names(ledger)
        await ledger._run(lambda: ledger._adding.execute("PRAGMA max_page_count = 1000000"))
        await add(ledger, "late")
        assert await names(ledger) == [*kept, "late"]

    run(queue, work, limit=1000)


def record(number: int, event: str = "start") -> AccountingRecord:
    who = DoNAI("www.example.com"), DoNAI("example.com", "john")
    return AccountingRecord(event, f"r{number}", "pages", "job", *who, 1_800_000_000.0, None, sequence=int(event == "stop"))


def test_what_cannot_be_removed_is_not_sent_again(own_servers: list[FreeRadius], queue: Path) -> None:
    server, _ = own_servers
    server.start()
    function = {"servers": ["s"], "timeout": 2.0, "tries": 5, "limit": 30}
    section = {"queue": str(queue), "server": {"s": server.section()}, "accounting": function}

    async def main(first: int, *, full: bool) -> None:
        async with plugin(section) as started:
            assert started._engine is not None and started._engine.ledger is not None
            ledger = started._engine.ledger
            if full:
                trigger = "CREATE TRIGGER full BEFORE DELETE ON queue BEGIN SELECT RAISE(FAIL, 'no space'); END"
                await ledger._run(lambda: ledger._adding.execute(trigger))
            for number in range(first, first + 3):
                await started.account(record(number))
            async with asyncio.timeout(60):
                while len(starts(server)) < first + 3 or not (full or waiting(queue)[0] == 0):  # noqa: ASYNC110 - the server is another process
                    await asyncio.sleep(0.02)

    asyncio.run(main(0, full=True))
    assert waiting(queue)[0] == 3
    with sqlite3.connect(queue) as connection:
        connection.execute("DROP TRIGGER full")
    connection.close()
    asyncio.run(main(3, full=False))
    assert starts(server) == [f"r{number}" for number in range(6)]
    assert waiting(queue)[0] == 0


def test_what_waits_for_the_disk_is_limited(queue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlspool_radius.ledger._MOST_AT_ONCE", 3)

    async def work(ledger: Ledger) -> None:
        outcomes = await asyncio.gather(*(add(ledger, f"r{number}") for number in range(9)), return_exceptions=True)
        assert any("wait for the disk already" in str(one) for one in outcomes)
        assert sum(one is None for one in outcomes) == len(await names(ledger)) >= 3

    run(queue, work)


def test_a_record_of_anything_fits_a_packet_and_so_does_its_stop() -> None:
    """What does not would hold up all others for ever: also the stop that is made when a process has died."""
    classes = (*(bytes(16),) * 200, bytes(253))
    attributes = {"classes": classes, "session": "s" * 999, "service": "x" * 999, "peer_address": "p" * 999}
    who = DoNAI(".".join(["x" * 60] * 4)), DoNAI(".".join(["y" * 40] * 3), "u" * 128)
    begun = AccountingRecord("start", "r" * 999, "k" * 999, "", *who, 1.0, None, None, attributes)
    ended = attributes | {"cause": 1, "octets_in": 1 << 63, "octets_out": 1 << 63}
    last = replace(begun, event="stop", ended=2.0, attributes=ended)
    described = [describe(one, "n" * 999, "", 1.5) for one in (begun, last)]
    for one in (*described, stop_of(described[0], 3.0)):
        raw = Request.make(ACCOUNTING_REQUEST, with_delay(Entry(1, "r", 1.0, one), 2.0), b"a shared secret").raw
        assert len(raw) <= 4096
    assert len({tuple(pair for pair in one if pair[0] == a.CLASS) for one in described}) == 1
    assert a.CLASS in dict(described[0])


def test_what_is_no_packet_is_told_and_holds_up_nothing(
    own_servers: list[FreeRadius], queue: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another version may have taken it over."""
    server, _ = own_servers
    server.start()
    function = {"servers": ["s"], "timeout": 2.0, "tries": 5, "limit": 30}
    section = {"queue": str(queue), "server": {"s": server.section()}, "accounting": function}

    async def before(ledger: Ledger) -> None:
        await ledger.add("huge", 0, [(a.CLASS, bytes(250))] * 20)

    async def main() -> None:
        async with plugin(section) as started:
            await started.account(record(1))
            async with asyncio.timeout(60):
                while waiting(queue)[0]:  # noqa: ASYNC110 - the queue is another thread's
                    await asyncio.sleep(0.02)

    run(queue, before)
    asyncio.run(main())
    assert starts(server) == ["r1"]
    assert "cannot be sent, and is given up: Acct-Session-Id huge: a request of" in caplog.text


def test_what_applications_account_leaves_places_for_sessions(queue: Path) -> None:
    """Or an application that accounts without end would have the sessions of all others refused."""

    async def work(ledger: Ledger) -> None:
        for number in range(6):
            await ledger.add(f"theirs{number}", 0, ATTRIBUTES, ours=False)
        with pytest.raises(LedgerError, match="is full: 6 records"):
            await ledger.add("theirs6", 0, ATTRIBUTES, ours=False)
        await add(ledger, "ours1", "ours2")
        await ledger.add("theirs0", 1, ATTRIBUTES, final=True, ours=False)

    run(queue, work, limit=8)


def test_a_stop_of_what_is_not_open_takes_no_place(queue: Path) -> None:
    """Its start was refused, as the queue is full; a flood of those would fill the disk."""

    async def work(ledger: Ledger) -> None:
        await add(ledger, "a")
        with pytest.raises(LedgerError, match="is full"):
            await add(ledger, "b")
        await ledger.add("b", 1, ATTRIBUTES, final=True)
        for _ in range(2):
            await ledger.add("a", 1, ATTRIBUTES, final=True)
        assert await names(ledger) == ["a", "a"]

    run(queue, work, limit=1)


# --- what servers do not take -------------------------------------------------------------------------------------------------


def test_what_is_put_behind_keeps_its_order_and_comes_after_all_others(queue: Path) -> None:
    async def work(ledger: Ledger) -> None:
        for sequence, record in enumerate(("a", "b", "b", "c", "b", "d")):
            await ledger.add(record, sequence, [(1, b"%d" % sequence)])
        ledger.acknowledge((await ledger.first())[0])
        assert await ledger.put_behind("b")
        assert [(entry.record, entry.attributes[0][1]) for entry in await ledger.first()] == [
            ("c", b"3"),
            ("d", b"5"),
            ("b", b"1"),
            ("b", b"2"),
            ("b", b"4"),
        ]
        for entry in (await ledger.first())[:2]:
            ledger.acknowledge(entry)
        await ledger.remove()
        assert not await ledger.put_behind("b"), "there is nothing else"
        assert await names(ledger) == ["b"] * 3
        await add(ledger, "e", "f", "g")
        with pytest.raises(LedgerError, match="is full: 6 records"):
            await add(ledger, "h")

    run(queue, work, limit=6)


def test_a_record_that_a_living_server_does_not_take_holds_up_nobody_else(
    own_servers: list[FreeRadius], queue: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who can choose a User-Name that a server's database does not hold would stop the accounting of all."""
    server, _ = own_servers
    server.start()
    function = {"servers": ["s"], "timeout": 2.0, "tries": 1, "limit": 30}
    section = {"queue": str(queue), "server": {"s": server.section()}, "accounting": function}
    poison = replace(record(0), remote_identity=DoNAI("example.com", "poison"))

    async def main() -> None:
        async with plugin(section) as started:
            await started.account(poison)
            await started.account(replace(poison, event="stop", ended=1_800_000_060.0, sequence=1))
            for number in range(1, 4):
                await started.account(record(number))
            async with asyncio.timeout(60):
                while len(server.lines("records")) < 3 or waiting(queue)[0] > 2:  # noqa: ASYNC110 - the server is another process
                    await asyncio.sleep(0.02)
            assert waiting(queue)[0] == 2
            await asyncio.to_thread(server.change, "/^poison@/", "/^nobody@/")
            async with asyncio.timeout(60):
                while waiting(queue)[0]:  # noqa: ASYNC110 - the queue is another thread's
                    await asyncio.sleep(0.02)

    asyncio.run(main())
    noted = [tuple(line.split("|")[:2]) for line in server.lines("records")]
    assert noted == [("Start", "r1"), ("Start", "r2"), ("Start", "r3"), ("Start", "r0"), ("Stop", "r0")]
    assert caplog.text.count("a server is well and does not take accounting for Acct-Session-Id r0") == 1


# --- processes that died ------------------------------------------------------------------------------------------------------


def start(told: int = 0, at: int = 1000) -> list[tuple[int, bytes]]:
    """A start at `at`, or an interim record with a count, a minute later."""
    if not told:
        return [(a.ACCT_STATUS_TYPE, a.number(1)), (a.USER_NAME, b"john@example.com"), (a.EVENT_TIMESTAMP, a.number(at))]
    return [
        (a.ACCT_STATUS_TYPE, a.number(3)),
        (a.USER_NAME, b"john@example.com"),
        (a.EVENT_TIMESTAMP, a.number(at + 60)),
        (a.ACCT_SESSION_TIME, a.number(60)),
        (a.ACCT_OUTPUT_OCTETS, a.number(told)),
    ]


def stop(end: int, seconds: int, told: int = 0) -> list[tuple[int, bytes]]:
    counts = [(a.ACCT_OUTPUT_OCTETS, a.number(told))] if told else []
    return [
        (a.ACCT_STATUS_TYPE, a.number(2)),
        (a.USER_NAME, b"john@example.com"),
        *counts,
        (a.EVENT_TIMESTAMP, a.number(end)),
        (a.ACCT_SESSION_TIME, a.number(seconds)),
        (a.ACCT_TERMINATE_CAUSE, a.number(11)),
    ]


def test_what_was_open_in_a_process_that_died_is_stopped_once_when_it_was_last_seen(queue: Path) -> None:
    async def before(ledger: Ledger) -> None:
        await ledger.add("stopped", 0, start())
        await ledger.add("stopped", 1, stop(1001, 1), final=True)
        await ledger.add("started", 0, start())
        await ledger.add("counting", 0, start())
        await ledger.add("counting", 1, start(told=7))
        for entry in await ledger.first():
            ledger.acknowledge(entry)
        await ledger.remove()

    async def after(ledger: Ledger) -> None:
        assert await ledger.stop_orphans() == 2
        assert await ledger.stop_orphans() == 0
        found = {entry.record: entry.attributes for entry in await ledger.first()}
        assert found == {"started": stop(2000, 1000), "counting": stop(2000, 1000, told=7)}

    async def later(ledger: Ledger) -> None:
        assert await ledger.stop_orphans() == 0

    run(queue, before)
    os.utime(f"{queue}.lock", (2000, 2000))  # when the pool was seen alive last
    run(queue, after)
    run(queue, later)


def test_what_is_open_in_a_process_that_lives_stays_open(queue: Path) -> None:
    async def main() -> None:
        delivers, other = Ledger(queue, 10), Ledger(queue, 10)
        await delivers.open()
        await other.open()
        assert await delivers.mine()
        await delivers.add("own", 0, start())
        await other.add("theirs", 0, start())
        assert await delivers.stop_orphans() == 0
        await other.close()
        assert await delivers.stop_orphans() == 1
        assert (await delivers.first())[-1].record == "theirs"
        await delivers.close()

    asyncio.run(main())


def test_a_clock_that_went_back_charges_nothing_less_than_was_told() -> None:
    assert stop_of(start(told=7), 3.0) == stop(1060, 60, told=7)
