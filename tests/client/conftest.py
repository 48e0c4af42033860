"""A scripted pool on a UNIX socket, and the count of descriptors around each test."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tlspool_core import fdpass
from tlspool_core.client.blocking import shared
from tlspool_core.wire.codec import decode, encode
from tlspool_core.wire.connection import Answered, Asked, Callback, PoolSide, Request
from tlspool_core.wire.errors import ErrorCode
from tlspool_core.wire.framing import Assembler
from tlspool_core.wire.messages import Error, Info, Message, Packet, PlaintextConnect, StartTls


class Connection:
    """The scripted pool's end of one application's connection: plain steps, no books, so that a script can break every rule."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._assembler: Assembler[fdpass.Descriptor] = Assembler()
        self.kept: list[fdpass.Descriptor] = []

    def read(self) -> tuple[Packet, fdpass.Descriptor | None]:
        """The next packet and its descriptor; raises EOFError when the application is gone."""
        while True:
            got = fdpass.receive(self.sock, self._assembler.wanted)
            if not got.data:
                raise EOFError
            frame = self._assembler.feed(got.data, got.descriptors)
            if frame is not None:
                assert not frame.surplus
                return decode(frame.packet), frame.descriptor

    def send(self, reqid: int, message: Message, cbid: int = 0) -> None:
        """One packet."""
        self.sock.sendall(encode(Packet(reqid, cbid, message)))

    def starttls(self) -> tuple[int, StartTls, fdpass.Descriptor]:
        """Expect a STARTTLS with its socket."""
        packet, descriptor = self.read()
        assert isinstance(packet.message, StartTls)
        assert descriptor is not None
        self.kept.append(descriptor)
        return packet.reqid, packet.message, descriptor

    def plaintext(self, reqid: int, request: StartTls, cbid: int = 1, **changes: Any) -> socket.socket:
        """Call back for the plaintext socket."""
        self.send(reqid, request.ask_plaintext(**changes), cbid)
        packet, descriptor = self.read()
        assert isinstance(packet.message, PlaintextConnect)
        assert (packet.reqid, packet.cbid) == (reqid, cbid)
        assert packet.message == request.ask_plaintext(**changes), "the answer is the whole structure, echoed"
        assert descriptor is not None
        return descriptor.socket()

    def serve_starttls(self, localid: str = "me@here", remoteid: str = "you@there") -> socket.socket:
        """A whole STARTTLS, as it should go; the pool's end of the plaintext connection."""
        reqid, request, _ = self.starttls()
        plain = self.plaintext(reqid, request, localid=localid, remoteid=remoteid)
        self.send(reqid, request.echo(localid=localid, remoteid=remoteid))
        return plain

    def let_go(self) -> None:
        """Close the sockets that TLS was to run over."""
        fdpass.close_all(self.kept)

    def hang_up(self) -> None:
        """Close everything."""
        self.sock.close()
        self.let_go()


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Copy one direction until its end, and pass that on."""
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class NullTls:
    """A script: a pool whose TLS leaves bytes as they are, and that proves whatever the application hopes for."""

    def __init__(self) -> None:
        self.remoteid: str | None = None  # None: as asked for
        self.facts: dict[int, bytes] = {}
        self.requests: list[StartTls] = []

    def __call__(self, connection: Connection) -> None:
        side: PoolSide[fdpass.Descriptor] = PoolSide()
        crypts: dict[Callback, socket.socket] = {}
        pumps: list[threading.Thread] = []
        while got := fdpass.receive(connection.sock, side.wanted):
            if not got.data:
                break
            step = side.receive(got.data, got.descriptors)
            assert not step.replies
            for event in step.events:
                match event:
                    case Asked(exchange, descriptor) if descriptor is not None:
                        callback, data = side.call_back(exchange, self._proven(exchange.request).ask_plaintext())
                        crypts[callback] = descriptor.socket()
                        connection.sock.sendall(data)
                    case Asked(exchange, _):
                        connection.sock.sendall(side.answer(exchange, self._fact(exchange.request)))
                    case Answered(callback, _, descriptor) if descriptor is not None:
                        connection.sock.sendall(side.answer(callback.exchange, self._proven(callback.exchange.request)))
                        pumps += bridge(crypts.pop(callback), descriptor.socket())
                    case other:
                        raise AssertionError(other)
        for thread in pumps:
            thread.join(10)

    def _proven(self, request: Request) -> StartTls:
        assert isinstance(request, StartTls)
        if request not in self.requests:
            self.requests.append(request)
        return request.echo(remoteid=request.remoteid if self.remoteid is None else self.remoteid)

    def _fact(self, query: Request) -> Info | Error:
        assert isinstance(query, Info)
        value = self.facts.get(query.kind)
        return Error.of(ErrorCode.INFO_NOT_FOUND) if value is None else Info(query.ctlkey, query.kind, value)


def bridge(crypt: socket.socket, plain: socket.socket) -> list[threading.Thread]:
    """Copy both ways until both have ended, then close both."""
    crypt.setblocking(True)  # the application may have had a time-out on it
    up = threading.Thread(target=pump, args=(crypt, plain), daemon=True)

    def down() -> None:
        with crypt, plain:
            pump(plain, crypt)
            up.join(10)

    threads = [up, threading.Thread(target=down, daemon=True)]
    for thread in threads:
        thread.start()
    return threads


Script = Callable[[Connection], None]


class ScriptedPool:
    """Listens, and plays one script per connection, in order; the last one goes on for all later connections."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.faults: list[BaseException] = []
        self.connections = 0
        self._scripts: list[Script] = []
        self._threads: list[threading.Thread] = []
        self._listening: socket.socket | None = None

    def play(self, *scripts: Script) -> ScriptedPool:
        """Start to listen."""
        self._scripts = list(scripts)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self.path))
        self._listening.listen()
        self._start(self._accept, self._listening)
        return self

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                sock, _ = listening.accept()
            except OSError:
                return
            script = self._scripts[min(self.connections, len(self._scripts) - 1)]
            self.connections += 1
            self._start(self._run, script, Connection(sock))

    def _run(self, script: Script, connection: Connection) -> None:
        try:
            with suppress(EOFError, ConnectionError):
                script(connection)
        except BaseException as fault:
            self.faults.append(fault)
        finally:
            connection.hang_up()

    def stop(self) -> None:
        """Stop to listen; connections go on until their scripts end."""
        if self._listening is not None:
            self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            self._listening = None
            self.path.unlink()

    def finish(self) -> None:
        """Wait for all scripts, and fail if one failed."""
        self.stop()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "a script waits for something that never comes"
        if self.faults:
            raise self.faults[0]


def open_descriptors() -> int:
    """How many this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def no_leak() -> Iterator[None]:
    """As many descriptors after the test as before."""
    gc.collect()
    before = open_descriptors()
    yield
    gc.collect()
    assert open_descriptors() == before


@pytest.fixture
def scripted(no_leak: None, tmp_path: Path) -> Iterator[ScriptedPool]:
    """A pool that does as it is told."""
    pool = ScriptedPool(tmp_path / "pool.sock")
    yield pool
    pool.finish()


@pytest.fixture
def null_tls(scripted: ScriptedPool, monkeypatch: pytest.MonkeyPatch) -> Iterator[NullTls]:
    """The process's own pool, with TLS that leaves bytes as they are."""
    monkeypatch.setenv("TLSPOOL_SOCKET", str(scripted.path))
    script = NullTls()
    scripted.play(script)
    yield script
    shared().close()


@pytest.fixture
def wire() -> Iterator[tuple[socket.socket, socket.socket]]:
    """What TLS would run over: our end, and the peer's."""
    ours, peer = socket.socketpair()
    with ours, peer:
        yield ours, peer
