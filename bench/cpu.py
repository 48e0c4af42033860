"""CPU time and memory of other processes, as the kernel counts them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")
_PROCESS_CLOCK = 2  # CPUCLOCK_SCHED of the kernel's posix-cpu-timers: run time of all threads, those that ended included


def cpu_seconds(pid: int) -> float:
    """Run time of a process, to the nanosecond."""
    return time.clock_gettime((~pid << 3) | _PROCESS_CLOCK)


def family(root: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:  # it has just ended
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    members = [root]
    for member in members:
        members += [pid for pid, parent in parents.items() if parent == member]
    return members


@dataclass(frozen=True)
class Usage:
    """CPU of a group of processes since some point, in seconds; `user` and `system` come from ticks of 10 ms."""

    total: float
    user: float
    system: float

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.total - other.total, self.user - other.user, self.system - other.system)


def usage(pids: Iterable[int]) -> Usage:
    """Sum over processes."""
    total = user = system = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += cpu_seconds(pid)
        user += int(fields[11]) / _TICK
        system += int(fields[12]) / _TICK
    return Usage(total, user, system)


def resident_kib(pids: Iterable[int]) -> float:
    """Resident memory, summed over processes."""
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * _PAGE / 1024
