"""Does the proxy stand clients, sites and names that mean it ill: nothing smuggled, nobody locked out, no secret in a log?"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from conftest import eventually

from tests.proxy.conftest import SITE, Inside, Outside, ProxyWorld, RawSite, drain
from tests.proxy.test_person import asked, inside_tls
from tests.proxy.test_requests import OK, answering, hear
from tlspool_core.client import PoolError
from tlspool_core.tools import endpoints
from tlspool_core.tools.endpoints import Endpoint
from tlspool_core.tools.http_proxy import upstream
from tlspool_core.tools.http_proxy.rules import Destination, Pattern, Rules, may_be_reached

GET = b"GET %s/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


# --- smuggling and injection -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST %s/ HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST %s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST %s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST %s/ HTTP/1.1\r\nHost: x\r\nContent-Length: \r\n\r\nhello", 400),
        (b"POST %s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 6\r\n\r\nhello", 400),
        (b"GET %s\\@evil.example.com/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400),
        (b"GET %s/ HTTP/1.1\r\nHost: x\r\nX: a\x10b\r\nConnection: close\r\n\r\n", 400),
        (b"GET %s/a b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET %s/\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET http://[127.0.0.1]/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400),
        (b"GET /proxy.pac HTTP/1.1\r\nHost: 127.0.0.1:%p/evil\r\nConnection: close\r\n\r\n", 400),
        (b"GET /proxy.pac HTTP/1.1\r\nHost: evil.example.com:%p\r\nConnection: close\r\n\r\n", 421),
        (b"GET /proxy.pac HTTP/1.1\r\nHost: john@127.0.0.1:%p\r\nConnection: close\r\n\r\n", 400),
    ],
)  # fmt: skip
def test_refused(inside: Callable[..., Inside], raw: Callable[..., RawSite], head: bytes, status: int) -> None:
    site = raw(answering(OK))
    proxy = inside(site.port)
    heard = proxy.ask(head.replace(b"%s", site.url).replace(b"%p", b"%d" % proxy.port))
    assert int(heard.split()[1]) == status, heard
    assert not site.heard


def test_lengths_are_said_in_one_way(inside: Callable[..., Inside], raw: Callable[..., RawSite]) -> None:
    def talk(connection: socket.socket, site: RawSite) -> None:
        site.read(connection, b"hello")
        connection.sendall(OK)

    site = raw(talk)
    request = b"POST %s/ HTTP/1.1\r\nHost: x\r\nConnection: close, Content-Length\r\nContent-Length: 0005\r\n\r\nhello"
    assert inside(site.port).ask(request % site.url).endswith(b"ok")
    assert site.heard.count(b"Content-Length") == 1 and b"\r\nContent-Length: 5\r\n\r\nhello" in site.heard


@pytest.mark.parametrize("length", [b"Transfer-Encoding: chunked", b"Content-Length: 5"])
def test_an_answer_that_has_no_body_has_no_length(
    inside: Callable[..., Inside], raw: Callable[..., RawSite], length: bytes
) -> None:
    site = raw(answering(b"HTTP/1.1 204 No\r\n%s\r\nX: y\r\n\r\n" % length))
    heard = inside(site.port).ask(GET % site.url)
    assert heard.startswith(b"HTTP/1.1 204 ") and b"X: y" in heard
    assert length not in heard


@pytest.mark.parametrize("head", [b"HTTP/1.1 407 Login\r\nProxy-Authenticate: Basic realm=x", b"HTTP/2.0 200 OK", b"ICY 200 OK"])
def test_a_site_does_not_speak_for_the_proxy(inside: Callable[..., Inside], raw: Callable[..., RawSite], head: bytes) -> None:
    site = raw(answering(head + b"\r\nContent-Length: 2\r\n\r\nok"))
    heard = inside(site.port).ask(GET % site.url)
    assert heard.startswith(b"HTTP/1.1 502 ")
    assert b"Proxy-Authenticate" not in heard


def test_what_comes_unasked_later_answers_nothing(inside: Callable[..., Inside], raw: Callable[..., RawSite]) -> None:
    """A site that speaks once the exchange is over would answer the next request before it was asked."""
    evil, said = threading.Event(), threading.Event()

    def talk(connection: socket.socket, site: RawSite) -> None:
        site.read(connection)
        connection.sendall(OK)
        if site.connections == 1:
            evil.wait(20)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
            said.set()
        site.read(connection)

    site = raw(talk)
    with inside(site.port).connect() as client:
        client.sendall(b"GET %s/ HTTP/1.1\r\nHost: x\r\n\r\n" % site.url)
        hear(client, b"ok")
        evil.set()
        assert said.wait(20)
        client.sendall(GET % site.url)
        assert drain(client).endswith(b"\r\n\r\nok")
    assert site.connections == 2


def test_options_for_all_of_a_site(inside: Callable[..., Inside], raw: Callable[..., RawSite]) -> None:
    """RFC 9112 section 3.2.4."""
    site = raw(answering(OK))
    proxy = inside(site.port)
    proxy.ask(b"OPTIONS %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % site.url)
    proxy.ask(b"OPTIONS %s/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % site.url)
    lines = [line for line in site.heard.split(b"\r\n") if line.startswith(b"OPTIONS")]
    assert lines == [b"OPTIONS * HTTP/1.1", b"OPTIONS / HTTP/1.1"]


def test_as_far_as_the_request_says(inside: Callable[..., Inside], raw: Callable[..., RawSite]) -> None:
    """RFC 9110 section 7.6.2."""
    site = raw(answering(OK))
    proxy = inside(site.port)
    for method, said, seen in (
        (b"OPTIONS", b"0", b""),
        (b"OPTIONS", b"2", b"1"),
        (b"OPTIONS", b"9" * 5000, b"9" * 5000),
        (b"GET", b"0", b"0"),
    ):
        before = len(site.heard)
        heard = proxy.ask(b"%s %s/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: %s\r\nConnection: close\r\n\r\n" % (method, site.url, said))
        assert heard.startswith(b"HTTP/1.1 200 ")
        forwarded = site.heard[before:]
        assert (b"\r\nMax-Forwards: %s\r\n" % seen in forwarded) if seen else not forwarded


def test_a_secret_is_neither_said_back_nor_logged(inside: Callable[..., Inside], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for line in (b"Cookie : secret", b"Proxy-Authorization : secret", b"\x0bsecret: 1"):
        heard = inside(80).ask(b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n%s\r\n\r\n" % line)
        assert heard.startswith(b"HTTP/1.1 400 ") and b"illegal header line" in heard
        assert b"secret" not in heard
    assert "illegal header line" in caplog.text and "secret" not in caplog.text


def test_sites_cannot_compare_our_name(inside: Callable[..., Inside], raw: Callable[..., RawSite]) -> None:
    sites = [raw(answering(OK)) for _ in range(2)]
    proxy = inside(*(site.port for site in sites))
    for site in sites * 2:
        proxy.ask(GET % site.url)
    names = [{line for line in site.heard.split(b"\r\n") if line.startswith(b"Via: ")} for site in sites]
    assert len(names[0]) == len(names[1]) == 1 and names[0] != names[1]


# --- names and addresses -----------------------------------------------------------------------------------------------------------

LONG = ".".join(["a" * 60] * 2) + ".example.com"


@pytest.mark.parametrize("name", [LONG, "_srv.example.com", "a_b.example.com"])
def test_a_name_that_cannot_be_proven(inside: Callable[..., Inside], name: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is told before the browser begins TLS, which would end without a word; and it is not passed on as if it were another site."""
    destination = Destination((Pattern.parse("*.example.com"),), connect=Endpoint("127.0.0.1", 9))
    proxy = Inside(Rules((destination,), passes=True))
    try:
        for head in (f"CONNECT {name}:443 HTTP/1.1", f"GET http://{name}/ HTTP/1.1", f"GET https://{name}/ HTTP/1.1"):
            heard = proxy.ask(f"{head}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            assert heard.startswith(b"HTTP/1.1 501 ") and b"It is no identity" in heard
    finally:
        proxy.close()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_an_address_of_this_machine_is_not_for_relays() -> None:
    """Services that listen on all addresses would be reached by those as well."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no other address than those of loopback")
        ours = probe.getsockname()[0]
    number = int.from_bytes(socket.inet_aton(ours)).to_bytes(4).hex(":", 2)
    assert not may_be_reached(ours)
    assert not may_be_reached(f"::ffff:{ours}")
    assert not may_be_reached(f"64:ff9b::{number}") and not may_be_reached(f"64:ff9b:1::{number}")


# --- nobody is locked out ----------------------------------------------------------------------------------------------------------


def test_a_client_that_leaves_takes_the_connection_attempt_with_it(
    inside: Callable[..., Inside], raw: Callable[..., RawSite], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, given_up = threading.Semaphore(0), threading.Semaphore(0)

    async def hangs(*_: Any) -> socket.socket:
        begun.release()
        try:
            return await asyncio.get_running_loop().create_future()
        finally:
            given_up.release()

    monkeypatch.setattr(upstream, "connect", hangs)
    site = raw(answering(OK))
    proxy = inside(site.port, limit=1)
    for request in (GET % site.url, b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: x\r\n\r\n" % site.port):
        with proxy.connect() as client:
            client.sendall(request)
            assert begun.acquire(timeout=20)
        assert given_up.acquire(timeout=20)
    assert b" 404 " in proxy.ask(b"GET /x HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n" % proxy.port)


@pytest.fixture
def slow_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Semaphore]:
    """Names below .slow keep whoever looks them up waiting; how many do can be counted."""
    waiting, end, real = threading.Semaphore(0), threading.Event(), socket.getaddrinfo

    def look_up(host: str, *more: Any, **options: Any) -> Any:
        if host.endswith(".slow"):
            waiting.release()
            end.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "nobody answers")
        return real(host, *more, **options)

    monkeypatch.setattr(endpoints.socket, "getaddrinfo", look_up)
    yield waiting
    end.set()


def test_name_servers_of_others_do_not_keep_destinations_away(slow_names: threading.Semaphore, raw: Callable[..., RawSite]) -> None:
    site = raw(lambda connection, site: None)
    destination = Destination((Pattern.parse("*.example.com"),), connect=Endpoint("localhost", site.port))
    proxy = Inside(Rules((destination,), passes=True))
    clients = [proxy.connect() for _ in range(upstream._LOOKUPS + 8)]
    try:
        for number, client in enumerate(clients):
            client.sendall(f"GET http://n{number}.slow/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        for _ in range(upstream._LOOKUPS):
            assert slow_names.acquire(timeout=20)
        assert b" 503 " in proxy.ask(b"GET http://a.example.com/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), (
            "no pool, but a site"
        )
        eventually(lambda: site.connections == 1)
    finally:
        for client in clients:
            client.close()
        proxy.close()


def test_an_early_answer_arrives_although_the_client_goes_on(inside: Callable[..., Inside], raw: Callable[..., RawSite]) -> None:
    def talk(connection: socket.socket, site: RawSite) -> None:
        site.read(connection)
        connection.sendall(b"HTTP/1.1 413 Too much\r\nContent-Length: 2\r\n\r\nno")
        site.read(connection, b"never")

    site = raw(talk)
    with inside(site.port).connect() as client:
        client.sendall(b"POST %s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n" % site.url)
        eventually(lambda: site.heard.endswith(b"\r\n\r\n"))
        with suppress(OSError):  # it may have been let go already
            for _ in range(8):
                client.sendall(bytes(65536))
        assert drain(client).endswith(b"\r\n\r\nno")


# --- with a pool -------------------------------------------------------------------------------------------------------------------


def test_an_end_that_an_old_client_could_not_tell(world: ProxyWorld, outside: Outside) -> None:
    """Inside of TLS it sees close_notify, whether the site or an attacker has ended the answer."""
    with inside_tls(world, outside) as secured:
        status, text = asked(secured, "GET /cut-off HTTP/1.0", f"Host: {SITE}")
        assert (status, "could not tell" in text) == (505, True)
    with inside_tls(world, outside) as secured:
        assert asked(secured, "GET / HTTP/1.0", f"Host: {SITE}")[0] == 200
    code, text = outside.curl("-0", f"http://{SITE}/until-the-end")
    assert (code, text) == (0, "all of it\n")
    assert outside.curl("-0", f"http://{SITE}/cut-off")[0] == 56, "a reset"


@pytest.mark.parametrize("name", ["other.example.com", "evil.example.org"])
def test_a_browser_that_asks_for_another_name_in_tls(world: ProxyWorld, outside: Outside, name: str) -> None:
    """The certificate is for the host of CONNECT, and for no other."""
    with pytest.raises(OSError, match=r"(?i)unrecognized.name"), inside_tls(world, outside, name):
        pass


def test_whoever_leaves_during_a_handshake(world: ProxyWorld, outside: Outside) -> None:
    before = outside.descriptors
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", outside.port), timeout=20) as client:
            client.sendall(f"CONNECT {SITE}:443 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert b" 200 " in client.recv(1000)
            client.sendall(b"\x16\x03\x01")
    eventually(lambda: outside.descriptors <= before)
    assert PoolError.__name__ not in outside.log.read_text()
