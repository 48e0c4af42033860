"""Passing descriptors over UNIX sockets: what pool and client share of I/O.

Theory of operation
-------------------
A descriptor that arrives exists from the moment of `recvmsg` on, wanted or not, so it gets its one owner right there: a
`Descriptor`, which closes it unless someone takes it over.  It is close-on-exec from the start (MSG_CMSG_CLOEXEC), so no program
that another thread starts inherits it.

Closing a descriptor may wait, if whoever sent it wants that: a TCP socket with SO_LINGER waits until its peer has taken all, which it may
never do.  So that is undone before one is closed, and none is left to the kernel to close for us: the ancillary buffer has room for as many
as a message may bring, and what a connection still holds is taken out before it is closed (`close_connection`).
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import struct
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

MAX_DESCRIPTORS = 253  # with one read: as many as the kernel takes with one message (unix(7))
_INT = array.array("i").itemsize
_ANCILLARY = socket.CMSG_SPACE(MAX_DESCRIPTORS * _INT)
NO_LINGERING = struct.pack("ii", 0, 0)  # struct linger of socket(7)
_READ = 4096
_NOW = int(socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
_UNIX = int(socket.AF_UNIX)
# a socket of messages holds fewer (net.unix.max_dgram_qlen), and an empty one of them looks like the end
_MOST_EMPTY = 1024


class Descriptor:
    """The one owner of a file descriptor. Closes it at `close`, at the end of a `with`, or when forgotten, unless taken before."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def open(self) -> bool:
        """It has not been taken or closed yet."""
        return self._fd >= 0

    def fileno(self) -> int:
        """The number, to look at; raises ValueError if taken or closed."""
        if self._fd < 0:
            raise ValueError("the descriptor was taken or closed before")
        return self._fd

    def take(self) -> int:
        """Hand over ownership; the caller closes it from now on."""
        fd = self.fileno()
        self._fd = -1
        return fd

    def socket(self) -> socket.socket:
        """Hand over ownership as a socket object. Raises OSError, and closes, if it is no socket."""
        fd = self.take()
        try:
            # family and type as the kernel says; the protocol, which follows from them for us, is not asked for
            return socket.socket(-1, -1, 0, fd)
        except OSError:
            os.close(fd)
            raise

    def close(self) -> None:
        """Close unless taken or closed before; does not wait for what a socket has not sent."""
        if self._fd >= 0:
            fd = self.take()
            forbid_lingering(fd)
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Descriptor {self._fd if self._fd >= 0 else 'taken'}>"


@dataclass(frozen=True, slots=True)
class Received:
    """What one read brought; empty data is the end of the stream."""

    data: bytes
    descriptors: tuple[Descriptor, ...] = ()


def receive(sock: socket.socket, size: int) -> Received:
    """Read up to `size` bytes and the descriptors that come along. Raises what `recvmsg` raises, BlockingIOError included."""
    data, ancillary, _, _ = sock.recvmsg(size, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
    return Received(data, _descriptors(ancillary) if ancillary else ())


def receive_into(sock: socket.socket, room: memoryview) -> tuple[int, tuple[Descriptor, ...]]:
    """The same into memory of the caller's: how many bytes, 0 at the end of the stream, and the descriptors."""
    length, ancillary, _, _ = sock.recvmsg_into([room], _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
    return length, _descriptors(ancillary)


def may_carry(sock: socket.socket) -> bool:
    """Descriptors may come along with what this socket brings."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) == _UNIX


def only_bytes(sock: socket.socket, size: int) -> bytes:
    """Read up to `size` bytes without waiting, and close what came along: the kernel would, too, but in its own time."""
    data, ancillary, _, _ = sock.recvmsg(size, _ANCILLARY, _NOW)
    if ancillary:
        close_all(_descriptors(ancillary))
    return data


def only_bytes_into(sock: socket.socket, room: memoryview) -> tuple[int, int]:
    """The same into memory of the caller's: how many bytes, and the flags of recvmsg(2)."""
    length, ancillary, flags, _ = sock.recvmsg_into((room,), _ANCILLARY, _NOW)
    if ancillary:
        close_all(_descriptors(ancillary))
    return length, flags


def _descriptors(ancillary: Iterable[tuple[int, int, bytes]]) -> tuple[Descriptor, ...]:
    found: list[Descriptor] = []
    for level, kind, body in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found += map(Descriptor, _numbers(body))
    return tuple(found)


def _numbers(body: bytes) -> array.array[int]:
    """The descriptors of one SCM_RIGHTS message; a cut one may end in a part of a number."""
    return array.array("i", body[: len(body) - len(body) % _INT])


def send(sock: socket.socket, data: bytes | memoryview, descriptor: int | None = None) -> int:
    """Send bytes, with a descriptor on the first of them; how many bytes went. The receiver gets a duplicate.

    Raises what `sendmsg` raises; then nothing went.
    """
    if descriptor is None:
        return sock.send(data, socket.MSG_NOSIGNAL)
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]).tobytes())
    return sock.sendmsg([data], [rights], socket.MSG_NOSIGNAL)


def leads_to(descriptor: Descriptor, addresses: Collection[str]) -> bool:
    """It is a UNIX socket that is connected to one of these paths.

    The pool asks this of its own paths: if it became the owner of an application's end of a connection to itself, that connection
    would never be seen to end, nor would what hangs on it.
    """
    try:
        # taken for a UNIX socket without asking what it is: any other has a name that is no path, or none
        looked_at = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, descriptor.fileno())
    except OSError:
        return False  # no socket at all
    try:
        return looked_at.getpeername() in addresses
    except OSError:
        return False
    finally:
        looked_at.detach()


def forbid_lingering(fd: int) -> None:
    """Closing this shall not wait, if it is a socket: the kernel goes on to send what it still has."""
    with contextlib.suppress(OSError):
        # taken for a UNIX socket whatever it is: Python has its own idea of options for some of the others
        looked_at = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)
        try:
            looked_at.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGERING)
        finally:
            looked_at.detach()


def close_connection(sock: socket.socket) -> None:
    """Close a UNIX socket, and whatever descriptors have come over it that nobody has read."""
    room = bytearray(_READ)
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)  # so that no more of them come
    stream = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
    empty = 0
    with contextlib.suppress(OSError):
        while empty < (1 if stream else _MOST_EMPTY):
            length, _ = only_bytes_into(sock, memoryview(room))
            empty += not length
    room[:] = bytes(_READ)  # there may have been a PIN
    sock.close()


def close_all(descriptors: Iterable[Descriptor]) -> None:
    """Close each."""
    for descriptor in descriptors:
        descriptor.close()
