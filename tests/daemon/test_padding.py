"""Does whoever watches a connection between two pools see padded records, if the configuration says so?"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from conftest import DaemonProcess
from toyplugin import SERVER


class Tap:
    """Two sockets that are connected through one who listens."""

    def __init__(self) -> None:
        pairs = socket.socketpair(), socket.socketpair()
        self.ends = pairs[0][0], pairs[1][0]
        self._inner = pairs[0][1], pairs[1][1]
        self.heard = bytearray()  # from the first end to the second
        ways = (*self._inner, self.heard), (*self._inner[::-1], bytearray())
        self._threads = [threading.Thread(target=self._copy, args=way, daemon=True) for way in ways]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket, heard: bytearray) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                heard += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Once both sessions have ended; their ends are the pool's."""
        for thread in self._threads:
            thread.join(20)
        for each in self._inner:
            each.close()


def lengths(wire: bytes) -> list[int]:
    found = []
    while len(wire) >= 5:
        found.append(int.from_bytes(wire[3:5], "big") - 16)
        wire = wire[5 + found[-1] + 16 :]
    return found


@pytest.mark.parametrize(
    ("configuration", "seen"),
    [("", {6, 101}), ("record_padding = 1024", {1024}), ('record_padding = "powers"', {64, 128})],
)
def test_lengths_of_data(daemons: Callable[..., DaemonProcess], configuration: str, seen: set[int]) -> None:
    pool = daemons(f"[tls]\n{configuration}\n").pool
    tap = Tap()
    with ThreadPoolExecutor(2) as workers:
        client = workers.submit(pool.starttls_client, tap.ends[0], remoteid=SERVER, timeout=10)
        server = workers.submit(pool.starttls_server, tap.ends[1], localid=SERVER, timeout=10)
        ours, theirs = client.result(20), server.result(20)
    with ours, theirs:
        ours.plaintext.sendall(b"first")
        assert theirs.plaintext.recv(100) == b"first"
        before = len(tap.heard)
        for size in (5, 100):
            ours.plaintext.sendall(b"x" * size)
            received = b""
            while len(received) < size:
                received += theirs.plaintext.recv(size)
        assert set(lengths(bytes(tap.heard[before:]))) == seen
    tap.close()


def test_lengths_of_handshakes(daemons: Callable[..., DaemonProcess]) -> None:
    """Nothing of a handshake that is encrypted has a length of its own."""
    pool = daemons().pool
    tap = Tap()
    with ThreadPoolExecutor(2) as workers:
        server = workers.submit(pool.starttls_server, tap.ends[0], localid=SERVER, timeout=10)
        client = workers.submit(pool.starttls_client, tap.ends[1], remoteid=SERVER, timeout=10)
        with client.result(20), server.result(20):
            records = bytes(tap.heard)
    sizes = []
    while records:
        size = int.from_bytes(records[3:5], "big")
        if records[0] == 23:
            sizes.append(size - 16)
        records = records[5 + size :]
    assert sizes and {size % 512 for size in sizes} == {0}
    tap.close()
