"""Do tunnels bring plaintext programs to TLS and back, by every STARTTLS dialogue, and let nobody in who proved nothing?"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import eventually  # type: ignore[attr-defined]
from test_openssl import SERVER, World

from tests.tools.conftest import Listening, Tool, free_port, s_client
from tlspool_core.client import proxy_header
from tlspool_core.interfaces import Role
from tlspool_core.tools.tunnel import PROTOCOLS

GREETINGS = {"smtp": b"220-hello\r\n220 backend\r\n", "imap": b"* OK backend\r\n", "pop3": b"+OK backend\r\n"}
OPENSSL = {"postgresql": "postgres", "managesieve": "sieve", "xmpp-client": "xmpp"}


class Backend(Listening):
    """Greets, says back in upper case what it hears, and remembers what came."""

    def __init__(self, greeting: bytes = b"") -> None:
        self.greeting = greeting
        self.heard = b""
        super().__init__()

    def talk(self, connection: socket.socket) -> None:
        connection.sendall(self.greeting)
        while data := connection.recv(65536):
            self.heard += data
            connection.sendall(data.upper())
            if data.endswith(b"\n"):  # s_client waits for our end
                return


@pytest.fixture
def backend() -> Iterator[Callable[..., Backend]]:
    opened: list[Backend] = []

    def start(greeting: bytes = b"") -> Backend:
        opened.append(Backend(greeting))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def configure(directory: Path, *tunnels: dict[str, object]) -> str:
    """A file of tunnels."""
    lines = []
    for one in tunnels:
        lines.append("[[tunnel]]")
        lines += [f"{key} = {str(value).lower() if isinstance(value, bool) else repr(value)}" for key, value in one.items()]
    (directory / "tunnels.toml").write_text("\n".join(lines))
    return str(directory / "tunnels.toml")


@pytest.fixture
def two(
    world: World, tool: Callable[..., Tool], backend: Callable[..., Backend], tmp_path: Path
) -> Callable[..., tuple[int, int, Backend]]:
    """A client's and a server's tunnel of one file behind each other: the ports of both, and the backend."""

    def start(starttls: str) -> tuple[int, int, Backend]:
        service = backend(GREETINGS.get(starttls, b""))
        plain, secure = free_port(), free_port()
        more = {"starttls": starttls} if starttls else {}
        server = {"name": "in", "listen": f"127.0.0.1:{secure}", "connect": f"127.0.0.1:{service.port}", "localid": SERVER}
        client = {
            "name": "out",
            "role": "client",
            "listen": f"127.0.0.1:{plain}",
            "connect": f"127.0.0.1:{secure}",
            "remoteid": SERVER,
        }
        server["remote_identity"] = "requested"
        tool("tunnel", configure(tmp_path, server | more, client | more)).reaches(plain, secure)
        return plain, secure, service

    return start


@pytest.mark.parametrize("starttls", ["", *PROTOCOLS])
def test_both_sides(two: Callable[..., tuple[int, int, Backend]], starttls: str) -> None:
    plain, _, service = two(starttls)
    with socket.create_connection(("127.0.0.1", plain), timeout=20) as application, application.makefile("rb") as heard:
        if starttls in GREETINGS:
            assert heard.readline().startswith(GREETINGS[starttls][:3].rstrip(b"-"))
        application.sendall(b"hello" * 100_000)
        application.shutdown(socket.SHUT_WR)
        assert heard.read() == b"HELLO" * 100_000
    assert service.heard == b"hello" * 100_000


@pytest.mark.parametrize("starttls", PROTOCOLS)
def test_openssl_as_client(world: World, two: Callable[..., tuple[int, int, Backend]], starttls: str) -> None:
    _, secure, service = two(starttls)
    done = s_client(world, secure, "-starttls", OPENSSL.get(starttls, starttls), "-xmpphost", SERVER, data=b"hello\n")
    assert b"HELLO\n" in done.stdout, done.stderr
    assert b"backend" not in done.stdout
    assert service.heard == b"hello\n"


INJECTIONS = {
    "smtp": b"EHLO me\r\nSTARTTLS\r\nMAIL FROM:<eve@example.com>\r\n",
    "imap": b"a STARTTLS\r\nb LOGIN eve eve\r\n",
    "pop3": b"STLS\r\nUSER eve\r\n",
    "managesieve": b"STARTTLS\r\nLOGOUT\r\n",
    "postgresql": struct.pack("!II", 8, 80877103) + b"eve",
}


@pytest.mark.parametrize("starttls", INJECTIONS)
def test_plaintext_after_starttls_ends_it(two: Callable[..., tuple[int, int, Backend]], starttls: str) -> None:
    _, secure, service = two(starttls)
    with socket.create_connection(("127.0.0.1", secure), timeout=20) as client:
        client.sendall(INJECTIONS[starttls])
        with suppress(ConnectionResetError):
            while client.recv(4096):
                pass
    assert not service.connections


@pytest.mark.parametrize(
    ("starttls", "said", "answer"),
    [
        ("smtp", b"MAIL FROM:<a@b>\r\nQUIT\r\n", b"530"),
        ("imap", b"a LOGIN john secret\r\nb LOGOUT\r\n", b"a NO [PRIVACYREQUIRED]"),
        ("pop3", b"USER john\r\nQUIT\r\n", b"-ERR"),
        ("managesieve", b'AUTHENTICATE "PLAIN"\r\nLOGOUT\r\n', b"NO (ENCRYPT-NEEDED)"),
        ("ldap", b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\x00\x80\x00", b"1.3.6.1.4.1.1466.20036"),
        ("postgresql", struct.pack("!II", 8, 196608), b"FATAL"),
        ("smtp", b"x" * 5000, b""),
        ("xmpp-client", b"<" * 5000, b""),
        ("ldap", b"\x30\x84\xff\xff\xff\xff", b""),
    ],
)
def test_nothing_but_tls_is_to_be_had(
    two: Callable[..., tuple[int, int, Backend]], starttls: str, said: bytes, answer: bytes
) -> None:
    _, secure, service = two(starttls)
    heard = b""
    with socket.create_connection(("127.0.0.1", secure), timeout=20) as client:
        client.sendall(said)
        try:
            while data := client.recv(4096):
                heard += data
        except ConnectionResetError:
            assert not answer
    assert answer in heard
    assert not service.connections


def test_a_server_without_starttls_is_left(world: World, tool: Callable[..., Tool], backend: Callable[..., Backend]) -> None:
    service, port = backend(b"220 plain\r\n250 plain\r\n"), free_port()
    ends = ("--listen", f"127.0.0.1:{port}", "--connect", f"127.0.0.1:{service.port}", "--remoteid", SERVER)
    started = tool("tunnel", "--client", *ends, "--starttls", "smtp").reaches(port)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as application:
        assert application.recv(100) == b""
    assert "does not offer STARTTLS" in started.log.read_text()
    eventually(lambda: service.heard)  # it had answered before it was asked
    assert service.heard.startswith(b"EHLO") and b"STARTTLS" not in service.heard


def test_the_backend_learns_who_it_is(world: World, tool: Callable[..., Tool], backend: Callable[..., Backend]) -> None:
    service, port = backend(), free_port()
    ends = ("--listen", f"127.0.0.1:{port}", "--connect", f"127.0.0.1:{service.port}", "--proxy-protocol")
    tool("tunnel", *ends).reaches(port)
    assert b"HELLO" not in s_client(world, port, data=b"hello\n").stdout, "who shows no identity does not get through"
    assert not service.connections
    certificate, key = world.pair("mary@example.com", Role.CLIENT, "mary")
    s_client(world, port, "-cert", certificate, "-key", key, data=b"hello\n")
    assert service.heard.startswith(proxy_header.SIGNATURE + b"\x21\x11")
    (length,) = struct.unpack("!H", service.heard[14:16])
    assert service.heard[16 + length :] == b"hello\n"
    assert service.heard[16:24] == socket.inet_aton("127.0.0.1") * 2
    assert struct.unpack("!H", service.heard[26:28]) == (port,)
    told = tlvs(service.heard[28 : 16 + length])
    assert told[proxy_header.REMOTEID] == b"mary@example.com"
    assert told[proxy_header.LOCALID] == told[proxy_header.AUTHORITY] == SERVER.encode()
    ssl = told[proxy_header.SSL]
    assert struct.unpack("!BI", ssl[:5]) == (7, 0)
    assert tlvs(ssl[5:])[proxy_header.SSL_CN] == b"mary@example.com"
    assert tlvs(ssl[5:])[proxy_header.SSL_VERSION] == b"TLSv1.3"


def tlvs(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        kind, length = struct.unpack("!BH", data[:3])
        found[kind], data = data[3 : 3 + length], data[3 + length :]
    return found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lisen": "a:1"}, "lisen"),
        ({"starttls": "smpt"}, "did you mean 'smtp'"),
        ({"listen": "nowhere"}, "neither HOST:PORT"),
        ({"listen": "a..b:1"}, "names no host"),
        ({"connect": f"{'x' * 64}.example:1"}, "names no host"),
        ({"proxy_protocol": True, "role": "client"}, "server's tunnel"),
        ({"limit": 0}, "between 1 and"),
    ],
)
def test_faults_of_a_file_are_explained(tool: Callable[..., Tool], tmp_path: Path, change: dict[str, object], words: str) -> None:
    started = tool("tunnel", "--check", configure(tmp_path, {"listen": "127.0.0.1:1", "connect": "127.0.0.1:2"} | change))
    assert started.process.wait(10) == 1
    assert words in started.log.read_text()
    assert "tunnels.toml" in started.log.read_text()
