"""Does memory for PINs keep its promises: locked, wiped, not shown, not inherited, not dumped - and would we notice if it did not?"""

from __future__ import annotations

import copy
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import IO

import pytest

from tlspool_core.secret import Secret
from tlspool_core.testing.traces import may_look, traces

PIN = "Yk-8264+Gnu"
needs_root = pytest.mark.skipif(not may_look(), reason="only root may look into the memory of a process that forbids debuggers")

# each reads one line of standard input, does something with it, says so, and stays as it is until its input ends
STAYS = "\nprint(flush=True); os.read(0, 1)"
IN_PLACE = """import os; from tlspool_core.secret import *
forbid_dumps()
pin = Secret(); pin.length = os.readv(0, [pin.view]) - 1
"""


@contextmanager
def program(source: str, pin: str = PIN) -> Iterator[int]:
    """A process that was given a PIN, once it has dealt with it; its number."""
    with subprocess.Popen([sys.executable, "-c", source + STAYS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        os.write(process.stdin.fileno(), pin.encode() + b"\n")
        _said(process.stdout)
        yield process.pid
        process.stdin.close()


def _said(stream: IO[bytes]) -> None:
    assert stream.readline() == b"\n", "the program ended in a fault"


@needs_root
@pytest.mark.parametrize(
    ("made", "encoding"),
    [
        ("os.read(0, 100)", "utf-8"),
        ("bytearray(os.read(0, 100))", "utf-8"),
        ("'\\u20ac' + os.read(0, 100).decode()", "utf-16-le"),
        ("'\\U0001f511' + os.read(0, 100).decode()", "utf-32-le"),
    ],
)
def test_the_search_finds_what_is_not_kept_with_care(made: str, encoding: str) -> None:
    with program(f"import os; pin = {made}") as pid:
        found = traces(pid, PIN)
        assert any(trace.encoding == encoding and not trace.locked for trace in found)
        assert traces(pid, PIN[::-1]) == []


@needs_root
def test_the_search_finds_what_lies_across_its_pieces() -> None:
    """A text every few octets in three mebibytes: some lie across any border."""
    source = "import mmap, os; m = mmap.mmap(-1, 3 << 20); pin = os.read(0, 100)\nwhile m.tell() + len(pin) <= len(m): m.write(pin)"
    with program(source) as pid:
        found = sorted(trace.address for trace in traces(pid, PIN))
    steps = [later - sooner for sooner, later in pairwise(found)]
    assert steps.count(len(PIN) + 1) == (3 << 20) // (len(PIN) + 1) - 1


@needs_root
def test_a_secret_lies_in_locked_memory_alone() -> None:
    with program(IN_PLACE) as pid:
        (trace,) = traces(pid, PIN)
        assert trace.locked
        # what else the kernel was told of its pages: no dump (dd), nothing for children (wf)
        flags = next(line for line in mapping(pid, trace.address) if line.startswith("VmFlags"))
        assert {"dd", "wf"} <= set(flags.split())


def mapping(pid: int, address: int) -> list[str]:
    """The lines of /proc/PID/smaps on the mapping that begins at an address."""
    lines = Path(f"/proc/{pid}/smaps").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"{address:x}-"))
    return lines[start : start + 30]


@needs_root
@pytest.mark.parametrize(
    "end",
    [
        "pin.wipe()",
        "del pin",
        "with pin: pass",
        "view = pin.used; pin.wipe()",  # somebody still looks at it
        "import hmac; h = hmac.new(b'k', b'', 'sha256'); h.update(pin.used); h.digest(); other = Secret.of(pin.used); assert pin == other;"
        " assert pin.is_utf8; pin.wipe(); other.wipe(); del h",
        """
try:
    with pin: raise OSError
except OSError: pass""",
        """
class Odd(Exception): pass
def forgets(pin): raise Odd
try: forgets(pin)
except Odd: del pin""",
    ],
)
def test_nothing_is_left_after_use(end: str) -> None:
    with program(f"{IN_PLACE}{end}") as pid:
        assert traces(pid, PIN) == []


@needs_root
def test_to_wipe_one_secret_leaves_the_others_locked() -> None:
    with program(f"{IN_PLACE}others = [Secret.of(pin.used) for _ in range(20)]\nfor one in others[::2]: one.wipe()") as pid:
        found = traces(pid, PIN)
        assert len(found) == 11
        assert all(trace.locked for trace in found)


def test_a_child_process_gets_zeros() -> None:
    read, write = os.pipe()
    with Secret.of(PIN.encode()) as pin:
        child = os.fork()
        if child == 0:
            os.write(write, pin.used)
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read, 100) == bytes(len(PIN))
        assert pin.text() == PIN
    os.close(read)
    os.close(write)


WITHOUT_LOCKS = """
import logging, os, resource, sys
from tlspool_core.secret import Secret, locking_fault
logging.basicConfig(format="%(message)s")
resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
for _ in range(3):
    with Secret.of(b"1234") as pin:
        assert pin.text() == "1234"
print(locking_fault())
"""


def test_without_locks_there_is_a_pin_and_one_complaint() -> None:
    result = subprocess.run([sys.executable, "-c", WITHOUT_LOCKS], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("mlock: ")
    assert result.stderr.count("RLIMIT_MEMLOCK") == 1
    assert "1234" not in result.stderr


def test_a_process_that_forbids_dumps_has_none() -> None:
    source = "import ctypes, resource; from tlspool_core.secret import forbid_dumps; forbid_dumps()\n"
    source += "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))"  # PR_GET_DUMPABLE
    assert subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stdout == "0 0 0\n"


def test_locks_are_given_back() -> None:
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    page = resource.getpagesize()
    for _ in range(limit // page + 10 if 0 <= limit <= 1 << 24 else 100):
        with Secret.of(b"1234") as pin:
            assert pin
    status = Path("/proc/self/status").read_text()
    assert int(status.split("VmLck:")[1].split()[0]) * 1024 < 64 * page


def test_nothing_shows_it() -> None:
    with Secret.of(b"4711") as pin:
        assert "4711" not in f"{pin!r} {pin} {[pin]} {vars(type(pin))}"
        for copies in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError):
                copies(pin)
        with pytest.raises(TypeError):
            hash(pin)


def test_secrets_are_compared_by_what_they_hold() -> None:
    with Secret.of(b"12", b"34") as one, Secret.of(b"1234") as other, Secret.of(b"1235") as wrong, Secret(9) as empty:
        assert one == other
        assert one != wrong
        assert one != empty
        assert one != b"1234"
        assert len(one) == 4
        assert not empty


def test_there_is_room_for_what_was_asked_and_no_more() -> None:
    with Secret(5) as pin:
        pin.append(b"123")
        with pytest.raises(ValueError, match="room"):
            pin.append(b"456")
        pin.append(b"45")
        assert pin.text() == "12345"
    with pytest.raises(ValueError, match="wiped"):
        _ = pin.view
    with pytest.raises(ValueError, match="wiped"):
        _ = pin.address
    assert len(pin.used) == 0
    pin.wipe()


@pytest.mark.parametrize(
    ("octets", "text"),
    [(b"1234", True), ("größer €\U0001f511".encode(), True), (b"\xff", False), (b"12\xc3", False), (b"\xc0\x80", False)],
)
def test_text_is_told_from_other_octets(octets: bytes, text: bool) -> None:
    with Secret.of(octets) as pin:
        assert pin.is_utf8 == text
