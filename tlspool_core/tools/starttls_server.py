"""The server's side of STARTTLS: greet a client in plaintext, offer nothing but TLS, and end when it asks for that.

Theory of operation
-------------------
The backend hears nothing of this dialogue: it is connected after TLS has begun, and greets then.  A client of SMTP, IMAP or POP3 does
not expect a greeting after TLS, so `swallow` takes the backend's away; of ManageSieve it does, and gets it.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from xml.sax.saxutils import quoteattr

from tlspool_core.tools import ldap
from tlspool_core.tools.conversation import DIALOGUE_TIME, Conversation, DialogueError, Hangup, printable
from tlspool_core.tools.starttls_client import SSL_REQUEST

Dialogue = Callable[[Conversation, str], Awaitable[None]]
_GSS_REQUEST: Final = (8).to_bytes(4) + (80877104).to_bytes(4)
_FIRST: Final = "TLS first"


async def smtp(talk: Conversation, name: str) -> None:
    """RFC 3207."""
    await talk.say(f"220 {name} ESMTP")
    while True:
        verb, _, rest = (await talk.line()).strip().upper().partition(b" ")
        match verb:
            case b"STARTTLS" if not rest:
                await talk.say("220 ready for TLS")
                return
            case b"EHLO":
                await talk.say(f"250-{name}", "250 STARTTLS")
            case b"HELO" | b"NOOP" | b"RSET":
                await talk.say(f"250 {name}")
            case b"QUIT":
                await talk.say("221 goodbye")
                raise Hangup("the client left without TLS")
            case _:
                await talk.say("530 5.7.0 Must issue a STARTTLS command first")


async def imap(talk: Conversation, name: str) -> None:
    """RFC 9051 section 6.2.1."""
    capabilities = "CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED"
    await talk.say(f"* OK [{capabilities}] {name} ready")
    while True:
        line = await talk.line()
        found = re.fullmatch(rb"([A-Za-z0-9._-]{1,64}) +([A-Za-z]+)(?: .*)?", line)
        if found is None:
            raise DialogueError(f"this is no IMAP command: {printable(line)}")
        tag = found[1].decode()
        match found[2].upper():
            case b"STARTTLS":
                await talk.say(f"{tag} OK begin TLS")
                return
            case b"CAPABILITY":
                await talk.say(f"* {capabilities}", f"{tag} OK")
            case b"NOOP":
                await talk.say(f"{tag} OK nothing")
            case b"LOGOUT":
                await talk.say("* BYE goodbye", f"{tag} OK")
                raise Hangup("the client left without TLS")
            case _:
                await talk.say(f"{tag} NO [PRIVACYREQUIRED] {_FIRST}")


async def pop3(talk: Conversation, name: str) -> None:
    """RFC 2595 section 4."""
    await talk.say(f"+OK {name} ready")
    while True:
        match (await talk.line()).strip().upper():
            case b"STLS":
                await talk.say("+OK begin TLS")
                return
            case b"CAPA":
                await talk.say("+OK", "STLS", ".")
            case b"NOOP":
                await talk.say("+OK")
            case b"QUIT":
                await talk.say("+OK goodbye")
                raise Hangup("the client left without TLS")
            case _:
                await talk.say(f"-ERR {_FIRST}")


async def managesieve(talk: Conversation, name: str) -> None:
    """RFC 5804 section 2.2."""
    capabilities = ('"IMPLEMENTATION" "TLS Pool"', '"SASL" ""', '"SIEVE" ""', '"STARTTLS"', '"VERSION" "1.0"', 'OK "ready"')
    await talk.say(*capabilities)
    while True:
        match (await talk.line()).strip().upper():
            case b"STARTTLS":
                await talk.say('OK "begin TLS"')
                return
            case b"CAPABILITY":
                await talk.say(*capabilities)
            case b"LOGOUT":
                await talk.say('OK "goodbye"')
                raise Hangup("the client left without TLS")
            case _:
                await talk.say(f'NO (ENCRYPT-NEEDED) "{_FIRST}"')


async def ldap_(talk: Conversation, name: str) -> None:
    """RFC 4511 section 4.14; any other request is answered by a notice of disconnection."""
    number, operation, contents = await ldap.read(talk)
    if operation == ldap.UNBIND:
        raise Hangup("the client left without TLS")
    if not ldap.asks_for_tls(operation, contents):
        await talk.send(ldap.response(b"\0", 13, _FIRST, ldap.DISCONNECTION))  # confidentialityRequired
        raise DialogueError("the LDAP client does not ask for TLS")
    await talk.send(ldap.response(number, 0))


async def postgresql(talk: Conversation, name: str) -> None:
    """SSLRequest of the PostgreSQL protocol; encryption by GSSAPI is declined if it is asked for first."""
    asked = await talk.exactly(8)
    if asked == _GSS_REQUEST:
        await talk.send(b"N")
        asked = await talk.exactly(8)
    if asked != SSL_REQUEST:
        fields = f"SFATAL\0VFATAL\0C28000\0M{_FIRST}: use sslmode=require\0\0".encode()
        await talk.send(b"E" + (len(fields) + 4).to_bytes(4) + fields)
        raise DialogueError("the PostgreSQL client does not ask for TLS")
    await talk.send(b"S")


def _xmpp(namespace: str) -> Dialogue:
    async def xmpp(talk: Conversation, name: str) -> None:
        """RFC 6120 section 5.4."""
        opening = await talk.until(b">")
        if opening.lstrip().startswith(b"<?xml"):
            opening = await talk.until(b">")
        if not re.match(rb"\s*<stream:stream\s", opening):
            raise DialogueError(f"this is no XMPP stream: {printable(opening)}")
        streams = "http://etherx.jabber.org/streams"
        features = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>"
        await talk.send(
            f"<?xml version='1.0'?><stream:stream from={quoteattr(name)} id='tls' version='1.0' xmlns='{namespace}'"
            f" xmlns:stream='{streams}'><stream:features>{features}</stream:features>".encode()
        )
        asked = await talk.until(b">")
        if re.fullmatch(rb"\s*<starttls(\s[^<>]*[^/<>])?>", asked):
            asked = asked[:-1] + (await talk.until(b">")).replace(b"</starttls>", b"/>")
        if not re.fullmatch(rb"\s*<starttls\s[^<>]*/>", asked):
            raise DialogueError(f"the XMPP client does not ask for TLS: {printable(asked)}")
        await talk.send(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")

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
_GOOD: Final = {"smtp": rb"220(?=[ -]|$)", "imap": rb"\* OK\b", "pop3": rb"\+OK\b"}


async def begin(protocol: str, sock: socket.socket, name: str) -> None:
    """Talk to a client until it waits for TLS; `name` is what we are called. Raises DialogueError, TimeoutError."""
    talk = Conversation(sock)
    async with asyncio.timeout(DIALOGUE_TIME):
        await DIALOGUES[protocol](talk, name)
    talk.finish()


async def swallow(protocol: str, backend: socket.socket) -> None:
    """Take the backend's greeting away where the client expects none. Raises DialogueError if it is not welcoming."""
    if protocol not in _GOOD:
        return
    talk = Conversation(backend)
    async with asyncio.timeout(DIALOGUE_TIME):
        while True:
            line = await talk.line()
            if not re.match(_GOOD[protocol], line, re.IGNORECASE):
                raise DialogueError(f"the backend does not greet: {printable(line)}")
            if protocol != "smtp" or line[3:4] != b"-":
                break
    talk.finish()
