"""Do the original's PIN program and identity chooser work unmodified: packet by packet, as they send and expect them?

Both use a connection of their own, send the structure that they received back with their answer in it, and read 388 bytes at once.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from deskhouse import PIN, SOFTHSM, House, eventually

from tlspool_core.client import Session

SIZE = 388
PINENTRY, REGISTER, CALLBACK = 0x29, 0x200, 0x201
JOHN, MARY, WEB = "john@example.com", "mary@example.com", "www.example.com"


class Desk:
    """reqid and cbid are zero in the registration, and no answer to it is awaited."""

    def __init__(self, house: House, command: int, *pieces: tuple[int, bytes]) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(15)
        self.socket.connect(str(house.path))
        packet = bytearray(SIZE)
        struct.pack_into("=I", packet, 4, command)
        for offset, piece in pieces:
            packet[offset : offset + len(piece)] = piece
        assert self.socket.send(packet) == SIZE
        eventually(lambda: "desk registered" in house.daemon.text)

    def receive(self, command: int) -> bytearray:
        packet = bytearray(self.socket.recv(SIZE))
        assert len(packet) == SIZE
        reqid, cbid, got = struct.unpack_from("=HHI", packet)
        assert (reqid, got) == (0, command) and cbid
        return packet

    def send(self, packet: bytearray, offset: int, text: str) -> None:
        """The packet back, with a text in one of its fields of 128 bytes."""
        packet[offset : offset + 128] = text.encode().ljust(128, b"\0")
        assert self.socket.send(packet) == SIZE


def text(packet: bytearray, offset: int, size: int = 128) -> str:
    return bytes(packet[offset : offset + size]).partition(b"\0")[0].decode()


@pytest.fixture
def connecting() -> Iterator[Callable[..., list[Any]]]:
    """Sessions under way while the test answers at the desk; the outcomes are there once the thread has ended."""
    threads = []

    def begin(house: House, **client: Any) -> list[Any]:
        outcomes: list[Any] = []
        threads.append(threading.Thread(target=lambda: outcomes.extend(house.connect(client))))
        threads[-1].start()
        return outcomes

    yield begin
    for thread in threads:
        thread.join(20)


@pytest.mark.skipif(not SOFTHSM.exists(), reason="SoftHSM is not installed")
def test_the_pin_program(houses: Callable[..., House], connecting: Callable[..., list[Any]]) -> None:
    """A wrong PIN first: it is asked again, with a higher count of attempts."""
    house = houses(token=True)
    desk = Desk(house, PINENTRY, (16, struct.pack("=I", 60_000_000)))
    outcomes = connecting(house, localid=JOHN)
    for attempt, pin in enumerate(("000000", PIN)):
        asked = desk.receive(PINENTRY)
        assert struct.unpack_from("=I", asked, 12) == (attempt,)
        assert text(asked, 20) == "" and text(asked, 148).endswith(": "), "it shows the prompt as it is"
        assert (text(asked, 276, 36), text(asked, 352, 36)) == ("SoftHSM project", "pool")
        desk.send(asked, 20, pin)
    eventually(lambda: len(outcomes) == 2)
    assert all(isinstance(outcome, Session) for outcome in outcomes), outcomes
    desk.socket.close()


@pytest.mark.parametrize("choice", [JOHN, ""])
def test_the_identity_chooser(houses: Callable[..., House], connecting: Callable[..., list[Any]], choice: str) -> None:
    """Entries are acknowledged by their echo; then comes the question. An empty line is for nobody: this server refuses."""
    house = houses()
    house.disclose(".", MARY, JOHN)
    desk = Desk(house, REGISTER, (8, struct.pack("=I", 0x100)), (14, struct.pack("=I", 300)))
    outcomes = connecting(house)
    entries = []
    while struct.unpack_from("=I", packet := desk.receive(CALLBACK), 8)[0] & 0x1000:
        entries.append(text(packet, 18))
        assert desk.socket.send(packet) == SIZE
    assert entries == [MARY, JOHN]
    assert text(packet, 146) == WEB
    desk.send(packet, 18, choice)
    eventually(lambda: len(outcomes) == 2)
    names = [outcome.localid for outcome in outcomes if isinstance(outcome, Session)]
    assert names == ([WEB, JOHN] if choice else [""])
    desk.socket.close()
