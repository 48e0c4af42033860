"""Does the proxy pass on what it understood, whole and no more, and is no client able to confuse, exhaust or misuse it?"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from conftest import eventually
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.proxy import conftest as harness
from tests.proxy.conftest import Inside, RawSite, drain
from tlspool_core.tools.endpoints import Endpoint, EndpointError
from tlspool_core.tools.http_proxy import conversation, forward, wire
from tlspool_core.tools.http_proxy.rules import Destination, Pattern, Rules
from tlspool_core.tools.http_proxy.server import read_login

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def answering(response: bytes) -> Callable[[socket.socket, RawSite], None]:
    """A site that says the same to every request without a body."""

    def talk(connection: socket.socket, site: RawSite) -> None:
        while site.read(connection):
            connection.sendall(response)

    return talk


def hear(sock: socket.socket, end: bytes) -> bytes:
    heard = b""
    while not heard.endswith(end):
        data = sock.recv(1000)
        assert data, heard
        heard += data
    return heard


@pytest.fixture
def plain(inside: Callable[..., Inside], raw: Callable[..., RawSite]) -> tuple[Inside, RawSite]:
    site = raw(answering(OK))
    return inside(site.port), site


# --- what goes on, and what does not -------------------------------------------------------------------------------------------------


def test_fields_for_the_hop_stay_here(plain: tuple[Inside, RawSite]) -> None:
    proxy, site = plain
    fields = (
        b"Host: evil.example.com",
        b"Connection: close, X-Secret",
        b"X-Secret: 1",
        b"Proxy-Authorization: Basic eA==",
        b"Proxy-Connection: keep-alive",
        b"TE: trailers",
        b"Keep-Alive: 5",
        b"Upgrade: h2c",
        b"X-Kept: yes",
    )
    heard = proxy.ask(b"GET %s/a?b#c HTTP/1.1\r\n" % site.url + b"\r\n".join(fields) + b"\r\n\r\n")
    assert heard.startswith(b"HTTP/1.1 200 ") and heard.endswith(b"\r\n\r\nok")
    lines = site.heard.split(b"\r\n")
    assert lines[:3] == [b"GET /a?b HTTP/1.1", b"Host: 127.0.0.1:%d" % site.port, b"X-Kept: yes"]
    assert lines[3].startswith(b"Via: 1.1 tlspool-") and lines[4:] == [b"", b""]


def test_one_client_after_the_other_request(plain: tuple[Inside, RawSite]) -> None:
    proxy, site = plain
    request = b"GET %s/ HTTP/1.1\r\nHost: x\r\n\r\n" % site.url
    heard = proxy.ask(request * 3 + request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert heard.count(b"\r\n\r\nok") == 4
    assert site.connections == 1


def test_an_old_client(plain: tuple[Inside, RawSite]) -> None:
    proxy, site = plain
    assert proxy.ask(b"GET %s HTTP/1.0\r\n\r\n" % site.url).endswith(b"\r\n\r\nok")
    assert site.heard.startswith(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:")


def test_a_kept_connection_that_ended_is_replaced(inside: Callable[..., Inside], raw: Callable[..., RawSite]) -> None:
    def once(connection: socket.socket, site: RawSite) -> None:
        site.read(connection)
        connection.sendall(OK)

    site = raw(once)
    request = b"GET %s/ HTTP/1.1\r\nHost: x\r\n\r\n" % site.url
    assert inside(site.port).ask(request * 2 + request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")).count(b"ok") == 3
    assert site.connections == 3


def test_a_post_is_not_made_twice(inside: Callable[..., Inside], raw: Callable[..., RawSite]) -> None:
    def first_only(connection: socket.socket, site: RawSite) -> None:
        if site.read(connection):
            connection.sendall(OK)
        site.read(connection, b"body")

    site = raw(first_only)
    with inside(site.port).connect() as client:
        client.sendall(b"GET %s/ HTTP/1.1\r\nHost: x\r\n\r\n" % site.url)
        assert hear(client, b"ok")
        client.sendall(b"POST %s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody" % site.url)
        assert b" 502 " in client.recv(1000)
    assert site.heard.count(b"POST") == 1


def test_hints_and_early_answers(inside: Callable[..., Inside], raw: Callable[..., RawSite]) -> None:
    def talk(connection: socket.socket, site: RawSite) -> None:
        site.read(connection)
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 413 Too much\r\nContent-Length: 0\r\n\r\n")
        connection.recv(1000)

    site = raw(talk)
    heard = inside(site.port).ask(b"POST %s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" % site.url)
    assert [line.split()[1] for line in heard.split(b"\r\n") if line.startswith(b"HTTP/")] == [b"103", b"413"]


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf.\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    ],
)
def test_half_a_response_does_not_look_whole(inside: Callable[..., Inside], raw: Callable[..., RawSite], response: bytes) -> None:
    def talk(connection: socket.socket, site: RawSite) -> None:
        site.read(connection)
        connection.sendall(response)

    site = raw(talk)
    heard = inside(site.port).ask(b"GET %s/ HTTP/1.1\r\nHost: x\r\n\r\n" % site.url)
    assert b" 200 " in heard
    assert not heard.endswith(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300 + b"\r\n",
    ],
)
def test_what_is_no_proper_response_becomes_a_page(
    inside: Callable[..., Inside], raw: Callable[..., RawSite], response: bytes
) -> None:
    def talk(connection: socket.socket, site: RawSite) -> None:
        site.read(connection)
        connection.sendall(response)

    site = raw(talk)
    heard = inside(site.port).ask(b"GET %s/ HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\nConnection: close\r\n\r\n" % site.url)
    assert heard.startswith(b"HTTP/1.1 502 ") and b"gave no proper answer" in heard


def test_more_than_was_asked_for_is_not_taken_for_an_answer(inside: Callable[..., Inside], raw: Callable[..., RawSite]) -> None:
    """Response splitting: what a site says unasked must not answer the next request."""

    def talk(connection: socket.socket, site: RawSite) -> None:
        site.read(connection)
        connection.sendall(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        site.read(connection)

    site = raw(talk)
    with inside(site.port).connect() as client:
        request = b"GET %s/ HTTP/1.1\r\nHost: x\r\n\r\n" % site.url
        for _ in range(2):
            client.sendall(request)
            assert hear(client, b"ok").endswith(b"\r\n\r\nok")
    assert site.connections == 2


def test_a_slow_reader_slows_the_site(inside: Callable[..., Inside], raw: Callable[..., RawSite]) -> None:
    sent = threading.Event()
    size = 64 << 20

    def talk(connection: socket.socket, site: RawSite) -> None:
        site.read(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size >> 16):
            connection.sendall(bytes(1 << 16))
        sent.set()

    site = raw(talk)
    with inside(site.port).connect() as client:
        client.sendall(b"GET %s/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % site.url)
        assert client.recv(100)
        assert not sent.wait(0.5), "64 MiB fit into no buffers between"
        assert size - 1000 < len(drain(client)) < size + 1000
    assert sent.wait(10)


def test_a_client_that_leaves_takes_the_request_with_it(inside: Callable[..., Inside], raw: Callable[..., RawSite]) -> None:
    ended = threading.Event()

    def talk(connection: socket.socket, site: RawSite) -> None:
        site.read(connection)
        if not connection.recv(1):
            ended.set()

    site = raw(talk)
    with inside(site.port).connect() as client:
        client.sendall(b"GET %s/ HTTP/1.1\r\nHost: x\r\n\r\n" % site.url)
        eventually(lambda: site.heard.endswith(b"\r\n\r\n"))
    assert ended.wait(10)


# --- CONNECT -------------------------------------------------------------------------------------------------------------------------


def test_bytes_are_passed_unseen(inside: Callable[..., Inside], raw: Callable[..., RawSite]) -> None:
    def echo(connection: socket.socket, site: RawSite) -> None:
        while data := connection.recv(1000):
            connection.sendall(data.upper())

    site = raw(echo)
    with inside(site.port).connect() as client:
        client.sendall(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\nearly" % site.port)
        head = b""
        while not head.endswith(b"EARLY"):
            head += client.recv(1000)
        assert head.startswith(b"HTTP/1.1 200 ")
        client.sendall(b"hello")
        assert client.recv(100) == b"HELLO"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"CONNECT example.com HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT http://example.com:443/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT john@example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT example.com:0 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT example.com:99999 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT 0x7f.1:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT [::1:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT a..b:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"CONNECT example.com:22 HTTP/1.1\r\nHost: x\r\n\r\n", 403),
        (b"GET http://example.com:25/ HTTP/1.1\r\nHost: x\r\n\r\n", 403),
        (b"GET https://example.com/ HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"GET ftp://example.com/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://john:pw@example.com/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http:/// HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"TRACE http://example.com/ HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nHost: evil.example.com\r\n\r\n", 421),
        # smuggling: two lengths, two codings, lines that are none
        (b"POST %s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil", 400),
        (b"POST %s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        (b"POST %s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 501),
        (b"POST %s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST %s/ HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello", 400),
        (b"POST %s/ HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\nhello", 400),
        (b"GET %s/ HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n", 400),
        (b"GET %s/ HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", 400),
        (b"GET %s/\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET %s/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET %s/ HTTP/1.1\r\n\r\n", 400),
        (b"GET %s/ HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"GET %s/ HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 250 + b"\r\n", 431),
        (b"GET %s/ HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 70_000, 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(20) + b"\r\n\r\n", 400),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(
    inside: Callable[..., Inside], raw: Callable[..., RawSite], head: bytes, status: int
) -> None:
    site = raw(answering(OK))
    proxy = inside(site.port)
    with proxy.connect() as client:
        client.sendall(head.replace(b"%s", site.url))
        with suppress(OSError):
            client.shutdown(socket.SHUT_WR)
        heard = drain(client)
    assert int(heard.split()[1]) == status, heard
    assert b"Proxy-Status: tlspool; error=" in heard
    assert not site.heard, "nothing of it has got through"
    assert proxy.ask(b"GET %s/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % site.url).endswith(b"ok")


def test_a_chunk_that_lies_ends_the_request(inside: Callable[..., Inside], raw: Callable[..., RawSite]) -> None:
    def talk(connection: socket.socket, site: RawSite) -> None:
        site.read(connection, b"0\r\n\r\n")

    site = raw(talk)
    body = b"5\r\nhelloXX0\r\n\r\nGET http://evil.example.com/ HTTP/1.1\r\n\r\n"
    heard = inside(site.port).ask(b"POST %s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % site.url + body)
    assert heard.startswith(b"HTTP/1.1 400 ")
    assert b"GET" not in site.heard and not site.heard.endswith(b"0\r\n\r\n")


def test_slow_heads_and_silence_end(
    inside: Callable[..., Inside], raw: Callable[..., RawSite], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HEAD_TIME", "KEEP_TIME", "STALL_TIME"):
        monkeypatch.setattr(wire, name, 0.3)
    site = raw(answering(OK))
    proxy = inside(site.port)
    assert proxy.ask(b"GET %s/ HTTP/1.1\r\nHost:" % site.url).startswith(b"HTTP/1.1 408 ")
    assert proxy.ask(b"") == b""


def test_there_is_a_limit(inside: Callable[..., Inside], raw: Callable[..., RawSite]) -> None:
    site = raw(answering(OK))
    proxy = inside(site.port, limit=2)
    request = b"GET %s/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % site.url
    with proxy.connect() as first, proxy.connect(), proxy.connect() as third:
        third.sendall(request)
        third.settimeout(0.3)
        with pytest.raises(TimeoutError):
            third.recv(1)
        first.close()
        third.settimeout(20)
        assert drain(third).endswith(b"ok")


def test_it_does_not_talk_to_itself(inside: Callable[..., Inside], raw: Callable[..., RawSite]) -> None:
    site = raw(answering(OK))
    proxy = inside(site.port)
    ours = b"127.0.0.1:%d" % proxy.port
    via = b"GET %s/ HTTP/1.1\r\nHost: x\r\nVia: 1.1 elsewhere\r\n\r\n" % site.url
    proxy.ask(via.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    name = site.heard.split(b"Via: ")[1].split(b"\r\n")[0].split()[-1]
    assert b" 508 " in proxy.ask(
        b"GET %s/ HTTP/1.1\r\nHost: x\r\nVia: 1.1 %s, 1.1 b\r\nConnection: close\r\n\r\n" % (site.url, name)
    )
    proxy = inside(proxy.port + 0)  # whatever is passed: port 80 and 443 are not ours
    ours = b"127.0.0.1:%d" % proxy.port
    assert b" 403 " in proxy.ask(b"CONNECT %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % ours)


def test_its_own_port_is_never_a_site(inside: Callable[..., Inside], monkeypatch: pytest.MonkeyPatch) -> None:
    port = harness.free_port()
    monkeypatch.setattr(harness, "free_port", lambda: port)
    proxy = inside(port)
    assert b" 508 " in proxy.ask(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % port)


def test_who_does_not_log_in_gets_nothing(
    inside: Callable[..., Inside], raw: Callable[..., RawSite], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "GUESS_TIME", 0.01)
    file = tmp_path / "login"
    file.write_text("john:secret\n")
    file.chmod(0o644)
    with pytest.raises(EndpointError, match="chmod"):
        read_login(file)
    file.chmod(0o600)
    site = raw(answering(OK))
    proxy = inside(site.port, login_file=file)
    request = b"GET %s/ HTTP/1.1\r\nHost: x\r\n%sConnection: close\r\n\r\n"
    for said in (b"", b"Proxy-Authorization: Basic eDp4\r\n", b"Proxy-Authorization: Bearer am9objpzZWNyZXQ=\r\n"):
        heard = proxy.ask(request % (site.url, said))
        assert b" 407 " in heard and b"Proxy-Authenticate: Basic" in heard
    assert not site.heard
    assert proxy.ask(request % (site.url, b"Proxy-Authorization: Basic am9objpzZWNyZXQ=\r\n")).endswith(b"ok")
    assert b"Authorization" not in site.heard


def test_a_site_that_does_not_answer(
    inside: Callable[..., Inside], raw: Callable[..., RawSite], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "ANSWER_TIME", 0.2)
    site = raw(lambda connection, site: connection.recv(1 << 20) and connection.recv(1) and None)
    request = b"GET %s/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    heard = inside(site.port).ask(request % site.url)
    assert heard.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
    assert b" 502 " in inside(80).ask(request % b"http://name.invalid"), "a name that there is not"


def test_a_pool_that_is_not_there(raw: Callable[..., RawSite], tmp_path: Path) -> None:
    site = raw(answering(OK))
    destination = Destination((Pattern.parse("*"),), connect=Endpoint("127.0.0.1", site.port))
    with closing(Inside(Rules((destination,)), pool=tmp_path / "nothing")) as proxy:
        heard = proxy.ask(b"GET http://example.com/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b" 503 " in heard and b"Start it: tlspool serve" in heard


def test_a_destination_that_is_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    port = harness.free_port()
    monkeypatch.setattr(harness, "free_port", lambda: port)
    destination = Destination((Pattern.parse("*"),), connect=Endpoint("127.0.0.1", port))
    with closing(Inside(Rules((destination,)))) as proxy:
        assert b" 508 " in proxy.ask(b"GET http://example.com/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")


def test_on_a_socket_of_the_persons_own(inside: Callable[..., Inside], raw: Callable[..., RawSite], tmp_path: Path) -> None:
    site = raw(answering(OK))
    path = tmp_path / "proxy.sock"
    inside(site.port, listen=Endpoint(path=str(path)))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET %s/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % site.url)
        assert drain(client).endswith(b"ok")
    assert path.stat().st_mode & 0o777 == 0o600


PIECES = st.sampled_from(
    [
        *(
            b"GET ",
            b"CONNECT ",
            b"POST ",
            b"http://",
            b"https://",
            b"127.0.0.1:",
            b"0",
            b"a",
            b"/",
            b" HTTP/1.1",
            b" HTTP/1.0",
            b"\r\n",
        ),
        *(
            b"Host: ",
            b"Content-Length: ",
            b"Transfer-Encoding: chunked",
            b"Connection: ",
            b"close",
            b"upgrade",
            b"Upgrade: websocket",
        ),
        *(b"Expect: 100-continue", b"5\r\n", b"\xff", b"*", b"?", b"#", b"[", b"]", b"@", b"%", b":", b"\0", b"\n"),
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECES, max_size=25).map(b"".join))
def test_whatever_comes_is_answered_or_left(fuzzed: Inside, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    with fuzzed.connect() as client:
        with suppress(OSError):
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        heard = drain(client)
    assert not heard or heard.startswith(b"HTTP/1.1 ")
    assert not [record for record in caplog.records if record.levelname == "ERROR"], "an exception got through"


@pytest.fixture
def fuzzed(inside: Callable[..., Inside]) -> Inside:
    return inside(1)
