"""Whom does an entrance let in, and can anything but what was proven reach the application by the names of proof?"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest

from tlspool_core.client import aio, web
from tlspool_core.client.proxy_header import Facts, header

SENT = header(Facts(socket.AF_UNSPEC, None, None, "www.example.com", "mary@example.com", "TLSv1.3", "x", "http/1.1"))


class Connected(socket.socket):
    """A socket whose other end is another user's."""

    def getsockopt(self, level: int, option: int, size: int = 0) -> Any:  # type: ignore[override]
        return struct.pack("iII", 1, 4711, 4711) if option == socket.SO_PEERCRED else super().getsockopt(level, option, size)


def enter(entrance: web.Entrance, data: bytes, *, other: bool = False) -> tuple[web.Arrival, bytes]:
    ours, theirs = socket.socketpair()
    sock = Connected(fileno=ours.detach()) if other else ours
    try:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        arrival = asyncio.run(entrance.admit(sock))
        with arrival.socket as plain:
            return arrival, plain.recv(100)
    finally:
        assert sock.fileno() == -1, "who is not let in is closed"
        theirs.close()


def test_the_header_is_taken_and_no_byte_more() -> None:
    arrival, rest = enter(web.ByTunnel(), SENT + b"GET /")
    assert arrival.proven == web.Proven("www.example.com", "mary@example.com", "http", "TLSv1.3", "x", "http/1.1")
    assert rest == b"GET /"


def test_other_users_are_tunnels_only_by_name() -> None:
    with pytest.raises(PermissionError, match="user 4711 is not trusted"):
        enter(web.ByTunnel(), SENT, other=True)
    arrival, _ = enter(web.ByTunnel(uids={4711}), SENT, other=True)
    assert arrival.proven is not None


@pytest.mark.parametrize("data", [b"", SENT[:10], SENT[:-1]])
def test_a_header_that_ends_early(data: bytes) -> None:
    with pytest.raises(ConnectionResetError):
        enter(web.ByTunnel(), data)


def test_a_wrong_header() -> None:
    with pytest.raises(ConnectionAbortedError, match="does not begin with"):
        enter(web.ByTunnel(), b"GET / HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize(("told", "other"), [(b"mary@example.com", b"eva1@example.com"), (b"www.example.com", b"xyz.example.com")])
def test_a_header_that_contradicts_itself(told: bytes, other: bytes) -> None:
    """Names stand in it twice: for us, and for other backends."""
    assert SENT.count(told) == 2
    place = SENT.index(told)
    with pytest.raises(ConnectionAbortedError, match="names somebody else than the identity"):
        enter(web.ByTunnel(), SENT[:place] + other + SENT[place + len(told) :])


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_an_address_is_named_once_for_both_kinds_of_sockets(family: int) -> None:
    """A server that listens for IPv6 and IPv4 at once sees 10.0.0.1 as ::ffff:10.0.0.1."""
    host = "127.0.0.1" if family == socket.AF_INET else "::"
    with socket.create_server((host, 0), family=family, dualstack_ipv6=family == socket.AF_INET6) as listener:
        for peers, welcome in ((("127.0.0.0/8",), True), (("10.0.0.0/8", "::1"), False)):
            with socket.create_connection(("127.0.0.1", listener.getsockname()[1])) as tunnel:
                tunnel.sendall(SENT)
                admitted = web.ByTunnel(peers=peers).admit(listener.accept()[0])
                if welcome:
                    asyncio.run(admitted).socket.close()
                    continue
                with pytest.raises(PermissionError, match=r"127\.0\.0\.1 is not trusted"):
                    asyncio.run(admitted)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ECONNRESET])
def test_what_keeps_everybody_out_is_told_aloud(
    number: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "_complained", 0.0)
    with caplog.at_level("INFO"):
        web.log_refusal(OSError(number, "trouble"))
    assert ("nobody gets in" in caplog.text) is (number != errno.ECONNRESET)


def test_mistakes_of_configuration_are_seen_at_once() -> None:
    with pytest.raises(ValueError, match="requested"):
        web.ByPool(remote_identity="perhaps")
    with pytest.raises(ValueError, match="local"):
        web.ByTunnel(peers=("localhost",))


def test_no_pool(tmp_path: Any) -> None:
    with pytest.raises(ConnectionError, match="No TLS Pool"):
        enter(web.ByPool(path=str(tmp_path / "none")), b"")


@pytest.mark.parametrize("remoteid", ["", "mary@example.com"])
def test_the_name_in_a_certificate_is_told_of_who_was_accepted_only(remoteid: str) -> None:
    session = SimpleNamespace(localid="www.example.com", remoteid=remoteid, service="http", text=AsyncMock(return_value="CN=admin"))
    proven = asyncio.run(web._proven(cast(aio.Session, session)))
    assert proven.extensions()["tls"]["client_cert_name"] == ("CN=admin" if remoteid else None)


def test_variables_are_the_proof_or_are_not_there() -> None:
    claims: dict[str, Any] = dict.fromkeys(("REMOTE_USER", "AUTH_TYPE", "TLSPOOL_REMOTEID", "TLSPOOL_ALPN"), "eve")
    environ = dict(claims) | {"HTTP_REMOTE_USER": "eve", "wsgi.url_scheme": "http"}
    web.tell_wsgi(environ, None)
    assert environ == {"HTTP_REMOTE_USER": "eve", "wsgi.url_scheme": "http"}
    web.tell_wsgi(environ, web.Proven("www.example.com"))
    assert "REMOTE_USER" not in environ
    assert (environ["wsgi.url_scheme"], environ["TLSPOOL_LOCALID"]) == ("https", "www.example.com")
    web.tell_wsgi(environ, web.Proven("www.example.com", "andré@example.com"))
    assert environ["REMOTE_USER"].encode("latin-1").decode() == "andré@example.com"


def test_our_own_user_is_a_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert enter(web.ByTunnel(), SENT, other=True)[0].proven is not None
