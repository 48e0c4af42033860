"""Do descriptors travel with the right bytes, close-on-exec, each with one owner, and none left over?"""

from __future__ import annotations

import array
import gc
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tlspool_core import fdpass
from tlspool_core.wire.codec import PACKET_SIZE
from tlspool_core.wire.framing import Assembler, Frame


def open_descriptors() -> int:
    """How many this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    gc.collect()
    before = open_descriptors()
    a, b = socket.socketpair()
    with a, b:
        yield a, b
    assert open_descriptors() == before


def send_many(sock: socket.socket, data: bytes, count: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * count).tobytes())])
    finally:
        os.close(null)


def frames(sock: socket.socket, count: int) -> list[Frame[fdpass.Descriptor]]:
    assembler: Assembler[fdpass.Descriptor] = Assembler()
    out: list[Frame[fdpass.Descriptor]] = []
    while len(out) < count:
        got = fdpass.receive(sock, assembler.wanted)
        frame = assembler.feed(got.data, got.descriptors)
        out += [frame] if frame is not None else []
    return out


def test_a_descriptor_arrives_close_on_exec_and_works(pair: tuple[socket.socket, socket.socket]) -> None:
    a, b = pair
    inner, outer = socket.socketpair()
    with inner, outer:
        fdpass.send(a, b"x", outer.fileno())
        got = fdpass.receive(b, 10)
        (descriptor,) = got.descriptors
        assert not os.get_inheritable(descriptor.fileno())
        with descriptor.socket() as adopted:
            assert not descriptor.open
            adopted.sendall(b"hello")
            assert inner.recv(10) == b"hello"


def test_what_is_read_into_memory_of_the_readers_own_comes_with_its_descriptors(pair: tuple[socket.socket, socket.socket]) -> None:
    a, b = pair
    room = memoryview(bytearray(10))
    send_many(a, b"hello", fdpass.MAX_DESCRIPTORS)
    length, descriptors = fdpass.receive_into(b, room[2:])
    assert bytes(room[: 2 + length]) == b"\0\0hello"
    assert len(descriptors) == fdpass.MAX_DESCRIPTORS
    assert not any(os.get_inheritable(descriptor.fileno()) for descriptor in descriptors)
    fdpass.close_all(descriptors)
    a.sendall(b"0123456789")
    assert fdpass.receive_into(b, room[:3]) == (3, ())
    assert fdpass.receive_into(b, room) == (7, ())
    a.close()
    assert fdpass.receive_into(b, room) == (0, ())


def test_joined_packets_keep_their_own_descriptors(pair: tuple[socket.socket, socket.socket]) -> None:
    """The kernel joins a message without rights and the next one with: only short reads tell them apart."""
    a, b = pair
    fdpass.send(a, b"1" * PACKET_SIZE)
    fdpass.send(a, b"2" * PACKET_SIZE, 0)
    fdpass.send(a, b"3" * PACKET_SIZE + b"4" * PACKET_SIZE, 0)
    got = frames(b, 4)
    assert [frame.packet[:1] for frame in got] == [b"1", b"2", b"3", b"4"]
    assert [frame.descriptor is not None for frame in got] == [False, True, True, False]
    fdpass.close_all(frame.descriptor for frame in got if frame.descriptor)


def test_a_descriptor_in_the_midst_of_a_packet_is_surplus(pair: tuple[socket.socket, socket.socket]) -> None:
    a, b = pair
    assembler: Assembler[fdpass.Descriptor] = Assembler()
    fdpass.send(a, b"1" * 100)
    assert assembler.feed(fdpass.receive(b, assembler.wanted).data) is None
    fdpass.send(a, b"1" * 288, 0)
    got = fdpass.receive(b, assembler.wanted)
    frame = assembler.feed(got.data, got.descriptors)
    assert frame is not None
    assert frame.descriptor is None
    assert len(frame.surplus) == 1
    fdpass.close_all(frame.surplus)


@pytest.mark.parametrize("count", [2, 100, fdpass.MAX_DESCRIPTORS])
def test_surplus_is_seen_and_never_leaks(pair: tuple[socket.socket, socket.socket], count: int) -> None:
    a, b = pair
    before = open_descriptors()
    send_many(a, b"x", count)
    got = fdpass.receive(b, 10)
    assert len(got.descriptors) == count
    fdpass.close_all(got.descriptors)
    assert open_descriptors() == before


def test_what_nobody_takes_is_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    a, b = pair
    before = open_descriptors()
    fdpass.send(a, b"x", 0)
    got = fdpass.receive(b, 10)
    assert open_descriptors() == before + 1
    del got
    gc.collect()
    assert open_descriptors() == before


def test_the_end_of_the_stream_is_empty_data(pair: tuple[socket.socket, socket.socket]) -> None:
    a, b = pair
    a.close()
    assert fdpass.receive(b, 10) == fdpass.Received(b"")


def test_one_owner(pair: tuple[socket.socket, socket.socket]) -> None:
    fd = os.open(os.devnull, os.O_RDONLY)
    with fdpass.Descriptor(fd) as descriptor:
        assert str(fd) in repr(descriptor)
        assert descriptor.take() == fd
        with pytest.raises(ValueError, match="taken"):
            descriptor.take()
        with pytest.raises(ValueError, match="taken"):
            descriptor.fileno()
    os.fstat(fd)  # still open: it was ours
    again = fdpass.Descriptor(fd)
    with pytest.raises(OSError, match="non-socket"):
        again.socket()
    assert not again.open
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_where_a_socket_leads(tmp_path: Path) -> None:
    """Told of the connecting end, and of nothing else; the descriptor stays as it was."""
    path = str(tmp_path / "here")
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client, socket.socket() as unconnected:
        listening.bind(path)
        listening.listen()
        client.connect(path)
        server, _ = listening.accept()
        inner, outer = socket.socketpair()
        with server, inner, outer, Path(os.devnull).open("rb") as file:
            told = {}
            for name, number in [("client", client), ("server", server), ("pair", inner), ("tcp", unconnected), ("file", file)]:
                descriptor = fdpass.Descriptor(os.dup(number.fileno()))
                told[name] = fdpass.leads_to(descriptor, {path})
                os.fstat(descriptor.fileno())
                assert not fdpass.leads_to(fdpass.Descriptor(os.dup(number.fileno())), {"elsewhere"})
    assert told == {"client": True, "server": False, "pair": False, "tcp": False, "file": False}
