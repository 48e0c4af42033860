"""The application behind all contenders: echoes, swallows or sends data, and verifies every byte.

Theory of operation
-------------------
`python -m bench.backend plain PORT` takes plain connections on a port, for the proxies.  `python -m bench.backend pool PORT LOCALID`
takes TLS connections and has the pool run TLS on them; what follows is the same.  One thread with a selector echoes for any
number of connections; a transfer gets a thread of its own.

The first byte says what is wanted: `E` echo from now on; `S` and 8 bytes of length: verify so many bytes, then answer `Y` or `N`;
`G` and 8 bytes: send so many.
"""

from __future__ import annotations

import functools
import selectors
import socket
import sys
import threading
from collections.abc import Callable

from bench.pattern import Verifier, piece
from tlspool_core.client import PoolError, StartTlsFlags, starttls_server

CHUNK = 1 << 18
COMMAND = 9


def sink(sock: socket.socket, total: int) -> None:
    """Verify `total` bytes and say so."""
    verifier, buffer = Verifier(), memoryview(bytearray(1 << 20))
    try:
        while verifier.position < total:
            count = sock.recv_into(buffer)
            if not count:
                return
            verifier.take(buffer[:count])
    except ValueError:
        sock.sendall(b"N")
        return
    sock.sendall(b"Y")


def source(sock: socket.socket, total: int) -> None:
    """Send the pattern."""
    position = 0
    while position < total:
        part = piece(position, min(CHUNK, total - position))
        sock.sendall(part)
        position += len(part)


class Backend:
    """One selector for all connections that echo; the rest in threads."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._inbox: list[socket.socket] = []
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._adopt)

    def add(self, sock: socket.socket) -> None:
        """Serve a connection; may be called from any thread."""
        self._inbox.append(sock)
        self._wake_writer.send(b"x")

    def _adopt(self, reader: socket.socket) -> None:
        reader.recv(4096)
        while self._inbox:
            self._selector.register(self._inbox.pop(), selectors.EVENT_READ, self._first)

    def _first(self, sock: socket.socket) -> None:
        """The first byte has come."""
        command = _receive(sock, 1)
        self._selector.unregister(sock)
        if command == b"E":
            self._selector.register(sock, selectors.EVENT_READ, self._echo)
        elif command in (b"S", b"G"):
            total = int.from_bytes(_receive(sock, COMMAND - 1), "big")
            threading.Thread(target=_transfer, args=(sink if command == b"S" else source, sock, total), daemon=True).start()
        else:
            sock.close()

    def _echo(self, sock: socket.socket) -> None:
        data = _receive(sock, 65536)
        if data:
            sock.sendall(data)
        else:
            self._selector.unregister(sock)
            sock.close()

    def run(self) -> None:
        """For ever."""
        while True:
            for key, _ in self._selector.select():
                key.data(key.fileobj)


def _receive(sock: socket.socket, size: int) -> bytes:
    try:
        return sock.recv(size)
    except OSError:
        return b""


def _transfer(work: Callable[[socket.socket, int], None], sock: socket.socket, total: int) -> None:
    with sock:
        work(sock, total)


def accept_plain(listener: socket.socket, backend: Backend) -> None:
    while True:
        backend.add(listener.accept()[0])


def accept_tls(listener: socket.socket, backend: Backend, localid: str) -> None:
    """Hand each connection to the pool, which hands back the plaintext."""
    while True:
        sock, _ = listener.accept()
        try:
            session = starttls_server(sock, localid=localid, service="bench", flags=StartTlsFlags.IGNORE_REMOTEID)
        except PoolError as error:
            print(f"starttls: {error}", file=sys.stderr, flush=True)
        else:
            backend.add(session.take())


def main(mode: str, port: str, localid: str = "") -> None:
    """Serve until killed."""
    backend = Backend()
    listener = socket.create_server(("127.0.0.1", int(port)), backlog=1024)
    accept = functools.partial(accept_tls, localid=localid) if mode == "pool" else accept_plain
    threading.Thread(target=accept, args=(listener, backend), daemon=True).start()
    backend.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
