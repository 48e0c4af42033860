"""Are programs that speak the socket protocol through other libraries served, packet by packet as these libraries send them?

Nothing of our own codec is used at the programs' end: packets are bytes at offsets, sent in the order, under the numbers and with
the descriptors that the programs of the original TLS Pool use.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Callable, Iterator

import pytest
from conftest import DaemonProcess
from toyplugin import CLIENT, SERVER

SIZE = 388
ERROR, PING, STARTTLS, LOCALID, PLAINTEXT, PRNG, INFO, DETACH, REATTACH = 1, 0x10, 0x24, 0x28, 0x2A, 0x2B, 0x2C, 0x100, 0x101
CLIENT_ROLE, SERVER_ROLE, DTLS, FORK, CHECK = 0x1 | 0x8, 0x2 | 0x4, 0x100, 0x4000, 0x10000
BASE = -1167372288


def packet(reqid: int, cbid: int, command: int, *pieces: tuple[int, bytes]) -> bytes:
    out = bytearray(SIZE)
    out[:8] = struct.pack("=HHI", reqid, cbid, command)
    for offset, piece in pieces:
        out[offset : offset + len(piece)] = piece
    return bytes(out)


def starttls(reqid: int, flags: int, ctlkey: bytes, localid: str, remoteid: str = "", ipproto: int = 6) -> bytes:
    fields = (8, struct.pack("=IIB", flags, 0, ipproto)), (20, localid.encode()), (148, remoteid.encode())
    return packet(reqid, 0, STARTTLS, *fields, (276, ctlkey), (292, b"generic"))


def head(data: bytes) -> tuple[int, int, int]:
    """reqid, cbid, command"""
    return struct.unpack_from("=HHI", data)  # type: ignore[return-value]


def text(data: bytes, offset: int) -> str:
    return data[offset : offset + 128].partition(b"\0")[0].decode()


class Program:
    """A connection as the library uses it: one call for each packet, in both directions."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(str(daemon.path))
        self.socket.settimeout(15)

    def send(self, data: bytes, descriptor: socket.socket | None = None) -> None:
        rights = [] if descriptor is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor.fileno()]))]
        assert self.socket.sendmsg([data], rights) == SIZE

    def receive(self) -> bytes:
        """The library never reassembles, and offers no room for a descriptor."""
        data, ancillary, _, _ = self.socket.recvmsg(SIZE)
        assert (len(data), ancillary) == (SIZE, [])
        return data

    def ask(self, data: bytes) -> bytes:
        self.send(data)
        return self.receive()

    def refused(self, data: bytes) -> int:
        """The refusal's number above the base."""
        answer = self.ask(data)
        assert head(answer) == (head(data)[0], 0, ERROR)
        number: int = struct.unpack_from("=i", answer, 8)[0]
        return number - BASE


@pytest.fixture(scope="module")
def daemon(module_daemons: Callable[..., DaemonProcess]) -> DaemonProcess:
    return module_daemons()


@pytest.fixture
def programs(daemon: DaemonProcess) -> Iterator[tuple[Program, Program]]:
    """One for the server's end and one for the client's."""
    both = Program(daemon), Program(daemon)
    yield both
    for program in both:
        program.socket.close()


def hand_over(program: Program, asked: bytes, *, reqid: int | None = None, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Answer a callback as the library does: the whole structure back, with a descriptor. Returns the application's end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    ours.settimeout(15)
    with theirs:
        program.send(asked if reqid is None else struct.pack("=H", reqid) + asked[2:], theirs)
    return ours


def begin(programs: tuple[Program, Program], server: bytes, client: bytes) -> None:
    """Both give the pool the ends of one connection."""
    for program, request, end in zip(programs, (server, client), socket.socketpair(), strict=True):
        with end:
            program.send(request, end)


def test_the_test_client_and_server(programs: tuple[Program, Program]) -> None:
    """The client plays with its control key, as it says, just for fun; both ask for keying material and for facts."""
    server, client = programs
    key = os.urandom(16)
    begin(programs, starttls(0, SERVER_ROLE, os.urandom(16), SERVER), starttls(0, CLIENT_ROLE, key, CLIENT, SERVER))
    plain = []
    for program, flags, own, remote in ((client, CLIENT_ROLE, CLIENT, SERVER), (server, SERVER_ROLE, SERVER, CLIENT)):
        asked = program.receive()
        assert head(asked)[::2] == (0, PLAINTEXT)
        assert (text(asked, 20), text(asked, 148)) == (own, remote)
        plain.append(hand_over(program, asked, kind=socket.SOCK_SEQPACKET if program is server else socket.SOCK_STREAM))
        done = program.receive()
        assert head(done) == (0, 0, STARTTLS)
        assert done[8:] == asked[8:], "all of it overwrites the program's own structure"
        assert done[8:20] == struct.pack("=IIBxH", flags, 0, 6, 0)
    control = [(12, key)]
    assert client.refused(packet(0, 0, REATTACH, *control)) == 18
    assert client.ask(packet(1, 0, DETACH, *control)) == packet(1, 0, 0)
    assert client.refused(packet(2, 0, DETACH, *control)) == 17
    assert client.ask(packet(3, 0, REATTACH, *control)) == packet(3, 0, 0)
    assert client.refused(packet(4, 0, REATTACH, *control)) == 18
    label = b"EXPERIMENTAL-tlspool-test"
    random = client.ask(packet(5, 0, PRNG, (8, struct.pack("=hhh", len(label), -1, 16)), (14, key + label)))
    assert head(random) == (5, 0, PRNG)
    assert random[14:30] != bytes(16)
    query = packet(5, 0, INFO, (8, key), (24, struct.pack("=IH", 0x52800000, 0xFFFF)))
    told = client.ask(query)
    assert told == query[:28] + struct.pack("=H", len(SERVER)) + SERVER.encode() + bytes(358 - len(SERVER))
    assert client.refused(packet(5, 0, INFO, (8, key), (24, struct.pack("=IH", 0x59290000, 0xFFFF)))) == 29, "TLS 1.3 has none"
    talk(*plain)


def talk(one: socket.socket, other: socket.socket) -> None:
    with one, other:
        one.sendall(b"hello")
        assert other.recv(100) == b"hello"
        other.sendall(b"welcome")
        assert one.recv(100) == b"welcome"


@pytest.mark.parametrize("extra", [0, DTLS, DTLS | FORK])
def test_the_tunnel(programs: tuple[Program, Program], extra: int) -> None:
    """It leaves the protocol out, and sets the flag for DTLS unless it is told that SCTP shall carry TLS."""
    requests = (
        starttls(0, SERVER_ROLE | extra, os.urandom(16), SERVER, ipproto=0),
        starttls(0, CLIENT_ROLE | extra, os.urandom(16), CLIENT, SERVER, ipproto=0),
    )
    begin(programs, *requests)
    plain = []
    for program, request in zip(programs, requests, strict=True):
        asked = program.receive()
        assert (asked[4:20], asked[276:]) == (struct.pack("=I", PLAINTEXT) + request[8:20], request[276:])
        plain.append(hand_over(program, asked))
        assert head(program.receive()) == (0, 0, STARTTLS)
    talk(*plain)


def test_the_asynchronous_library(programs: tuple[Program, Program]) -> None:
    """Each packet has a number of its own, answers to callbacks too, and what comes next is awaited under that number."""
    server, client = programs
    for program in programs:
        pong = program.ask(packet(1, 0, PING, (8, b"20151111api@tlspool.arpa2.net"), (144, struct.pack("=I", 1))))
        assert head(pong) == (1, 0, PING)
        assert struct.unpack_from("=I", pong, 144) == (1,)
    begin(
        programs,
        starttls(0x6B67, SERVER_ROLE | CHECK, os.urandom(16), SERVER),
        starttls(0x6B67, CLIENT_ROLE, os.urandom(16), CLIENT, SERVER),
    )
    asked = server.receive()
    assert head(asked)[::2] == (0x6B67, LOCALID)
    server.send(struct.pack("=H", 0x4C1E) + asked[2:])
    plain = []
    for program, before, after in ((client, 0x6B67, 0x0231), (server, 0x4C1E, 0xD5A7)):
        asked = program.receive()
        assert head(asked)[::2] == (before, PLAINTEXT)
        plain.append(hand_over(program, asked, reqid=after))
        assert head(program.receive()) == (after, 0, STARTTLS)
    talk(*plain)


def test_a_callback_that_the_library_cannot_refuse(programs: tuple[Program, Program]) -> None:
    """Its ERROR fails on what is left of an earlier descriptor, so nothing comes; its thread goes on with another request."""
    server, client = programs
    begin(
        programs, starttls(0, SERVER_ROLE | CHECK, os.urandom(16), SERVER), starttls(0, CLIENT_ROLE, os.urandom(16), CLIENT, SERVER)
    )
    assert head(server.receive())[::2] == (0, LOCALID)
    pong = server.ask(packet(0, 0, PING, (8, b"20151111api@tlspool.arpa2.net"), (144, b"\xff" * 4)))
    assert head(pong) == (0, 0, PING)
    assert head(client.receive()) == (0, 0, ERROR), "the peer does not wait for what never comes"
