"""What is done to each contender, from the load generator's side, and what the kernel counted meanwhile.

Theory of operation
-------------------
Each function drives one contender over TLS 1.3 with OpenSSL (the `ssl` module) and returns a figure per piece of work: CPU seconds of
the contender's processes, user and system apart, and where it says something, wall time.  Work is done one piece after the other, so that
nothing is amortised over concurrency.  All data is verified at both ends.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import ssl
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench.contenders import NAME, Contender
from bench.cpu import resident_kib, usage
from bench.pattern import Verifier, piece

GIB = 1 << 30
CHUNK = 1 << 18


@dataclass(frozen=True)
class Figure:
    """One measured value, with what is known beside it."""

    value: float
    unit: str
    user: float = 0.0
    system: float = 0.0
    wall: float = 0.0


def middle(figures: list[Figure]) -> Figure:
    """The one with the median value (the lower one of two)."""
    return sorted(figures, key=lambda figure: figure.value)[(len(figures) - 1) // 2]


def context() -> ssl.SSLContext:
    """A client that takes any certificate: trust is not what is measured here."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    return made


def connect(port: int, client: ssl.SSLContext, name: str, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    """A connection after its handshake."""
    raw = socket.create_connection(("127.0.0.1", port))
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client.wrap_socket(raw, server_hostname=name, session=session)


def close(sock: ssl.SSLSocket) -> None:
    """close_notify both ways, then TCP."""
    with contextlib.suppress(OSError):
        sock.unwrap()
    sock.close()


def server_name(key: str) -> str:
    return f"{key}.{NAME}"


class Meter:
    """CPU of a contender over a `with` block."""

    def __init__(self, contender: Contender) -> None:
        self._pids = contender.pids

    def __enter__(self) -> Meter:
        self._start = usage(self._pids)
        self._clock = time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self.wall = time.perf_counter() - self._clock
        self.used = usage(self._pids) - self._start

    def per(self, count: float, scale: float, unit: str) -> Figure:
        """The figure for one of `count` pieces, times `scale`."""
        part = scale / count
        return Figure(self.used.total * part, unit, self.used.user * part, self.used.system * part, self.wall * part)


def handshakes(contender: Contender, key: str, count: int) -> Figure:
    """CPU of a connection with a full handshake, one byte echoed, and its end."""
    client, port, name = context(), contender.ports[key], server_name(key)

    def once() -> None:
        sock = connect(port, client, name)
        sock.sendall(b"Ex")
        assert sock.recv(1) == b"x"
        assert not sock.session_reused
        close(sock)

    for _ in range(20):
        once()
    with Meter(contender) as meter:
        for _ in range(count):
            once()
        time.sleep(0.1)
    return meter.per(count, 1e6, "us")


def resumed(contender: Contender, key: str, count: int) -> Figure:
    """The same with a ticket from the connection before."""
    client, port, name = context(), contender.ports[key], server_name(key)
    session: ssl.SSLSession | None = None
    reused = 0

    def once() -> None:
        nonlocal session, reused
        sock = connect(port, client, name, session)
        sock.sendall(b"Ex")
        assert sock.recv(1) == b"x"
        reused += bool(sock.session_reused)
        session = sock.session
        close(sock)

    for _ in range(20):
        once()
    reused = 0
    with Meter(contender) as meter:
        for _ in range(count):
            once()
        time.sleep(0.1)
    if reused < count:
        raise RuntimeError(f"only {reused} of {count} sessions were resumed")
    return meter.per(count, 1e6, "us")


def bulk_to_backend(contender: Contender, key: str, total: int) -> Figure:
    """CPU per GiB sent by the client on one connection; the backend verifies it."""
    sock = connect(contender.ports[key], context(), server_name(key))
    sock.sendall(b"S" + (total + CHUNK).to_bytes(8, "big"))
    sock.sendall(piece(0, CHUNK))  # the first chunk is not counted: buffers have grown after it
    position = CHUNK
    with Meter(contender) as meter:
        while position < total + CHUNK:
            part = piece(position, min(CHUNK, total + CHUNK - position))
            sock.sendall(part)
            position += len(part)
        if sock.recv(1) != b"Y":
            raise RuntimeError("the backend received other data than was sent")
    close(sock)
    return meter.per(total, GIB, "s/GiB")


def bulk_from_backend(contender: Contender, key: str, total: int) -> Figure:
    """CPU per GiB sent by the backend on one connection; the client verifies it."""
    sock = connect(contender.ports[key], context(), server_name(key))
    verifier, buffer = Verifier(), memoryview(bytearray(1 << 18))
    with Meter(contender) as meter:
        sock.sendall(b"G" + total.to_bytes(8, "big"))
        while verifier.position < total:
            count = sock.recv_into(buffer)
            if not count:
                raise RuntimeError(f"the connection ended after {verifier.position} of {total} bytes")
            verifier.take(buffer[:count])
    close(sock)
    return meter.per(total, GIB, "s/GiB")


@contextlib.contextmanager
def many(contender: Contender, key: str, count: int) -> Iterator[list[ssl.SSLSocket]]:
    """So many open connections, each used once."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    client, opened = context(), []
    try:
        for _ in range(count):
            sock = connect(contender.ports[key], client, server_name(key))
            opened.append(sock)
            sock.sendall(b"Ex")
            assert sock.recv(1) == b"x"
        yield opened
    finally:
        for sock in opened:
            sock.close()


def idle_memory(contender: Contender, key: str, count: int) -> Figure:
    """Resident memory per open session that does nothing; all of them are alive at the end."""
    with many(contender, key, 50):
        before = resident_kib(contender.pids)
        with many(contender, key, count) as opened:
            time.sleep(0.5)
            per_session = (resident_kib(contender.pids) - before) / count
            for sock in opened:
                sock.sendall(b"y")
            for sock in opened:
                assert sock.recv(1) == b"y"
    return Figure(per_session, "KiB")


def round_trips(contender: Contender, key: str, count: int) -> tuple[Figure, Figure]:
    """64 bytes there and back: CPU of the contender, and the median latency that the client sees."""
    sock = connect(contender.ports[key], context(), server_name(key))
    sock.sendall(b"E")
    word, times = bytes(range(64)), []
    for _ in range(200):
        sock.sendall(word)
        assert sock.recv(64) == word
    with Meter(contender) as meter:
        for _ in range(count):
            begin = time.perf_counter()
            sock.sendall(word)
            assert sock.recv(64) == word
            times.append(time.perf_counter() - begin)
    close(sock)
    return meter.per(count, 1e6, "us"), Figure(statistics.median(times) * 1e6, "us")
