"""A relay under test, with its peer and its application in threads of their own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from tlspool_core.fdpass import Descriptor
from tlspool_core.pool.linger import close_lingering
from tlspool_core.pool.readiness import PoolLoop
from tlspool_core.pool.relay import Relay
from tlspool_core.testing.peers import Answers, Pair, TicketBox, software_credential
from tlspool_core.tls.connection import TlsConnection
from tlspool_core.tls.questions import AnyQuestion
from tlspool_core.tls.settings import ClientSettings, ServerSettings


class Peer:
    """The other end of TLS: an established connection on a blocking socket. One thread may send while another receives."""

    def __init__(self, connection: TlsConnection, sock: socket.socket) -> None:
        self.connection = connection
        self.sock = sock
        self._lock = threading.Lock()

    def flush(self) -> None:
        with self._lock:
            data = self.connection.data_to_send()
        self.sock.sendall(data)

    def send(self, data: bytes) -> None:
        with self._lock:
            self.connection.send(data)
        self.flush()

    def finish(self) -> None:
        """close_notify."""
        with self._lock:
            self.connection.close()
        self.flush()

    def recv(self) -> bytes:
        """Some plaintext; empty at close_notify or the end of the connection."""
        while True:
            if data := self.connection.take_plaintext():
                return data
            if self.connection.peer_closed or self.connection.failed is not None:
                return b""
            data = self.sock.recv(262144)
            if not data:
                self.connection.receive_eof()
                return b""
            with self._lock:
                self.connection.receive(data)

    def recv_all(self) -> bytes:
        parts = []
        while data := self.recv():
            parts.append(data)
        return b"".join(parts)

    def close(self) -> None:
        self.sock.close()


@dataclass
class Case:
    """One relay and all around it; `closed` collects the calls of on_closed."""

    peer: Peer
    app: Any
    relay: Relay = field(init=False)
    closed: list[tuple[str, int, int]] = field(default_factory=list)
    end: asyncio.Event = field(default_factory=asyncio.Event)
    questions: asyncio.Queue[AnyQuestion] = field(default_factory=asyncio.Queue)
    connection: TlsConnection | None = None
    answers: Answers | None = None

    def on_closed(self, cause: str, octets_in: int, octets_out: int) -> None:
        self.closed.append((cause, octets_in, octets_out))
        self.end.set()

    async def ended(self) -> tuple[str, int, int]:
        """Wait until the relay has ended, and a little longer: it must say so only once."""
        await asyncio.wait_for(self.end.wait(), 20)
        await asyncio.sleep(0.01)
        (only,) = self.closed
        return only

    def finish(self) -> None:
        """Release the test's own ends."""
        self.peer.close()
        if self.app is not None:
            self.app.close()


def tls_pair(
    client: ClientSettings | None = None, server: ServerSettings | None = None
) -> tuple[TlsConnection, TlsConnection, Answers]:
    """A client and a server that have shaken hands, and how the server answers."""
    server_answers = Answers(credentials=[software_credential()], tickets=TicketBox())
    pair = Pair(
        TlsConnection(client or ClientSettings(server_name="testserver")),
        TlsConnection(server or ServerSettings()),
        Answers(credentials=[software_credential()]),
        server_answers,
    )
    pair.run()
    assert pair.complete, (pair.client.failed, pair.server.failed)
    return pair.client, pair.server, server_answers


class Bench:
    """Makes cases on one event loop and runs coroutines on it; threads do the blocking ends."""

    def __init__(self) -> None:
        self.loop = PoolLoop()  # as in the daemon
        self.threads = ThreadPoolExecutor(8)
        self._sockets: list[socket.socket] = []

    def close(self) -> None:
        """End whatever a test that failed has left behind, so that its threads end, too."""
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self.threads.shutdown()
        self.loop.close()

    def pair(self) -> tuple[TlsConnection, TlsConnection, Answers]:
        return tls_pair()

    def case(
        self,
        plain: Descriptor | socket.socket | None = None,
        app: Any = None,
        *,
        client: ClientSettings | None = None,
        server: ServerSettings | None = None,
        start: bool = True,
        **options: Any,
    ) -> Case:
        """A started relay; without `plain` over a socket pair of which `app` is the other end."""
        peer_connection, connection, answers = tls_pair(client, server)
        return self.case_of(peer_connection, connection, answers, plain, app, start=start, **options)

    def case_of(
        self,
        peer_connection: TlsConnection,
        connection: TlsConnection,
        answers: Answers | None,
        plain: Descriptor | socket.socket | None = None,
        app: Any = None,
        *,
        start: bool = True,
        **options: Any,
    ) -> Case:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            far = socket.create_connection(listener.getsockname())
            near, _ = listener.accept()
        if plain is None:
            plain, app = socket.socketpair()
        self._sockets += [sock for sock in (near, far, plain, app) if isinstance(sock, socket.socket)]
        case = Case(Peer(peer_connection, far), app, connection=connection, answers=answers)
        ends = {"on_closed": case.on_closed, "on_question": case.questions.put_nowait}
        try:
            case.relay = Relay(self.loop, connection, near, plain, **ends, **options)
        except OSError:
            case.peer.close()
            raise
        if start:
            case.relay.start()
        return case

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, 60))

    def thread(self, work: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        """Begin to run it in a thread."""
        return self.loop.run_in_executor(self.threads, work, *arguments)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    close_lingering()
    made.close()
