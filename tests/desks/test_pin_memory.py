"""Is a PIN anywhere but in locked memory, in the daemon or the process of the token, while it is used; and anywhere at all afterwards?

A real pool with a real token; what is found by search of the processes' memory, of which `tests/secret` shows that it finds things.
"""

from __future__ import annotations

import fcntl
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import deskhouse
import pytest
from deskhouse import SOFTHSM, House, Person, eventually
from test_pin import JOHN, QUESTION, Desk, begin, good, pinentry

from tlspool_core.cli import status
from tlspool_core.client import ErrorCode, Pool
from tlspool_core.secret import Secret
from tlspool_core.testing.traces import Trace, may_look, traces
from tlspool_core.wire.codec import PACKET_SIZE, encode, seal
from tlspool_core.wire.messages import Packet, PinEntry

RIGHT, WRONG = "Qx-5093+Ibex", "Wv-6172+Newt"
pytestmark = [
    pytest.mark.skipif(not SOFTHSM.exists(), reason="SoftHSM is not installed"),
    pytest.mark.skipif(not may_look(), reason="only root may look into the memory of a process that forbids debuggers"),
]


@pytest.fixture
def house(houses: Callable[..., House], monkeypatch: pytest.MonkeyPatch) -> Callable[..., House]:
    """A pool whose token has a PIN that is nowhere by chance; `module` is for the token's module."""
    monkeypatch.setattr(deskhouse, "PIN", RIGHT)

    def make(module: str = "", top: str = "") -> House:
        return houses(token=True, extra=f"{top}---\n{module}")

    return make


def processes(house: House) -> list[int]:
    """The daemon, its workers, and the processes of token libraries."""
    found = [house.daemon.process.pid]
    for pid in found:
        found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return found


def places(house: House, pin: str) -> dict[int, list[Trace]]:
    """By process, where the PIN lies now."""
    return {pid: where for pid in processes(house) if (where := traces(pid, pin))}


def locked(where: dict[int, list[Trace]]) -> bool:
    return all(trace.locked for found in where.values() for trace in found)


@contextmanager
def slow_token(house: House) -> Iterator[None]:
    """The token library waits within its calls, for locks on the token's files."""
    with ExitStack() as held:
        for path in (house.home / "tokens").glob("*/*"):
            fcntl.lockf(held.enter_context(path.open("r+b")), fcntl.LOCK_EX)
        yield


def in_the_library(house: House) -> bool:
    """The process of the token library waits for a lock on a file; proc_locks(5) marks those that wait with an arrow."""
    waiting = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
    return any(str(pid) in words for pid in processes(house)[1:] for words in waiting)


def test_a_pin_from_the_desk_that_is_remembered(house: Callable[..., House]) -> None:
    home = house()
    desk = Desk(home).registered(home)
    outcomes: list[Any] = []
    thread = begin(home, outcomes)
    desk.answer(desk.question()[0], WRONG)
    cbid, _ = desk.question()
    assert places(home, WRONG) == {}
    with slow_token(home):
        desk.answer(cbid, RIGHT)
        eventually(lambda: in_the_library(home))
        during = places(home, RIGHT)
    assert len(during) == 2, "both have it while the token logs in"
    assert locked(during)
    thread.join(20)
    assert good(outcomes)
    after = places(home, RIGHT)
    assert list(after) == [home.daemon.process.pid], "the daemon alone remembers it"
    assert locked(after)
    assert sum(map(len, after.values())) == 1
    assert RIGHT not in home.daemon.text
    assert WRONG not in home.daemon.text


def test_a_pin_from_the_desk_that_is_not_to_be_remembered(house: Callable[..., House]) -> None:
    home = house("remember_pin = false\n")
    desk = Desk(home).registered(home)
    outcomes: list[Any] = []
    thread = begin(home, outcomes)
    cbid, _ = desk.question()
    with slow_token(home):
        desk.answer(cbid, RIGHT)
        eventually(lambda: in_the_library(home))
        during = places(home, RIGHT)
    assert home.daemon.process.pid not in during, "it has sent it, and needs it no more"
    assert during
    assert locked(during)
    thread.join(20)
    assert good(outcomes)
    assert places(home, RIGHT) == {}


def test_the_program_that_asks_a_person(house: Callable[..., House], person: Callable[..., Person]) -> None:
    home = house()
    at = person("pin", "--terminal", "--socket", str(home.path))
    at.sees("waiting for questions")
    outcomes: list[Any] = []
    thread = begin(home, outcomes)
    at.sees(QUESTION)
    at.types(WRONG + "\n")
    at.sees("PIN passed on")
    at.sees(QUESTION)
    assert traces(at.pid, WRONG) == []
    at.types(RIGHT + "\n")
    at.sees("PIN passed on")
    assert traces(at.pid, RIGHT) == []
    thread.join(20)
    assert good(outcomes)


def test_the_program_that_has_a_pinentry_ask(house: Callable[..., House], person: Callable[..., Person]) -> None:
    """Both lines of data come with one read, and more behind them."""
    home = house()
    program, _ = pinentry(home, f"sys.stdout.write('# one\\nD %{ord(RIGHT[0]):02X}{RIGHT[1:6]}\\nD {RIGHT[6:]}\\n')")
    at = person("pin", "--pinentry", program, "--socket", str(home.path))
    at.sees("waiting for questions")
    outcomes: list[Any] = []
    thread = begin(home, outcomes)
    at.sees("PIN passed on")
    assert traces(at.pid, RIGHT) == []
    assert traces(at.pid, RIGHT[1:6]) == []
    thread.join(20)
    assert good(outcomes)


def test_a_pin_from_a_file(house: Callable[..., House], tmp_path: Path) -> None:
    path = tmp_path / "pin"
    path.write_text(f"{RIGHT}\n")
    path.chmod(0o600)
    home = house(f'pin_file = "{path}"\n')
    assert good(home.connect({"localid": JOHN}))
    assert places(home, RIGHT) == {}


def test_a_wrong_pin_from_a_file(house: Callable[..., House], tmp_path: Path) -> None:
    path = tmp_path / "pin"
    path.write_text(f"{WRONG}\n")
    path.chmod(0o600)
    home = house(f'pin_file = "{path}"\n')
    outcomes = home.connect({"localid": JOHN})
    assert outcomes[1].code == ErrorCode.CREDENTIAL_UNAVAILABLE
    assert places(home, WRONG) == {}


def test_a_token_that_does_not_come_back(house: Callable[..., House]) -> None:
    """The login takes longer than it may: its process is killed, and the daemon keeps nothing."""
    home = house("login_timeout = 1\n")
    desk = Desk(home).registered(home)
    outcomes: list[Any] = []
    thread = begin(home, outcomes)
    cbid, _ = desk.question()
    with slow_token(home):
        desk.answer(cbid, RIGHT)
        thread.join(20)
        eventually(lambda: len(processes(home)) == 1)  # it was killed
    assert outcomes[1].code == ErrorCode.CREDENTIAL_UNAVAILABLE
    assert places(home, RIGHT) == {}


def test_a_desk_that_dies_in_the_midst_of_its_answer(house: Callable[..., House]) -> None:
    home = house()
    desk = Desk(home).registered(home)
    outcomes: list[Any] = []
    thread = begin(home, outcomes)
    cbid, _ = desk.question()
    with Secret.of(RIGHT.encode()) as pin, seal(Packet(desk.reqid, cbid, PinEntry(pin=pin))) as sealed:
        desk.link.sendall(sealed.used[: PACKET_SIZE - 1])
    eventually(lambda: places(home, RIGHT))
    assert locked(places(home, RIGHT))
    desk.link.close()
    thread.join(20)
    assert outcomes[1].code == ErrorCode.CREDENTIAL_UNAVAILABLE
    assert places(home, RIGHT) == {}


def test_answers_that_nobody_waits_for(house: Callable[..., House]) -> None:
    home = house()
    desk = Desk(home, timeout=0.3).registered(home)
    outcomes: list[Any] = []
    thread = begin(home, outcomes)
    cbid, _ = desk.question()
    thread.join(20)
    desk.answer(cbid, RIGHT)  # too late
    desk.answer(cbid ^ 1, WRONG)  # to a question that was not asked
    desk.read()  # the refusal of the second
    assert places(home, RIGHT) == {}
    assert places(home, WRONG) == {}


def test_a_pin_that_is_no_text(house: Callable[..., House]) -> None:
    home = house()
    desk = Desk(home).registered(home)
    outcomes: list[Any] = []
    thread = begin(home, outcomes)
    cbid, _ = desk.question()
    with Secret.of(RIGHT.encode(), b"\xff") as pin, seal(Packet(desk.reqid, cbid, PinEntry(pin=pin))) as sealed:
        desk.link.sendall(sealed.used)
    thread.join(20)
    assert outcomes[1].code == ErrorCode.CREDENTIAL_UNAVAILABLE
    assert places(home, RIGHT) == {}


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="util-linux is not installed")
def test_a_pool_that_may_lock_nothing_says_so_and_serves(house: Callable[..., House], monkeypatch: pytest.MonkeyPatch) -> None:
    within = (
        "setpriv",
        "--bounding-set=-ipc_lock",
        "prlimit",
        "--memlock=0:0",
    )  # root may lock whatever the limit, but for the first
    monkeypatch.setattr(deskhouse._daemons, "DaemonProcess", partial(deskhouse._daemons.DaemonProcess, within=within))
    home = house()
    eventually(lambda: home.daemon.text.count("raise RLIMIT_MEMLOCK") == 2)
    desk = Desk(home).registered(home)
    outcomes: list[Any] = []
    thread = begin(home, outcomes)
    desk.answer(desk.question()[0], RIGHT)
    thread.join(20)
    assert good(outcomes)
    after = places(home, RIGHT)
    assert list(after) == [home.daemon.process.pid]
    assert not locked(after)
    assert home.daemon.text.count("raise RLIMIT_MEMLOCK") == 2, "once for the daemon, once for the process of the library"
    (worker,) = status.ask(f"{home.path}.status")["workers"]
    assert worker["locking_fault"].startswith("mlock: ")
    assert worker["key_stores"]["pkcs11"]["modules"][0]["locking_fault"].startswith("mlock: ")


def test_those_who_may_not_answer_take_no_locked_memory(house: Callable[..., House]) -> None:
    """Or else anybody could use up the limit by beginning packets and not ending them."""
    home = house()

    def begin_packets(path: str) -> None:
        links = []
        for number in range(30):
            links.append(socket.socket(socket.AF_UNIX))
            links[-1].connect(path)
            links[-1].sendall(encode(Packet(number, 0, PinEntry())) + b"x")
        for link in links:
            link.recv(PACKET_SIZE, socket.MSG_WAITALL)

    def memory_locked() -> str:
        return Path(f"/proc/{home.daemon.process.pid}/status").read_text().split("VmLck:")[1].split("\n")[0].strip()

    assert home.as_user(65534, [], begin_packets)() == ""
    assert memory_locked() == "0 kB"
    desk = Desk(home).registered(home)
    desk.link.sendall(b"x")
    eventually(lambda: memory_locked() == "4 kB")
    desk.link.close()
    eventually(lambda: memory_locked() == "0 kB")


def test_a_pin_that_another_worker_asked_for(house: Callable[..., House]) -> None:
    """It goes through the worker with the desk, the supervisor, and the worker with the session."""
    home = house(top="workers = 2\n")
    desk = Desk(home).registered(home)
    asked: list[int] = []

    def answer_once() -> None:
        cbid, _ = desk.question()
        asked.append(cbid)
        desk.answer(cbid, RIGHT)

    desk.link.settimeout(0.2)
    for _ in range(40):  # until both workers have had to ask; connections land in either
        home.pool = Pool(home.path)
        outcomes: list[Any] = []
        thread = begin(home, outcomes)
        while thread.is_alive():
            try:
                answer_once()
            except TimeoutError:
                continue
        assert good(outcomes)
        home.pool.close()
        if len(asked) == 2:
            break
    after = places(home, RIGHT)
    assert len(after) == 2, "each worker remembers it"
    assert home.daemon.process.pid not in after, "the supervisor does not"
    assert locked(after)
