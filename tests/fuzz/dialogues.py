"""Targets for what tools read in plaintext before TLS: STARTTLS dialogues of both sides, and the PROXY protocol's header.

Theory of operation
-------------------
A dialogue runs over a socket pair; the other side says all that it has to say, and hangs up.  It comes to TLS, or refuses with the one
error that it declares.  What it then says to a local application must not have come from the other side, as nobody vouches for that.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from tests.fuzz.target import Target
from tlspool_core.client import proxy_header
from tlspool_core.tools import ldap, starttls_client, starttls_server
from tlspool_core.tools.conversation import TOTAL, DialogueError

NAME = "host.example.com"
CLIENTS, SERVERS = tuple(starttls_client.DIALOGUES), tuple(starttls_server.DIALOGUES)
GREETERS = ("smtp", "imap", "pop3")
GREETINGS = (f"220 {NAME} ESMTP\r\n".encode(), b"* OK ready\r\n", b"+OK ready\r\n", b"")


async def _talk(dialogue: Callable[[socket.socket], Awaitable[object]], said: bytes) -> object:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.send(said)
        theirs.shutdown(socket.SHUT_WR)
        outcome = await dialogue(ours)
        with suppress(BlockingIOError):
            assert not ours.recv(1), "TLS begins, and plaintext is left"
        theirs.setblocking(False)
        with suppress(BlockingIOError):
            assert len(theirs.recv(1 << 20)) <= 4 * TOTAL
        return outcome


def starttls_servers(data: bytes) -> None:
    """Our client's side of a dialogue. First byte: which protocol; the rest is what the server says."""
    protocol = CLIENTS[data[0] % len(CLIENTS)]
    with suppress(DialogueError):
        first = asyncio.run(_talk(lambda sock: starttls_client.begin(protocol, sock, NAME), data[1:]))
        assert first in GREETINGS


def starttls_clients(data: bytes) -> None:
    """Our server's side, and what it takes away of a backend's greeting. First byte: which; the rest is what the other one says."""
    number = data[0] % (len(SERVERS) + len(GREETERS))
    with suppress(DialogueError):
        if number < len(SERVERS):
            asyncio.run(_talk(lambda sock: starttls_server.begin(SERVERS[number], sock, NAME), data[1:]))
        else:
            asyncio.run(_talk(lambda sock: starttls_server.swallow(GREETERS[number - len(SERVERS)], sock), data[1:]))


def server_says() -> dict[str, bytes]:
    """What leads our client's side to TLS, by protocol."""
    proceed = b"<stream:features><starttls xmlns='x'/></stream:features><proceed xmlns='x'/>"
    return {
        "smtp": b"220-a\r\n220 b\r\n250-c\r\n250-SIZE 1\r\n250 STARTTLS\r\n220 go\r\n",
        "imap": b"* OK [CAPABILITY IMAP4rev1] hi\r\n* CAPABILITY X\r\na1 OK go\r\n",
        "pop3": b"+OK hi\r\n+OK go\r\n",
        "managesieve": b'"SIEVE" "x"\r\n"STARTTLS"\r\nOK\r\nOK "go"\r\n',
        "ldap": ldap.response(b"\1", 0),
        "postgresql": b"S",
        "xmpp-client": b"<?xml version='1.0'?><stream:stream id='1'>" + proceed,
        "xmpp-server": b"<stream:stream id='1'>" + proceed,
    }


def server_seeds() -> Iterable[bytes]:
    for protocol, said in server_says().items():
        yield bytes((CLIENTS.index(protocol),)) + said
    yield b"\0" + b"220 b\r\n250 STARTTLS\r\n220 go\r\nMAIL FROM:<eve@example.com>\r\n"
    yield b"\1" + b"* PREAUTH hi\r\n"


def client_says() -> dict[str, bytes]:
    """What leads our server's side to TLS, by protocol."""
    opening = b"<?xml version='1.0'?><stream:stream to='host' xmlns:stream='y'>"
    return {
        "smtp": b"EHLO me\r\nMAIL FROM:<a@b>\r\nSTARTTLS\r\n",
        "imap": b"a CAPABILITY\r\nb LOGIN c d\r\ne STARTTLS\r\n",
        "pop3": b"CAPA\r\nUSER a\r\nSTLS\r\n",
        "managesieve": b'CAPABILITY\r\nAUTHENTICATE "PLAIN"\r\nSTARTTLS\r\n',
        "ldap": ldap.request(),
        "postgresql": starttls_server._GSS_REQUEST + starttls_client.SSL_REQUEST,
        "xmpp-client": opening + b"<starttls xmlns='x'/>",
        "xmpp-server": opening + b"<starttls xmlns='x'></starttls>",
    }


def client_seeds() -> Iterable[bytes]:
    for protocol, said in client_says().items():
        yield bytes((SERVERS.index(protocol),)) + said
    yield b"\0" + b"STARTTLS\r\nMAIL FROM:<eve@example.com>\r\n"
    for number, greeting in enumerate((b"220-a\r\n220 b\r\n", b"* OK a\r\n", b"+OK a\r\n")):
        yield bytes((len(SERVERS) + number,)) + greeting


def proxy_protocol(data: bytes) -> None:
    """A header as a backend of ours gets it. What it tells can be told again, and is taken then for the same."""
    fixed, body = data[: proxy_header.FIXED_SIZE], data[proxy_header.FIXED_SIZE :]
    try:
        facts = proxy_header.parse(fixed, body[: proxy_header.body_size(fixed)])
    except proxy_header.MalformedHeader:
        return
    if facts is not None:
        assert facts.secure or not facts.remoteid
        again = proxy_header.header(facts)
        assert proxy_header.parse(again[: proxy_header.FIXED_SIZE], again[proxy_header.FIXED_SIZE :]) == facts


def header_seeds() -> Iterable[bytes]:
    for family, source, target in (
        (socket.AF_INET, ("192.0.2.1", 1), ("192.0.2.2", 2)),
        (socket.AF_INET6, ("2001:db8::1", 1), ("2001:db8::2", 2)),
        (socket.AF_UNIX, "", ""),
    ):
        for remoteid in ("", "john@example.com"):
            yield proxy_header.header(proxy_header.Facts(family, source, target, NAME, remoteid, "TLSv1.3", "SUITE", "h2"))
    yield proxy_header.header(proxy_header.Facts(socket.AF_UNIX, "", "", secure=False))
    yield proxy_header.SIGNATURE + b"\x20\0\0\0"


TARGETS = (
    Target("starttls_servers", starttls_servers, server_seeds, 10),
    Target("starttls_clients", starttls_clients, client_seeds, 10),
    Target("proxy_protocol", proxy_protocol, header_seeds),
)
