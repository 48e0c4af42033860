"""Do the client's other shapes reach each other through a real pool: `ssl`'s, asyncio's, anyio's?"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import http.server
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from conftest import DaemonProcess
from toyplugin import CLIENT, SERVER, STRANGER

from tlspool_core.client import Pool, Refused, StartTlsFlags, aio, streams
from tlspool_core.client.blocking import shared
from tlspool_core.client.ssl_shim import PoolContext


class Page(http.server.BaseHTTPRequestHandler):
    """Says who asked."""

    def do_GET(self) -> None:
        connection: Any = self.connection
        body = f"{connection.remote_identity} by {connection.version()}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def pool(module_daemons: Callable[..., DaemonProcess]) -> Iterator[DaemonProcess]:
    daemon = module_daemons()
    yield daemon
    shared(daemon.path).close()


@pytest.fixture
def web(pool: DaemonProcess) -> Iterator[tuple[str, int]]:
    context = PoolContext(ssl.Purpose.CLIENT_AUTH, localid=SERVER, service="https", path=pool.path)
    context.verify_mode = ssl.CERT_REQUIRED
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address[0], server.server_address[1]  # type: ignore[misc]
    server.shutdown()
    server.server_close()
    thread.join(10)


def redirected(monkeypatch: pytest.MonkeyPatch, address: tuple[str, int]) -> None:
    """Whatever host is connected to, it is this one."""
    connect = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda target, *rest, **more: connect(address, *rest, **more))


def test_http_over_the_shape_of_ssl(pool: DaemonProcess, web: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    redirected(monkeypatch, web)
    context = PoolContext(service="https", path=pool.path)
    context.set_alpn_protocols(["http/1.1"])
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    connection = http.client.HTTPSConnection(SERVER, context=context, timeout=10)
    connection.connect()
    plain: Any = connection.sock
    assert plain.selected_alpn_protocol() == "http/1.1"
    assert plain.getpeercert() == {"subject": (), "subjectAltName": (("DNS", SERVER),)}
    assert len(plain.get_channel_binding("tls-exporter")) == 32
    connection.request("GET", "/")
    assert connection.getresponse().read() == f"{CLIENT} by TLSv1.3".encode()
    connection.close()
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler({}))
    with opener.open(f"https://{SERVER}/", timeout=10) as page:
        assert page.read() == f"{CLIENT} by TLSv1.3".encode()


def test_a_wrong_name_is_an_ssl_error(pool: DaemonProcess, web: tuple[str, int]) -> None:
    sock = socket.create_connection(web)
    context = PoolContext(localid=CLIENT, path=pool.path)
    with pytest.raises(ssl.SSLError) as caught:
        context.wrap_socket(sock, server_hostname="nowhere.example.com")
    assert caught.value.reason


def test_streams(pool: DaemonProcess) -> None:
    async def greet(reader: asyncio.StreamReader, writer: streams.PoolStreamWriter) -> None:
        assert writer.remoteid != STRANGER
        line = await reader.readline()
        writer.write(f"{writer.remoteid} said ".encode() + line)
        await writer.drain()

    async def ask(port: int, number: int) -> bytes:
        reader, writer = await streams.open_connection("127.0.0.1", port, remoteid=SERVER, path=pool.path)
        writer.write(b"%d\n" % number)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    async def main() -> None:
        async with await streams.start_server(greet, "127.0.0.1", localid=SERVER, path=pool.path) as server:
            port = server.sockets[0].getsockname()[1]
            with contextlib.suppress(Refused):  # in TLS 1.3 a client may be through before the server has seen who it is
                reader, writer = await streams.open_connection("127.0.0.1", port, remoteid=SERVER, localid=STRANGER, path=pool.path)
                assert await reader.read() == b""
                writer.close()
                await writer.wait_closed()
            answers = await asyncio.gather(*(ask(port, number) for number in range(20)))
        assert answers == [b"%s said %d\n" % (CLIENT.encode(), number) for number in range(20)]
        aio.shared(pool.path).close()

    asyncio.run(main())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_anyio(pool: DaemonProcess, backend: str) -> None:
    ends = socket.socketpair()
    sessions: dict[str, aio.Session] = {}

    async def main() -> None:
        async with aio.Pool(pool.path) as own:

            async def serve() -> None:
                sessions["server"] = await own.starttls_server(
                    ends[0], localid=SERVER, localid_hook=lambda proposal: proposal.localid
                )

            async with anyio.create_task_group() as group:
                group.start_soon(serve)
                sessions["client"] = await own.starttls_client(ends[1], remoteid=SERVER, flags=StartTlsFlags.WITHOUT_SNI)
            server, client = sessions["server"], sessions["client"]
            assert (server.remoteid, client.remoteid) == (CLIENT, SERVER)
            assert await server.export("EXPERIMENTAL", length=350) == await client.export("EXPERIMENTAL", length=350)
            assert await server.channel_binding() == await client.channel_binding()
            async with await server.stream() as up, await client.stream() as down:
                await up.send(b"x" * 100_000)
                await up.send_eof()
                received = b"".join([chunk async for chunk in down])
            assert received == b"x" * 100_000

    anyio.run(main, backend=backend)


def test_a_pool_that_is_killed_and_started_again(daemons: Callable[..., DaemonProcess]) -> None:
    """Sessions are lost with it; the application's next call finds the new one."""
    first = daemons()
    with Pool(first.path) as application:
        ours, peer = socket.socketpair()
        waiting: list[BaseException] = []

        def wait() -> None:
            try:
                application.starttls_client(ours, remoteid=SERVER)
            except OSError as fault:
                waiting.append(fault)

        thread = threading.Thread(target=wait)
        thread.start()
        assert peer.recv(1)
        first.process.kill()
        first.process.wait()
        thread.join(10)
        peer.close()
        assert isinstance(waiting[0], ConnectionError)
        restarted = threading.Thread(target=lambda: DaemonRestart(first).start())
        restarted.start()
        assert application.ping().facilities == 1
        restarted.join(10)


class DaemonRestart:
    """The same daemon again."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self._daemon = daemon

    def start(self) -> None:
        again = DaemonProcess(self._daemon.directory)
        self._daemon.process = again.process
        again.pool.close()
