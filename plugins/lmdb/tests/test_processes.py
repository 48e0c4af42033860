"""Do several processes share the databases: changes seen at once, maps that grow, writers that are killed, readers that vanish?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tlspool_lmdb.backend import LmdbBackend
from tlspool_lmdb.environment import Environment

from tlspool_core.api import ConfigError, DoNAI, LocalCredential, LocalIdentity, Role

JOHN = DoNAI.parse("john@example.com")

PRELUDE = """
import os, sys, time
from tlspool_core.api import DoNAI, LocalCredential, LocalIdentity, Role
from tlspool_lmdb.backend import LmdbBackend

def entry(name, size=0):
    identity = DoNAI(name)
    return LocalIdentity(identity, (LocalCredential(identity, "toy", Role.BOTH, "", b"x" * size),))

def say(text):
    print(text, flush=True)

def heard():
    return sys.stdin.readline().strip()

backend = LmdbBackend()
backend.open({"path": sys.argv[1], **eval(sys.argv[2])})
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "db"


@pytest.fixture
def backend(path: Path) -> Iterator[LmdbBackend]:
    made = LmdbBackend()
    made.open({"path": str(path)})
    yield made
    made.close()


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    """`start(code, **settings)` runs code after the prelude in a process of its own, with pipes to talk through."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, **settings: object) -> subprocess.Popen[str]:
        arguments = [sys.executable, "-c", PRELUDE + code, str(path), repr(settings)]
        process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str], text: str = "go") -> None:
    assert process.stdin is not None
    process.stdin.write(text + "\n")
    process.stdin.flush()


def names(backend: LmdbBackend) -> list[str]:
    with backend.read() as reader:
        return [str(entry.identity) for entry in reader.localids()]


def put(backend: LmdbBackend, name: str, size: int = 0) -> None:
    identity = DoNAI(name)
    with backend.write() as writer:
        writer.put_localid(LocalIdentity(identity, (LocalCredential(identity, "toy", Role.BOTH, "", b"x" * size),)))


def test_a_change_is_seen_by_the_next_read_of_another_process(backend: LmdbBackend, start: Start) -> None:
    other = start("""
while heard() == "go":
    with backend.read() as reader:
        say(f"{backend.generation()} {[str(each.identity) for each in reader.localids()]}")
""")
    for name in ("a.example", "b.example", "c.example"):
        put(backend, name)
        tell(other)
        assert line(other) == f"{backend.generation()} {names(backend)}"


def test_processes_write_side_by_side_and_lose_nothing(backend: LmdbBackend, start: Start) -> None:
    writers = [
        start(f"""
say("ready"); heard()
for number in range(50):
    with backend.write() as writer:
        writer.put_localid(entry(f"h{{number}}.p{process}.example"))
say("done")
""")
        for process in range(3)
    ]
    for writer in writers:
        assert line(writer) == "ready"
    for writer in writers:
        tell(writer)
    for number in range(50):
        put(backend, f"h{number}.own.example")
    assert [line(writer) for writer in writers] == ["done"] * 3
    assert len(names(backend)) == 200


def test_a_writer_that_is_killed_leaves_no_trace_and_no_lock(backend: LmdbBackend, start: Start) -> None:
    put(backend, "before.example")
    other = start("""
with backend.write() as writer:
    for number in range(100):
        writer.put_localid(entry(f"h{number}.example", 10_000))
    writer.delete_localid(DoNAI("before.example"))
    say("in the middle")
    time.sleep(60)
""")
    assert line(other) == "in the middle"
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    assert names(backend) == ["before.example"]
    put(backend, "after.example")
    assert names(backend) == ["after.example", "before.example"]


def test_a_reader_that_is_killed_does_not_keep_old_pages(backend: LmdbBackend, start: Start, path: Path) -> None:
    put(backend, "big.example", 100_000)
    other = start("""
with backend.read() as reader:
    say("reading")
    time.sleep(60)
""")
    assert line(other) == "reading"
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    start("say('opened')").wait()  # opening frees what the killed one held
    for _ in range(5):
        put(backend, "big.example", 100_000)
    settled = (path / "data.mdb").stat().st_size
    for _ in range(30):
        put(backend, "big.example", 100_000)
    assert (path / "data.mdb").stat().st_size == settled


SMALL, LARGE = 1 << 18, 1 << 24


def grown(start: Start) -> None:
    """Another process makes the map larger, and fills it beyond what this process has mapped."""
    other = start(
        """
for number in range(20):
    with backend.write() as writer:
        writer.put_localid(entry(f"h{number}.example", 100_000))
say("grown")
""",
        map_size=LARGE,
    )
    assert line(other) == "grown"


@pytest.fixture
def small(path: Path) -> Iterator[LmdbBackend]:
    made = LmdbBackend()
    made.open({"path": str(path), "map_size": SMALL})
    put(made, "first.example")
    yield made
    made.close()


def test_growth_by_another_process_is_followed_by_readers(small: LmdbBackend, start: Start) -> None:
    grown(start)
    assert len(names(small)) == 21
    with small.read() as reader:
        entry = reader.localid(DoNAI("h19.example"))
    assert entry is not None and len(entry.credentials[0].public) == 100_000


def test_growth_by_another_process_is_followed_by_writers(small: LmdbBackend, start: Start) -> None:
    grown(start)
    put(small, "last.example", 100_000)
    assert len(names(small)) == 22


def test_growth_waits_for_the_transactions_of_other_threads(small: LmdbBackend, start: Start) -> None:
    reading, release = threading.Event(), threading.Event()
    seen: list[list[str]] = []

    def read_slowly() -> None:
        with small.read() as reader:
            reading.set()
            release.wait(20)
            seen.append([str(entry.identity) for entry in reader.localids()])
        seen.append(names(small))

    slow = threading.Thread(target=read_slowly)
    slow.start()
    assert reading.wait(20)
    grown(start)
    others = [threading.Thread(target=lambda: seen.append(names(small))) for _ in range(3)]
    for thread in others:
        thread.start()
    time.sleep(0.2)  # gives the others the chance to do wrong
    assert seen == []
    release.set()
    for thread in (slow, *others):
        thread.join(20)
    assert seen[0] == ["first.example"]
    assert [len(each) for each in seen[1:]] == [21] * 4


def test_growth_does_not_deadlock_a_thread_with_its_own_transaction(
    small: LmdbBackend, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlspool_lmdb.environment._RESIZE_PATIENCE", 0.2)
    with small.read() as reader:
        grown(start)
        with pytest.raises(ConfigError, match="a transaction here does not end"):
            names(small)
        assert reader.localid(DoNAI("first.example")) is not None
    assert len(names(small)) == 21


def test_one_environment_serves_all_backends_of_a_process(backend: LmdbBackend, path: Path) -> None:
    second = LmdbBackend()
    second.open({"path": str(path)}, readonly=True)
    put(backend, "a.example")
    assert names(second) == ["a.example"]
    second.close()
    assert names(backend) == ["a.example"]
    with pytest.raises(ConfigError, match="not open"):
        second.generation()
    assert len(Environment._shared) == 1


def test_a_forked_child_is_told_to_open_its_own(backend: LmdbBackend) -> None:
    put(backend, "a.example")
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            names(backend)
            text = "no error"
        except ConfigError as error:
            text = str(error)
        os.write(write_end, text.encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        assert "before this process was forked" in pipe.read()
    os.waitpid(child, 0)
    assert names(backend) == ["a.example"]
