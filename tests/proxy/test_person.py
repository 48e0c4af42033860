"""Does curl reach sites with the person's credential, as long as the token is there, and does it learn when it is not?"""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse

import pytest
from conftest import eventually

from tests.proxy.conftest import SITE, Outside, ProxyWorld, Site, Token

URL = f"https://{SITE}"
GONE = "Your key is not there."
ENDED = 'cause="key gone"'


def page(proxy: Outside, *arguments: str, data: bytes = b"") -> dict[str, object]:
    code, text = proxy.curl(*arguments, data=data)
    assert code == 0, text
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("url", [f"{URL}/a?b", f"http://{SITE}/a?b", f"http://{SITE}:443/a?b"])
def test_the_site_sees_the_credential(outside: Outside, url: str) -> None:
    said = page(outside, "--http1.1", url)
    assert (said["you"], said["path"]) == ("john@example.com", "/a?b")
    headers = dict(said["headers"])  # type: ignore[call-overload]
    assert headers["Host"] == SITE
    assert "tlspool-" in headers["Via"]
    assert not {"Proxy-Connection", "Connection"} & set(headers)


def test_many_requests_use_one_connection(outside: Outside, site: Site) -> None:
    before = site.connections
    code, text = outside.curl("-w", "%{num_connects} %{http_version}\\n", *(f"{URL}/{n}" for n in range(5)))
    assert code == 0
    assert text.count("john@example.com") == 5
    assert [line.rpartition("}")[2] for line in text.splitlines()] == ["1 1.1"] + ["0 1.1"] * 4
    assert site.connections == before + 1
    assert "Alt-Svc" not in outside.curl("-i", URL)[1]


@pytest.mark.parametrize("length", ["known", "unknown"])
def test_a_long_body_is_taken_there(outside: Outside, length: str) -> None:
    data = b"0123456789" * 800_000
    arguments = ["-H", "Expect: 100-continue"] + ["-H", "Transfer-Encoding: chunked"] * (length == "unknown")
    said = page(outside, *arguments, "--data-binary", "@-", f"{URL}/form", data=data)
    assert (said["you"], said["length"], said["ends"]) == ("john@example.com", len(data), "0123456789")
    assert said["expected"] == "100-continue", "curl has waited for it"


def test_a_response_that_ends_with_the_connection(outside: Outside) -> None:
    code, text = outside.curl("-i", f"{URL}/until-the-end")
    assert code == 0
    assert text.endswith("all of it\n")
    assert "chunked" in text, "so that the browser can tell"
    assert outside.curl(f"{URL}/cut-off")[0] == 18, "without close_notify it is a partial file"


@contextmanager
def inside_tls(world: ProxyWorld, proxy: Outside, name: str = SITE) -> Iterator[ssl.SSLSocket]:
    """TLS with what a browser takes for the site; `name` is whom it asks for."""
    context = ssl.create_default_context(cafile=str(world.authority))
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as sock:
        sock.sendall(f"CONNECT {SITE}:443 HTTP/1.1\r\nHost: {SITE}:443\r\n\r\n".encode())
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
        with context.wrap_socket(sock, server_hostname=name) as secured:
            yield secured


def asked(secured: ssl.SSLSocket, *lines: str) -> tuple[int, str]:
    """Status and body of the answer to a request."""
    secured.sendall("\r\n".join((*lines, "", "")).encode())
    with HTTPResponse(secured) as answer:
        answer.begin()
        return answer.status, answer.read().decode()


def test_websocket(world: ProxyWorld, outside: Outside) -> None:
    with inside_tls(world, outside) as secured:
        upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x")
        secured.sendall("\r\n".join(("GET / HTTP/1.1", f"Host: {SITE}", *upgrade, "", "")).encode())
        assert b" 101 " in secured.recv(10_000)
        secured.sendall(b"hello")
        assert secured.recv(100) == b"hello"


@pytest.mark.parametrize(
    ("line", "host", "status"),
    [
        ("GET / HTTP/1.1", "other.example.com", 421),
        ("GET https://other.example.com/ HTTP/1.1", SITE, 421),
        (f"GET http://{SITE}/ HTTP/1.1", SITE, 400),
        (f"CONNECT {SITE}:443 HTTP/1.1", SITE, 405),
        ("TRACE / HTTP/1.1", SITE, 405),
        (f"GET https://{SITE}:443/x HTTP/1.1", "elsewhere", 200),
    ],
)
def test_a_browser_may_not_ask_for_another_site_inside(
    world: ProxyWorld, outside: Outside, line: str, host: str, status: int
) -> None:
    with inside_tls(world, outside) as secured:
        assert asked(secured, line, f"Host: {host}")[0] == status


def test_what_is_not_configured_is_refused(outside: Outside) -> None:
    code, text = outside.curl("https://elsewhere.example.org/")
    assert code and "403" in text
    code, text = outside.curl("http://elsewhere.example.org/")
    assert "not among the configured destinations" in text
    assert outside.curl("-o", "/dev/null", "-w", "%{http_code}", "http://elsewhere.example.org/")[1] == "403"


def test_the_site_must_prove_itself(outside: Outside) -> None:
    code, text = outside.curl("-i", "https://another.example.com/")
    assert code == 0
    assert text.startswith("HTTP/1.1 200 Connection established")
    assert "HTTP/1.1 502" in text and "did not prove who it is" in text
    assert "error=tls_certificate_error" in text


# --- the token --------------------------------------------------------------------------------------------------------------------


def test_pulled_and_plugged(world: ProxyWorld, outside: Outside, token: Token) -> None:
    assert page(outside, URL)["you"] == "john@example.com"
    token.pull()
    eventually(lambda: GONE in outside.curl(URL)[1])
    code, text = outside.curl("-i", URL)
    assert code == 0, "the page itself is trusted"
    assert "HTTP/1.1 503" in text
    assert "token 'pool' is not there, plug it in" in text
    assert "text/plain" in text and "error=proxy_configuration_error" in text
    code, text = outside.curl("-i", "-H", "Accept: text/html", f"http://{SITE}/")
    assert "<h1>Your key is not there.</h1>" in text
    assert "token &#x27;pool&#x27; is not there" in text
    assert "Refresh: 5" in text
    token.plug()
    eventually(lambda: "john@example.com" in outside.curl(URL)[1], 30)


def test_pulled_during_a_transfer(world: ProxyWorld, outside: Outside, token: Token) -> None:
    with subprocess.Popen(outside.command("-N", f"{URL}/endless"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as transfer:
        assert transfer.stdout is not None
        assert transfer.stdout.readline() == b"more\n"
        token.pull()
        _, errors = transfer.communicate(timeout=20)
    assert transfer.returncode == 18, errors  # a partial file: it does not look like a whole one
    eventually(lambda: ENDED in world.daemon.text)


def test_pulled_between_requests_of_one_connection(world: ProxyWorld, outside: Outside, token: Token) -> None:
    lines = ("GET / HTTP/1.1", f"Host: {SITE}", "Accept: text/html")
    with inside_tls(world, outside) as secured:
        assert asked(secured, *lines)[0] == 200
        before = world.daemon.text.count(ENDED)
        token.pull()
        eventually(lambda: world.daemon.text.count(ENDED) > before)
        status, text = asked(secured, *lines)
        assert (status, GONE in text) == (503, True)
        token.plug()
        eventually(lambda: asked(secured, *lines)[0] == 200, 30)


def test_the_issuing_token_pulled(world: ProxyWorld, outside: Outside) -> None:
    """Then no browser can be shown anything."""
    assert page(outside, URL)
    world.machine.pull()
    try:
        eventually(lambda: outside.curl(URL)[0] and "token 'machine' is not there" in outside.log.read_text(), 20)
    finally:
        world.machine.plug()
    eventually(lambda: outside.curl(URL)[0] == 0, 30)


# --- itself -----------------------------------------------------------------------------------------------------------------------


def test_its_own_pages(world: ProxyWorld, outside: Outside) -> None:
    ours = f"http://127.0.0.1:{outside.port}"

    def fetch(*arguments: str) -> str:
        return subprocess.run(["curl", "-sSi", *arguments], capture_output=True, text=True, timeout=20, check=True).stdout

    assert f'"PROXY 127.0.0.1:{outside.port}"' in fetch(f"{ours}/proxy.pac")
    assert world.authority.read_text() in fetch(f"{ours}/authority.crt").replace("\r\n", "\n")
    assert "/proxy.pac" in fetch(f"{ours}/")
    assert " 404 " in fetch(f"{ours}/etc")
    assert " 405 " in fetch("-X", "POST", f"{ours}/proxy.pac")
    assert " 421 " in fetch("-H", f"Host: evil.example.com:{outside.port}", f"{ours}/proxy.pac")


def test_nothing_is_left_behind(outside: Outside) -> None:
    page(outside, URL)
    before = outside.descriptors
    for _ in range(5):
        page(outside, URL)
        outside.curl("https://another.example.com/")
        outside.curl("--max-time", "0.3", f"{URL}/endless")
    eventually(lambda: outside.descriptors <= before)
