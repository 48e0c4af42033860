"""What does the daemon say to packets that are wrong, and does it stay with its other applications?"""

from __future__ import annotations

import os
import random
import socket
from typing import Any

import pytest

from tlspool_core.client import options
from tlspool_core.wire.codec import PACKET_SIZE, encode
from tlspool_core.wire.errors import ErrorCode
from tlspool_core.wire.flags import Command, StartTlsFlags
from tlspool_core.wire.messages import (
    AccountingStart,
    ControlDetach,
    ControlReattach,
    Error,
    Info,
    Message,
    Packet,
    PinEntry,
    Ping,
    PlaintextConnect,
    Prng,
    StartTls,
    StartTlsLocalid,
    Success,
)

KEY = b"nobody's control"
START = StartTls(flags=options.SERVER, localid="www.example.com", ctlkey=KEY)


def test_split_into_single_bytes(hostile: Any) -> None:
    for byte in encode(Packet(7, 0, Ping())):
        hostile.raw(bytes([byte]))
    packet = hostile.read()
    assert packet.reqid == 7
    assert isinstance(packet.message, Ping)


@pytest.mark.parametrize("count", [2, 50])
def test_many_joined(hostile: Any, count: int) -> None:
    hostile.raw(b"".join(encode(Packet(number, 0, Ping())) for number in range(count)))
    assert [hostile.read().reqid for _ in range(count)] == list(range(count))


def test_joined_packets_keep_their_own_descriptors(hostile: Any) -> None:
    """PING without, STARTTLS with, PING without: none is taken for another's."""
    ours, peer = hostile.pair()
    hostile.send(Ping(), reqid=1)
    hostile.raw(encode(Packet(2, 0, START)) + encode(Packet(3, 0, Ping())), [ours.fileno()])
    ours.close()
    assert {hostile.read().reqid, hostile.read().reqid} == {1, 3}
    peer.close()
    last = hostile.read()
    assert last.reqid == 2
    assert isinstance(last.message, Error)
    assert last.message.tlserrno == ErrorCode.PEER_DISCONNECT


@pytest.mark.parametrize("size", [1, 8, 387, 389, 3 * PACKET_SIZE - 1])
def test_lengths_that_are_wrong(hostile: Any, size: int) -> None:
    """Whole packets are answered; the rest is forgotten when the application ends."""
    hostile.raw(encode(Packet(1, 0, Ping())).ljust(size, b"\xff")[:size])
    hostile.sock.shutdown(socket.SHUT_WR)
    assert hostile.hung_up()


@pytest.mark.parametrize("command", [0x02, 0x11, 0x80000024, 0x303, 0xFFFFFFFF])
def test_unknown_commands(hostile: Any, command: int) -> None:
    hostile.raw(b"\x05\x00\x00\x00" + command.to_bytes(4, "little") + bytes(380))
    packet = hostile.read()
    assert packet.reqid == 5
    assert isinstance(packet.message, Error)
    assert packet.message.tlserrno == ErrorCode.COMMAND_UNKNOWN


@pytest.mark.parametrize(
    "message", [AccountingStart(KEY, "kind", "instance", "a@b", "c@d"), ControlDetach(0, KEY), ControlReattach(0, KEY)]
)
def test_what_cannot_be_done_is_said(hostile: Any, message: Message) -> None:
    hostile.send(message)
    assert hostile.refusal().tlserrno in {
        ErrorCode.COMMAND_NOT_IMPLEMENTED,
        ErrorCode.CTLKEY_NOT_FOUND,
        ErrorCode.ACCOUNTING_UNAVAILABLE,
        ErrorCode.ACCOUNTING_IDENTITY,
    }


def spoilt(message: Message, offset: int, piece: bytes) -> bytes:
    raw = bytearray(encode(Packet(1, 0, message)))
    raw[offset : offset + len(piece)] = piece
    return bytes(raw)


@pytest.mark.parametrize(
    ("packet", "named"),
    [
        (spoilt(START, 20, b"x" * 128), "localid"),
        (spoilt(START, 148, b"x" * 128), "remoteid"),
        (spoilt(START, 20, b"\xff\xfe\0"), "localid"),
        (spoilt(START, 292, b"\xff"), "service"),
        (spoilt(Ping(), 8, b"x" * 136), "identity"),
        (spoilt(ControlDetach(0, KEY), 28, b"x" * 128), "name"),
        (spoilt(PinEntry(), 20, b"x" * 128), "pin"),
        (spoilt(Prng(KEY, b"EXPERIMENTAL", None, 9), 8, b"\xff\x7f"), "PRNG"),
        (spoilt(Prng(KEY, b"EXPERIMENTAL", None, 9), 12, b"\xff\xff"), "PRNG"),
        (spoilt(Info(KEY, 1), 28, b"\xff\x7f"), "INFO"),
    ],
)
def test_malformed_packets(hostile: Any, packet: bytes, named: str) -> None:
    hostile.raw(packet)
    refusal = hostile.refusal()
    assert refusal.tlserrno == ErrorCode.MALFORMED_PACKET
    assert named in refusal.text
    hostile.send(Ping())
    assert isinstance(hostile.read().message, Ping)


@pytest.mark.parametrize("message", [Ping(), Info(KEY, 1), ControlDetach(0, KEY), START.echo(flags=StartTlsFlags.RENEGOTIATE)])
def test_stray_descriptors(hostile: Any, message: Message) -> None:
    ours, peer = hostile.pair()
    hostile.send(message, [ours.fileno()])
    ours.close()
    assert hostile.refusal().tlserrno == ErrorCode.SUPERFLUOUS_SOCKET
    assert peer.recv(1) == b"", "the pool closed it"


@pytest.mark.parametrize("count", [2, 4, 5, 200])
def test_too_many_descriptors(hostile: Any, count: int) -> None:
    ours, peer = hostile.pair()
    hostile.send(START, [ours.fileno()] * count)
    ours.close()
    assert hostile.refusal().tlserrno == ErrorCode.SUPERFLUOUS_SOCKET
    assert peer.recv(1) == b"", "the pool closed them all"


def test_a_descriptor_in_the_midst_of_a_packet(hostile: Any) -> None:
    ours, peer = hostile.pair()
    raw = encode(Packet(1, 0, Ping()))
    hostile.raw(raw[:10])
    hostile.daemon.pool.ping()  # the pool has read the first piece by now
    hostile.raw(raw[10:], [ours.fileno()])
    ours.close()
    assert hostile.refusal().tlserrno == ErrorCode.SUPERFLUOUS_SOCKET
    assert peer.recv(1) == b""


def test_a_missing_descriptor(hostile: Any) -> None:
    hostile.send(START)
    assert hostile.refusal().tlserrno == ErrorCode.CIPHER_SOCKET_NEEDED


def test_descriptors_of_other_kinds(hostile: Any) -> None:
    read, write = os.pipe()
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.socket() as unconnected,
        socket.socket(type=socket.SOCK_DGRAM) as udp,
    ):
        for number in (read, write, listening.fileno(), unconnected.fileno(), udp.fileno()):
            hostile.send(START, [number])
            assert hostile.refusal().tlserrno == ErrorCode.CONNECTION_DRIVER
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("message", [Success(), Error(ErrorCode.HANDSHAKE_FAILED, "no"), PlaintextConnect(), StartTlsLocalid()])
def test_answers_that_nobody_waits_for(hostile: Any, message: Message) -> None:
    hostile.send(message)
    assert hostile.refusal().tlserrno == ErrorCode.COMMAND_NEEDED
    ours, peer = hostile.pair()
    hostile.send(message, [ours.fileno()], cbid=9)
    ours.close()
    assert hostile.refusal().tlserrno == ErrorCode.BAD_CALLBACK_RESPONSE
    assert peer.recv(1) == b""


@pytest.mark.parametrize("flags", [0, 0x1, 0x4, 0x5, 0xA, 0xFFFFFFFF, 0x100 | 0x9])
def test_flags_that_fit_no_handshake(hostile: Any, flags: int) -> None:
    peer = hostile.begin(START.echo(flags=StartTlsFlags(flags)))
    peer.close()
    assert hostile.refusal().tlserrno < 0


@pytest.mark.parametrize("localid", ["two@at@signs", "-", "..", "a b", "x" * 127, "ü" * 60, "user@", "@domain"])
def test_identities_that_are_none(hostile: Any, localid: str) -> None:
    peer = hostile.begin(StartTls(flags=options.CLIENT, localid=localid, remoteid="www.example.com"))
    hostile.daemon.pool.ping()
    peer.close()
    assert hostile.refusal().tlserrno < 0


def test_random_packets(hostile: Any) -> None:
    """Every packet that is complete gets its one answer, whatever is in it."""
    source = random.Random(20261123)
    for number in range(300):
        raw = bytearray(source.randbytes(PACKET_SIZE))
        raw[0:4] = number.to_bytes(2, "little") + b"\0\0"
        raw[4:8] = source.choice([*Command, source.getrandbits(32)]).to_bytes(4, "little")
        hostile.raw(bytes(raw))
        assert hostile.read().reqid == number


def test_random_bytes_with_descriptors(hostile: Any) -> None:
    source = random.Random(11)
    ours, _ = hostile.pair()
    for _ in range(100):
        hostile.raw(source.randbytes(source.randint(1, 1000)), [ours.fileno()] * source.randint(0, 3))
    hostile.sock.shutdown(socket.SHUT_WR)
    assert hostile.hung_up()
