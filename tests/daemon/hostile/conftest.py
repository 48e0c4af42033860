"""One daemon for all hostile applications of a file; after each of them it must serve others and hold nothing of theirs."""

from __future__ import annotations

import array
import fcntl
import socket
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tlspool_core.client import Pool, PoolError, options
from tlspool_core.wire.codec import PACKET_SIZE, decode, encode
from tlspool_core.wire.errors import ErrorCode
from tlspool_core.wire.flags import StartTlsFlags
from tlspool_core.wire.messages import Error, Message, Packet, Ping, StartTls

SESSIONS = 6
SERVER = "www.example.com"
LIMITS = f"[limits]\nsessions = {SESSIONS}\ncallback_timeout = 0.4\nhandshake_timeout = 5\n"
ACCEPT = options.SERVER | StartTlsFlags.IGNORE_REMOTEID
CONNECT = options.CLIENT


@dataclass
class Hostile:
    """An application that sends what it likes."""

    daemon: Any
    sock: socket.socket = field(init=False)
    _mine: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(str(self.daemon.path))

    def raw(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        """Some bytes, with descriptors on the first of them."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())] if descriptors else []
        assert self.sock.sendmsg([data], rights) == len(data)

    def send(self, message: Message, descriptors: Sequence[int] = (), *, reqid: int = 1, cbid: int = 0) -> None:
        """One packet."""
        self.raw(encode(Packet(reqid, cbid, message)), descriptors)

    def read(self) -> Packet:
        """One packet, which must come with one call: existing applications do not reassemble."""
        data = self.sock.recv(PACKET_SIZE)
        assert data, "the pool hung up"
        return decode(data, answer=True)

    def refusal(self) -> Error:
        """One packet, which is an ERROR."""
        message = self.read().message
        assert isinstance(message, Error), message
        assert message.text
        return message

    def hung_up(self) -> bool:
        """The pool ended the connection, after whatever it still had to say."""
        with suppress(ConnectionResetError):
            while self.sock.recv(65536):
                pass
        return True

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Two connected sockets, closed in the end."""
        ends = socket.socketpair()
        self._mine += ends
        for end in ends:
            end.settimeout(30)
        return ends

    def begin(self, request: StartTls, *, reqid: int = 1) -> socket.socket:
        """STARTTLS on a socket, whose other end is returned: the peer's."""
        ours, peer = self.pair()
        self.send(request.echo(ctlkey=reqid.to_bytes(16)), [ours.fileno()], reqid=reqid)
        ours.close()
        return peer

    def with_peer(self, request: StartTls, *, reqid: int = 1) -> Callable[[], object]:
        """STARTTLS as server, against a client application of good manners; call the result for what that one got."""
        peer = self.begin(request, reqid=reqid)
        self._mine.remove(peer)
        outcome: list[object] = []

        def connect() -> None:
            try:
                outcome.append(self.daemon.pool.starttls_client(peer, remoteid=SERVER))
            except PoolError as error:
                outcome.append(error)

        thread = threading.Thread(target=connect)
        thread.start()

        def joined() -> object:
            thread.join(30)
            return outcome[0]

        return joined

    def watched(self) -> int:
        """How many descriptors the daemon watches, for whomever, with our connection."""
        self.send(Ping())
        self.read()
        return watched(self.daemon)

    def wait_for_watched(self, count: int) -> None:
        """Until the daemon watches so many."""
        wait_for(lambda: watched(self.daemon) == count)

    def wait_until_read(self) -> None:
        """Until the daemon has taken all that was sent (TIOCOUTQ of unix(7) counts what it has not)."""
        wait_for(lambda: not any(fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4))))

    def vanish(self) -> None:
        """Gone, without a word."""
        self.sock.close()
        for sock in self._mine:
            sock.close()


def settled(daemon: Any, limit: float = 30.0) -> int:
    """Number of the daemon's descriptors once it stays the same."""
    end = time.monotonic() + limit
    last, since = daemon.descriptors, time.monotonic()
    while time.monotonic() - since < 0.06:
        assert time.monotonic() < end, "it never settles"
        time.sleep(0.01)
        now = daemon.descriptors
        if now != last:
            last, since = now, time.monotonic()
    return last


def watched(daemon: Any) -> int:
    """How many descriptors the daemon has the kernel watch, those that it has closed included (proc(5), fdinfo)."""
    found = 0
    for info in Path(f"/proc/{daemon.process.pid}/fdinfo").iterdir():
        with suppress(OSError):  # closed meanwhile
            found += info.read_text().count("tfd:")
    return found


def capacity(daemon: Any) -> int:
    """How many sessions a fresh application gets before the limit is reached."""
    probe = Hostile(daemon)
    for number in range(1, SESSIONS + 2):
        probe.begin(StartTls(flags=ACCEPT, localid=SERVER), reqid=number)
    packet = probe.read()
    assert isinstance(packet.message, Error)
    assert packet.message.tlserrno == ErrorCode.LIMIT_REACHED
    probe.vanish()
    return packet.reqid - 1


def wait_for(condition: Callable[[], bool], limit: float = 30.0) -> None:
    """Until something holds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def victim(module_daemons: Callable[..., Any]) -> Iterator[Any]:
    """The daemon; in the end it has room for as many sessions as at first, and logged no fault of its own."""
    daemon = module_daemons(LIMITS)
    yield daemon
    wait_for(lambda: capacity(daemon) == SESSIONS)
    assert "Traceback" not in daemon.text
    assert "fault" not in daemon.text


@pytest.fixture
def hostile(victim: Any) -> Iterator[Hostile]:
    """An application for one test; afterwards others are served, and the daemon holds as many descriptors as before, and watches as many."""
    victim.pool.ping()
    before, watched_before = settled(victim), watched(victim)
    application = Hostile(victim)
    yield application
    application.vanish()
    assert victim.process.poll() is None
    with Pool(victim.path) as bystander:
        assert bystander.ping().facilities == 1
    wait_for(lambda: victim.descriptors == before and settled(victim) == before)
    wait_for(lambda: watched(victim) == watched_before)
