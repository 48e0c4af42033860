"""A proxy in this process, for what needs no pool; and one as a process, with a person's token and sites that want a credential."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "daemon"))  # for the pool under test

from conftest import eventually  # type: ignore[attr-defined]
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from test_openssl import PIN, World

from tests.tools.conftest import Listening, Tool, free_port, listens, opened
from tlspool_core.client import PoolError, StartTlsFlags
from tlspool_core.interfaces import Role
from tlspool_core.tools.endpoints import Endpoint
from tlspool_core.tools.http_proxy import upstream
from tlspool_core.tools.http_proxy.rules import Rules
from tlspool_core.tools.http_proxy.server import ProxySettings, run

SITE = "site.example.com"
DAY = datetime.timedelta(days=1)


# --- in this process ---------------------------------------------------------------------------------------------------------------


class Inside:
    """A proxy on an event loop in a thread of this process."""

    def __init__(self, rules: Rules, **more: Any) -> None:
        self.port = free_port()
        listening = more.pop("listen", Endpoint("127.0.0.1", self.port))
        settings = ProxySettings(rules, listening, **more)
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(run(settings))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        eventually(lambda: self._task.done() or listens(self.port) or (listening.path and Path(listening.path).exists()))

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def ask(self, data: bytes) -> bytes:
        """All that comes back for these bytes, until the proxy ends the connection."""
        with self.connect() as sock:
            sock.sendall(data)
            return drain(sock)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(20)


def drain(sock: socket.socket) -> bytes:
    heard = []
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(65536):
            heard.append(data)
    return b"".join(heard)


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Inside]]:
    """Start a proxy that goes to these ports of loopback, as if that were elsewhere."""
    started: list[Inside] = []

    def start(*ports: int, **more: Any) -> Inside:
        monkeypatch.setattr(upstream, "may_be_reached", lambda address: True)
        started.append(Inside(Rules(passes=True, ports=frozenset(ports)), **more))
        return started[-1]

    yield start
    for one in started:
        one.close()


class RawSite(Listening):
    """A site that does with each connection what a test says; what it heard can be waited for."""

    def __init__(self, talk: Callable[[socket.socket, RawSite], None]) -> None:
        self.heard = b""
        self._talk = talk
        super().__init__()

    @property
    def url(self) -> bytes:
        return b"http://127.0.0.1:%d" % self.port

    def talk(self, connection: socket.socket) -> None:
        self._talk(connection, self)

    def read(self, connection: socket.socket, end: bytes = b"\r\n\r\n") -> bytes:
        """What comes, up to `end`; empty at the end of the connection."""
        piece = b""
        while not piece.endswith(end):
            data = connection.recv(1)
            if not data:
                return b""
            piece += data
            self.heard += data
        return piece


@pytest.fixture
def raw() -> Iterator[Callable[..., RawSite]]:
    opened: list[RawSite] = []

    def start(talk: Callable[[socket.socket, RawSite], None]) -> RawSite:
        opened.append(RawSite(talk))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


# --- a person with a token ---------------------------------------------------------------------------------------------------------


class Token:
    """A token of SoftHSM, to be pulled and plugged in."""

    def __init__(self, slot: Path) -> None:
        self._slot = slot
        self._drawer = slot.parent.parent / f"drawer-{slot.name}"

    def pull(self) -> None:
        self._slot.rename(self._drawer)

    def plug(self) -> None:
        if self._drawer.exists():
            self._drawer.rename(self._slot)


class ProxyWorld(World):
    """The person's keys are in the token "pool", which can be pulled; the issuing key is in another, which stays."""

    def _make_token(self) -> None:
        super()._make_token()
        slots = self.home / "tokens"
        (person,) = slots.iterdir()
        self._softhsm("--init-token", "--free", "--label", "machine", "--pin", PIN, "--so-pin", "12345678")
        key = ec.generate_private_key(ec.SECP256R1())
        (self.home / "issuing.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        (machine,) = (one for one in slots.iterdir() if one != person)
        self.person, self.machine = Token(person), Token(machine)
        file = str(self.home / "issuing.key")
        self._softhsm("--import", file, "--token", "machine", "--label", "issuing", "--id", "11", "--pin", PIN)
        self.authority = self.home / "proxy-ca.pem"
        self.authority.write_bytes(_authority(key).public_bytes(Encoding.PEM))

    def _configuration(self) -> str:
        return f"""{super()._configuration()}
[credential.x509]
issuing_key = "pkcs11:token=machine;id=%11;type=private"
issuing_certificate = "{self.authority}"
"""


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """Of one proxy, for the names below example.com only."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Proxy of a test")])
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(False, False, False, False, False, True, False, False, False)
    return (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - DAY, now + DAY)
        .add_extension(x509.BasicConstraints(True, 0), True)
        .add_extension(usage, True)
        .add_extension(x509.NameConstraints([x509.DNSName("example.com")], None), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .sign(key, hashes.SHA256())
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyWorld]:
    with opened(ProxyWorld, tmp_path_factory.mktemp) as made:
        yield made


class Site(ThreadingHTTPServer):
    """Wants a client certificate, and says whose it was."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, world: ProxyWorld, name: str = SITE) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(world.home / "ca.pem"))
        context.load_cert_chain(*world.pair(name, Role.SERVER, name))
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols(["http/1.1"])
        self.context = context
        self.port = int(self.server_address[1])
        self.connections = 0
        self.more = threading.Event()  # a page that never ends may go on
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            secured = self.context.wrap_socket(request, server_side=True)
        except OSError:
            request.close()
            return
        self.connections += 1
        super().process_request_thread(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that end in the middle are what is tested here."""

    def stop(self) -> None:
        self.more.set()
        self.shutdown()
        self.server_close()


class Page(BaseHTTPRequestHandler):
    """What there is on a site."""

    protocol_version = "HTTP/1.1"
    server: Site

    def do_GET(self) -> None:
        if self.path == "/endless":
            self._endless()
        elif self.path in ("/until-the-end", "/cut-off"):
            self._until_the_end()
        elif self.headers.get("Upgrade") == "websocket":
            self._echo()
        else:
            self._say({"you": self._visitor(), "path": self.path, "headers": [list(pair) for pair in self.headers.items()]})

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._say(
            {"you": self._visitor(), "length": len(body), "ends": body[-10:].decode(), "expected": self.headers.get("Expect")}
        )

    def _visitor(self) -> str:
        certificate = self.connection.getpeercert()
        return str(certificate["subjectAltName"][0][1])

    def _say(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Alt-Svc", 'h3=":443"')
        self.end_headers()
        self.wfile.write(body)

    def _endless(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while not self.server.more.wait(0.05):
            self.wfile.write(b"5\r\nmore\n\r\n")

    def _until_the_end(self) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"all of it\n")
        if self.path == "/until-the-end":
            self.connection.unwrap()

    def _echo(self) -> None:
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "websocket")
        self.end_headers()
        self.close_connection = True
        while data := self.connection.recv(1000):
            self.connection.sendall(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Not a word."""


@pytest.fixture(scope="module")
def site(world: ProxyWorld) -> Iterator[Site]:
    opened = Site(world)
    yield opened
    opened.stop()


class Outside(Tool):
    """`tlspool proxy` as a process."""

    def __init__(self, world: ProxyWorld, directory: Path, text: str) -> None:
        self.world = world
        self.port = free_port()
        self.file = directory / "proxy.toml"
        self.file.write_text(f'listen = "127.0.0.1:{self.port}"\n{text}')
        super().__init__(directory / "proxy.log", world, "proxy", str(self.file))
        self.reaches(self.port)

    def command(self, *arguments: str) -> list[str]:
        """curl through this proxy, trusting what it makes."""
        authority = str(self.world.authority)
        return ["curl", "-sS", "--max-time", "20", "-x", f"http://127.0.0.1:{self.port}", "--cacert", authority, *arguments]

    def curl(self, *arguments: str, data: bytes = b"") -> tuple[int, str]:
        done = subprocess.run(self.command(*arguments), input=data, capture_output=True, timeout=30, check=False)
        return done.returncode, (done.stdout + done.stderr).decode()

    @property
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


@pytest.fixture(scope="module")
def outside(world: ProxyWorld, site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """A proxy that goes to the site as john@example.com, and nowhere else."""
    proxy = Outside(
        world,
        tmp_path_factory.mktemp("proxy"),
        f'authority = "{world.authority}"\n'
        f'[[destination]]\nmatch = ["*.example.com"]\nlocalid = "john@example.com"\nconnect = "127.0.0.1:{site.port}"\n',
    )
    yield proxy
    assert proxy.stop() == 0
    print(proxy.log.read_text())


@pytest.fixture
def token(world: ProxyWorld) -> Iterator[Token]:
    """The person's token; it is back for the next test."""
    yield world.person
    world.person.plug()
    eventually(lambda: _key_works(world), 30)


def _key_works(world: ProxyWorld) -> bool:
    """Whether the pool knows that the person's token is back."""
    ours, theirs = socket.socketpair()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(world.home / "ca.pem"))
    context.load_cert_chain(*world.pair(SITE, Role.SERVER, "probe"))
    context.verify_mode = ssl.CERT_REQUIRED

    def serve() -> None:
        with contextlib.suppress(OSError):
            context.wrap_socket(theirs, server_side=True).close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        wishes: dict[str, Any] = {"remoteid": SITE, "localid": "john@example.com", "flags": StartTlsFlags.KEY_BOUND}
        world.daemon.pool.starttls_client(ours, **wishes).close()
    except PoolError:
        return False
    finally:
        thread.join(10)
        theirs.close()
    return True
