"""Do asyncio's streams work over the pool, both ways, and does one bad connection leave the others alone?"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tlspool_core.client import Refused, aio, streams
from tlspool_core.wire.errors import ErrorCode
from tlspool_core.wire.messages import Error


@pytest.fixture
def plain_server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def test_open_connection(null_tls: Any, plain_server: socket.socket) -> None:
    async def main() -> None:
        port = plain_server.getsockname()[1]
        reader, writer = await streams.open_connection("127.0.0.1", port, service="http", localid="me@here")
        peer, _ = plain_server.accept()
        with peer:
            assert (writer.localid, writer.remoteid) == ("me@here", "127.0.0.1")
            assert writer.get_extra_info("peername") == ("127.0.0.1", port)
            assert writer.get_extra_info("tlspool_session") is writer.session
            assert writer.get_extra_info("nonsense", 5) == 5
            writer.write(b"question\n")
            await writer.drain()
            assert peer.recv(100) == b"question\n"
            peer.sendall(b"answer\n")
            assert await reader.readline() == b"answer\n"
            writer.close()
            await writer.wait_closed()
        aio.shared().close()

    asyncio.run(main())
    assert null_tls.requests[0].service == "http"


def test_remoteid_may_differ_from_the_host(null_tls: Any, plain_server: socket.socket) -> None:
    async def main() -> None:
        _, writer = await streams.open_connection("127.0.0.1", plain_server.getsockname()[1], remoteid="example.com")
        plain_server.accept()[0].close()
        assert writer.remoteid == "example.com"
        writer.close()
        await writer.wait_closed()
        aio.shared().close()

    asyncio.run(main())


def test_nobody_listens(null_tls: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

    async def main() -> None:
        await streams.open_connection("127.0.0.1", port)

    with pytest.raises(ConnectionRefusedError):
        asyncio.run(main())
    assert null_tls.requests == []


async def ask(port: int, line: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(line)
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return answer


def test_start_server(null_tls: Any) -> None:
    null_tls.remoteid = "john@example.com"

    async def greet(reader: asyncio.StreamReader, writer: streams.PoolStreamWriter) -> None:
        line = await reader.readline()
        writer.write(b"hello %s, you said %s" % (writer.remoteid.encode(), line))
        await writer.drain()

    async def main() -> None:
        async with await streams.start_server(greet, "127.0.0.1", localid="www.example.com") as server:
            port = server.sockets[0].getsockname()[1]
            answers = await asyncio.gather(*(ask(port, b"%d\n" % number) for number in range(10)))
        assert answers == [b"hello john@example.com, you said %d\n" % number for number in range(10)]
        aio.shared().close()

    asyncio.run(main())
    assert {request.localid for request in null_tls.requests} == {"www.example.com"}


def test_a_failing_handler_and_a_refused_peer_harm_nobody(
    scripted: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def script(connection: Any) -> None:
        reqid, _, _ = connection.starttls()
        connection.send(reqid, Error.of(ErrorCode.REMOTEID_MISSING, "no certificate"))
        connection.let_go()
        connection.serve_starttls().close()
        connection.let_go()
        with connection.serve_starttls() as plain:
            assert plain.recv(100) == b"fine"
        connection.let_go()
        with pytest.raises(EOFError):
            connection.read()

    scripted.play(script)
    calls: list[str] = []

    async def handler(reader: asyncio.StreamReader, writer: streams.PoolStreamWriter) -> None:
        calls.append(writer.remoteid)
        if len(calls) == 1:
            raise LookupError("a mistake in the handler")
        writer.write(b"fine")

    async def main() -> None:
        async with await streams.start_server(handler, "127.0.0.1", path=scripted.path) as server:
            port = server.sockets[0].getsockname()[1]
            for _ in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                assert await reader.read() == b""
                writer.close()
                await writer.wait_closed()
        aio.shared(scripted.path).close()

    with caplog.at_level(logging.INFO, "tlspool.client"):
        asyncio.run(main())
    assert len(calls) == 2
    assert "no certificate" in caplog.text
    assert "a mistake in the handler" in caplog.text


def test_serve_forever_ends_with_its_task(null_tls: Any) -> None:
    async def handler(reader: asyncio.StreamReader, writer: streams.PoolStreamWriter) -> None:
        raise AssertionError("nobody connects")

    async def main() -> None:
        server = await streams.start_server(handler, "127.0.0.1")
        task = asyncio.create_task(server.serve_forever())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.wait_closed()
        assert all(sock.fileno() == -1 for sock in server.sockets)

    asyncio.run(main())


def test_a_refused_client_hears_why(scripted: Any, plain_server: socket.socket) -> None:
    def script(connection: Any) -> None:
        reqid, _, _ = connection.starttls()
        connection.send(reqid, Error.of(ErrorCode.REMOTEID_REFUSED, "x509: no"))
        with pytest.raises(EOFError):
            connection.read()

    scripted.play(script)

    async def main() -> None:
        with pytest.raises(Refused, match="x509: no"):
            await streams.open_connection("127.0.0.1", plain_server.getsockname()[1], path=scripted.path)
        aio.shared(scripted.path).close()

    asyncio.run(main())
