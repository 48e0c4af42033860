"""Does a fault of our own end its session alone, with its descriptors, and can the log's reader tell which it was?"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tlspool_core.pool import relay_carry
from tlspool_core.pool.logs import ConsoleFormatter


class Lines(logging.Handler):
    """The lines of the log, formatted when they come, as the daemon does it."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(ConsoleFormatter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def lines() -> Iterator[list[str]]:
    handler, logger = Lines(), logging.getLogger("tlspool.relay")
    logger.addHandler(handler)
    yield handler.lines
    logger.removeHandler(handler)


@pytest.mark.parametrize("direction", ["in", "out"])
def test_it_is_logged_by_the_name_of_its_session(
    bench: Any, monkeypatch: pytest.MonkeyPatch, lines: list[str], direction: str
) -> None:
    def fails(*_: object) -> None:
        raise LookupError("this one")

    monkeypatch.setattr(relay_carry, "open_batch" if direction == "in" else "seal_batch", fails)
    case, other = bench.case(name="cafe-1"), bench.case(name="cafe-2")

    async def run() -> None:
        if direction == "in":
            await bench.thread(case.peer.send, b"x")
        else:
            case.app.sendall(b"x")
        assert (await case.ended())[0] == "fault"
        assert await bench.thread(case.app.recv, 100) == b""
        assert await bench.thread(case.peer.sock.recv, 100) == b"", "no word under keys that may have gone wrong"
        await asyncio.sleep(0)
        assert not other.relay.closed

    bench.run(run())
    (line,) = lines
    assert "[cafe-1] fault in a relay" in line
    assert "this one" in line
    for each in (case, other):
        each.finish()
