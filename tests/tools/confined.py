"""Runs a program under the system call filter of a unit, as systemd would have it, where there is no systemd to do so.

`python confined.py UNIT PROGRAM ARGUMENT...`.  SystemCallFilter= is taken from the unit, its sets from `systemd-analyze syscall-filter`,
and the filter is made by libseccomp(3), which systemd itself uses.  MemoryDenyWriteExecute= and RestrictAddressFamilies= are filters
of arguments, and so belong to it.  What is denied fails with EPERM.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

# <seccomp.h>
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_EQUAL, _MASKED_EQUAL = 4, 7
_NO_SUCH_CALL = -1

_WRITE, _EXECUTE, _SHARED_EXECUTE = 0x2, 0x4, 0o100000  # PROT_* of <sys/mman.h>, SHM_EXEC of <sys/shm.h>


class _Comparison(ctypes.Structure):
    _fields_ = (("argument", ctypes.c_uint), ("operator", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def _sets() -> dict[str, list[str]]:
    """All sets of system calls that systemd knows, by name; their members may be sets."""
    shown = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True).stdout
    found: dict[str, list[str]] = {}
    for line in shown.splitlines():
        if re.match(r"@[\w-]+$", line):
            members = found[line] = []
        elif re.match(r"    [\w@]", line):
            members.append(line.strip())
    return found


def _expanded(names: Iterable[str], sets: dict[str, list[str]]) -> set[str]:
    found: set[str] = set()
    for name in names:
        found |= _expanded(sets[name], sets) if name in sets else {name}
    return found


def allowed(unit: str) -> set[str]:
    """Names of the calls that a unit's text allows: the first line begins with none, later ones add, or with ~ take away."""
    sets = _sets()
    found = _expanded(["@default"], sets)
    for value in re.findall(r"^SystemCallFilter=(.*)$", unit, re.M):
        listed = _expanded(value.lstrip("~").split(), sets)
        found = found - listed if value.startswith("~") else found | listed
    return found


def _cases(unit: str) -> dict[str, list[tuple[int, int, int, int]]]:
    """Calls that are allowed with some arguments only: argument, operator, and its operands, for each case."""
    cases: dict[str, list[tuple[int, int, int, int]]] = {}
    if "\nMemoryDenyWriteExecute=yes\n" in unit:
        both = _WRITE | _EXECUTE
        cases["mmap"] = [(2, _MASKED_EQUAL, both, protection) for protection in (0, _WRITE, _EXECUTE)]
        cases["mprotect"] = cases["pkey_mprotect"] = [(2, _MASKED_EQUAL, _EXECUTE, 0)]
        cases["shmat"] = [(2, _MASKED_EQUAL, _SHARED_EXECUTE, 0)]
    if families := re.search(r"^RestrictAddressFamilies=(.*)$", unit, re.M):
        cases["socket"] = [(0, _EQUAL, getattr(socket, name), 0) for name in families[1].split()]
    return cases


def confine(unit: str) -> None:
    """This process, and all that it will start."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(_ERRNO | errno.EPERM))
    cases = _cases(unit)
    for name in allowed(unit):
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == _NO_SUCH_CALL:
            continue
        for case in cases.get(name, [None]):  # type: ignore[list-item]
            comparison = ctypes.byref(_Comparison(*case)) if case else None
            if library.seccomp_rule_add_array(context, _ALLOW, number, 1 if case else 0, comparison) != 0:
                raise OSError(f"no rule can be made for {name}")
    if library.seccomp_load(context) != 0:
        raise OSError("the kernel does not take the filter")


if __name__ == "__main__":
    confine(Path(sys.argv[1]).read_text())
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - what to run is the caller's to say
