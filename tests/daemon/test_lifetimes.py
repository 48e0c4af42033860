"""How long does a session live, who controls it, and does anything stay behind when an application or peer vanishes at any step?"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, DaemonProcess, both, eventually
from toyplugin import CLIENT, SERVER

from tlspool_core import fdpass
from tlspool_core.client import ErrorCode, Pool, PoolError, Session, StartTlsFlags
from tlspool_core.wire.codec import PACKET_SIZE, decode, encode
from tlspool_core.wire.messages import Packet, Ping, PlaintextConnect, StartTls

FLAGS = StartTlsFlags
Daemons = Callable[..., DaemonProcess]
CLIENT_ROLE = FLAGS.LOCALROLE_CLIENT | FLAGS.REMOTEROLE_SERVER
SERVER_ROLE = FLAGS.LOCALROLE_SERVER | FLAGS.REMOTEROLE_CLIENT


@pytest.fixture(scope="module")
def daemon(module_daemons: Daemons) -> DaemonProcess:
    return module_daemons()


def established(daemon: DaemonProcess, pool: Pool, flags: StartTlsFlags = FLAGS.NONE) -> list[Any]:
    """A session of an application of its own (client role), and its peer's."""
    server, client = both(daemon.pool, pool, {"localid": SERVER}, {"remoteid": SERVER, "flags": flags})
    assert (server.remoteid, client.remoteid) == (CLIENT, SERVER)
    return [server, client]


def alive(server: Any, client: Any) -> bool:
    """Whether the session still carries data."""
    try:
        client.plaintext.sendall(b"x")
        server.plaintext.settimeout(5)
        return bool(server.plaintext.recv(1) == b"x")
    except OSError:
        return False


def test_a_session_ends_with_the_connection_that_made_it(daemon: DaemonProcess) -> None:
    application = Pool(daemon.path)
    server, client = established(daemon, application)
    with server, client:
        assert alive(server, client)
        application.close()
        assert server.plaintext.recv(1) == b""
        assert client.plaintext.recv(1) == b""


_SAYS_AND_EXITS = """
import os, socket, sys
from tlspool_core.client import Pool

pool = Pool(sys.argv[1])
session = pool.starttls_server(socket.socket(fileno=int(sys.argv[2])), localid=sys.argv[3])
session.plaintext.sendall(bytes(int(sys.argv[4])))
os._exit(0)
"""


@pytest.mark.parametrize("size", [1000, 3_000_000])
def test_the_last_words_of_a_program_that_exits_arrive_whole(daemon: DaemonProcess, size: int) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        words = [str(daemon.path), str(theirs.fileno()), SERVER, str(size)]
        program = subprocess.Popen(
            [sys.executable, "-c", _SAYS_AND_EXITS, *words], pass_fds=[theirs.fileno()], env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
    with daemon.pool.starttls_client(ours, remoteid=SERVER) as session:
        heard = 0
        while data := session.plaintext.recv(65536):
            heard += len(data)
            time.sleep(0.005)  # a slow reader: the program is gone long before all has been sent
    assert program.wait(10) == 0
    assert heard == size


def test_fork_lets_a_session_outlive_its_maker_and_be_taken_over(daemon: DaemonProcess) -> None:
    application = Pool(daemon.path)
    server, client = established(daemon, application, FLAGS.FORK)
    with server, client, Pool(daemon.path) as heir:
        control = heir.control(client.ctlkey)
        for call, code in (
            (control.export, ErrorCode.CTLKEY_NOT_YOURS),
            (control.detach, ErrorCode.CTLKEY_NOT_YOURS),
        ):
            with pytest.raises(PoolError) as caught:
                call("EXPERIMENTAL")
            assert caught.value.code == code
        with pytest.raises(PoolError) as caught:
            control.reattach()
        assert caught.value.code == ErrorCode.CTLKEY_ALREADY_ATTACHED
        exported = client.export("EXPERIMENTAL")
        application.close()

        def reattached() -> bool:
            with suppress(PoolError):
                control.reattach()
                return True
            return False

        eventually(reattached)
        assert alive(server, client)
        assert control.export("EXPERIMENTAL") == exported
        heir.close()
        time.sleep(0.05)
        assert alive(server, client)


def test_detach_gives_control_away_at_once(daemon: DaemonProcess) -> None:
    with Pool(daemon.path) as application, Pool(daemon.path) as heir:
        server, client = established(daemon, application, FLAGS.DETACH)
        with server, client:
            with pytest.raises(PoolError) as caught:
                client.export("EXPERIMENTAL")
            assert caught.value.code == ErrorCode.CTLKEY_NOT_YOURS
            with pytest.raises(PoolError) as caught:
                client.detach()
            assert caught.value.code == ErrorCode.CTLKEY_ALREADY_DETACHED
            control = heir.control(client.ctlkey)
            control.reattach()
            assert len(control.export("EXPERIMENTAL", length=350)) == 350
            control.detach()
            client.reattach()
            assert client.text(0x84460000) == "TLSv1.3"


def test_a_control_key_of_nobody_is_not_found(daemon: DaemonProcess) -> None:
    control = daemon.pool.control(b"?" * 16)
    for call in (control.detach, control.reattach):
        with pytest.raises(PoolError) as caught:
            call()
        assert caught.value.code == ErrorCode.CTLKEY_NOT_FOUND


def test_a_control_key_names_one_session(daemon: DaemonProcess) -> None:
    link, link2 = Raw(daemon), Raw(daemon)
    link.starttls(1, CLIENT_ROLE, b"same" * 4)
    link2.starttls(2, CLIENT_ROLE, b"same" * 4)
    assert link2.receive().message.tlserrno == ErrorCode.CTLKEY_REGISTRATION_FAILED
    link.close()
    link2.close()


# --- vanishing ---------------------------------------------------------------------------------------------------------------------


class Raw:
    """An application without manners."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(str(daemon.path))
        self.socket.settimeout(30)
        self.peers: list[socket.socket] = []

    def send(self, packet: Packet, descriptor: int | None = None) -> None:
        fdpass.send(self.socket, encode(packet), descriptor)

    def starttls(self, reqid: int, flags: StartTlsFlags, ctlkey: bytes | None = None, **fields: Any) -> socket.socket:
        """STARTTLS on one end of a pair, whose other end is the peer's."""
        ours, peer = socket.socketpair()
        with ours:
            key = ctlkey or reqid.to_bytes(16)
            self.send(Packet(reqid, 0, StartTls(flags=flags, ctlkey=key, **fields)), ours.fileno())
        self.peers.append(peer)
        return peer

    def receive(self) -> Any:
        data = b""
        while len(data) < PACKET_SIZE:
            more = self.socket.recv(PACKET_SIZE - len(data))
            assert more, "the pool hung up"
            data += more
        return decode(data, answer=True)

    def close(self) -> None:
        self.socket.close()
        for peer in self.peers:
            peer.close()


def quiet(daemon: DaemonProcess) -> int:
    """Number of descriptors once nothing goes on any more."""
    seen = [-1]

    def stable() -> bool:
        time.sleep(0.1)
        seen.append(daemon.descriptors)
        return seen[-1] == seen[-2]

    eventually(stable)
    return seen[-1]


def vanish_before_packet(raw: Raw, daemon: DaemonProcess) -> None:
    pass


def vanish_in_a_packet(raw: Raw, daemon: DaemonProcess) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fdpass.send(raw.socket, encode(Packet(1, 0, StartTls(flags=CLIENT_ROLE)))[:100], ours.fileno())
        raw.socket.send(b"x" * 10)


def vanish_before_the_peer_speaks(raw: Raw, daemon: DaemonProcess) -> None:
    raw.starttls(1, SERVER_ROLE, localid=SERVER)
    raw.starttls(2, CLIENT_ROLE, remoteid=SERVER).recv(1)


def vanish_in_the_handshake(raw: Raw, daemon: DaemonProcess) -> None:
    hello = raw.starttls(2, CLIENT_ROLE, remoteid=SERVER).recv(10000)
    peer = raw.starttls(1, SERVER_ROLE, localid=SERVER)
    peer.sendall(hello)
    assert peer.recv(1)


def vanish_at_localid(raw: Raw, daemon: DaemonProcess) -> None:
    hello = raw.starttls(2, CLIENT_ROLE, remoteid=SERVER).recv(10000)
    raw.starttls(1, SERVER_ROLE | FLAGS.LOCALID_CHECK, localid=SERVER).sendall(hello)
    assert raw.receive().cbid


def at_plaintext_connect(raw: Raw, daemon: DaemonProcess, flags: StartTlsFlags = FLAGS.NONE) -> Packet:
    ends = socket.socketpair()
    raw.peers.append(ends[0])
    thread = threading.Thread(target=serve_one, args=(daemon, ends[0]))
    thread.start()
    with ends[1]:
        raw.send(Packet(3, 0, StartTls(flags=CLIENT_ROLE | flags, ctlkey=b"3" * 16, remoteid=SERVER)), ends[1].fileno())
    packet = raw.receive()
    assert isinstance(packet.message, PlaintextConnect)
    thread.join()
    return packet


def serve_one(daemon: DaemonProcess, end: socket.socket) -> None:
    with suppress(PoolError):
        daemon.pool.starttls_server(end, localid=SERVER).close()


def vanish_at_plaintext_connect(raw: Raw, daemon: DaemonProcess) -> None:
    at_plaintext_connect(raw, daemon)


def vanish_at_plaintext_connect_with_fork(raw: Raw, daemon: DaemonProcess) -> None:
    at_plaintext_connect(raw, daemon, FLAGS.FORK)


def vanish_right_after_the_plaintext(raw: Raw, daemon: DaemonProcess) -> None:
    packet = at_plaintext_connect(raw, daemon)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        raw.send(packet, theirs.fileno())


def vanish_without_reading_the_answer(raw: Raw, daemon: DaemonProcess) -> None:
    vanish_right_after_the_plaintext(raw, daemon)
    time.sleep(0.05)


STEPS = [value for name, value in sorted(globals().items()) if name.startswith("vanish_")]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_an_application_that_vanishes_leaves_nothing(daemon: DaemonProcess, step: Callable[[Raw, DaemonProcess], None]) -> None:
    daemon.pool.ping()
    before = quiet(daemon)
    for _ in range(5):
        raw = Raw(daemon)
        step(raw, daemon)
        raw.close()
    eventually(lambda: daemon.descriptors <= before)
    assert daemon.pool.ping().facilities == 1
    assert "Traceback" not in daemon.text


def test_a_peer_that_vanishes_or_talks_nonsense_leaves_nothing(daemon: DaemonProcess) -> None:
    daemon.pool.ping()
    before = quiet(daemon)
    raw = Raw(daemon)
    for reqid, noise in enumerate((b"", b"\x16\x03\x01", b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\xff\xff", b"\0" * 500), 1):
        peer = raw.starttls(reqid, SERVER_ROLE, localid=SERVER)
        peer.sendall(noise)
        peer.close()
        answer = raw.receive()
        assert answer.message.tlserrno in (ErrorCode.PEER_DISCONNECT, ErrorCode.HANDSHAKE_FAILED)
    raw.close()
    eventually(lambda: daemon.descriptors <= before)


def test_a_callback_that_is_never_answered_ends(daemons: Daemons) -> None:
    daemon = daemons("[limits]\ncallback_timeout = 0.2\n")
    before = quiet(daemon)
    raw = Raw(daemon)
    packet = at_plaintext_connect(raw, daemon)
    answer = raw.receive()
    assert (answer.reqid, answer.cbid, answer.message.tlserrno) == (3, 0, ErrorCode.CALLBACK_TIMEOUT)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        raw.send(packet, theirs.fileno())  # too late: no answer, and the descriptor is closed
        theirs.close()
        assert ours.recv(1) == b""
    raw.send(Packet(9, 0, Ping()))
    assert raw.receive().reqid == 9
    raw.close()
    eventually(lambda: daemon.descriptors <= before)


def test_a_silent_peer_is_not_waited_for(daemons: Daemons) -> None:
    daemon = daemons("[limits]\nhandshake_timeout = 0.2\n")
    raw = Raw(daemon)
    peer = raw.starttls(1, SERVER_ROLE, localid=SERVER)
    assert raw.receive().message.tlserrno == ErrorCode.HANDSHAKE_TIMEOUT
    assert b"\x15\x03" in peer.recv(100)  # an alert says goodbye
    raw.starttls(2, SERVER_ROLE, localid=SERVER, timeout=1)
    assert raw.receive().message.tlserrno == ErrorCode.HANDSHAKE_TIMEOUT
    raw.close()


@pytest.mark.parametrize(
    ("flags", "fields", "code"),
    [
        (FLAGS.NONE, {}, ErrorCode.ROLES_UNSUITABLE),
        (FLAGS.LOCALROLE_CLIENT | FLAGS.REMOTEROLE_CLIENT, {}, ErrorCode.ROLES_UNSUITABLE),
        (CLIENT_ROLE | FLAGS.DTLS, {"ipproto": 17}, ErrorCode.COMMAND_NOT_IMPLEMENTED),
        (CLIENT_ROLE, {"ipproto": 17}, ErrorCode.COMMAND_NOT_IMPLEMENTED),
        (CLIENT_ROLE, {"ipproto": 132}, ErrorCode.COMMAND_NOT_IMPLEMENTED),
    ],
)
def test_what_is_not_done_is_said(daemon: DaemonProcess, flags: StartTlsFlags, fields: dict[str, int], code: ErrorCode) -> None:
    raw = Raw(daemon)
    peer = raw.starttls(1, flags, **fields)
    assert raw.receive().message.tlserrno == code
    peer.settimeout(5)
    assert peer.recv(1) == b""
    raw.close()


def test_a_descriptor_must_be_a_connected_stream(daemon: DaemonProcess) -> None:
    raw = Raw(daemon)
    with Path("/dev/null").open() as null, socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as fresh:
        dgram = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for reqid, descriptor in enumerate((null.fileno(), listening.fileno(), fresh.fileno(), dgram[0].fileno()), 1):
            raw.send(Packet(reqid, 0, StartTls(flags=CLIENT_ROLE, ctlkey=reqid.to_bytes(16))), descriptor)
            assert raw.receive().message.tlserrno == ErrorCode.CONNECTION_DRIVER
        for end in dgram:
            end.close()
    raw.close()


def test_a_plaintext_descriptor_may_come_with_the_localid(daemon: DaemonProcess) -> None:
    raw = Raw(daemon)
    ends = socket.socketpair()
    with ends[1]:
        request = StartTls(flags=SERVER_ROLE | FLAGS.LOCALID_CHECK | FLAGS.IGNORE_REMOTEID, ctlkey=b"4" * 16, localid=SERVER)
        raw.send(Packet(4, 0, request), ends[1].fileno())
    outcome: list[Any] = []
    thread = threading.Thread(target=lambda: outcome.append(daemon.pool.starttls_client(ends[0], remoteid=SERVER)))
    thread.start()
    asked = raw.receive()
    plain, theirs = socket.socketpair()
    with theirs:
        raw.send(asked, theirs.fileno())
    answer = raw.receive()
    thread.join()
    assert isinstance(answer.message, StartTls), answer
    assert (answer.message.localid, answer.message.ctlkey) == (SERVER, b"4" * 16)
    with plain, outcome[0] as client:
        plain.sendall(b"straight through")
        assert client.plaintext.recv(100) == b"straight through"
    raw.close()


HEIR = """
import sys, time
from tlspool_core.client import ErrorCode, Pool, PoolError
def reattach(key):
    try:
        key.reattach()
    except PoolError as error:
        if error.code != ErrorCode.CTLKEY_ALREADY_ATTACHED:
            raise
        time.sleep(0.05)  # its maker has died, which the pool will see
        reattach(key)
with Pool(sys.argv[1], patience=10) as pool:
    control = pool.control(bytes.fromhex(sys.argv[2]))
    for key in (control, pool.control(b"?" * 16)):
        try:
            reattach(key)
            print(key.export("EXPERIMENTAL").hex(), key.version(), key.check(0x84460000, b"TLSv1.3"), key.channel_binding().hex())
        except PoolError as error:
            print(error.code)
"""
MAKER = """
import os, socket, sys
from tlspool_core.client import Pool, StartTlsFlags
pool, sock, plain = Pool(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])), socket.socket(fileno=int(sys.argv[3]))
session = pool.starttls_client(sock, remoteid="www.example.com", plaintext=plain, flags=StartTlsFlags.FORK)
print(session.ctlkey.hex(), session.export("EXPERIMENTAL").hex(), session.channel_binding().hex(), flush=True)
os._exit(1)
"""


def run_with(code: str, *arguments: object, pass_fds: tuple[int, ...] = ()) -> list[str]:
    """What a process of its own prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, pass_fds=pass_fds, env=environment, capture_output=True, text=True, check=False).stdout.split()


def test_control_moves_from_a_process_that_dies_to_another_one(daemon: DaemonProcess) -> None:
    ends, plain = socket.socketpair(), socket.socketpair()
    served: list[Session] = []
    thread = threading.Thread(target=lambda: served.append(daemon.pool.starttls_server(ends[0], localid=SERVER)))
    thread.start()
    numbers = ends[1].fileno(), plain[1].fileno()
    key, exported, bound = run_with(MAKER, daemon.path, *numbers, pass_fds=numbers)
    ends[1].close()
    plain[1].close()
    thread.join(15)
    with served[0] as server, plain[0]:
        heir = run_with(HEIR, daemon.path, key)
        assert heir == [exported, "TLSv1.3", "True", bound, str(ErrorCode.CTLKEY_NOT_FOUND.value)]
        server.plaintext.sendall(b"still here")
        assert plain[0].recv(100) == b"still here"
