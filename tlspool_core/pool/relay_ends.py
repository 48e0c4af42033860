"""The two ends of a relay: one descriptor each, whatever kind it is.

Theory of operation
-------------------
An end owns its descriptor, which is closed once the relay has no more use for either half.  All kinds are read and written without
blocking; they differ in how that is said, in how one half is closed, in whether the kernel tells of readiness, and in what one write may
hold:

    SocketEnd    stream sockets; a half is closed by shutdown(2)
    UnixEnd      the same, where descriptors may come along
    MessageEnd   SOCK_SEQPACKET: each write is one message
    PipeEnd      pipes, FIFOs and terminals: what the open mode allows
    FileEnd      regular files: always ready, so the event loop is not asked

O_NONBLOCK belongs to what a descriptor stands for, not to our copy of it.  An application that has kept another copy can take it away, and
a call that waits would stop the pool; so each call on a socket or pipe says by itself that it does not wait.  (Linux can be told that for
pipes since 6.5, for terminals not at all.)

What is none of these is refused: devices that epoll does not know, and what has calls of its own (signalfd(2), for one, would hand over
the pool's signals).

A pipe or file that is open for reading only has no place for what the peer sends: that is dropped, as with a socket whose reader
is gone.  One that is open for writing only never has an end of input: we close our half when the peer has closed its.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import stat
import struct

from tlspool_core import fdpass
from tlspool_core.fdpass import Descriptor
from tlspool_core.pool.linger import close_at_once, close_used
from tlspool_core.tls.record import MAX_PLAINTEXT

# SO_MEMINFO of socket(7): bytes for receiving, its limit, for sending, its limit, forward, queued, options, backlog; drops
_SO_MEMINFO = 55
_MEMORY = struct.Struct("9i")
_READ_NOW = int(socket.MSG_DONTWAIT)
_SEND_NOW = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_AT_ITS_PLACE = -1  # preadv2(2): no offset but the file's own
SOCKET_BUFFER = 1 << 20  # bytes; with less, the batches become small and the work per byte grows


class End:
    """One descriptor of a relay. `can_read` and `can_write` say which halves are open still."""

    __slots__ = ("can_read", "can_write", "fd")

    pollable = True
    messages = False

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.can_read = True
        self.can_write = True
        os.set_blocking(fd, False)

    def read(self, into: memoryview) -> int:
        """Number of bytes read, 0 at the end of input. Raises BlockingIOError if there are none now, other OSError if broken."""
        return os.readv(self.fd, (into,))

    def write(self, data: memoryview) -> int:
        """Number of bytes written, at least one. Raises BlockingIOError if there is no room now, other OSError if broken."""
        return os.write(self.fd, data)

    def space(self) -> int:
        """How many bytes can be written before it blocks, by estimate; a large number where that cannot be known."""
        return 1 << 30

    def end_writing(self) -> None:
        """The other side shall see the end of input, and may go on to send."""
        self.can_write = False

    def end_reading(self) -> None:
        """The other side shall see that no one reads what it writes."""
        self.can_read = False

    def refuse_more(self) -> None:
        """What was written before can still be read, and then comes the end; where that cannot be had, whoever writes may go on."""

    def hung_up(self) -> bool:
        """The other side is gone altogether, not only its sending half."""
        poll = select.poll()
        poll.register(self.fd, 0)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close the descriptor; harmless if done before."""
        fd, self.fd = self.fd, -1
        self.can_read = self.can_write = False
        if fd >= 0:
            os.close(fd)


class SocketEnd(End):
    """A connected stream socket."""

    __slots__ = ("_socket",)

    def __init__(self, connected: socket.socket) -> None:
        super().__init__(connected.fileno())
        self._socket = connected

    def read(self, into: memoryview) -> int:
        return self._socket.recv_into(into, 0, _READ_NOW)

    def write(self, data: memoryview) -> int:
        return self._socket.send(data, _SEND_NOW)

    def end_writing(self) -> None:
        if self.can_write:
            self.can_write = False
            self._shut(socket.SHUT_WR)

    def end_reading(self) -> None:
        if self.can_read:
            self.can_read = False
            self._shut(socket.SHUT_RD)

    def refuse_more(self) -> None:
        self._shut(socket.SHUT_RD)  # the queue stays

    def _shut(self, half: int) -> None:
        try:
            self._socket.shutdown(half)
        except OSError:
            return  # the other side has ended the whole of it before

    def space(self) -> int:
        memory = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMORY.size)
        _, _, allocated, limit, _, queued, _, _, _ = _MEMORY.unpack(memory)
        # what is not data: one eighth at most, for pieces as large as ours
        return int((limit - max(allocated, queued)) * 7 // 8)

    def take(self) -> socket.socket:
        """Hand over the socket and with it the duty to close it."""
        self.fd = -1
        self.can_read = self.can_write = False
        return self._socket

    def close(self) -> None:
        self.fd = -1
        self.can_read = self.can_write = False
        close_used(self._socket)


class UnixEnd(SocketEnd):
    """A connected stream socket that may bring descriptors: they are closed, by us and not by the kernel, which may have to wait for that."""

    __slots__ = ()

    def read(self, into: memoryview) -> int:
        return fdpass.only_bytes_into(self._socket, into)[0]


class MessageEnd(SocketEnd):
    """A connected SOCK_SEQPACKET socket, which may bring descriptors, too: each message becomes records of its own, each record a message."""

    __slots__ = ("_most",)

    messages = True

    def __init__(self, connected: socket.socket) -> None:
        super().__init__(connected)
        self._most = MAX_PLAINTEXT

    def read(self, into: memoryview) -> int:
        """As for others; raises OSError with EMSGSIZE if the message was longer than there was room, and so is lost."""
        count, flags = fdpass.only_bytes_into(self._socket, into)
        if flags & socket.MSG_TRUNC:
            raise OSError(errno.EMSGSIZE, "message too long")
        return count

    def space(self) -> int:
        return 1 << 30

    def write(self, data: memoryview) -> int:
        while True:
            try:
                return self._socket.send(data[: self._most], _SEND_NOW)
            except OSError as error:
                if error.errno != errno.EMSGSIZE or self._most == 1:
                    raise
                self._most //= 2


class OpenedEnd(End):
    """What was opened: its mode says which halves there are."""

    __slots__ = ()

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        self.can_read = mode != os.O_WRONLY
        self.can_write = mode != os.O_RDONLY


class FileEnd(OpenedEnd):
    """A regular file, at the offset where it stands."""

    __slots__ = ()

    pollable = False

    def hung_up(self) -> bool:
        return False


class PipeEnd(OpenedEnd):
    """A pipe, FIFO or terminal."""

    __slots__ = ("_says_now",)

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._says_now = True  # as far as is known: the kernel may not know RWF_NOWAIT of this kind of file

    def read(self, into: memoryview) -> int:
        if self._says_now:
            try:
                return os.preadv(self.fd, (into,), _AT_ITS_PLACE, os.RWF_NOWAIT)
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                self._says_now = False
        return super().read(into)

    def write(self, data: memoryview) -> int:
        if self._says_now:
            try:
                return os.pwritev(self.fd, (data,), _AT_ITS_PLACE, os.RWF_NOWAIT)
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                self._says_now = False
        return super().write(data)


def enlarge_buffers(connected: socket.socket) -> None:
    """Ask for large kernel buffers; the kernel gives what its limits allow."""
    with contextlib.suppress(OSError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)


def _none_of_these() -> OSError:
    return OSError(errno.EPROTOTYPE, "plaintext of TLS needs a stream, a sequence of packets, a pipe or a file")


def _kind_of_file(mode: int, fd: int) -> type[OpenedEnd]:
    """Raises OSError if there is none for it."""
    if stat.S_ISREG(mode):
        return FileEnd
    if stat.S_ISFIFO(mode) or (stat.S_ISCHR(mode) and os.isatty(fd)):
        return PipeEnd
    raise _none_of_these()


def plain_end(plain: Descriptor | socket.socket) -> End:
    """The end that carries plaintext, which becomes the relay's. Raises OSError, and closes, if its kind is of no use."""
    if isinstance(plain, Descriptor):
        mode = os.fstat(plain.fileno()).st_mode
        if not stat.S_ISSOCK(mode):
            with plain:
                end = _kind_of_file(mode, plain.fileno())(plain.fileno())
                plain.take()
            return end
        plain = plain.socket()
    # the kernel's number costs less than the socket module's enumeration
    kind = plain.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
    if kind not in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        close_at_once(plain)
        raise _none_of_these()
    if plain.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        close_at_once(plain)
        raise OSError(errno.ENOTCONN, "a listening socket carries no plaintext")
    enlarge_buffers(plain)
    return stream_end(plain) if kind == socket.SOCK_STREAM else MessageEnd(plain)


def stream_end(connected: socket.socket) -> SocketEnd:
    """The end for a stream socket of any family."""
    return (UnixEnd if fdpass.may_carry(connected) else SocketEnd)(connected)
