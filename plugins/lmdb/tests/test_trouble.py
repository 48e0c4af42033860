"""Does every kind of trouble, full, damaged, forbidden, foreign, give an error that names place and remedy, and lose nothing?"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest
from tlspool_lmdb.backend import LmdbBackend, default_path

from tlspool_core.api import ConfigError, DoNAI, LocalCredential, LocalIdentity, Role, TrustRecord

JOHN = DoNAI.parse("john@example.com")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "db"


def opened(path: Path, readonly: bool = False, **settings: Any) -> LmdbBackend:
    backend = LmdbBackend()
    backend.open({"path": str(path), **settings}, readonly=readonly)
    return backend


def entry(number: int, size: int = 100) -> LocalIdentity:
    identity = DoNAI(f"h{number}.example")
    return LocalIdentity(identity, (LocalCredential(identity, "toy", Role.BOTH, "", bytes([number % 256]) * size),))


@pytest.fixture
def filled(path: Path) -> Iterator[Path]:
    """Databases with 200 entries, closed again."""
    backend = opened(path)
    with backend.write() as writer:
        for number in range(200):
            writer.put_localid(entry(number))
        writer.put_disclose(".", [JOHN])
        writer.put_trust(TrustRecord(b"k", "toy", blob=b"anchor"))
    backend.close()
    yield path


def fails(path: Path, words: str, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        opened(path, **settings)
    assert words in str(caught.value)
    assert str(path) in str(caught.value) or "[config]" in words
    return str(caught.value)


# --- permissions and settings -------------------------------------------------------------------------------------------------


def test_what_is_made_is_private(path: Path) -> None:
    old = os.umask(0)
    try:
        opened(path).close()
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o700
    assert {file.name: file.stat().st_mode & 0o777 for file in path.iterdir()} == {"data.mdb": 0o600, "lock.mdb": 0o600}


@pytest.mark.parametrize("name", ["", "data.mdb"])
def test_databases_that_everybody_may_write_to_are_refused(filled: Path, name: str) -> None:
    (filled / name).chmod(0o777)
    fails(filled, "chmod o-w")


def test_opening_for_reading_makes_nothing(path: Path) -> None:
    fails(path, "holds no databases yet", readonly=True)
    assert not path.exists()


def test_reading_only_refuses_to_write(filled: Path) -> None:
    backend = opened(filled, readonly=True)
    with pytest.raises(ConfigError, match="reading only"), backend.write():
        pass
    second = LmdbBackend()
    with pytest.raises(ConfigError, match="reading only in this process"):
        second.open({"path": str(filled)})
    backend.close()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"path": "relative"}, "path: must be a directory that begins with /"),
        ({"path": 5}, "path: must be"),
        ({"map_size": "1G"}, "map_size: must be a number of bytes"),
        ({"map_size": True}, "map_size: must be"),
        ({"map_size": 5}, "at least 65536"),
        ({"mapsize": 5}, "mapsize: unknown key; known are path and map_size"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match="config") as caught:
        LmdbBackend().open(settings)
    assert words in str(caught.value)


def test_the_default_place_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "tlspool" / "db"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_path() == tmp_path / ".local" / "state" / "tlspool" / "db"


def test_a_place_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fails(tmp_path / "file" / "db", "Not a directory")
    (tmp_path / "other" / "data.mdb").mkdir(parents=True)
    fails(tmp_path / "other", "directory")


# --- full ---------------------------------------------------------------------------------------------------------------------


def test_a_full_map_refuses_the_transaction_as_a_whole(path: Path) -> None:
    backend = opened(path, map_size=1 << 18)
    with backend.write() as writer:
        writer.put_localid(entry(1))
    generation = backend.generation()
    with pytest.raises(ConfigError, match=r"full: 262144 bytes; nothing was changed. Raise map_size"), backend.write() as writer:
        writer.delete_localid(entry(1).identity)
        for number in range(2, 100):
            writer.put_localid(entry(number, 100_000))
    assert backend.generation() == generation
    with backend.read() as reader:
        assert list(reader.localids()) == [entry(1)]
    with backend.write() as writer:  # small changes still fit
        writer.put_localid(entry(2))
    backend.close()
    larger = opened(path, map_size=1 << 26)
    with larger.write() as writer:
        writer.put_localid(entry(3, 1_000_000))
    with larger.read() as reader:
        assert list(reader.localids()) == [entry(1), entry(2), entry(3, 1_000_000)]
    larger.close()


def test_a_key_that_is_too_long_is_refused(path: Path) -> None:
    backend = opened(path)
    with backend.write() as writer:
        writer.put_trust(TrustRecord(b"k" * 511, "toy"))
    with pytest.raises(ConfigError, match="1 to 511 bytes, not 512"), backend.write() as writer:
        writer.put_trust(TrustRecord(b"k" * 512, "toy"))
    with pytest.raises(ConfigError, match="not 0"), backend.write() as writer:
        writer.put_trust(TrustRecord(b"", "toy"))
    with backend.read() as reader:
        assert reader.trust(b"k" * 600) == reader.trust(b"") == ()
    backend.close()


def test_a_disk_without_room_is_named(path: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk."""
    code = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from tlspool_core.api import ConfigError, TrustRecord
from tlspool_lmdb.backend import LmdbBackend
backend = LmdbBackend()
backend.open({{"path": {str(path)!r}}})
with backend.write() as writer:
    writer.put_trust(TrustRecord(b"before", "toy"))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    with backend.write() as writer:
        writer.put_trust(TrustRecord(b"after", "toy", blob=b"x" * 1_000_000))
except ConfigError as error:
    print("refused", error)
with backend.read() as reader:
    print([record.key for record in reader.trusts()])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0].startswith(f"refused {path}: ")
    assert done.stdout.splitlines()[1] == "[b'before']"


def test_a_thread_cannot_write_twice_at_a_time(path: Path) -> None:
    backend = opened(path)
    with backend.write() as writer:
        with pytest.raises(ConfigError, match="writing already"), backend.write():
            pass
        writer.put_localid(entry(1))
    with backend.read() as reader:
        assert list(reader.localids()) == [entry(1)]
    backend.close()


# --- damaged ------------------------------------------------------------------------------------------------------------------


def test_garbage_is_named_and_kept(path: Path) -> None:
    path.mkdir(parents=True)
    garbage = random.Random(1).randbytes(100_000)
    (path / "data.mdb").write_bytes(garbage)
    assert "tlspool db import" in fails(path, "damaged, or no LMDB file")
    fails(path, "damaged, or no LMDB file", readonly=True)
    assert (path / "data.mdb").read_bytes() == garbage


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_file_that_is_cut_short_is_refused_before_it_can_kill_the_process(filled: Path, share: float) -> None:
    data = filled / "data.mdb"
    content = data.read_bytes()
    cut = content[: int(len(content) * share) // 4096 * 4096]
    data.write_bytes(cut)
    fails(filled, "damaged")
    assert data.read_bytes() == cut
    data.write_bytes(content)
    backend = opened(filled)
    with backend.read() as reader:
        assert len(list(reader.localids())) == 200
    backend.close()


def test_a_flipped_bit_in_a_record_is_noticed(filled: Path) -> None:
    data = filled / "data.mdb"
    content = bytearray(data.read_bytes())
    at = content.index(b"\x07" * 100)
    while at >= 0:  # old copies of a page may lie about
        content[at + 50] ^= 1
        at = content.find(b"\x07" * 100, at + 1)
    data.write_bytes(content)
    backend = opened(filled)
    with backend.read() as reader:
        with pytest.raises(ConfigError, match=r"damaged: a record of b'h7.example' in localid .*: its checksum is wrong"):
            reader.localid(DoNAI("h7.example"))
        assert reader.localid(DoNAI("h8.example")) == entry(8)
    backend.close()


def raw(path: Path, change: Callable[[lmdb.Transaction, dict[bytes, Any]], None]) -> None:
    """Change the environment behind the backend's back."""
    env = lmdb.open(str(path), max_dbs=8, map_size=1 << 24)
    databases = {name: env.open_db(name, dupsort=True, dupfixed=True) for name in (b"localid", b"disclose", b"trust")}
    databases |= {name: env.open_db(name) for name in (b"record", b"meta")}
    with env.begin(write=True) as txn:
        change(txn, databases)
    env.close()


def record_of(txn: lmdb.Transaction, databases: dict[bytes, Any], key: bytes) -> Any:
    return txn.get(key, db=databases[b"localid"])


def move(txn: lmdb.Transaction, databases: dict[bytes, Any]) -> None:
    """The records of one identity turn up under another."""
    txn.delete(b"h7.example", db=databases[b"localid"])
    txn.put(b"h7.example", record_of(txn, databases, b"h8.example"), db=databases[b"localid"])


def drop(txn: lmdb.Transaction, databases: dict[bytes, Any]) -> None:
    txn.delete(record_of(txn, databases, b"h7.example"), db=databases[b"record"])


def rewrite(change: Callable[[bytes], bytes]) -> Callable[[lmdb.Transaction, dict[bytes, Any]], None]:
    def run(txn: lmdb.Transaction, databases: dict[bytes, Any]) -> None:
        number = record_of(txn, databases, b"h7.example")
        txn.put(number, change(bytes(txn.get(number, db=databases[b"record"]) or b"")), db=databases[b"record"])

    return run


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (move, "it belongs to another key"),
        (drop, "which is not there"),
        (rewrite(lambda record: b""), "too short"),
        (rewrite(lambda record: record[:-1]), "checksum"),
        (rewrite(lambda record: record + b"\0"), "checksum"),
        (rewrite(lambda record: b"\x02" + record[1:]), "of version 2"),
        (rewrite(lambda record: record[:1] + b"\x04" + record[2:]), "of kind 4, not 1"),
    ],
    ids=["moved", "dropped", "empty", "cut", "longer", "version", "kind"],
)
def test_a_record_that_is_not_what_it_should_be_is_no_answer(filled: Path, change: Any, words: str) -> None:
    raw(filled, change)
    backend = opened(filled)
    with backend.read() as reader, pytest.raises(ConfigError, match="damaged") as caught:
        reader.localid(DoNAI("h7.example"))
    assert words in str(caught.value)
    backend.close()


def test_databases_of_another_program_are_left_alone(path: Path) -> None:
    path.mkdir(parents=True)
    env = lmdb.open(str(path), max_dbs=2)
    env.open_db(b"mails")
    env.close()
    before = (path / "data.mdb").read_bytes()
    fails(path, "of another program")
    fails(path, "holds no databases of the TLS Pool", readonly=True)
    assert (path / "data.mdb").read_bytes() == before


@pytest.mark.parametrize("readonly", [False, True])
def test_databases_of_a_later_format_are_left_alone(filled: Path, readonly: bool) -> None:
    raw(filled, lambda txn, databases: txn.put(b"format", b"2", db=databases[b"meta"]) and None)
    fails(filled, "has format b'2'", readonly=readonly)


DAMAGE = """
import random, sys
from pathlib import Path
from tlspool_core.api import ConfigError
from tlspool_lmdb.backend import LmdbBackend
path, seed = Path(sys.argv[1]), int(sys.argv[2])
content = bytearray((path / "data.mdb").read_bytes())
choice = random.Random(seed)
for _ in range(choice.randrange(1, 20)):
    at = choice.randrange(len(content))
    piece = choice.randbytes(choice.choice((1, 8, 512)))
    content[at : at + len(piece)] = piece
(path / "data.mdb").write_bytes(content)
backend = LmdbBackend()
try:
    backend.open({"path": str(path)}, readonly=True)
    with backend.read() as reader:
        list(reader.localids()), list(reader.disclosures()), list(reader.trusts())
except ConfigError:
    pass
"""


def test_random_damage_raises_nothing_but_the_declared_error(filled: Path) -> None:
    """LMDB trusts its file, so damage may also end the process (a signal); it must never be an unexpected exception."""
    content = (filled / "data.mdb").read_bytes()
    for seed in range(12):
        (filled / "data.mdb").write_bytes(content)
        done = subprocess.run([sys.executable, "-c", DAMAGE, str(filled), str(seed)], capture_output=True, text=True, check=False)
        assert done.returncode <= 0, f"seed {seed}: {done.stderr}"


# --- size ---------------------------------------------------------------------------------------------------------------------


def test_ten_thousand_entries(path: Path) -> None:
    backend = opened(path)
    with backend.write() as writer:
        for number in range(10_000):
            writer.put_localid(entry(number, 1_000))
            writer.put_trust(TrustRecord(number.to_bytes(20), "toy" if number % 2 else "other", blob=b"x" * 1_000))
    with backend.read() as reader:
        assert reader.localid(DoNAI("h9999.example")) == entry(9999, 1_000)
        assert sum(1 for _ in reader.localids()) == 10_000
        assert sum(1 for _ in reader.trusts("toy")) == 5_000
    with backend.write() as writer:
        for number in range(0, 10_000, 2):
            assert writer.delete_localid(DoNAI(f"h{number}.example"))
    with backend.read() as reader:
        assert sum(1 for _ in reader.localids()) == 5_000
    backend.close()
    sparse = (path / "data.mdb").stat()
    assert sparse.st_blocks * 512 < 80_000_000
