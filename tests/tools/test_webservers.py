"""Do applications under uvicorn and gunicorn learn who is connected, from nobody but the pool, and do bad connections leave others alone?"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import resource
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import uvicorn
import webapps
import websockets.asyncio.client
from gunicorn.config import Config
from gunicorn.errors import ConfigError
from test_openssl import CLIENT, SERVER, DaemonProcess, World, eventually
from uvicorn.server import ServerState

from tests.tools.conftest import ROOT, Tool, free_port, listens
from tlspool_core.client import proxy_header
from tlspool_core.client.asgi import PoolProtocol
from tlspool_core.client.gunicorn import PoolWorker
from tlspool_core.interfaces import Role

HERE = Path(__file__).parent


class WebServer:
    """uvicorn or gunicorn as a process; `told` is what its application was told, by the same names for both."""

    def __init__(self, log: Path, kind: str, where: str, entrance: str, pool: Path, *arguments: str) -> None:
        self.kind = kind = kind.removesuffix(" alone")
        self.log = log
        self.where = where
        loop = ("--loop", "asyncio") if entrance.endswith(":Plain") else ()
        bind = ("--uds", where) if where.startswith("/") else ("--port", where)
        command = {
            "uvicorn": ("uvicorn", *loop, "--http", entrance, *bind, *(arguments or ("webapps:application",))),
            "gunicorn": ("gunicorn", "-k", entrance, "-b", f"unix:{where}" if where.startswith("/") else f"127.0.0.1:{where}"),
        }[kind]
        if kind == "gunicorn":
            command += ("--threads", "4", "--graceful-timeout", "3", *(arguments or ("webapps:wsgi",)))
        path = os.pathsep.join(map(str, (HERE, ROOT)))
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=variables | {"PYTHONPATH": path, "TLSPOOL_SOCKET": str(pool)},
                stdout=output,
                stderr=output,
                cwd=log.parent,
            )
        eventually(self._is_there, 30)

    def _is_there(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return Path(self.where).exists() if self.where.startswith("/") else listens(int(self.where))

    def told(self, body: str) -> dict[str, Any]:
        """Identities, scheme and address of the client, as the application found them."""
        facts = json.loads(body)
        if self.kind == "gunicorn":
            return {
                "remoteid": facts.get("TLSPOOL_REMOTEID", ""),
                "localid": facts.get("TLSPOOL_LOCALID", ""),
                "version": facts.get("TLSPOOL_VERSION"),
                "scheme": facts["wsgi.url_scheme"],
                "client": facts["REMOTE_ADDR"],
            }
        extension = facts["extensions"]["tlspool"]
        known = {name: extension[name] for name in ("remoteid", "localid", "version")}
        return known | {"scheme": facts["scheme"], "client": facts["client"][0]}

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            print(self.log.read_text())


ENTRANCES = {
    ("uvicorn", "open"): "webapps:Open",
    ("uvicorn alone", "open"): "webapps:Plain",
    ("uvicorn", "closed"): "tlspool_core.client.asgi:PoolProtocol",
    ("uvicorn", "few"): "fewhandshakes:Open",
    ("uvicorn", "tunnel"): "webapps:Tunnelled",
    ("gunicorn", "open"): "webapps.OpenWorker",
    ("gunicorn", "closed"): "tlspool_core.client.gunicorn.PoolWorker",
    ("gunicorn", "few"): "fewhandshakes.OpenWorker",
    ("gunicorn", "tunnel"): "webapps.TunnelledWorker",
}
KINDS = pytest.mark.parametrize("kind", ["uvicorn", "gunicorn"])


@pytest.fixture
def serve(world: World, tmp_path: Path) -> Iterator[Callable[..., WebServer]]:
    started: list[WebServer] = []

    def start(kind: str, entrance: str, where: str = "", pool: Path | None = None, arguments: tuple[str, ...] = ()) -> WebServer:
        entrance = ENTRANCES.get((kind, entrance), entrance)
        log = tmp_path / f"web{len(started)}"
        started.append(WebServer(log, kind, where or str(free_port()), entrance, pool or world.daemon.path, *arguments))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def curl(world: World, port: str, *arguments: str, urls: int = 1) -> subprocess.CompletedProcess[str]:
    """What curl says about the server, which must be www.example.com."""
    address = f"{SERVER}:{port}"
    ways = (
        "--cacert",
        str(world.home / "ca.pem"),
        "--resolve",
        f"{address}:127.0.0.1",
        "--max-time",
        "30",
        "--silent",
        "--show-error",
    )
    command = ("curl", *ways, *arguments, *[f"https://{address}/"] * urls)
    return subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)


def as_mary(world: World) -> tuple[str, ...]:
    certificate, key = world.pair("mary@example.com", Role.CLIENT, "mary")
    return "--cert", certificate, "--key", key


@pytest.mark.parametrize("kind", ["uvicorn", "uvicorn alone", "gunicorn"])
def test_the_application_learns_who_it_is(world: World, serve: Callable[..., WebServer], kind: str) -> None:
    server = serve(kind, "open")
    known = server.told(curl(world, server.where, *as_mary(world)).stdout)
    assert known == {
        "remoteid": "mary@example.com",
        "localid": SERVER,
        "version": "TLSv1.3",
        "scheme": "https",
        "client": "127.0.0.1",
    }
    claims = [f"{name}: eve@example.com" for name in ("Remote-User", "X-Remote-User", "Tlspool-Remoteid", "TLSPOOL_REMOTEID")]
    claims += ["Auth-Type: TLS", "SSL-Client-Verify: SUCCESS", "X-Forwarded-User: eve@example.com"]
    stranger = curl(world, server.where, *[word for claim in claims for word in ("-H", claim)])
    assert server.told(stranger.stdout) == known | {"remoteid": ""}
    assert "REMOTE_USER" not in json.loads(stranger.stdout)


@KINDS
def test_a_connection_serves_many_requests(world: World, serve: Callable[..., WebServer], kind: str) -> None:
    server = serve(kind, "open")
    answer = curl(world, server.where, *as_mary(world), "--write-out", "\n%{num_connects}\n", urls=3)
    lines = answer.stdout.split()[-1], *[line for line in answer.stdout.splitlines() if line in ("0", "1")]
    assert lines[1:] == ("1", "0", "0")
    bodies = [line for line in answer.stdout.splitlines() if line.startswith("{")]
    assert [server.told(body)["remoteid"] for body in bodies] == ["mary@example.com"] * 3


@KINDS
def test_who_shows_nothing_does_not_get_in_unless_we_say_so(world: World, serve: Callable[..., WebServer], kind: str) -> None:
    server = serve(kind, "closed")
    refused = curl(world, server.where)
    assert refused.returncode != 0
    assert refused.stdout == ""
    assert server.told(curl(world, server.where, *as_mary(world)).stdout)["remoteid"] == "mary@example.com"


def test_websockets(world: World, serve: Callable[..., WebServer]) -> None:
    server = serve("uvicorn", "open")
    context = ssl.create_default_context(cafile=str(world.home / "ca.pem"))
    context.load_cert_chain(*world.pair("mary@example.com", Role.CLIENT, "mary"))

    async def talk() -> None:
        uri = f"wss://{SERVER}:{server.where}/"
        async with websockets.asyncio.client.connect(uri, ssl=context, host="127.0.0.1", proxy=None) as chat:
            told = json.loads(await chat.recv())
            assert told["scheme"] == "wss"
            assert told["extensions"]["tlspool"]["remoteid"] == "mary@example.com"
            assert told["extensions"]["tls"]["tls_version"] == 0x0304
            await chat.send("x" * 100_000)
            assert await chat.recv() == "x" * 100_000

    asyncio.run(talk())


@KINDS
@pytest.mark.parametrize("entrance", ["open", "few"])
def test_slow_handshakes_end_and_hold_up_only_who_must_wait(
    world: World, serve: Callable[..., WebServer], kind: str, entrance: str
) -> None:
    """With as many handshakes at a time as there may be ("few") others wait for their end, and are served then."""
    server = serve(kind, entrance)
    idle = [socket.create_connection(("127.0.0.1", int(server.where))) for _ in range(4)]
    idle[0].sendall(b"\x16\x03\x01\x00")
    try:
        assert server.told(curl(world, server.where, *as_mary(world)).stdout)["remoteid"] == "mary@example.com"
        for sock in idle:
            sock.settimeout(30)
            while sock.recv(100):
                pass  # an alert may come before the end
    finally:
        for sock in idle:
            sock.close()
    assert server.process.poll() is None


@KINDS
def test_a_pool_that_is_not_there_is_waited_for(world: World, serve: Callable[..., WebServer], tmp_path: Path, kind: str) -> None:
    (tmp_path / "pool").mkdir()
    server = serve(kind, "open", pool=tmp_path / "pool" / "tlspool.sock")
    for _ in range(2):
        assert curl(world, server.where, "--max-time", "1").returncode != 0
        eventually(lambda: "nobody gets in: No TLS Pool can be reached" in server.log.read_text())
        daemon = DaemonProcess(tmp_path / "pool", world._configuration(), real=True)
        try:
            daemon.pool.ping()
            assert server.told(curl(world, server.where, *as_mary(world)).stdout)["remoteid"] == "mary@example.com"
        finally:
            daemon.stop()


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("uvicorn", ("--limit-max-requests", "1", "webapps:last_words")),
        ("gunicorn", ("--max-requests", "1", "webapps:last_wsgi_words")),
    ],
)
def test_the_last_answer_of_a_process_is_whole(
    world: World, serve: Callable[..., WebServer], kind: str, arguments: tuple[str, ...]
) -> None:
    server = serve(kind, "open", arguments=arguments)
    answer = curl(world, server.where, "--limit-rate", "6M", "--output", os.devnull, "--write-out", "%{size_download}")
    assert (answer.returncode, answer.stdout) == (0, str(webapps.BIG)), answer.stderr


@KINDS
def test_a_server_without_descriptors_waits_for_some(world: World, serve: Callable[..., WebServer], kind: str) -> None:
    server = serve(kind, "open")
    assert curl(world, server.where).returncode == 0
    pid = server.process.pid if kind == "uvicorn" else int(re.findall(r"Booting worker with pid: (\d+)", server.log.read_text())[0])
    place = Path(f"/proc/{pid}/fd")
    numbers = [int(path.name) for path in place.iterdir()]
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE, (max(numbers) + 8, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))
    idle = [socket.create_connection(("127.0.0.1", int(server.where))) for _ in range(24)]
    try:
        if kind == "gunicorn":  # uvicorn may see to it before we do
            eventually(lambda: "nobody gets in: [Errno 24] Too many open files" in server.log.read_text())
        for sock in idle:
            sock.settimeout(60)
            with suppress(ConnectionResetError):
                while sock.recv(100):  # each is let go of, some after their time for the handshake
                    pass
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        assert server.told(curl(world, server.where, *as_mary(world)).stdout)["remoteid"] == "mary@example.com"
        assert place.exists(), "it is the same process"
        eventually(lambda: len(list(place.iterdir())) <= len(numbers) + 1)
    finally:
        for sock in idle:
            sock.close()


def test_a_connection_that_finds_no_descriptor_is_let_go(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """uvicorn would keep it until the client leaves."""
    transport, state = Mock(), ServerState()
    monkeypatch.setattr(os, "dup", Mock(side_effect=OSError(errno.EMFILE, "Too many open files")))

    async def main() -> None:
        PoolProtocol(uvicorn.Config(webapps.application), state, {}).connection_made(transport)

    asyncio.run(main())
    transport.abort.assert_called_once()
    assert not state.connections and "Too many open files" in caplog.text


def test_tls_beside_that_of_the_pool_is_refused_by_uvicorn(world: World, serve: Callable[..., WebServer]) -> None:
    certificate, key = world.pair(SERVER, Role.SERVER, "twice")
    server = serve("uvicorn", "open", arguments=("--ssl-certfile", certificate, "--ssl-keyfile", key, "webapps:application"))
    assert curl(world, server.where).returncode != 0
    eventually(lambda: "nobody gets in: TLS is the pool's: leave out uvicorn's options" in server.log.read_text())


def test_tls_beside_that_of_the_pool_is_refused_by_gunicorn() -> None:
    config = Config()
    config.set("certfile", "/etc/ssl/some.pem")
    with pytest.raises(ConfigError, match="TLS is the pool's: leave out certfile and keyfile"):
        PoolWorker.check_config(config, None)


@KINDS
def test_behind_a_tunnel(
    world: World, serve: Callable[..., WebServer], tool: Callable[..., Tool], tmp_path: Path, kind: str
) -> None:
    server, port = serve(kind, "tunnel", where=str(tmp_path / "backend")), free_port()
    ways = ("--connect", server.where, "--proxy-protocol", "--remote-identity", "requested", "--service", "http")
    tool("tunnel", "--listen", f"127.0.0.1:{port}", *ways).reaches(port)
    answer = curl(world, str(port), *as_mary(world), "-H", "Remote-User: eve@example.com", urls=2)
    bodies = answer.stdout.replace("}{", "}\n{").splitlines()
    assert [server.told(body)["remoteid"] for body in bodies] == ["mary@example.com"] * 2
    assert server.told(bodies[0])["client"] == "127.0.0.1"
    assert server.told(bodies[0])["scheme"] == "https"
    assert server.told(curl(world, str(port)).stdout)["remoteid"] == ""


def request(remoteid: str = "") -> bytes:
    facts = proxy_header.Facts(socket.AF_INET, ("192.0.2.1", 1), ("192.0.2.2", 443), SERVER, remoteid, "TLSv1.3", "x", "http/1.1")
    return proxy_header.header(facts) + b"GET / HTTP/1.0\r\n\r\n"


def say(port: str, data: bytes) -> bytes:
    """What comes back until the end; nothing if the connection breaks."""
    heard = b""
    with socket.create_connection(("127.0.0.1", int(port)), 30) as sock:
        sock.settimeout(30)
        sock.sendall(data)
        try:
            while piece := sock.recv(65536):
                heard += piece
        except ConnectionResetError:
            return b""
    return heard


def test_a_client_without_address_is_no_proxy(serve: Callable[..., WebServer], tmp_path: Path) -> None:
    """gunicorn takes what comes from a UNIX socket for a proxy, and lets it say where the application is; HTTP clients are none."""
    server = serve("gunicorn", "tunnel", where=str(tmp_path / "backend"))
    facts = proxy_header.Facts(socket.AF_UNSPEC, None, None, SERVER, CLIENT, "TLSv1.3", "x", "http/1.1")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(server.where)
        sock.sendall(proxy_header.header(facts) + b"GET / HTTP/1.0\r\nSCRIPT_NAME: /eve\r\nX-Forwarded-For: 192.0.2.9\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    known = {"remoteid": CLIENT, "localid": SERVER, "version": "TLSv1.3", "scheme": "https", "client": ""}
    assert server.told(answer.partition(b"\r\n\r\n")[2].decode()) == known


def test_headers_of_tunnels_are_believed_from_those_who_are_named_only(serve: Callable[..., WebServer]) -> None:
    anybody, named = serve("uvicorn", "webapps:Tunnelled"), serve("uvicorn", "webapps:TunnelledFromHere")
    assert say(anybody.where, request(CLIENT)) == b""
    eventually(lambda: "127.0.0.1 is not trusted to be a tunnel" in anybody.log.read_text())
    answer = say(named.where, request(CLIENT)).partition(b"\r\n\r\n")[2].decode()
    assert named.told(answer) == {
        "remoteid": CLIENT,
        "localid": SERVER,
        "version": "TLSv1.3",
        "scheme": "https",
        "client": "192.0.2.1",
    }
    assert say(named.where, b"GET / HTTP/1.0\r\nRemote-User: eve\r\n\r\n") == b""
    assert say(named.where, request(CLIENT)[:20]) == b"", "a header that does not come is not waited for without end"
