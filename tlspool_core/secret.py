"""Memory for PINs: not swapped, not dumped, not inherited, and wiped as soon as it has served.

Theory of operation
-------------------
A `Secret` has pages of its own, straight from the kernel, so that to unlock one never unlocks another.  They are locked
(mlock(2)), left out of core dumps (MADV_DONTDUMP), and zero in a child process (MADV_WIPEONFORK).  A PIN is read into them by what
reads in place (`readv`, `recvmsg_into`), looked at as a view, and sent from them; so it is never a `str` or `bytes`, which Python
copies and frees without wiping.  Whoever holds a Secret wipes it right after use, by `with` or `wipe`; one that was forgotten on the
way of an error is wiped when the last reference to it goes.

A process may lock few pages (RLIMIT_MEMLOCK).  Where there are no more, PINs are taken all the same, and wiped as early: without
them nothing would work.  The log says so once, and `locking_fault` for as long as the process lives.

This module imports nothing of the project: a process that a plugin starts for itself has it for the price of `mmap`.
"""

from __future__ import annotations

import codecs
import ctypes
import hmac
import logging
import mmap
import os
import resource
from contextlib import suppress
from types import TracebackType
from typing import NoReturn, Self

__all__ = ["Secret", "forbid_dumps", "locking_fault"]

log = logging.getLogger("tlspool.secret")

Octets = bytes | bytearray | memoryview

# <asm-generic/mman-common.h>, <linux/prctl.h>
_MADV_DONTDUMP = 16
_MADV_WIPEONFORK = 18
_PR_SET_DUMPABLE = 4

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_fault: list[str] = []  # why memory could not be locked, the first time


def locking_fault() -> str:
    """Why some secret of this process could be swapped to disk; "" if all were locked."""
    return _fault[0] if _fault else ""


def forbid_dumps() -> None:
    """No core dumps of this process, no debugger of the same user: both would show secrets. Raises OSError."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl = getattr(_libc, "prctl", None)  # Linux has it
    if prctl is not None and prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(0), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"PR_SET_DUMPABLE: {os.strerror(ctypes.get_errno())}")


class Secret:
    """Room for up to `size` bytes, of which the first `length` are used. Not for use by several threads at a time."""

    __slots__ = ("_pages", "length")

    def __init__(self, size: int = 512) -> None:
        """`size` is at least 1. Raises OSError if there is no memory at all."""
        self._pages: mmap.mmap | None = None
        self.length = 0
        self._pages = pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for advice in (_MADV_DONTDUMP, _MADV_WIPEONFORK):
            with suppress(OSError):  # a kernel that does not know it
                pages.madvise(advice)
        if _libc.mlock(self.address, size) != 0:
            _complain(ctypes.get_errno())

    @classmethod
    def of(cls, *pieces: Octets) -> Self:
        """A secret that holds copies of these, one behind the other, and has no room for more."""
        made = cls(max(1, sum(map(len, pieces))))
        for piece in pieces:
            made.append(piece)
        return made

    @property
    def view(self) -> memoryview:
        """All of the room, to read into. Raises ValueError after `wipe`."""
        if self._pages is None:
            raise ValueError("this secret was wiped")
        return memoryview(self._pages)

    @property
    def used(self) -> memoryview:
        """The bytes that are used; none after `wipe`."""
        return memoryview(b"") if self._pages is None else memoryview(self._pages)[: self.length]

    @property
    def address(self) -> int:
        """Where it begins in memory, for C functions. Raises ValueError after `wipe`."""
        return ctypes.addressof(ctypes.c_char.from_buffer(self.view))

    def append(self, piece: Octets) -> None:
        """Put a copy behind what is there. Raises ValueError if there is no room for it."""
        end = self.length + len(piece)
        if end > len(self.view):
            raise ValueError("a secret has no room for more")
        self.view[self.length : end] = piece
        self.length = end

    @property
    def is_utf8(self) -> bool:
        """Whether it is text; found out octet by octet, so that there is no copy with all of it."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            for octet in self.used:
                decoder.decode(bytes((octet,)))
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
        return True

    def text(self) -> str:
        """A copy as text, for what takes nothing else: it can be neither locked nor wiped. Raises UnicodeDecodeError."""
        return str(self.used, "utf-8")

    def wipe(self) -> None:
        """Overwrite and give the memory back; harmless if done before."""
        pages, self._pages = self._pages, None
        self.length = 0
        if pages is not None:
            pages[:] = bytes(len(pages))
            with suppress(BufferError):  # somebody has a view yet; the pages go with that, and nothing is in them
                pages.close()

    def __len__(self) -> int:
        return self.length

    def __eq__(self, other: object) -> bool:
        """In constant time for secrets of the same length."""
        return hmac.compare_digest(self.used, other.used) if isinstance(other, Secret) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # a hash in constant time is of no use to a dictionary

    def __repr__(self) -> str:
        return "<Secret>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not copied")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.wipe()

    def __del__(self) -> None:
        self.wipe()


def _complain(number: int) -> None:
    if not _fault:
        _fault.append(f"mlock: {os.strerror(number)}")
        log.warning("PINs may be swapped to disk, as memory cannot be locked (%s): raise RLIMIT_MEMLOCK", _fault[0])
