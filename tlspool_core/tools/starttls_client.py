"""The client's side of STARTTLS: talk to a server in plaintext until it is ready for TLS.

Theory of operation
-------------------
Each dialogue returns what the local application must hear first.  Where a server greets, and does not greet again after TLS has
begun, that is a greeting of our own: the server's came in plaintext, so nothing in it may reach the application.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from xml.sax.saxutils import quoteattr

from tlspool_core.tools import ldap
from tlspool_core.tools.conversation import DIALOGUE_TIME, Conversation, DialogueError, printable

Dialogue = Callable[[Conversation, str], Awaitable[bytes]]
SSL_REQUEST: Final = (8).to_bytes(4) + (80877103).to_bytes(4)


def _refused(line: bytes) -> DialogueError:
    return DialogueError(f"the server does not begin TLS: {printable(line)}")


async def _smtp_reply(talk: Conversation, code: bytes) -> list[bytes]:
    """The lines of a reply, which must have this code (RFC 5321 section 4.2)."""
    lines = []
    while True:
        line = await talk.line()
        if line[:3] != code or line[3:4] not in (b"", b" ", b"-"):
            raise _refused(line)
        lines.append(line[4:])
        if line[3:4] != b"-":
            return lines


async def smtp(talk: Conversation, name: str) -> bytes:
    """RFC 3207."""
    await _smtp_reply(talk, b"220")
    await talk.say(f"EHLO {socket.gethostname()}")
    offered = await _smtp_reply(talk, b"250")
    if b"STARTTLS" not in (line.upper().strip() for line in offered):
        raise DialogueError("the server does not offer STARTTLS")
    await talk.say("STARTTLS")
    await _smtp_reply(talk, b"220")
    return f"220 {name or 'localhost'} ESMTP\r\n".encode()


async def imap(talk: Conversation, name: str) -> bytes:
    """RFC 9051 section 6.2.1. A server that greets with PREAUTH cannot begin TLS any more, and is refused."""
    greeting = await talk.line()
    if not greeting.upper().startswith(b"* OK"):
        raise _refused(greeting)
    await talk.say("a1 STARTTLS")
    while (line := await talk.line()).startswith(b"* "):
        pass
    if not line.upper().startswith(b"A1 OK"):
        raise _refused(line)
    return b"* OK ready\r\n"


async def pop3(talk: Conversation, name: str) -> bytes:
    """RFC 2595 section 4."""
    greeting = await talk.line()
    if not greeting.startswith(b"+OK"):
        raise _refused(greeting)
    await talk.say("STLS")
    answer = await talk.line()
    if not answer.startswith(b"+OK"):
        raise _refused(answer)
    return b"+OK ready\r\n"


async def _sieve_end(talk: Conversation) -> list[bytes]:
    """Lines up to the response OK."""
    lines = []
    while (line := await talk.line())[:2].upper() != b"OK":
        if line[:2].upper() in (b"NO", b"BY"):
            raise _refused(line)
        lines.append(line.upper())
    return lines


async def managesieve(talk: Conversation, name: str) -> bytes:
    """RFC 5804 section 2.2. The server shows its capabilities again in TLS."""
    if b'"STARTTLS"' not in await _sieve_end(talk):
        raise DialogueError("the server does not offer STARTTLS")
    await talk.say("STARTTLS")
    await _sieve_end(talk)
    return b""


async def ldap_(talk: Conversation, name: str) -> bytes:
    """RFC 4511 section 4.14."""
    await talk.send(ldap.request())
    if not ldap.is_success(*await ldap.read(talk)):
        raise DialogueError("the LDAP server does not begin TLS")
    return b""


async def postgresql(talk: Conversation, name: str) -> bytes:
    """SSLRequest of the PostgreSQL protocol, version 3."""
    await talk.send(SSL_REQUEST)
    answer = await talk.exactly(1)
    if answer != b"S":
        raise _refused(answer)
    return b""


def _xmpp(namespace: str) -> Dialogue:
    async def xmpp(talk: Conversation, name: str) -> bytes:
        """RFC 6120 section 5.4. The application opens its stream in TLS."""
        streams = "http://etherx.jabber.org/streams"
        opening = f"<stream:stream to={quoteattr(name)} version='1.0' xmlns='{namespace}' xmlns:stream='{streams}'>"
        await talk.send(f"<?xml version='1.0'?>{opening}".encode())
        features = await talk.until(b"</stream:features>", 8192)
        if not re.search(rb"<starttls[\s/>]", features):
            raise DialogueError("the server does not offer STARTTLS")
        await talk.send(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
        answer = await talk.until(b">")
        if not re.fullmatch(rb"\s*<proceed\s[^<>]*/>", answer):
            raise _refused(answer)
        return b""

    return xmpp


DIALOGUES: Final[Mapping[str, Dialogue]] = {
    "smtp": smtp,
    "imap": imap,
    "pop3": pop3,
    "managesieve": managesieve,
    "ldap": ldap_,
    "postgresql": postgresql,
    "xmpp-client": _xmpp("jabber:client"),
    "xmpp-server": _xmpp("jabber:server"),
}


async def begin(protocol: str, sock: socket.socket, name: str) -> bytes:
    """Lead a server to TLS; `name` is whom we want to reach. Raises DialogueError, TimeoutError."""
    talk = Conversation(sock)
    async with asyncio.timeout(DIALOGUE_TIME):
        first = await DIALOGUES[protocol](talk, name)
    talk.finish()
    return first
