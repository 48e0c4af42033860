"""Does the daemon's selector tell of everything that is ready, also when it looks less often, and of nothing that is gone?"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from selectors import EVENT_READ, EVENT_WRITE

import pytest

from tlspool_core.pool.readiness import Readiness, event_loop


@pytest.fixture
def selector() -> Iterator[Readiness]:
    made = Readiness()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


Pair = tuple[socket.socket, socket.socket]


def test_what_is_ready_is_told_as_it_is_watched(selector: Readiness, pair: Pair) -> None:
    ours, theirs = pair
    selector.register(ours.fileno(), EVENT_READ, "data")
    assert selector.select(0.001) == []
    theirs.send(b"x")
    ((key, events),) = selector.select(5)
    assert (key.fd, key.data, events) == (ours.fileno(), "data", EVENT_READ)
    selector.modify(ours.fileno(), EVENT_READ | EVENT_WRITE, "both")
    assert [(key.data, events) for key, events in selector.select(5)] == [("both", EVENT_READ | EVENT_WRITE)]
    selector.modify(ours.fileno(), EVENT_WRITE, "write")
    assert [(key.data, events) for key, events in selector.select(5)] == [("write", EVENT_WRITE)]


@pytest.mark.parametrize("watched", [EVENT_READ, EVENT_WRITE])
def test_a_hang_up_is_told_to_whoever_watches(selector: Readiness, pair: Pair, watched: int) -> None:
    ours, theirs = pair
    selector.register(ours, watched)
    theirs.close()
    assert [events for _, events in selector.select(5)] == [watched]


def test_looking_in_passing_is_put_off_but_not_for_ever(selector: Readiness, pair: Pair) -> None:
    ours, theirs = pair
    selector.register(ours, EVENT_READ)
    theirs.send(b"x")
    assert next(turn for turn in range(20) if selector.select(0)) <= 4


def test_a_descriptor_is_watched_once_and_can_be_forgotten(selector: Readiness, pair: Pair) -> None:
    ours, theirs = pair
    selector.register(ours, EVENT_READ)
    with pytest.raises(KeyError):
        selector.register(ours.fileno(), EVENT_READ)
    assert selector.get_map()[ours.fileno()].fileobj is ours
    theirs.send(b"x")
    selector.unregister(ours)
    assert selector.select(0.001) == []
    for unknown in (ours, ours.fileno()):
        with pytest.raises(KeyError):
            selector.get_key(unknown)
        with pytest.raises(KeyError):
            selector.unregister(unknown)


def test_what_was_closed_first_can_still_be_forgotten(selector: Readiness, pair: Pair) -> None:
    ours, _ = pair
    selector.register(ours, EVENT_READ, "data")
    ours.close()
    assert selector.unregister(ours).data == "data"
    assert not selector.get_map()


def test_what_cannot_be_watched_leaves_nothing_behind(selector: Readiness) -> None:
    with Path(os.devnull).open("rb") as file, pytest.raises(PermissionError):
        selector.register(file.fileno(), EVENT_READ)
    assert not selector.get_map()


def test_a_busy_loop_sees_its_descriptors_too(pair: Pair) -> None:
    """Handles that always have a next one must not keep the loop from looking."""
    ours, theirs = pair

    async def run() -> bytes:
        loop = asyncio.get_running_loop()
        seen: asyncio.Future[bytes] = loop.create_future()
        loop.add_reader(ours, lambda: seen.done() or seen.set_result(ours.recv(10)))
        theirs.send(b"seen")
        for _ in range(100):  # far more than a descriptor may have to wait
            if seen.done():
                break
            await asyncio.sleep(0)
        loop.remove_reader(ours)
        assert seen.done()
        return seen.result()

    with asyncio.Runner(loop_factory=event_loop) as runner:
        assert runner.run(run()) == b"seen"


def test_more_descriptors_than_are_told_at_a_time_all_have_their_turn(selector: Readiness) -> None:
    pairs = [socket.socketpair() for _ in range(300)]
    try:
        for ours, theirs in pairs:
            selector.register(ours, EVENT_READ)
            theirs.send(b"x")
        waiting = {ours.fileno() for ours, _ in pairs}
        for _ in range(4):
            waiting -= {key.fd for key, _ in selector.select(5)}
        assert not waiting
    finally:
        for each in pairs:
            for end in each:
                end.close()


def test_timers_are_never_early() -> None:
    async def run() -> list[float]:
        loop = asyncio.get_running_loop()
        late = []
        for wait in (0.0001, 0.0011, 0.0019):
            begin = loop.time()
            await asyncio.sleep(wait)
            late.append(loop.time() - begin - wait)
        return late

    with asyncio.Runner(loop_factory=event_loop) as runner:
        assert min(runner.run(run())) >= -1e-6
