"""Do tunnels, programs and adapters leave it to TLS who is client and who is server, and does everybody prove who they are in either role?"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import DaemonProcess, eventually
from toyplugin import CLIENT, OTHER, SERVER

from tests.tools.conftest import Tool, free_port
from tests.tools.test_tunnel import Backend, configure
from tlspool_core.client import aio, streams
from tlspool_core.client.ssl_shim import PoolContext, PoolSocket, PoolSSLError

PAIR = ("client", "server")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A pool that speaks at once if nothing is there to be heard, so that both ends often do."""
    daemon = DaemonProcess(tmp_path_factory.mktemp("pool"), "[symmetric]\nwait = 0\n")
    daemon.pool.ping()
    yield SimpleNamespace(daemon=daemon)
    daemon.stop()


def roles(log: Path) -> list[str]:
    return re.findall(r"we are (client|server)", log.read_text())


def test_tunnels(world: Any, tool: Callable[..., Tool], tmp_path: Path) -> None:
    service, plain, secure = Backend(), free_port(), free_port()
    inner = {
        "name": "in",
        "listen": f"127.0.0.1:{secure}",
        "connect": f"127.0.0.1:{service.port}",
        "localid": CLIENT,
        "remoteid": SERVER,
    }
    outer = {"name": "out", "role": "client", "listen": f"127.0.0.1:{plain}", "connect": f"127.0.0.1:{secure}"}
    outer |= {"localid": SERVER, "remoteid": CLIENT}
    started = tool("tunnel", configure(tmp_path, inner | {"peer": True}, outer | {"peer": True})).reaches(plain, secure)
    try:
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", plain), timeout=20) as application, application.makefile("rb") as heard:
                application.sendall(b"hello" * 1000)
                application.shutdown(socket.SHUT_WR)
                assert heard.read() == b"HELLO" * 1000
    finally:
        service.close()
    played = roles(started.log)
    assert len(played) == 10 and played.count("client") == 5, "one end of each session is the client"
    assert f"in: {SERVER} from 127.0.0.1" in started.log.read_text()
    assert f"out: {SERVER} to {CLIENT}" in started.log.read_text()


def test_a_tunnel_of_peers_refuses_another(world: Any, tool: Callable[..., Tool], tmp_path: Path) -> None:
    service, plain, secure = Backend(), free_port(), free_port()
    inner = {
        "listen": f"127.0.0.1:{secure}",
        "connect": f"127.0.0.1:{service.port}",
        "localid": CLIENT,
        "remoteid": OTHER,
        "peer": True,
    }
    outer = {
        "role": "client",
        "listen": f"127.0.0.1:{plain}",
        "connect": f"127.0.0.1:{secure}",
        "localid": SERVER,
        "remoteid": CLIENT,
    }
    tool("tunnel", configure(tmp_path, inner, outer | {"peer": True})).reaches(plain, secure)
    with socket.create_connection(("127.0.0.1", plain), timeout=20) as application:
        application.settimeout(20)
        with suppress(ConnectionResetError):
            assert application.recv(100) == b""
    assert not service.connections
    service.close()


def test_a_program(world: Any, tool: Callable[..., Tool]) -> None:
    port = free_port()
    ours = ("--peer", "--localid", CLIENT, "--remoteid", SERVER, "--listen", f"127.0.0.1:{port}")
    tool("run", *ours, "sh", "-c", 'echo "Hello, $TLSPOOL_REMOTEID"').reaches(port)
    theirs = ("--peer", "--localid", SERVER, "--remoteid", CLIENT, "--connect", f"127.0.0.1:{port}")
    started = tool("run", *theirs, "sh", "-c", 'read line; echo "$line from $TLSPOOL_REMOTEID" >&2')
    assert started.process.wait(20) == 0
    assert f"Hello, {SERVER} from {CLIENT}" in started.log.read_text()


def test_sockets(world: Any) -> None:
    one, other = socket.socketpair()
    one.settimeout(20)
    other.settimeout(20)
    called = PoolContext(ssl.Purpose.CLIENT_AUTH, path=world.daemon.path, localid=SERVER, peer=True)
    calling = PoolContext(path=world.daemon.path, localid=CLIENT, peer=True)
    met: list[PoolSocket] = []
    thread = threading.Thread(target=lambda: met.append(called.wrap_connected(one, server_side=True)))
    thread.start()
    with calling.wrap_connected(other, server_hostname=SERVER) as plain:
        thread.join(20)
        with met[0] as theirs:
            assert {plain.server_side, theirs.server_side} == {False, True}
            assert (plain.remote_identity, theirs.remote_identity) == (SERVER, CLIENT)
            plain.sendall(b"ping")
            assert theirs.recv(10) == b"ping"


def test_what_a_peer_may_not_leave_out(world: Any) -> None:
    context = PoolContext(ssl.Purpose.CLIENT_AUTH, path=world.daemon.path, peer=True)
    assert context.verify_mode == ssl.CERT_REQUIRED, "of a plain server's context it is not"
    one, other = socket.socketpair()
    with one, other:
        one.settimeout(20)
        with pytest.raises(ValueError, match="server_hostname"):
            context.wrap_connected(one)
        context.verify_mode = ssl.CERT_NONE
        with pytest.raises(ValueError, match="has to prove itself"):
            context.wrap_connected(one, server_side=True)


def test_a_peer_that_shows_nobody(world: Any) -> None:
    """A plain client of TLS that proves nothing is not taken for a peer that did."""
    one, other = socket.socketpair()
    one.settimeout(20)
    context = PoolContext(path=world.daemon.path, localid=SERVER, peer=True)
    silent = ssl.create_default_context()
    silent.check_hostname = False
    silent.verify_mode = ssl.CERT_NONE

    def call() -> None:
        with suppress(OSError), other, silent.wrap_socket(other) as secured:
            secured.recv(10)

    thread = threading.Thread(target=call)
    thread.start()
    with pytest.raises(PoolSSLError):
        context.wrap_connected(one, server_side=True)
    thread.join(20)


def test_streams(world: Any) -> None:
    heard: list[tuple[str, str]] = []

    async def echo(reader: asyncio.StreamReader, writer: streams.PoolStreamWriter) -> None:
        heard.append((writer.remoteid, writer.session.role))
        writer.write((await reader.readline()).upper())
        await writer.drain()

    async def main() -> str:
        path, port = world.daemon.path, free_port()
        async with await streams.start_server(echo, "127.0.0.1", port, path=path, localid=SERVER, peer=True):
            reader, writer = await streams.open_connection("127.0.0.1", port, path=path, remoteid=SERVER, localid=CLIENT, peer=True)
            writer.write(b"hello\n")
            assert await reader.readline() == b"HELLO\n"
            assert writer.remoteid == SERVER
            role = writer.session.role
            writer.close()
            await writer.wait_closed()
        aio.shared(path).close()
        return role

    role = asyncio.run(main())
    assert heard == [(CLIENT, PAIR[PAIR.index(role) - 1])]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peer": True, "starttls": "smtp"}, "peer: does not go with starttls"),
        ({"role": "client", "connect": "127.0.0.1:2"}, "remoteid: is needed"),
        ({"localid": "john@"}, "localid: is not user@domain or domain"),
        ({"remoteid": "a b"}, "remoteid: is not user@domain or domain"),
        ({"users": ["root"]}, "users: is for a client's tunnel"),
        ({"role": "client", "remoteid": "a.example", "users": ["nobody-such"]}, "there is no user 'nobody-such'"),
    ],
)
def test_faults_of_a_file_are_explained(tool: Callable[..., Tool], tmp_path: Path, change: dict[str, object], words: str) -> None:
    started = tool("tunnel", "--check", configure(tmp_path, {"listen": "127.0.0.1:1", "connect": "127.0.0.1:2"} | change))
    assert started.process.wait(20) == 1
    assert words in started.log.read_text()


def test_a_clients_tunnel_works_for_its_users(world: Any, tool: Callable[..., Tool], tmp_path: Path) -> None:
    service, plain, secure = Backend(), free_port(), free_port()
    inner = {"listen": f"127.0.0.1:{secure}", "connect": f"127.0.0.1:{service.port}", "localid": SERVER}
    outer = {
        "role": "client",
        "listen": f"127.0.0.1:{plain}",
        "connect": f"127.0.0.1:{secure}",
        "localid": CLIENT,
        "remoteid": SERVER,
    }
    started = tool("tunnel", configure(tmp_path, inner, outer | {"users": []})).reaches(plain, secure)
    with socket.create_connection(("127.0.0.1", plain), timeout=20) as application:
        application.sendall(b"hello\n")
        assert application.recv(100) == b"HELLO\n"
    try:
        subprocess.run(["curl", "-s", f"http://127.0.0.1:{plain}/"], user=65534, timeout=20, check=False)
    except PermissionError:
        pytest.skip("only root can be another user")
    finally:
        service.close()
    eventually(lambda: "has connected" in started.log.read_text())
    assert service.connections == 1
