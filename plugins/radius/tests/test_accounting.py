"""Is every record that was taken over delivered, in order, with its delay, over restarts of either side, and counted once?"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from freeradius import FreeRadius, starts
from radius_helpers import plugin
from tlspool_radius import attributes as a
from tlspool_radius.accounting import describe, with_delay
from tlspool_radius.ledger import Entry, Ledger, LedgerError, waiting

from tlspool_core.api import AccountingRecord, Denied, DoNAI

RECORDS = 10_000


def record(number: int = 0, event: str = "start", **more: Any) -> AccountingRecord:
    identities = (DoNAI("www.example.com"), DoNAI("example.com", "john"))
    ended = 1_800_000_060.0 if event == "stop" else None
    return AccountingRecord(event, f"r{number}", "pages", f"job {number}", *identities, 1_800_000_000.0, ended, **more)


def section(queue: Path, *servers: dict[str, Any], **more: Any) -> dict[str, Any]:
    names = [f"s{number}" for number in range(len(servers))]
    function = {"servers": names, "timeout": 1.0, "tries": 4}  # a busy machine must not look like a dead server
    return {"queue": str(queue), "server": dict(zip(names, servers, strict=True)), "accounting": function} | more


def patient(queue: Path, server: FreeRadius) -> dict[str, Any]:
    """A section for which a machine that is very busy is not yet a dead server."""
    function = {"servers": ["s0"], "timeout": 1.0, "tries": 10, "limit": 60}
    return section(queue, server.section(dead_time=0), accounting=function)


async def noted(server: FreeRadius, count: int) -> None:
    """Wait until the server has so many."""
    async with asyncio.timeout(100):
        while len(server.lines("records")) < count:  # noqa: ASYNC110 - the server is another process
            await asyncio.sleep(0.01)


async def delivered(queue: Path, limit: float = 100) -> None:
    """Wait until nothing waits."""
    async with asyncio.timeout(limit):
        while waiting(queue)[0]:  # noqa: ASYNC110 - the queue is another thread's
            await asyncio.sleep(0.02)


def test_ten_thousand_records_through_a_server_that_is_stopped_and_started_arrive_once(
    own_servers: list[FreeRadius], tmp_path: Path
) -> None:
    server, _ = own_servers
    queue = tmp_path / "queue"

    async def main() -> None:
        async with plugin(patient(queue, server)) as started:
            for first in range(0, RECORDS, 1000):
                await asyncio.gather(*(started.account(record(number)) for number in range(first, first + 1000)))
                if first == 2000:
                    await asyncio.to_thread(server.start)
                elif first > 2000:
                    await noted(server, (first - 2000) // 1000 * 300)  # so that it is stopped while it is at work
                    await asyncio.to_thread(server.stop)
                    await asyncio.to_thread(server.start)
            await delivered(queue)

    asyncio.run(main())
    lines = [line.split("|")[1] for line in server.lines("records")]
    assert lines == [f"r{number}" for number in range(RECORDS)]


def test_a_server_that_is_killed_loses_nothing_and_notes_twice_what_it_was_at(
    own_servers: list[FreeRadius], tmp_path: Path
) -> None:
    """Between noting a record and saying so nobody can know: it comes again, right after, and is to be known by what is in it."""
    server, _ = own_servers
    queue, kills = tmp_path / "queue", 4
    server.start()

    async def main() -> None:
        async with plugin(patient(queue, server)) as started:
            await asyncio.gather(*(started.account(record(number)) for number in range(1000)))
            for kill in range(kills):
                await noted(server, 200 * (kill + 1))
                await asyncio.to_thread(server.stop, kill=True)
                await asyncio.to_thread(server.start)
            await delivered(queue)

    asyncio.run(main())
    lines = [line.split("|")[1] for line in server.lines("records")]
    assert [name for name, _ in groupby(lines)] == [f"r{number}" for number in range(1000)]
    assert len(lines) - 1000 <= kills


def test_a_restart_of_the_pool_loses_and_repeats_nothing(own_servers: list[FreeRadius], tmp_path: Path) -> None:
    server, _ = own_servers
    queue = tmp_path / "queue"

    async def take(numbers: range) -> None:
        async with plugin(section(queue, server.section())) as started:
            for number in numbers:
                await started.account(record(number))

    asyncio.run(take(range(3)))
    assert waiting(queue)[0] == 3
    server.start()

    async def rest() -> None:
        await take(range(3, 5))
        async with plugin(section(queue, server.section())):
            await delivered(queue)

    asyncio.run(rest())
    assert starts(server) == ["r0", "r1", "r2", "r3", "r4"]


TAKER = """
import asyncio, sys, json
from tlspool_core.api import AccountingRecord, DoNAI
from tlspool_radius.aaa import RadiusAaa

async def main():
    plugin, who = RadiusAaa(), DoNAI("example.com")
    await plugin.start(json.loads(sys.argv[1]))
    for number in range(1_000_000):
        await plugin.account(AccountingRecord("start", f"r{number}", "k", "i", who, who, 1.0))
        print(number, flush=True)

asyncio.run(main())
"""


def test_a_pool_that_is_killed_loses_nothing_that_it_took_and_sends_in_order(own_servers: list[FreeRadius], tmp_path: Path) -> None:
    server, _ = own_servers
    server.start()
    configured = section(tmp_path / "queue", server.section())
    command = [sys.executable, "-c", TAKER, json.dumps(configured)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "200\n":
                process.kill()
                break
        taken = 200 + len(process.stdout.read().split())

    async def main() -> None:
        async with plugin(configured):
            await delivered(tmp_path / "queue")

    asyncio.run(main())
    lines = starts(server)
    in_order = list(dict.fromkeys(lines))
    assert in_order == [f"r{number}" for number in range(len(in_order))]
    assert len(in_order) >= taken + 1
    assert len(lines) - len(in_order) <= 1  # the one that was on its way


def test_a_record_that_is_handed_over_again_counts_once(own_servers: list[FreeRadius], tmp_path: Path) -> None:
    server, _ = own_servers
    server.start()
    queue = tmp_path / "queue"

    async def main() -> None:
        async with plugin(section(queue, server.section())) as started:
            await started.account(record())
            await started.account(record())
            await delivered(queue)
            await started.account(record())
            stop = record(event="stop", count=7, sequence=1, attributes={"cause": 1, "classes": (b"gold",)})
            await asyncio.gather(started.account(stop), started.account(stop))
            await delivered(queue)

    asyncio.run(main())
    assert [line.split("|")[:7] for line in server.lines("records")] == [
        ["Start", "r0", "john@example.com", "", "0", "pages job 0", ""],
        ["Stop", "r0", "john@example.com", "7", "0", "pages job 0", "0x676f6c64"],
    ]


def test_the_second_server_takes_over(own_servers: list[FreeRadius], tmp_path: Path) -> None:
    first, second = own_servers
    second.start()

    async def main() -> None:
        async with plugin(section(tmp_path / "queue", first.section(), second.section())) as started:
            await started.account(record())
            await delivered(tmp_path / "queue")

    asyncio.run(main())
    assert len(second.lines("records")) == 1


def test_accounting_over_tls(server: FreeRadius, tmp_path: Path) -> None:
    async def main() -> None:
        async with plugin(section(tmp_path / "queue", server.radsec_section())) as started:
            await started.account(replace(record(), record_id="over-tls"))
            await delivered(tmp_path / "queue")

    asyncio.run(main())
    assert [line for line in server.lines("records") if "|over-tls|" in line]


def test_one_process_delivers_and_the_next_takes_its_part(tmp_path: Path) -> None:
    async def main() -> None:
        first, second = Ledger(tmp_path / "queue", 10), Ledger(tmp_path / "queue", 10)
        await first.open()
        await second.open()
        assert await first.mine() and await first.mine()
        assert not await second.mine()
        await second.add("a", 0, [(1, b"x")])
        assert [entry.attributes for entry in await first.first()] == [[(1, b"x")]]
        await first.close()
        assert await second.mine()
        await second.close()

    asyncio.run(main())


def test_a_full_queue_takes_nothing_more(tmp_path: Path, own_servers: list[FreeRadius]) -> None:
    async def main() -> None:
        async with plugin(section(tmp_path / "queue", own_servers[0].section(), queue_limit=2)) as started:
            await started.account(record(1))
            await started.account(record(2))
            with pytest.raises(Denied, match="is full: 2 records wait"):
                await started.account(record(3))

    asyncio.run(main())


def test_a_file_that_is_no_queue_is_an_error_at_start(tmp_path: Path, own_servers: list[FreeRadius]) -> None:
    (tmp_path / "queue").write_bytes(b"this is no database" * 100)

    async def main() -> None:
        async with plugin(section(tmp_path / "queue", own_servers[0].section())):
            pass

    with pytest.raises(ValueError, match="queue"):
        asyncio.run(main())
    with pytest.raises(LedgerError):
        waiting(tmp_path / "queue")


def test_the_queue_is_for_its_owner_alone(tmp_path: Path) -> None:
    async def main() -> None:
        ledger = Ledger(tmp_path / "queue", 10)
        await ledger.open()
        await ledger.close()

    asyncio.run(main())
    assert (tmp_path / "queue").stat().st_mode & 0o077 == 0
    with sqlite3.connect(tmp_path / "queue") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_what_is_said_of_a_session() -> None:
    attributes = {"octets_in": (3 << 32) + 5, "octets_out": 9, "cause": 5, "session": "s-1", "classes": (b"x" * 253,) * 20}
    described = describe(record(event="stop", attributes=attributes), "pool", "", time.time())
    values = dict(described)
    assert (values[a.ACCT_INPUT_OCTETS], values[a.ACCT_INPUT_GIGAWORDS]) == (a.number(5), a.number(3))
    assert (values[a.ACCT_OUTPUT_OCTETS], values[a.ACCT_SESSION_TIME]) == (a.number(9), a.number(60))
    assert (values[a.EVENT_TIMESTAMP], values[a.ACCT_TERMINATE_CAUSE]) == (a.number(1_800_000_060), a.number(5))
    assert values[a.ACCT_MULTI_SESSION_ID] == b"s-1"
    assert sum(len(value) + 2 for _, value in described) < 4000
    assert with_delay(Entry(1, "r", 100.0, described), 142.5)[-1] == (a.ACCT_DELAY_TIME, a.number(42))


@pytest.mark.parametrize(("anonymous", "name"), [("", None), ("nobody@example.com", b"nobody@example.com")])
def test_a_session_without_identity_is_accounted(anonymous: str, name: bytes | None) -> None:
    described = describe(replace(record(), remote_identity=None, local_identity=None), "pool", anonymous, time.time())
    assert dict(described).get(a.USER_NAME) == name
    assert a.CALLED_STATION_ID not in dict(described)


def test_words_of_applications_end_no_line_in_a_log() -> None:
    described = dict(describe(replace(record(), kind="pages\nStop", instance="\x1b[2J\x00"), "pool", "", time.time()))
    assert described[a.CONNECT_INFO] == b"pages Stop  [2J "
