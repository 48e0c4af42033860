"""Does the daemon's selector tell of everything that is ready, also when it looks less often, and of nothing that is gone?"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from selectors import EVENT_READ, EVENT_WRITE

import pytest

from tlspool_core.pool.readiness import PoolLoop, Readiness


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

    with asyncio.Runner(loop_factory=PoolLoop) as runner:
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

    with asyncio.Runner(loop_factory=PoolLoop) as runner:
        assert min(runner.run(run())) >= -1e-6


# --- callbacks ----------------------------------------------------------------------------------------------------------------


def turns(work: Callable[[PoolLoop, asyncio.Event], None]) -> None:
    """Run the daemon's loop until `work` has set its event, for at most a while."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, PoolLoop)
        done = asyncio.Event()
        work(loop, done)
        await asyncio.wait_for(done.wait(), 30)

    with asyncio.Runner(loop_factory=PoolLoop) as runner:
        runner.run(run())


def test_one_descriptor_may_have_a_reader_and_a_writer(pair: Pair) -> None:
    ours, theirs = pair
    seen = []

    def work(loop: PoolLoop, done: asyncio.Event) -> None:
        def written(word: str) -> None:
            seen.append(word)
            assert loop.remove_writer(ours)
            assert not loop.remove_writer(ours.fileno())
            theirs.send(b"x")

        def read() -> None:
            seen.append(ours.recv(10).decode())
            assert loop.remove_reader(ours)
            done.set()

        loop.add_reader(ours, read)
        loop.add_writer(ours.fileno(), written, "writable")

    turns(work)
    assert seen == ["writable", "x"]


def test_the_last_callback_counts(pair: Pair) -> None:
    ours, theirs = pair
    seen = []

    def work(loop: PoolLoop, done: asyncio.Event) -> None:
        loop.add_reader(ours, seen.append, "first")
        loop.add_reader(ours, lambda: (seen.append("second"), loop.remove_reader(ours), done.set()))
        theirs.send(b"x")

    turns(work)
    assert seen == ["second"]


def test_a_callback_that_fails_is_logged_and_concerns_nobody_else(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = pair
    other, far = socket.socketpair()

    def work(loop: PoolLoop, done: asyncio.Event) -> None:
        def fails() -> None:
            loop.remove_reader(ours)
            raise RuntimeError("this one")

        loop.add_reader(ours, fails)
        theirs.send(b"x")
        loop.add_reader(other, lambda: (loop.remove_reader(other), done.set()))
        loop.call_later(0.01, far.send, b"x")

    with other, far:
        turns(work)
    assert "this one" in caplog.text


def test_what_was_called_off_does_not_end_the_loop(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """CancelledError is no Exception: a callback may get it from a future that it looks into."""
    ours, theirs = pair

    def work(loop: PoolLoop, done: asyncio.Event) -> None:
        called_off = loop.create_future()
        called_off.cancel()

        def looks() -> None:
            loop.remove_reader(ours)
            loop.call_soon(done.set)
            called_off.result()

        loop.add_reader(ours, looks)
        theirs.send(b"x")

    turns(work)
    assert "CancelledError" in caplog.text


@pytest.mark.parametrize("direction", ["reader", "writer"])
def test_a_number_that_is_given_anew_is_watched(pair: Pair, direction: str) -> None:
    """Even where its last owner has closed it without a word."""
    ours, theirs = pair
    seen = []

    def work(loop: PoolLoop, done: asyncio.Event) -> None:
        watch = getattr(loop, f"add_{direction}")
        first, far = socket.socketpair()
        number = os.dup(ours.fileno())
        os.dup2(first.fileno(), number)
        watch(number, seen.append, "first")
        first.close()
        far.close()
        os.dup2(ours.fileno(), number)  # which closes it, and is what takes its place
        theirs.send(b"x")

        def second() -> None:
            seen.append("second")
            assert getattr(loop, f"remove_{direction}")(number)
            os.close(number)
            done.set()

        watch(number, second)

    turns(work)
    assert seen == ["second"]


def test_what_a_callback_ends_is_not_called(pair: Pair) -> None:
    """The first of two that are ready at the same time ends the other, and its own writer."""
    ours, theirs = pair
    other, far = socket.socketpair()
    called = []

    def work(loop: PoolLoop, done: asyncio.Event) -> None:
        def first(name: str) -> None:
            called.append(name)
            for each in (ours, other):
                loop.remove_reader(each)
                loop.remove_writer(each)
            done.set()

        for each, name in ((ours, "ours"), (other, "other")):
            loop.add_reader(each, first, name)
            loop.add_writer(each, first, f"{name}, writing")
        theirs.send(b"x")
        far.send(b"x")

    with other, far:
        turns(work)
    assert len(called) == 1


def test_the_loops_own_coroutines_work_beside_them(pair: Pair) -> None:
    ours, theirs = pair
    theirs.setblocking(False)

    async def run() -> bytes:
        loop = asyncio.get_running_loop()
        receiving = asyncio.create_task(loop.sock_recv(ours, 10))
        await asyncio.sleep(0)
        await loop.sock_sendall(theirs, b"x")
        return await receiving

    with asyncio.Runner(loop_factory=PoolLoop) as runner:
        assert runner.run(run()) == b"x"


def test_a_number_that_is_given_anew_works_for_them_too() -> None:
    """What they waited for is forgotten, so that the kernel is asked again for the next one of that number."""
    numbers = set()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(3):
            ours, theirs = socket.socketpair()
            with ours, theirs:
                numbers.add(ours.fileno())
                ours.setblocking(False)
                loop.call_later(0.01, theirs.send, b"read")
                assert await asyncio.wait_for(loop.sock_recv(ours, 10), 20) == b"read"
                sending = loop.create_task(loop.sock_sendall(ours, bytes(1 << 20)))
                await asyncio.sleep(0.01)
                received = 0
                while received < 1 << 20:
                    received += len(await asyncio.to_thread(theirs.recv, 65536))
                await asyncio.wait_for(sending, 20)

    with asyncio.Runner(loop_factory=PoolLoop) as runner:
        runner.run(main())
    assert len(numbers) == 1


def test_a_descriptor_has_one_way_to_be_watched(selector: Readiness, pair: Pair) -> None:
    ours, _ = pair
    selector.call_reader(ours.fileno(), (print, ()))
    with pytest.raises(KeyError):
        selector.register(ours, EVENT_READ)
    assert selector.call_reader(ours.fileno(), None)
    selector.register(ours, EVENT_READ)
