"""Is every departure from TLS 1.3's message flow refused: left out, repeated, swapped, cut, lengthened, misplaced?

Each test lets one side send something else than it believes to send, at one message, and looks at the alert of the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tlspool_core.testing.peers import Answers, Pair, software_credential
from tlspool_core.tls import TlsConnection
from tlspool_core.tls.alerts import AlertDescription, AlertReceived
from tlspool_core.tls.enums import HandshakeType
from tlspool_core.tls.questions import ClientAuth

SERVER_FLOW = [
    HandshakeType.SERVER_HELLO,
    HandshakeType.ENCRYPTED_EXTENSIONS,
    HandshakeType.CERTIFICATE_REQUEST,
    HandshakeType.CERTIFICATE,
    HandshakeType.CERTIFICATE_VERIFY,
    HandshakeType.FINISHED,
]
CLIENT_FLOW = [HandshakeType.CLIENT_HELLO, HandshakeType.CERTIFICATE, HandshakeType.CERTIFICATE_VERIFY, HandshakeType.FINISHED]
FLOWS = [("server", kind) for kind in SERVER_FLOW] + [("client", kind) for kind in CLIENT_FLOW]
# what could follow where: a message of each kind, of no sensible content
STRAY = [kind for kind in HandshakeType if kind is not HandshakeType.MESSAGE_HASH] + [99]

UNEXPECTED = AlertDescription.UNEXPECTED_MESSAGE
DECODE = AlertDescription.DECODE_ERROR

Tamper = Callable[[bytes], list[bytes]]


def run(make: Any, tampering: Any, side: str, tamper: Tamper) -> tuple[Pair, TlsConnection]:
    """A handshake with client authentication in which one side's messages are changed; returns the other side as well."""
    client, server = make.client(), make.server()
    ours = Answers(credentials=(software_credential("ed25519", "client"),))
    theirs = make.answers(client_auth=ClientAuth.REQUIRE)
    keep: Tamper = lambda message: [message]  # noqa: E731
    pair = Pair(
        tampering(client, tamper if side == "client" else keep),
        tampering(server, tamper if side == "server" else keep),
        ours,
        theirs,
    )
    pair.run()
    return pair, pair.client if side == "server" else pair.server


def refusal(make: Any, tampering: Any, side: str, tamper: Tamper) -> AlertDescription | None:
    """The alert of the side that was lied to; the liar must have received the same."""
    pair, victim = run(make, tampering, side, tamper)
    assert victim.failed is not None, "not noticed"
    assert not isinstance(victim.failed, AlertReceived), victim.failed
    liar = pair.client if side == "client" else pair.server
    if isinstance(liar.failed, AlertReceived):
        assert liar.failed.received == victim.failed.alert
    return victim.failed.alert


def at(kind: int, change: Callable[[bytes], list[bytes]]) -> Tamper:
    return lambda message: change(message) if message[0] == kind else [message]


def test_nothing_changed(make: Any, tampering: Any) -> None:
    pair, _ = run(make, tampering, "client", lambda message: [message])
    assert pair.complete


@pytest.mark.parametrize(("side", "kind"), FLOWS)
def test_left_out(make: Any, tampering: Any, side: str, kind: int) -> None:
    if kind in (HandshakeType.CLIENT_HELLO, HandshakeType.FINISHED):
        _, victim = run(make, tampering, side, at(kind, lambda message: []))
        assert not victim.handshake_complete  # nothing follows, so it waits
        return
    alert = refusal(make, tampering, side, at(kind, lambda message: []))
    if side == "server" and kind == HandshakeType.SERVER_HELLO:
        assert alert == UNEXPECTED  # records under keys, in the clear phase
    elif kind == HandshakeType.CERTIFICATE_REQUEST:
        assert alert == AlertDescription.DECRYPT_ERROR  # the flow is that of a server that does not ask; the signature tells
    else:
        assert alert == UNEXPECTED


@pytest.mark.parametrize(("side", "kind"), FLOWS)
def test_repeated(make: Any, tampering: Any, side: str, kind: int) -> None:
    # after a message that changes the keys, what is repeated comes too late to be read under the old ones
    assert refusal(make, tampering, side, at(kind, lambda message: [message, message])) == UNEXPECTED


@pytest.mark.parametrize("stray", STRAY, ids=str)
@pytest.mark.parametrize(("side", "kind"), FLOWS)
def test_stray_message_before(make: Any, tampering: Any, side: str, kind: int, stray: int) -> None:
    """A message of each other kind in front: only what may stand there gets as far as being parsed."""
    alert = refusal(make, tampering, side, at(kind, lambda message: [bytes((stray, 0, 0, 0)), message]))
    if stray == kind and stray != HandshakeType.FINISHED:
        assert alert == DECODE
    elif stray == kind:
        assert alert == AlertDescription.DECRYPT_ERROR
    elif (side, kind, stray) == ("server", HandshakeType.CERTIFICATE_REQUEST, HandshakeType.CERTIFICATE):
        assert alert == DECODE
    else:
        assert alert == UNEXPECTED


@pytest.mark.parametrize(
    ("side", "kind"), [("server", kind) for kind in SERVER_FLOW[1:-1]] + [("client", kind) for kind in CLIENT_FLOW[1:-1]]
)
def test_swapped_with_the_next(make: Any, tampering: Any, side: str, kind: int) -> None:
    held: list[bytes] = []

    def swap(message: bytes) -> list[bytes]:
        if message[0] == kind and not held:
            held.append(message)
            return []
        return [message, held.pop()] if held else [message]

    alert = refusal(make, tampering, side, swap)
    assert alert in (UNEXPECTED, AlertDescription.DECRYPT_ERROR)
    if kind != HandshakeType.CERTIFICATE_REQUEST:
        assert alert == UNEXPECTED


def with_length(kind: int, body: bytes) -> bytes:
    return bytes((kind,)) + len(body).to_bytes(3, "big") + body


@pytest.mark.parametrize(("side", "kind"), FLOWS)
def test_trailing_byte(make: Any, tampering: Any, side: str, kind: int) -> None:
    alert = refusal(make, tampering, side, at(kind, lambda message: [with_length(kind, message[4:] + b"\0")]))
    assert alert == (AlertDescription.DECRYPT_ERROR if kind == HandshakeType.FINISHED else DECODE)


@pytest.mark.parametrize(("side", "kind"), FLOWS)
def test_every_prefix(make: Any, tampering: Any, side: str, kind: int) -> None:
    """A message cut anywhere (here: at a few places of each) with a header that agrees."""
    for cut in (1, 2, 5, 17):
        alert = refusal(make, tampering, side, at(kind, lambda message, cut=cut: [with_length(kind, message[4:-cut])]))
        assert alert == (AlertDescription.DECRYPT_ERROR if kind == HandshakeType.FINISHED else DECODE)


@pytest.mark.parametrize("kind", [HandshakeType.CERTIFICATE_VERIFY, HandshakeType.FINISHED])
@pytest.mark.parametrize("side", ["client", "server"])
def test_flipped_proof(make: Any, tampering: Any, side: str, kind: int) -> None:
    alert = refusal(make, tampering, side, at(kind, lambda message: [message[:-1] + bytes((message[-1] ^ 1,))]))
    assert alert == AlertDescription.DECRYPT_ERROR


@pytest.mark.parametrize("kind", STRAY, ids=str)
@pytest.mark.parametrize("side", ["client", "server"])
def test_after_the_handshake(make: Any, side: str, kind: int) -> None:
    """Of handshake messages, only KeyUpdate, and at the client NewSessionTicket, may come later without being asked for."""
    pair = make.established()
    sender, receiver = (pair.client, pair.server) if side == "client" else (pair.server, pair.client)
    sender._channel.queue(bytes((kind, 0, 0, 0)))
    pair.run()
    allowed = {HandshakeType.KEY_UPDATE, *({HandshakeType.NEW_SESSION_TICKET} if side == "server" else ())}
    if side == "server":
        allowed.add(HandshakeType.CERTIFICATE_REQUEST)
    assert receiver.failed is not None
    assert receiver.failed.alert == (DECODE if kind in allowed else UNEXPECTED)


def test_no_handshake_bytes_across_a_key_change(make: Any, tampering: Any) -> None:
    """RFC 8446 section 5.1: a message must not share a record with one that ends its keys."""
    finished = at(HandshakeType.FINISHED, lambda message: [message, b"\x18\0\0\x01\0"])
    for side in ("client", "server"):
        assert refusal(make, tampering, side, finished) == UNEXPECTED
    hello = at(HandshakeType.SERVER_HELLO, lambda message: [message, b"\x08"])
    assert refusal(make, tampering, "server", hello) == UNEXPECTED
