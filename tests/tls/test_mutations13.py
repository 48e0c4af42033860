"""Does a handshake whose messages are damaged before encryption ever succeed, or end in anything but an alert of the other side?

Bytes are flipped, dropped, repeated, inserted and cut in one message of either side; then everything that follows is honest.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from tlspool_core.testing.peers import Answers, Pair, software_credential
from tlspool_core.tls import alerts
from tlspool_core.tls.enums import HandshakeType
from tlspool_core.tls.messages import frame
from tlspool_core.tls.questions import ClientAuth

ROUNDS = 400


def damage(chance: random.Random, body: bytes) -> bytes:
    """The body with one fault in it; never the same as before."""
    position = chance.randrange(len(body) + 1)
    kind = chance.randrange(6)
    if kind == 0 and position < len(body):
        return body[:position] + bytes((body[position] ^ 1 << chance.randrange(8),)) + body[position + 1 :]
    if kind == 1 and position < len(body):
        value = chance.choice([value for value in (0, 1, 0xFF) if value != body[position]])
        return body[:position] + bytes((value,)) + body[position + 1 :]
    if kind == 2 and position < len(body):
        return body[:position] + body[position + chance.randrange(1, 9) :]
    if kind == 3 and position:
        return body[:position] + body[max(0, position - chance.randrange(1, 9)) :]
    if kind == 4 and position < len(body):
        return body[:position]
    return body[:position] + chance.randbytes(chance.randrange(1, 5)) + body[position:]


@pytest.mark.parametrize("seed", range(6))
def test_damage(make: Any, tampering: Any, seed: int) -> None:
    chance = random.Random(seed)
    session = make.established().client.take_sessions()[0]
    both = {"certificate_compression": True}
    outcomes: set[str] = set()
    for _ in range(ROUNDS // 6):
        side, number = chance.choice(("client", "server")), chance.randrange(7)
        count = 0
        damaged: list[int] = []

        def tamper(message: bytes, number: int = number, damaged: list[int] = damaged) -> list[bytes]:
            nonlocal count
            count += 1
            if count - 1 != number:
                return [message]
            damaged.append(message[0])
            return [frame(message[0], damage(chance, message[4:]))]

        keep = lambda message: [message]  # noqa: E731
        resumed = {"session": session} if chance.random() < 0.3 else {}
        client = tampering(make.client(alpn=(b"a", b"b"), **both, **resumed), tamper if side == "client" else keep)
        groups = (0x18,) if chance.random() < 0.3 else ()
        server = tampering(make.server(groups=groups, **both), tamper if side == "server" else keep)
        ours = Answers(credentials=(software_credential("ed25519", "client"),))
        pair = Pair(client, server, ours, make.answers(client_auth=ClientAuth.REQUEST, alpn=(b"b",)))
        pair.run()
        for connection in (client, server):
            outcomes.add(type(connection.failed).__name__)
            assert not isinstance(connection.failed, alerts.InternalError), connection.failed.__cause__
        victim = server if side == "client" else client
        if damaged and not client.handshake_complete and not server.handshake_complete:
            # it may also wait for the rest of a message that was cut; the session's time limit ends that
            assert victim.failed is not None or victim._channel.inside_message
        if pair.complete:
            assert damaged in ([], [HandshakeType.NEW_SESSION_TICKET])  # which is no part of the transcript
    assert len(outcomes) > 5
