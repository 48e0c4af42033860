"""A place in memory for a PIN: locked, and wiped after use.

Theory of operation
-------------------
The bytes of a `Secret` lie in pages that are not swapped (mlock(2)) and are zeroed when its `with` ends.  What Python makes of them on
the way to the pool (a text, a packet) is copied and freed, not wiped; so a process that handles PINs calls `guard_process` as well, which
locks all its pages as far as it may, and forbids core dumps and debuggers.  What remains is what root, or a copy of this
process' memory taken at the very moment, can see.
"""

from __future__ import annotations

import ctypes
import resource
from types import TracebackType
from typing import Self

_PR_SET_DUMPABLE = 4
_MCL_CURRENT_AND_FUTURE = 3


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def guard_process() -> bool:
    """No core dumps, no debugger, no swapping; returns whether all pages could be locked (RLIMIT_MEMLOCK may be too low)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = _libc()
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    # with a limit, MCL_FUTURE would make later allocations fail; then only the secrets themselves are locked
    return soft == resource.RLIM_INFINITY and libc.mlockall(_MCL_CURRENT_AND_FUTURE) == 0


class Secret:
    """Up to `size` bytes; `length` of them are used."""

    def __init__(self, size: int = 512) -> None:
        self._buffer = bytearray(size)
        self.length = 0
        self._address = ctypes.addressof((ctypes.c_char * size).from_buffer(self._buffer))
        self.locked = _libc().mlock(ctypes.c_void_p(self._address), ctypes.c_size_t(size)) == 0

    @property
    def view(self) -> memoryview:
        """All of it, to read into or from."""
        return memoryview(self._buffer)

    def text(self) -> str:
        """A copy as text. Raises UnicodeDecodeError."""
        return str(self._buffer[: self.length], "utf-8")

    def wipe(self) -> None:
        """Zero and unlock."""
        ctypes.memset(self._address, 0, len(self._buffer))
        self.length = 0
        if self.locked:
            _libc().munlock(ctypes.c_void_p(self._address), ctypes.c_size_t(len(self._buffer)))
            self.locked = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.wipe()
