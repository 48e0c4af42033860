"""What if a descriptor that an application has handed over is not what it seems, or is changed behind the pool's back?

A descriptor is passed with what it stands for: whether its calls wait, and how it closes, the application can say at any time after.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tlspool_core.client import Session, options
from tlspool_core.wire.errors import ErrorCode
from tlspool_core.wire.flags import StartTlsFlags
from tlspool_core.wire.messages import Ping, PlaintextConnect, StartTls

SERVER = "www.example.com"
START = StartTls(flags=options.SERVER | StartTlsFlags.IGNORE_REMOTEID, localid=SERVER)
MUCH = bytes(1 << 20)


def serves_others(hostile: Any) -> None:
    """Right now."""
    bystander = type(hostile)(hostile.daemon)
    bystander.send(Ping())
    assert isinstance(bystander.read().message, Ping)
    bystander.vanish()


def waits_again(kept: socket.socket) -> None:
    """Once the pool has made its calls return at once, have them wait again, and soon."""
    while not fcntl.fcntl(kept, fcntl.F_GETFL) & os.O_NONBLOCK:
        time.sleep(0.01)
    os.set_blocking(kept.fileno(), True)
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)


def established(hostile: Any, ours: socket.socket, theirs: socket.socket) -> Session:
    """A session of ours as server over a cipher pair, whose plaintext is `theirs`; the peer's end of it."""
    outcome = hostile.with_peer(START)
    packet = hostile.read()
    assert isinstance(packet.message, PlaintextConnect)
    hostile.send(packet.message, [theirs.fileno()], reqid=packet.reqid, cbid=packet.cbid)
    assert isinstance(hostile.read().message, StartTls)
    session = outcome()
    assert isinstance(session, Session)
    return session


def plaintext_of(application: Any) -> socket.socket:
    """Our end of the plaintext, for which the application is asked next."""
    packet = application.read()
    assert isinstance(packet.message, PlaintextConnect)
    ours, theirs = application.pair()
    application.send(packet.message, [theirs.fileno()], reqid=packet.reqid, cbid=packet.cbid)
    assert isinstance(application.read().message, StartTls)
    return ours


def fill(sock: socket.socket) -> None:
    """Send until nothing more is taken, for a moment."""
    sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        while True:
            sock.send(MUCH)


# --- calls that wait -------------------------------------------------------------------------------------------------------------


def test_the_socket_for_tls_waits_in_the_handshake(hostile: Any) -> None:
    ours, peer = hostile.pair()
    hostile.send(START, [ours.fileno()])
    waits_again(ours)
    peer.send(b"\x16\x03\x01")  # after this the pool reads on
    serves_others(hostile)


def test_the_plaintext_socket_waits_for_who_does_not_read(hostile: Any) -> None:
    ours, theirs = hostile.pair()
    with established(hostile, ours, theirs) as session:
        waits_again(theirs)
        fill(session.plaintext)
        serves_others(hostile)


def test_the_socket_for_tls_waits_for_a_peer_that_does_not_read(hostile: Any) -> None:
    """The peer is a pool's client here, too; its own plaintext is what nobody reads."""
    cipher, peer = hostile.pair()
    hostile.send(START, [cipher.fileno()])
    other = type(hostile)(hostile.daemon)
    other.send(StartTls(flags=options.CLIENT, remoteid=SERVER), [peer.fileno()])
    ours = [plaintext_of(application) for application in (hostile, other)]
    waits_again(cipher)
    waits_again(peer)
    fill(ours[0])
    serves_others(hostile)
    other.vanish()


def test_a_pipe_waits_for_who_does_not_read(hostile: Any) -> None:
    """With what waits a kernel before 6.5 could be made to wait."""
    reading, writing = os.pipe()
    outcome = hostile.with_peer(START)
    packet = hostile.read()
    hostile.send(packet.message, [writing], reqid=packet.reqid, cbid=packet.cbid)
    assert isinstance(hostile.read().message, StartTls)
    session = outcome()
    assert isinstance(session, Session)
    with session:
        os.set_blocking(writing, True)
        fill(session.plaintext)
        serves_others(hostile)
    os.close(reading)
    os.close(writing)


# --- what it stands for ----------------------------------------------------------------------------------------------------------


def open_epoll() -> int:
    with select.epoll() as epoll:
        return os.dup(epoll.fileno())


def unconnected(family: int, kind: int) -> Callable[[], int]:
    return lambda: socket.socket(family, kind).detach()


ODD = {
    "epoll": open_epoll,
    "eventfd": lambda: os.eventfd(0),
    "pidfd": lambda: os.pidfd_open(os.getpid()),
    "directory": lambda: os.open("/", os.O_RDONLY),
    "path": lambda: os.open("/etc/passwd", os.O_PATH),
    "null": lambda: os.open("/dev/null", os.O_RDWR),
    "random": lambda: os.open("/dev/urandom", os.O_RDONLY),
    "datagram": unconnected(socket.AF_INET, socket.SOCK_DGRAM),
    "netlink": unconnected(socket.AF_NETLINK, socket.SOCK_RAW),
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_of_no_use(hostile: Any, kind: str) -> None:
    """It is refused as either socket, and nothing of it stays."""
    odd = ODD[kind]()
    hostile.send(START, [odd])
    assert hostile.refusal().tlserrno == ErrorCode.CONNECTION_DRIVER
    outcome = hostile.with_peer(START)
    packet = hostile.read()
    hostile.send(packet.message, [odd], reqid=packet.reqid, cbid=packet.cbid)
    assert hostile.refusal().tlserrno == ErrorCode.PLAIN_SOCKET_NEEDED
    os.close(odd)
    result = outcome()
    if isinstance(result, Session):
        with result:
            assert result.plaintext.recv(1) == b""


@pytest.mark.skipif(not hasattr(socket, "AF_VSOCK"), reason="this Python knows no AF_VSOCK")
def test_a_socket_of_another_family(hostile: Any) -> None:
    """Python treats some families apart, so that what is good for all others fails for them."""
    try:
        odd = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    except OSError:
        pytest.skip("this kernel knows no AF_VSOCK")
    with odd:
        hostile.send(START, [odd.fileno()])
        assert hostile.refusal().tlserrno == ErrorCode.CONNECTION_DRIVER


# --- ends that wait ----------------------------------------------------------------------------------------------------------------


def test_closing_waits_for_a_peer_that_takes_nothing(hostile: Any, daemons: Callable[..., Any]) -> None:
    """SO_LINGER makes close(2) wait, whatever O_NONBLOCK says, for a peer to take what it was sent."""
    daemon = daemons("[limits]\nidle_timeout = 1\n")
    application, other = type(hostile)(daemon), type(hostile)(hostile.daemon)
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as peer:
        cipher, _ = listening.accept()
        cipher.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 600))
        application.send(START, [cipher.fileno()])
        cipher.close()
        other.send(StartTls(flags=options.CLIENT, remoteid=SERVER), [peer.fileno()])
        ours = [plaintext_of(application), plaintext_of(other)]
        before = daemon.descriptors
        fill(ours[0])
        while daemon.descriptors > before - 2:  # both of the session
            serves_others(application)
    application.vanish()
    other.vanish()


@pytest.fixture
def reluctant() -> Iterator[Callable[[], socket.socket]]:
    """Makes sockets that would not be closed before their peer has taken all, which it never does."""
    with ExitStack() as peers, socket.create_server(("127.0.0.1", 0)) as listening:

        def make() -> socket.socket:
            made = socket.create_connection(listening.getsockname())
            peers.enter_context(listening.accept()[0])
            fill(made)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 600))
            return made

        yield make


def send_and_close(application: Any, sockets: list[socket.socket]) -> None:
    """So that the last one of each is the pool's."""
    application.send(Ping(), [each.fileno() for each in sockets])
    for each in sockets:
        each.close()


@pytest.mark.parametrize("count", [1, 9])
def test_closing_waits_for_what_nobody_asked_for(hostile: Any, reluctant: Callable[[], socket.socket], count: int) -> None:
    send_and_close(hostile, [reluctant() for _ in range(count)])
    serves_others(hostile)
    assert hostile.refusal().tlserrno == ErrorCode.SUPERFLUOUS_SOCKET
    serves_others(hostile)


def test_closing_waits_for_what_nobody_has_read(
    hostile: Any, daemons: Callable[..., Any], reluctant: Callable[[], socket.socket]
) -> None:
    """Of a connection that is refused as soon as it is accepted."""
    daemon = daemons("[limits]\nclients = 2\n")  # one of them is the tests' own
    application = type(hostile)(daemon)
    application.send(Ping())
    application.read()
    daemon.signal(signal.SIGSTOP)
    one_too_many = type(hostile)(daemon)
    send_and_close(one_too_many, [reluctant()])
    daemon.signal(signal.SIGCONT)
    assert one_too_many.hung_up()
    application.send(Ping())
    assert isinstance(application.read().message, Ping)
    application.vanish()
    one_too_many.vanish()


def pass_on(over: socket.socket, data: bytes, passed: socket.socket) -> None:
    """Send data, and the last one of a socket along."""
    socket.send_fds(over, [data], [passed.fileno()])
    passed.close()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_closing_waits_for_what_comes_with_plaintext(
    hostile: Any, reluctant: Callable[[], socket.socket], kind: socket.SocketKind
) -> None:
    ours, theirs = socket.socketpair(type=kind)
    with ours, established(hostile, ours, theirs) as session:
        theirs.close()
        pass_on(ours, b"with more than bytes", reluctant())
        serves_others(hostile)
        assert session.plaintext.recv(100) == b"with more than bytes"
        serves_others(hostile)


def test_closing_waits_for_what_is_in_a_plaintext_that_ends_unread(hostile: Any, reluctant: Callable[[], socket.socket]) -> None:
    ours, theirs = socket.socketpair()
    bystander = type(hostile)(hostile.daemon)
    with established(hostile, ours, theirs) as session:
        theirs.close()
        session.plaintext.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        fill(ours)  # the pool reads no more
        hostile.daemon.signal(signal.SIGSTOP)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)  # more than it took until now
        pass_on(ours, b"unread", reluctant())
        ours.close()
        session.close()
        hostile.vanish()
        hostile.daemon.signal(signal.SIGCONT)
    serves_others(bystander)
    bystander.vanish()


@pytest.mark.parametrize("data", [b"no TLS at all", b"\x16\x03\x01\x02\x00\x01"])
def test_closing_waits_for_what_comes_with_tls(hostile: Any, reluctant: Callable[[], socket.socket], data: bytes) -> None:
    ours, theirs = hostile.pair()
    hostile.send(START, [theirs.fileno()])
    theirs.close()
    pass_on(ours, data, reluctant())
    serves_others(hostile)
    ours.close()
    assert hostile.refusal().tlserrno != 0
    serves_others(hostile)
