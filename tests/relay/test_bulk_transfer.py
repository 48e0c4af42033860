"""Does every byte arrive, in order and once, in both directions at the same time?"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from typing import Any

import pytest

from tlspool_core.pool.relay import Relay
from tlspool_core.testing.peers import Answers, answer_all, software_credential
from tlspool_core.tls.connection import TlsConnection
from tlspool_core.tls.settings import ClientSettings, ServerSettings

SIZE = 6 << 20


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def trickle(send: Any, data: bytes, seed: int) -> None:
    """Send in chunks of random sizes from one byte to beyond a batch."""
    chooser = random.Random(seed)
    start = 0
    while start < len(data):
        size = chooser.choice((1, 7, 64, 1000, 16384, 16385, 70000, 600000))
        send(data[start : start + size])
        start += size


def recv_all(sock: socket.socket) -> bytes:
    return collect(lambda: sock.recv(100000), 1 << 40)


def collect(receive: Any, total: int) -> bytes:
    parts, length = [], 0
    while length < total and (data := receive()):
        parts.append(data)
        length += len(data)
    return b"".join(parts)


# TLS 1.3 with each cipher; TLS 1.2 with ECDHE_ECDSA and AES-128-GCM, ChaCha20-Poly1305
@pytest.mark.parametrize("suite", [0x1301, 0x1302, 0x1303, 0xC02B, 0xCCA9], ids=hex)
@pytest.mark.parametrize("limit", [16385, 1000])
def test_both_directions_at_once(bench: Any, suite: int, limit: int) -> None:
    versions = (0x0304,) if suite >> 8 == 0x13 else (0x0303,)
    case = bench.case(
        client=ClientSettings(versions=versions, cipher_suites=(suite,), record_size_limit=limit), server=ServerSettings()
    )
    assert case.connection.facts.cipher_suite == suite
    size = SIZE if limit == 16385 else SIZE // 8
    there, back = noise(1, size), noise(2, size)

    async def run() -> None:
        results = await asyncio.gather(
            bench.thread(trickle, case.peer.send, there, 3),
            bench.thread(trickle, case.app.sendall, back, 4),
            bench.thread(collect, lambda: case.app.recv(100000), size),
            bench.thread(collect, case.peer.recv, size),
        )
        assert results[2] == there
        assert results[3] == back
        case.peer.finish()
        assert await bench.thread(case.app.recv, 1) == b""
        case.app.shutdown(socket.SHUT_WR)
        assert await bench.thread(case.peer.recv) == b""
        assert await case.ended() == ("closed", size, size)

    bench.run(run())
    case.finish()


def test_odd_records_in_between(bench: Any) -> None:
    """Padding, empty records and KeyUpdates among the bulk: they take the other path, and order is kept."""
    case = bench.case()
    connection = case.peer.connection
    chooser = random.Random(5)
    sent = []

    def send() -> None:
        for number in range(300):
            data = noise(number, chooser.choice((1, 100, 16384)))
            sent.append(data)
            kind = chooser.randrange(5)
            if kind == 0:  # type 0 is padding, so this is a padded record of application data
                padded = data[:16000] + b"\x17" + bytes(chooser.randrange(1, 200))
                sent[-1] = data[:16000]
                case.peer.sock.sendall(connection.records.write_protection.seal(0, padded))
            elif kind == 1:
                case.peer.sock.sendall(connection.records.write_protection.seal(23, b""))
                case.peer.send(data)
            elif kind == 2:
                connection.update_keys(request_peer=number % 8 == 0)
                case.peer.send(data)
            else:
                case.peer.send(data)
        case.peer.finish()

    async def run() -> None:
        _, got = await asyncio.gather(bench.thread(send), bench.thread(recv_all, case.app))
        assert got == b"".join(sent)
        # the answers to the KeyUpdates came first: our records are under the keys that they announced
        await bench.thread(case.app.sendall, b"back")
        assert await bench.thread(case.peer.recv) == b"back"
        case.app.shutdown(socket.SHUT_WR)
        assert (await case.ended())[0] == "closed"

    bench.run(run())
    case.finish()


def test_keys_change_by_themselves(bench: Any) -> None:
    """AEAD usage limits (RFC 8446 section 5.5), lowered here: both directions change keys on the way, unnoticed."""
    case = bench.case()
    there, back = noise(6, 2 << 20), noise(7, 2 << 20)
    first = case.connection.records.write_protection, case.connection.records.read_protection
    for protection in first:
        protection.update_after = 20

    async def run() -> None:
        results = await asyncio.gather(
            bench.thread(trickle, case.peer.send, there, 8),
            bench.thread(trickle, case.app.sendall, back, 9),
            bench.thread(collect, lambda: case.app.recv(100000), len(there)),
            bench.thread(collect, case.peer.recv, len(back)),
        )
        assert results[2:] == [there, back]
        # the request to change the peer's keys was heard with the data; its answer comes with the next flight
        await bench.thread(case.peer.send, b"x")
        assert await bench.thread(case.app.recv, 1) == b"x"
        assert case.connection.records.write_protection is not first[0]
        assert case.connection.records.read_protection is not first[1]
        case.relay.close()
        await case.ended()

    bench.run(run())
    case.finish()


def test_openssl_as_peer(bench: Any) -> None:
    """The same against OpenSSL, in both directions."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    size = 3 << 20
    there, back = noise(10, size), noise(11, size)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()

    def shake_hands() -> TlsConnection:
        connection = TlsConnection(ServerSettings())
        answers = Answers(credentials=[software_credential()])
        while not connection.handshake_complete:
            connection.receive(near.recv(65536))
            answer_all(connection, answers)
            near.sendall(connection.data_to_send())
        return connection

    async def run() -> None:
        wrapping = bench.thread(context.wrap_socket, far)
        connection, peer = await asyncio.gather(bench.thread(shake_hands), wrapping)
        app, plain = socket.socketpair()
        ended: asyncio.Future[str] = bench.loop.create_future()
        relay = Relay(
            bench.loop,
            connection,
            near,
            plain,
            on_closed=lambda cause, *_: ended.set_result(cause),
            on_question=lambda question: None,
        )
        relay.start()
        with app, peer:
            _, _, there_got = await asyncio.gather(
                bench.thread(peer.sendall, there),
                bench.thread(app.sendall, back),
                bench.thread(collect, lambda: app.recv(65536), size),
            )
            assert there_got == there
            assert await bench.thread(collect, lambda: peer.recv(65536), size) == back
            app.shutdown(socket.SHUT_WR)
            assert await bench.thread(peer.recv, 1) == b""
            await bench.thread(lambda: peer.unwrap().close())
            assert await bench.thread(app.recv, 1) == b""
            assert await ended == "closed"

    bench.run(run())
