"""Does code that was written for `ssl.SSLContext` run over the pool unchanged?"""

from __future__ import annotations

import contextlib
import ftplib
import http.client
import http.server
import imaplib
import poplib
import smtplib
import socket
import socketserver
import ssl
import struct
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tlspool_core.client import ErrorCode, InfoKind, PoolError, StartTlsFlags
from tlspool_core.client.ssl_shim import PoolCertVerificationError, PoolContext, PoolListener, PoolSocket, PoolSSLError
from tlspool_core.wire.messages import Error


class Page(http.server.BaseHTTPRequestHandler):
    """Says hello, and who is there if that is known."""

    def do_GET(self) -> None:
        who = self.connection.remote_identity if isinstance(self.connection, PoolSocket) else "plain"
        body = f"hello {who}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Quiet."""


@contextlib.contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]  # type: ignore[misc]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextlib.contextmanager
def dialogue(*lines: tuple[bytes, bytes], greeting: bytes = b"") -> Iterator[int]:
    """A server for one connection: greets, then expects each line's beginning and answers it."""

    def serve() -> None:
        sock, _ = listening.accept()
        with sock, sock.makefile("rwb") as stream:
            stream.write(greeting)
            stream.flush()
            for expected, answer in lines:
                line = stream.readline()
                assert line.startswith(expected) or expected in line, line
                stream.write(answer.replace(b"%tag", line.split(b" ")[0]))
                stream.flush()

    faults: list[BaseException] = []

    def guarded() -> None:
        try:
            serve()
        except BaseException as fault:
            faults.append(fault)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(10)
    assert faults == []


def test_http_client(null_tls: Any) -> None:
    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)) as port:
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=PoolContext(service="https"), timeout=10)
        connection.connect()
        assert isinstance(connection.sock, PoolSocket)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"hello plain"
        connection.close()
    (request,) = null_tls.requests
    assert (request.remoteid, request.service, request.timeout) == ("127.0.0.1", "https", 10_000)


def test_urllib(null_tls: Any) -> None:
    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)) as port:
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=PoolContext()), urllib.request.ProxyHandler({}))
        with opener.open(f"https://localhost:{port}/", timeout=10) as page:
            assert page.read() == b"hello plain"
    assert null_tls.requests[0].remoteid == "localhost"


def test_http_server_with_a_wrapped_listener(null_tls: Any) -> None:
    null_tls.remoteid = "john@example.com"
    context = PoolContext(ssl.Purpose.CLIENT_AUTH, service="https", localid="www.example.com")
    context.verify_mode = ssl.CERT_OPTIONAL
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    assert isinstance(server.socket, PoolListener)
    with serving(server) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"hello john@example.com"
        connection.close()
    (request,) = null_tls.requests
    assert request.localid == "www.example.com"
    assert request.flags == StartTlsFlags.LOCALROLE_SERVER | StartTlsFlags.REMOTEROLE_CLIENT | StartTlsFlags.REQUEST_REMOTEID


def test_smtplib_starttls(null_tls: Any) -> None:
    lines = [
        (b"ehlo", b"250-here\r\n250 STARTTLS\r\n"),
        (b"STARTTLS", b"220 go on\r\n"),
        (b"ehlo", b"250 here\r\n"),
        (b"QUIT", b"221 bye\r\n"),
    ]
    with dialogue(*lines, greeting=b"220 here\r\n") as port, smtplib.SMTP("localhost", port, timeout=10) as smtp:
        smtp.starttls(context=PoolContext(service="smtp"))  # type: ignore[arg-type]
        assert smtp.ehlo()[0] == 250
    assert null_tls.requests[0].remoteid == "localhost"


def test_smtplib_at_once(null_tls: Any) -> None:
    lines = [(b"ehlo", b"250 here\r\n"), (b"QUIT", b"221 bye\r\n")]
    context: Any = PoolContext(service="submissions")
    with (
        dialogue(*lines, greeting=b"220 here\r\n") as port,
        smtplib.SMTP_SSL("localhost", port, context=context, timeout=10) as smtp,
    ):
        assert smtp.ehlo()[0] == 250


def test_imaplib(null_tls: Any) -> None:
    lines = [
        (b"CAPABILITY", b"* CAPABILITY IMAP4rev1 STARTTLS\r\n%tag OK done\r\n"),
        (b"STARTTLS", b"%tag OK done\r\n"),
        (b"CAPABILITY", b"* CAPABILITY IMAP4rev1\r\n%tag OK done\r\n"),
        (b"NOOP", b"%tag OK done\r\n"),
        (b"LOGOUT", b"* BYE\r\n%tag OK done\r\n"),
    ]
    context: Any = PoolContext(service="imap")
    with dialogue(*lines, greeting=b"* OK here\r\n") as port, imaplib.IMAP4("localhost", port, timeout=10) as imap:
        imap.starttls(context)
        assert imap.noop()[0] == "OK"


def test_imaplib_at_once(null_tls: Any) -> None:
    lines = [
        (b"CAPABILITY", b"* CAPABILITY IMAP4rev1\r\n%tag OK done\r\n"),
        (b"LOGOUT", b"* BYE\r\n%tag OK done\r\n"),
    ]
    context: Any = PoolContext(service="imaps")
    with dialogue(*lines, greeting=b"* OK here\r\n") as port, imaplib.IMAP4_SSL("localhost", port, ssl_context=context, timeout=10):
        assert null_tls.requests[0].service == "imaps"


def test_poplib(null_tls: Any) -> None:
    context: Any = PoolContext(service="pop3s")
    with dialogue((b"QUIT", b"+OK\r\n"), greeting=b"+OK here\r\n") as port:
        assert poplib.POP3_SSL("localhost", port, context=context, timeout=10).quit() == b"+OK"


def test_ftplib(null_tls: Any) -> None:
    context: Any = PoolContext(service="ftp")
    lines = [(b"AUTH TLS", b"234 go on\r\n"), (b"QUIT", b"221 bye\r\n")]
    with dialogue(*lines, greeting=b"220 here\r\n") as port:
        ftp = ftplib.FTP_TLS(context=context)  # noqa: S321 - the one with TLS
        ftp.connect("localhost", port, timeout=10)
        ftp.auth()
        assert ftp.quit() == "221 bye"


# --- the socket ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as client:
        server, _ = listening.accept()
        with server:
            yield client, server


def test_the_socket_answers_as_an_ssl_socket(null_tls: Any, connected: tuple[socket.socket, socket.socket]) -> None:
    null_tls.facts = {
        InfoKind.VERSION: b"TLSv1.3",
        InfoKind.CIPHER_SUITE: b"TLS_AES_128_GCM_SHA256",
        InfoKind.ALPN: b"h2",
        InfoKind.TLS_EXPORTER: b"bound",
    }
    client, server = connected
    client.settimeout(7)
    addresses = client.getsockname(), client.getpeername()
    context = PoolContext(localid="me@here")
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with context.wrap_socket(client, server_hostname="example.com.") as plain:
        assert isinstance(plain, PoolSocket)
        assert (plain.local_identity, plain.remote_identity) == ("me@here", "example.com")
        assert plain.getpeercert() == {"subject": (), "subjectAltName": (("DNS", "example.com"),)}
        assert plain.getpeercert(binary_form=True) is None
        assert plain.version() == "TLSv1.3"
        assert plain.cipher() == ("TLS_AES_128_GCM_SHA256", "TLSv1.3", 128)
        assert plain.selected_alpn_protocol() == "h2"
        assert plain.get_channel_binding("tls-exporter") == b"bound"
        assert plain.get_channel_binding() is None
        assert (plain.selected_npn_protocol(), plain.compression(), plain.shared_ciphers()) == (None, None, None)
        assert (plain.getsockname(), plain.getpeername()) == addresses
        assert plain.gettimeout() == 7
        assert not plain.server_side
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        plain.do_handshake()
        assert plain.write(b"question") == 8
        assert server.recv(100) == b"question"
        server.sendall(b"answers")
        assert plain.read(100) == b"answers"
        server.sendall(b"more")
        buffer = bytearray(10)
        assert plain.read(10, buffer) == 4
        assert plain.pending() == 0
        with pytest.raises(ssl.SSLError, match="hand a connection back"):
            plain.unwrap()


def test_users_are_shown_as_mail_addresses(null_tls: Any, connected: tuple[socket.socket, socket.socket]) -> None:
    null_tls.remoteid = "john@example.com"
    with PoolContext(ssl.Purpose.CLIENT_AUTH).wrap_socket(connected[1], server_side=True) as plain:
        assert isinstance(plain, PoolSocket)
        assert plain.getpeercert() == {"subject": (), "subjectAltName": (("email", "john@example.com"),)}
        assert plain.cipher() is None
    assert null_tls.requests[0].flags & StartTlsFlags.IGNORE_REMOTEID


@pytest.mark.parametrize(
    ("set_up", "fault"),
    [
        (lambda context: context.set_alpn_protocols(["http/1.1"]), "speaks h2, not http/1.1"),
        (lambda context: setattr(context, "minimum_version", ssl.TLSVersion.TLSv1_3), "TLSv1.2 is older"),
    ],
)
def test_conditions_of_the_caller_are_checked(
    null_tls: Any, connected: tuple[socket.socket, socket.socket], set_up: Callable[[PoolContext], None], fault: str
) -> None:
    null_tls.facts = {InfoKind.VERSION: b"TLSv1.2", InfoKind.ALPN: b"h2"}
    context = PoolContext()
    set_up(context)
    with pytest.raises(ssl.SSLError, match=fault):
        context.wrap_socket(connected[0], server_hostname="example.com")
    assert connected[1].recv(10) == b"", "the connection was closed"


@pytest.mark.parametrize(
    ("code", "kind"),
    [(ErrorCode.REMOTEID_REFUSED, PoolCertVerificationError), (ErrorCode.HANDSHAKE_FAILED, PoolSSLError)],
)
def test_refusals_are_ssl_errors(
    scripted: Any, connected: tuple[socket.socket, socket.socket], code: ErrorCode, kind: type[PoolSSLError]
) -> None:
    def script(connection: Any) -> None:
        reqid, _, _ = connection.starttls()
        connection.send(reqid, Error.of(code, "x509: says no"))

    from tlspool_core.client.blocking import shared

    scripted.play(script)
    context = PoolContext(path=scripted.path)
    with pytest.raises(ssl.SSLError, match="says no") as caught:
        context.wrap_socket(connected[0], server_hostname="example.com")
    shared(scripted.path).close()
    assert type(caught.value) is kind
    assert isinstance(caught.value, PoolError)
    assert caught.value.code == code
    assert caught.value.reason == "x509: says no"
    assert isinstance(caught.value, ssl.SSLCertVerificationError) == (kind is PoolCertVerificationError)


def test_what_cannot_be_is_said_at_once(connected: tuple[socket.socket, socket.socket]) -> None:
    context = PoolContext()
    with pytest.raises(ValueError, match="tlspool localid add"):
        context.load_cert_chain("certificate.pem")
    with pytest.raises(ValueError, match="tlspool trust add"):
        context.load_verify_locations("ca.pem")
    with pytest.raises(ValueError, match="server_hostname"):
        context.wrap_socket(connected[0])
    context.verify_mode = ssl.CERT_NONE
    with pytest.raises(ValueError, match="always proves"):
        context.wrap_socket(connected[0], server_hostname="example.com")
    connected[0].setblocking(False)
    with pytest.raises(ValueError, match="aio"):
        context.wrap_socket(connected[0], server_hostname="example.com")
    context.load_default_certs()
    context.set_default_verify_paths()


def test_a_connection_that_was_gone_before_it_was_accepted_is_closed() -> None:
    listener = PoolContext(ssl.Purpose.CLIENT_AUTH).wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True)
    with listener:
        client = socket.create_connection(listener.getsockname())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        with pytest.raises(OSError, match="not connected"):
            listener.accept()
