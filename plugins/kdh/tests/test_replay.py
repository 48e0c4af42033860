"""Is an authenticator taken once by all processes of a pool together, over a restart too, and does the table stay within its bounds?"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tlspool_kdh.plugin import KerberosType
from tlspool_kdh.replay import SIZE, NoRoom, Repeated, ReplayCache

ONCE = """
import sys
from pathlib import Path
from tlspool_kdh.replay import Repeated, ReplayCache
cache = ReplayCache(Path(sys.argv[1]))
taken = 0
for number in range(int(sys.argv[2])):
    try:
        cache.once(b"authenticator %d" % number, 1000, 0)
    except Repeated:
        continue
    taken += 1
print(taken)
"""


def test_once() -> None:
    cache = ReplayCache()
    cache.once(b"one", 100, 0)
    cache.once(b"other", 100, 0)
    with pytest.raises(Repeated):
        cache.once(b"one", 100, 99)
    cache.once(b"one", 300, 200)  # nobody can use the first any more: clocks do not differ by so much


def test_several_processes_take_each_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ONCE, str(tmp_path / "state" / "replay"), "2000"]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    taken = [int(worker.communicate(timeout=60)[0]) for worker in workers]
    assert sum(taken) == 2000
    late = subprocess.run(command, capture_output=True, text=True, check=True)  # after all others have ended
    assert late.stdout.strip() == "0"


def test_several_threads_take_each_once(tmp_path: Path) -> None:
    cache, taken = ReplayCache(tmp_path / "replay"), []

    def take() -> None:
        for number in range(500):
            try:
                cache.once(b"%d" % number, 1000, 0)
            except Repeated:
                continue
            taken.append(number)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(500))


def test_a_full_table_refuses_and_takes_again_later(tmp_path: Path) -> None:
    file = tmp_path / "replay"
    file.write_bytes(bytes((*([0] * 24), *(10_000).to_bytes(8, "big"))) * (SIZE // 32))
    file.chmod(0o600)
    cache = ReplayCache(file)
    with pytest.raises(NoRoom, match="too many authenticators"):
        cache.once(b"one", 100, 50)
    cache.once(b"one", 20_100, 20_000)
    assert file.stat().st_size == SIZE


def test_the_table_has_room_for_a_busy_server() -> None:
    cache = ReplayCache()
    for number in range(100_000):
        cache.once(number.to_bytes(4, "big"), 1000, 0)


def test_files_that_will_not_do(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"notes")
    (tmp_path / "short").chmod(0o600)
    (tmp_path / "shared").touch()
    (tmp_path / "shared").chmod(0o622)
    (tmp_path / "readable").touch()
    (tmp_path / "readable").chmod(0o644)
    (tmp_path / "link").symlink_to(tmp_path / "short")
    (tmp_path / "file").touch()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name, words in (
        ("short", "5 bytes"),
        ("shared", "nobody else"),
        ("readable", "nobody else"),
        ("link", "symbolic"),
        (".", "directory"),
        ("file/x", "exists"),
    ):
        with pytest.raises(NoRoom, match=words):
            ReplayCache(tmp_path / name).open()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert (tmp_path / "short").read_bytes() == b"notes"


def test_another_path_leaves_nothing_open(tmp_path: Path) -> None:
    """As on a reload of the configuration, even one that is refused."""
    kind, open_files = KerberosType(), Path("/proc/self/fd")
    kind.configure({"replay_cache": str(tmp_path / "0")})
    before = len([*open_files.iterdir()])
    for number in range(3):
        kind.configure({"replay_cache": str(tmp_path / f"{number}")})
        kind._service.replays.once(b"one", 100, 0)
        with pytest.raises(ValueError, match="realms"):
            kind.configure({"replay_cache": str(tmp_path / "other"), "realms": {"A": "a.example", "B": "a.example"}})
        with pytest.raises(Repeated):
            kind._service.replays.once(b"one", 100, 0)
        assert len([*open_files.iterdir()]) == before + 2  # one for locks, one of the mapping


LOCK = "import fcntl, sys; file = open(sys.argv[1], 'r+b'); fcntl.lockf(file, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"


def test_a_process_that_was_stopped_stops_no_other(tmp_path: Path) -> None:
    cache = ReplayCache(tmp_path / "replay")
    cache.open()
    command = [sys.executable, "-c", LOCK, str(tmp_path / "replay")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        with pytest.raises(NoRoom, match=r"keeps the replay cache .* locked"):
            cache.once(b"one", 100, 0)
        other.communicate()
    cache.once(b"one", 100, 0)


def test_the_whole_table_has_its_room_on_the_disk(tmp_path: Path) -> None:
    """A page of a mapped file that the disk has no room for would end the process when it is written."""
    ReplayCache(tmp_path / "replay").open()
    assert (tmp_path / "replay").stat().st_blocks * 512 >= SIZE


def test_a_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cache = ReplayCache(tmp_path / "replay")
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        with pytest.raises(NoRoom, match="No space left"):
            cache.once(b"one", 100, 0)
    cache.once(b"one", 100, 0)  # once there is room again
