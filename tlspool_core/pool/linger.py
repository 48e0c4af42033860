"""Closing the sockets of applications: with a last word to the peer that it can read, and without ever waiting for it.

Theory of operation
-------------------
Closing a TCP socket with unread input resets the connection, and a reset may overtake the alert that was just sent.  So the sending
side is shut down, and what still comes is read and thrown away until the peer has closed too, up to a limit of time and bytes.  The
number of sockets that linger at a time is limited, as a peer can cause as many as it likes.

An application may have set SO_LINGER on its socket.  Then close(2) would wait, whatever O_NONBLOCK says, until the peer has taken what
it was sent, which the peer may never do.  So that is undone right before a socket is closed.  (Who keeps a copy of it can set it again;
but then ours is not the last one, and nothing waits for its end.)  The same goes for sockets that came over a UNIX socket of the
application's: those are taken out and closed by us, as the kernel would wait for them, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from tlspool_core import fdpass

_SECONDS = 2.0
_BYTES = 1 << 20
_MAX_LINGERING = 256

_lingering: set[_Last] = set()


def close_at_once(closing: socket.socket) -> None:
    """Close a socket that an application has handed over; the kernel goes on to send what it still has."""
    try:
        closing.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, fdpass.NO_LINGERING)
    except (OSError, TypeError):  # Python takes nothing but numbers for a socket of AF_VSOCK
        fdpass.forbid_lingering(closing.fileno())
    closing.close()


def close_used(closing: socket.socket) -> None:
    """The same for one that a session has used, and whose other end hears nothing more: with all that is left in it."""
    if fdpass.may_carry(closing):
        fdpass.close_connection(closing)
    else:
        close_at_once(closing)


class _Last:
    """Owns one socket in its last seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, closing: socket.socket) -> None:
        self._loop = loop
        self._socket = closing
        self._fd = closing.fileno()
        self._left = _BYTES
        self._timer = loop.call_later(_SECONDS, self.close)
        _lingering.add(self)
        loop.add_reader(self._fd, self._readable)

    def _readable(self) -> None:
        try:
            data = fdpass.only_bytes(self._socket, 65536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        self._left -= len(data)
        if not data or self._left <= 0:
            self.close()

    def close(self) -> None:
        self._timer.cancel()
        self._loop.remove_reader(self._fd)
        close_used(self._socket)
        _lingering.discard(self)


def linger(loop: asyncio.AbstractEventLoop, closing: socket.socket, last: bytes) -> None:
    """Take over the socket, send `last` as far as it goes at once, and close in an orderly way."""
    with contextlib.suppress(OSError):
        if last:
            closing.send(last, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        closing.shutdown(socket.SHUT_WR)
        if len(_lingering) < _MAX_LINGERING:
            _Last(loop, closing)
            return
    close_used(closing)


def close_lingering() -> None:
    """The pool stops: wait no longer."""
    for last in list(_lingering):
        last.close()
