"""Where a secret lies in the memory of a process, and whether it could be swapped from there: what tests of PINs look for.

Theory of operation
-------------------
All that a process may have written is searched, which leaves out files that it maps for reading, by way of /proc/PID/mem
(proc_pid_mem(5)), for the octets of the text in the encodings that Python and C keep text in.  Whether a place is locked is what the
kernel says of its mapping: `lo` among the VmFlags of /proc/PID/smaps (proc_pid_smaps(5)).  Processes that handle PINs forbid
debuggers, so the looking is for root (CAP_SYS_PTRACE); nothing in them has to be weakened for it.

Take a text that cannot be there by chance, and search another process than the one that knows it for the test's sake.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_HEADER = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \S+ *(.*)$")
_ORDER = sys.byteorder[0] + "e"
_ENCODINGS = ("utf-8", f"utf-16-{_ORDER}", f"utf-32-{_ORDER}")
_PIECE = 1 << 20
_KERNELS = ("[vvar]", "[vvar_vclock]", "[vsyscall]")


@dataclass(frozen=True, slots=True)
class Trace:
    """One place where the text lies. `mapping` is the kernel's name for it, mostly a file or empty."""

    address: int
    encoding: str
    mapping: str
    locked: bool


@dataclass(frozen=True, slots=True)
class _Mapping:
    start: int
    end: int
    written: bool
    name: str
    flags: frozenset[str]


def may_look() -> bool:
    """Whether this process is root, as it must be to look into others that forbid debuggers."""
    return os.geteuid() == 0


def traces(pid: int, text: str) -> list[Trace]:
    """Every place in the memory of a process where a text lies, while the process runs on. Raises OSError if that may not be read."""
    found: list[Trace] = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for mapping in _mappings(pid):
            if mapping.written and mapping.name not in _KERNELS:
                found += _search(memory.fileno(), mapping, text)
    return found


def _mappings(pid: int) -> Iterator[_Mapping]:
    header: re.Match[str] | None = None
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if match := _HEADER.match(line):
            header = match
        elif line.startswith("VmFlags:") and header:
            start, end, rights, name = header.groups()
            written = rights.startswith("rw") or (rights.startswith("r") and not name.startswith("/"))
            yield _Mapping(int(start, 16), int(end, 16), written, name, frozenset(line.split()[1:]))


def _search(memory: int, mapping: _Mapping, text: str) -> Iterator[Trace]:
    forms = {encoding: text.encode(encoding) for encoding in _ENCODINGS}
    overlap = max(map(len, forms.values())) - 1
    for start in range(mapping.start, mapping.end, _PIECE):
        try:
            piece = os.pread(memory, min(_PIECE + overlap, mapping.end - start), start)
        except OSError:  # unmapped meanwhile, or a device
            continue
        for encoding, octets in forms.items():
            at = piece.find(octets)
            while 0 <= at < _PIECE:
                yield Trace(start + at, encoding, mapping.name, "lo" in mapping.flags)
                at = piece.find(octets, at + 1)
