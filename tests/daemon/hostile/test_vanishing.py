"""What remains of an application that vanishes, falls silent, or talks on at the wrong moment?"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from tlspool_core.client import Session, options
from tlspool_core.wire.codec import encode
from tlspool_core.wire.errors import ErrorCode
from tlspool_core.wire.flags import StartTlsFlags
from tlspool_core.wire.messages import Error, Packet, PinEntry, Ping, PlaintextConnect, StartTls, StartTlsLocalid

SERVER = "www.example.com"
START = StartTls(flags=options.SERVER | StartTlsFlags.IGNORE_REMOTEID, localid=SERVER)
CHECK = START.echo(flags=START.flags | StartTlsFlags.LOCALID_CHECK)


def at_localid(hostile: Any) -> tuple[Packet, Callable[[], object]]:
    """As far as the LOCALID callback."""
    outcome = hostile.with_peer(CHECK)
    packet = hostile.read()
    assert isinstance(packet.message, StartTlsLocalid)
    assert packet.cbid
    return packet, outcome


def at_plaintext(hostile: Any) -> tuple[Packet, Callable[[], object]]:
    """As far as the PLAINTEXT_CONNECT callback."""
    outcome = hostile.with_peer(START)
    packet = hostile.read()
    assert isinstance(packet.message, PlaintextConnect)
    assert packet.cbid
    return packet, outcome


def connected(hostile: Any) -> tuple[socket.socket, Session]:
    """A session: our plaintext end, and the peer's session."""
    packet, outcome = at_plaintext(hostile)
    ours, theirs = hostile.pair()
    hostile.send(packet.message, [theirs.fileno()], reqid=packet.reqid, cbid=packet.cbid)
    theirs.close()
    assert isinstance(hostile.read().message, StartTls)
    session = outcome()
    assert isinstance(session, Session)
    return ours, session


# --- vanishing -------------------------------------------------------------------------------------------------------------------


def test_in_a_packet_with_a_descriptor(hostile: Any) -> None:
    ours, peer = hostile.pair()
    hostile.raw(encode(Packet(1, 0, START))[:200], [ours.fileno()])
    ours.close()
    hostile.sock.close()
    assert peer.recv(1) == b""


def test_with_the_request_on_its_way(hostile: Any) -> None:
    peer = hostile.begin(START)
    hostile.sock.close()
    assert peer.recv(1000) == b""


def test_before_the_peer_speaks(hostile: Any) -> None:
    peer = hostile.begin(START)
    hostile.send(Ping(), reqid=2)
    hostile.read()
    hostile.sock.close()
    assert peer.recv(1000) == b""


@pytest.mark.parametrize("stage", [at_localid, at_plaintext])
@pytest.mark.parametrize("piece", [0, 1, 200, 388])
def test_at_a_callback(hostile: Any, stage: Callable[..., Any], piece: int) -> None:
    """Without answer, within it, and just after it."""
    packet, outcome = stage(hostile)
    _, theirs = hostile.pair()
    if piece:
        hostile.raw(encode(packet)[:piece], [theirs.fileno()])
    hostile.vanish()
    result = outcome()
    if isinstance(result, Session):
        with result:  # the client's handshake was over before
            assert result.plaintext.recv(100) == b""


def test_in_a_session(hostile: Any) -> None:
    ours, session = connected(hostile)
    with session:
        hostile.sock.close()
        assert session.plaintext.recv(100) == b""
        assert ours.recv(100) == b""


def begin_and_keep(hostile: Any, flags: StartTlsFlags) -> tuple[socket.socket, socket.socket]:
    """STARTTLS on a socket that stays open here: that, and the peer's end."""
    ours, peer = hostile.pair()
    hostile.send(START.echo(flags=flags | StartTlsFlags.IGNORE_REMOTEID), [ours.fileno()])
    return ours, peer


def test_before_a_handshake_has_had_its_first_turn(hostile: Any) -> None:
    """With answers that wait to be sent the end is seen while the STARTTLS before it is being taken up."""
    ours, peer = hostile.pair()
    for number in range(250):
        hostile.send(Ping(), reqid=number)
    hostile.wait_until_read()
    hostile.daemon.signal(signal.SIGSTOP)
    hostile.send(START, [ours.fileno()], reqid=1000)
    ours.close()
    hostile.sock.close()
    hostile.daemon.signal(signal.SIGCONT)
    assert peer.recv(1) == b""
    assert "fault" not in hostile.daemon.text


@pytest.mark.parametrize("flags", [options.SERVER, options.CLIENT, options.PEER], ids=["server", "client", "peer"])
def test_in_a_handshake_whose_socket_it_keeps(hostile: Any, flags: StartTlsFlags) -> None:
    """epoll tells of what was closed while it was watched, without end, as long as it is open anywhere."""
    before = hostile.watched()
    begin_and_keep(hostile, flags)
    hostile.wait_for_watched(before + 1)
    hostile.sock.close()
    hostile.wait_for_watched(before - 1)


def test_many_that_come_as_a_handshake_ends(hostile: Any) -> None:
    """Who gets the numbers of descriptors that have just been closed is served."""
    for _ in range(20):
        gone = type(hostile)(hostile.daemon)
        begin_and_keep(gone, options.SERVER)
        gone.send(Ping(), reqid=2)
        gone.read()
        gone.sock.close()
        after = [type(hostile)(hostile.daemon) for _ in range(4)]
        for one in after:
            one.send(Ping())
            assert isinstance(one.read().message, Ping)
            one.vanish()
        gone.vanish()


def test_with_many_sessions_at_different_stages(hostile: Any) -> None:
    connected(hostile)[1].close()
    peers = [hostile.begin(START, reqid=number) for number in range(2, 6)]
    hostile.sock.close()
    assert all(peer.recv(1000) == b"" for peer in peers)


# --- silence ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [at_localid, at_plaintext])
def test_a_callback_that_is_never_answered(hostile: Any, stage: Callable[..., Any]) -> None:
    """It times out; the late answer is dropped without a word, its descriptor closed, and the connection is of use."""
    packet, outcome = stage(hostile)
    answer = hostile.read()
    assert (answer.reqid, answer.cbid) == (packet.reqid, 0)
    assert isinstance(answer.message, Error)
    assert answer.message.tlserrno == ErrorCode.CALLBACK_TIMEOUT
    ours, theirs = hostile.pair()
    hostile.send(packet.message, [theirs.fileno()], reqid=packet.reqid, cbid=packet.cbid)
    theirs.close()
    assert ours.recv(1) == b""
    hostile.send(Ping(), reqid=packet.reqid)
    assert isinstance(hostile.read().message, Ping), "nothing stands before the answer to the next request"
    result = outcome()
    if isinstance(result, Session):
        result.close()


def test_answers_that_are_never_read(hostile: Any) -> None:
    """Others are served, and the silent one is not read from for ever."""
    hostile.sock.settimeout(0.5)
    ping = encode(Packet(1, 0, Ping())) * 100
    with pytest.raises((TimeoutError, BrokenPipeError, ConnectionResetError)):
        for _ in range(1000):
            hostile.sock.sendall(ping)
    hostile.daemon.pool.ping()


def test_many_that_say_nothing(hostile: Any) -> None:
    silent = [type(hostile)(hostile.daemon) for _ in range(50)]
    for number, one in enumerate(silent):
        one.raw(encode(Packet(1, 0, START))[: number + 1])
    hostile.daemon.pool.ping()
    for one in silent:
        one.vanish()


# --- the wrong thing at the wrong moment -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "descriptors", "code"),
    [
        (lambda callback: Error(22, "I will not"), 0, ErrorCode.CLIENT_REFUSES_CALLBACK),
        (lambda callback: Error(22, "I will not"), 1, ErrorCode.CLIENT_REFUSES_CALLBACK),
        (lambda callback: Error(22, "I will not"), 3, ErrorCode.CLIENT_REFUSES_CALLBACK),
        (lambda callback: callback, 0, ErrorCode.PLAIN_SOCKET_NEEDED),
        (lambda callback: callback, 2, ErrorCode.SUPERFLUOUS_SOCKET),
        (lambda callback: START.ask_localid(), 1, ErrorCode.BAD_CALLBACK_RESPONSE),
        (lambda callback: PinEntry(attempt=1), 0, ErrorCode.BAD_CALLBACK_RESPONSE),
        (lambda callback: Ping(), 1, ErrorCode.BAD_CALLBACK_RESPONSE),
    ],
)
def test_answers_that_do_not_give_the_plaintext(hostile: Any, answer: Any, descriptors: int, code: ErrorCode) -> None:
    packet, outcome = at_plaintext(hostile)
    ours, theirs = hostile.pair()
    hostile.send(answer(packet.message), [theirs.fileno()] * descriptors, reqid=packet.reqid, cbid=packet.cbid)
    theirs.close()
    refusal = hostile.read()
    assert refusal.reqid == packet.reqid
    assert isinstance(refusal.message, Error)
    assert refusal.message.tlserrno == code
    assert ours.recv(1) == b""
    hostile.send(Ping(), reqid=9)
    assert hostile.read().reqid == 9, "one answer, no more"
    result = outcome()
    if isinstance(result, Session):
        result.close()


def test_a_stranger_to_the_callback(hostile: Any) -> None:
    """Numbers of callbacks that nobody sent are refused, and the callback goes on to wait for its answer."""
    packet, outcome = at_plaintext(hostile)
    ours, theirs = hostile.pair()
    for reqid, cbid in [(packet.reqid, packet.cbid + 1), (packet.reqid + 1, packet.cbid + 2)]:
        hostile.send(packet.message, [theirs.fileno()], reqid=reqid, cbid=cbid)
        refusal = hostile.read()
        assert refusal.reqid == reqid
        assert isinstance(refusal.message, Error)
        assert refusal.message.tlserrno == ErrorCode.BAD_CALLBACK_RESPONSE
    hostile.send(packet.message, [theirs.fileno()], reqid=packet.reqid, cbid=packet.cbid)
    theirs.close()
    assert isinstance(hostile.read().message, StartTls)
    session = outcome()
    assert isinstance(session, Session)
    with session:
        session.plaintext.sendall(b"through")
        assert ours.recv(100) == b"through"


def test_an_answer_given_twice(hostile: Any) -> None:
    packet, outcome = at_plaintext(hostile)
    ours, theirs = hostile.pair()
    again, more = hostile.pair()
    hostile.send(packet.message, [theirs.fileno()], reqid=packet.reqid, cbid=packet.cbid)
    hostile.send(packet.message, [more.fileno()], reqid=packet.reqid, cbid=packet.cbid)
    theirs.close()
    more.close()
    messages = [hostile.read().message, hostile.read().message]
    assert {type(message) for message in messages} == {StartTls, Error}
    assert again.recv(1) == b""
    session = outcome()
    assert isinstance(session, Session)
    with session:
        ours.sendall(b"through")
        assert session.plaintext.recv(100) == b"through"


def test_a_thread_that_goes_on_without_answering(hostile: Any) -> None:
    """The next request under the number gets the next answer, and the only one."""
    packet, outcome = at_plaintext(hostile)
    hostile.send(Ping(), reqid=packet.reqid)
    assert isinstance(hostile.read().message, Ping)
    time.sleep(0.6)  # longer than the callback would have been waited for
    hostile.send(Ping(), reqid=99)
    assert hostile.read().reqid == 99
    result = outcome()
    if isinstance(result, Session):
        result.close()


@pytest.mark.parametrize("plaintext", ["closed", "listening", "datagram"])
def test_plaintext_sockets_of_no_use(hostile: Any, plaintext: str) -> None:
    packet, outcome = at_plaintext(hostile)
    ours, theirs = hostile.pair()
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        sockets = {"closed": theirs, "listening": listening, "datagram": datagram}
        ours.close()
        hostile.send(packet.message, [sockets[plaintext].fileno()], reqid=packet.reqid, cbid=packet.cbid)
        theirs.close()
        result = outcome()
        assert isinstance(result, Session)
        with result:
            result.plaintext.settimeout(10)
            assert result.plaintext.recv(100) == b""
