"""Does each STARTTLS dialogue come to TLS by its RFC, and refuse whatever came in plaintext that would count afterwards?"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from tests.fuzz.dialogues import GREETINGS, NAME, client_says, server_says
from tlspool_core.tools import ldap, starttls_client, starttls_server
from tlspool_core.tools.conversation import LINES, TOTAL, DialogueError, Hangup

SERVER_SAYS, CLIENT_SAYS = server_says(), client_says()
EVE = {"ldap": ldap.request(), "postgresql": b"eve", "xmpp-client": b"<message/>", "xmpp-server": b"<message/>"}


def hold(dialogue: Callable[[socket.socket], Awaitable[bytes | None]], said: bytes) -> tuple[bytes, bytes | None]:
    """What we said while the other side says this and hangs up, and what came out."""

    async def talk(ours: socket.socket) -> bytes | None:
        ours.setblocking(False)
        return await dialogue(ours)

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        outcome = asyncio.run(talk(ours))
        ours.shutdown(socket.SHUT_WR)
        return theirs.makefile("rb").read(), outcome


def as_client(protocol: str, said: bytes) -> tuple[bytes, bytes | None]:
    return hold(lambda sock: starttls_client.begin(protocol, sock, NAME), said)


def as_server(protocol: str, said: bytes) -> tuple[bytes, bytes | None]:
    return hold(lambda sock: starttls_server.begin(protocol, sock, NAME), said)


@pytest.mark.parametrize("protocol", starttls_client.DIALOGUES)
def test_both_sides_come_to_tls(protocol: str) -> None:
    said, first = as_client(protocol, SERVER_SAYS[protocol])
    assert first in GREETINGS
    assert said or protocol == "postgresql"
    answered, _ = as_server(protocol, CLIENT_SAYS[protocol])
    assert answered


@pytest.mark.parametrize("protocol", starttls_client.DIALOGUES)
def test_plaintext_that_is_left_is_refused(protocol: str) -> None:
    """CVE-2011-0411: what stands behind the last word before TLS would be taken for the first word in it."""
    for side, says in ((as_client, SERVER_SAYS), (as_server, CLIENT_SAYS)):
        with pytest.raises(DialogueError, match="plaintext after STARTTLS"):
            side(protocol, says[protocol] + EVE.get(protocol, b"EVE 1\r\n"))


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ("smtp", b"220 a\r\n250 PIPELINING\r\n220 go\r\n"),
        ("smtp", b"220 a\r\n250-NOSTARTTLS\r\n250 XSTARTTLS\r\n220 go\r\n"),
        ("smtp", b"220 a\r\n250 STARTTLS\r\n454 not now\r\n"),
        ("smtp", b"554 go away\r\n"),
        ("smtp", b"2200 a\r\n250 STARTTLS\r\n220 go\r\n"),
        ("imap", b"* PREAUTH hi\r\na1 OK go\r\n"),
        ("imap", b"* BYE\r\n"),
        ("imap", b"* OK hi\r\na1 NO\r\n"),
        ("imap", b"* OK hi\r\na2 OK go\r\n"),
        ("pop3", b"+OK hi\r\n-ERR no\r\n"),
        ("managesieve", b'"SIEVE" "x"\r\nOK\r\nOK\r\n'),
        ("managesieve", b'"STARTTLS"\r\nOK\r\nNO\r\n'),
        ("ldap", ldap.response(b"\1", 52)),
        ("ldap", ldap.response(b"\2", 0)),
        ("postgresql", b"N"),
        ("postgresql", b"E"),
        ("xmpp-client", b"<stream:stream><stream:features><bind/></stream:features>"),
        ("xmpp-client", b"<stream:stream><stream:features><starttls-not/></stream:features>"),
        ("xmpp-client", b"<stream:stream><stream:features><starttls/></stream:features><failure xmlns='x'/>"),
        ("xmpp-client", b"<stream:stream><stream:features><starttls/></stream:features><!--<proceed/>-->"),
    ],
)
def test_a_server_that_does_not_begin_tls(protocol: str, said: bytes) -> None:
    """Nothing is taken for consent that is none: no session comes about in plaintext either, as there is none without TLS."""
    with pytest.raises(DialogueError):
        as_client(protocol, said)


@pytest.mark.parametrize(
    ("protocol", "word", "last"),
    [("smtp", b"NOOP\r\n", b"STARTTLS\r\n"), ("pop3", b"NOOP\r\n", b"STLS\r\n"), ("imap", b"a NOOP\r\n", b"b STARTTLS\r\n")],
)
def test_a_client_does_not_talk_for_ever(protocol: str, word: bytes, last: bytes) -> None:
    assert as_server(protocol, word * (LINES - 1) + last)
    with pytest.raises(DialogueError, match="too long"):
        as_server(protocol, word * LINES + last)
    with pytest.raises(DialogueError, match="too much"):
        as_server(protocol, (word[:-2] + b" " * 1000 + b"\r\n") * (TOTAL // 1000 + 1) + last)


@pytest.mark.parametrize(
    ("protocol", "said"), [("smtp", b"QUIT\r\n"), ("imap", b"a LOGOUT\r\n"), ("pop3", b"QUIT\r\n"), ("managesieve", b"LOGOUT\r\n")]
)
def test_a_client_that_takes_its_leave(protocol: str, said: bytes) -> None:
    with pytest.raises(Hangup):
        as_server(protocol, said)


@pytest.mark.parametrize(
    ("protocol", "greeting"),
    [("smtp", b"554 no\r\n"), ("smtp", b"220 a\r\nMAIL\r\n"), ("imap", b"* BYE\r\n"), ("pop3", b"-ERR\r\n")],
)
def test_a_backend_that_does_not_greet(protocol: str, greeting: bytes) -> None:
    with pytest.raises(DialogueError):
        hold(lambda sock: starttls_server.swallow(protocol, sock), greeting)
