"""Whose process is at the other end of a connection, as the kernel knows it: for services that work with a person's credential.

Theory of operation
-------------------
All users of a machine reach what listens on loopback.  Both ends of such a connection are sockets of this machine, so the kernel can be
asked for the other one by its addresses (sock_diag(7)), and tells whose it is.  Only a socket that some process still has counts: one
that was closed belongs to nobody any more, and the kernel reports user 0 for it.  So does one that has not finished connecting: it may
be another that was given the same port.  For the same reason our end has to be connected yet when the kernel has answered: what a
stranger sent before it was reset can be read even then, while another user's connection has the port.
"""

from __future__ import annotations

import os
import pwd
import socket
import struct
from collections.abc import Collection
from ipaddress import ip_address
from typing import Final

_SOCK_DIAG: Final = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY: Final = 20  # SOCK_DIAG_BY_FAMILY
_REQUEST: Final = 1  # NLM_F_REQUEST
_NO_COOKIE: Final = b"\xff" * 8  # INET_DIAG_NOCOOKIE
_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr
_ASKED: Final = struct.Struct("=BBBxI")  # struct inet_diag_req_v2 before its socket
_FOUND: Final = struct.Struct("=BBxx48xIIIII")  # struct inet_diag_msg: family, state, its socket, ..., uid, inode
_CONNECTED: Final = frozenset((1, 4, 5))  # TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2
_LARGEST: Final = 8192
_WAIT: Final = 1.0  # seconds; the kernel answers at once


def owner(sock: socket.socket) -> int | None:
    """The user whose process is connected to `sock`, which was accepted; None if that is nobody of this machine, or nobody any more.

    Raises OSError if the kernel does not tell, or the connection ends meanwhile.
    """
    if sock.family == socket.AF_UNIX:
        _, uid, _ = struct.unpack("=iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(uid)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        kernel.settimeout(_WAIT)
        kernel.sendto(_question(sock), (0, 0))
        found = _answer(kernel.recv(_LARGEST))
    sock.getpeername()
    return found


def _question(sock: socket.socket) -> bytes:
    """For the other end: what is its source is our peer."""
    ends = sock.getpeername(), sock.getsockname()
    ports = struct.pack("!HH", *(end[1] for end in ends))
    addresses = b"".join(ip_address(end[0].partition("%")[0]).packed.ljust(16, b"\0") for end in ends)
    asked = _ASKED.pack(sock.family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + ports + addresses + bytes(4) + _NO_COOKIE
    return _HEADER.pack(_HEADER.size + len(asked), _BY_FAMILY, _REQUEST, 1, 0) + asked


def _answer(data: bytes) -> int | None:
    if len(data) < _HEADER.size + _FOUND.size or _HEADER.unpack_from(data)[1] != _BY_FAMILY:
        return None  # an error: no such socket
    _, state, _, _, _, uid, inode = _FOUND.unpack_from(data, _HEADER.size)
    return int(uid) if inode and state in _CONNECTED else None


def refusal(sock: socket.socket, users: Collection[int]) -> str:
    """Why a connection is not from one of these users, nor our own, nor root, who can be anybody; empty if it is."""
    try:
        who = owner(sock)
    except OSError as fault:
        return f"the system does not tell who has connected: {fault.strerror or fault}"
    if who is None:
        return "whoever has connected is not of this machine, or has gone"
    return "" if who in users or who in (0, os.geteuid()) else f"user {_spelt(who)} has connected"


def _spelt(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"number {uid}"
