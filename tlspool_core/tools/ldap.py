"""As much of LDAP (RFC 4511) as StartTLS needs: one extended request, and its answer, in BER."""

from __future__ import annotations

from typing import Final

from tlspool_core.tools.conversation import Conversation, DialogueError

START_TLS: Final = b"1.3.6.1.4.1.1466.20037"  # RFC 4511 section 4.14
DISCONNECTION: Final = b"1.3.6.1.4.1.1466.20036"  # section 4.4.1
UNBIND: Final = 0x42
REQUEST: Final = 0x77  # ExtendedRequest
RESPONSE: Final = 0x78
_NAME_IN_REQUEST: Final = 0x80
_NAME_IN_RESPONSE: Final = 0x8A
_LONGEST: Final = 4096


def element(tag: int, value: bytes) -> bytes:
    """One element in definite form; values here are short."""
    assert len(value) < 128
    return bytes((tag, len(value))) + value


def split(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag, value and what follows. Raises DialogueError."""
    if len(data) < 2:
        raise DialogueError("an LDAP message ends too early")
    length, at = data[1], 2
    if length & 0x80:
        at += length & 0x7F
        length = int.from_bytes(data[2:at])
        if not 2 < at <= 6:
            raise DialogueError("an LDAP message with a length of no good form")
    if len(data) < at + length:
        raise DialogueError("an LDAP message ends too early")
    return data[0], data[at : at + length], data[at + length :]


async def read(talk: Conversation) -> tuple[bytes, int, bytes]:
    """The next message: its number as it stands, operation, and the operation's contents. Raises DialogueError."""
    head = await talk.exactly(2)
    length = head[1]
    if length & 0x80:
        if not 1 <= length & 0x7F <= 4:
            raise DialogueError("an LDAP message with a length of no good form")
        length = int.from_bytes(await talk.exactly(length & 0x7F))
    if head[0] != 0x30 or length > _LONGEST:
        raise DialogueError("this is no LDAP message, or a very large one")
    tag, number, rest = split(await talk.exactly(length))
    if tag != 2 or not 1 <= len(number) <= 4:
        raise DialogueError("an LDAP message without a number")
    operation, contents, _ = split(rest)
    return number, operation, contents


def request() -> bytes:
    """The request for TLS, as message 1."""
    return element(0x30, element(2, b"\1") + element(REQUEST, element(_NAME_IN_REQUEST, START_TLS)))


def response(number: bytes, result: int, words: str = "", name: bytes = START_TLS) -> bytes:
    """An answer; result 0 is success."""
    body = element(0x0A, bytes((result,))) + element(4, b"") + element(4, words.encode()) + element(_NAME_IN_RESPONSE, name)
    return element(0x30, element(2, number) + element(RESPONSE, body))


def asks_for_tls(operation: int, contents: bytes) -> bool:
    """Whether an operation is the request for TLS. Raises DialogueError."""
    return operation == REQUEST and split(contents) == (_NAME_IN_REQUEST, START_TLS, b"")


def is_success(number: bytes, operation: int, contents: bytes) -> bool:
    """Whether an operation is the good answer to `request()`. Raises DialogueError."""
    return (int.from_bytes(number), operation) == (1, RESPONSE) and split(contents)[:2] == (0x0A, b"\0")
