"""Whatever happens to a handshake of TLS 1.2 on its way: does nobody agree, and does nothing but a reason end it?"""

from __future__ import annotations

import random
from typing import Any

import pytest

from tlspool_core.testing.peers import Answers, software_credential
from tlspool_core.tls import alerts
from tlspool_core.tls.questions import ClientAuth

RUNS = 150


def ordinary(make: Any, session: Any = None) -> Any:
    return make.pair(
        client=make.client(session=session, alpn=(b"a",), want_scts=True),
        client_answers=Answers(credentials=(software_credential(),)),
        server_answers=make.answers(client_auth=ClientAuth.REQUIRE, alpn=(b"a",)),
    )


def check_outcome(pair: Any, changed: list[bool]) -> None:
    """If a byte was changed, the two did not both complete and talk; every failure is a reason of the other's making."""
    pair.run()
    for side in (pair.client, pair.server):
        assert not isinstance(side.failed, alerts.InternalError), side.failed.__cause__
    if changed and pair.complete:
        pair.client.send(b"hello")
        pair.run()
        # what is not protected by the transcript is the version in a record's header
        assert pair.server.take_plaintext() == b"hello" and changed == [False]


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("direction", ["to_client", "to_server"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_byte_changed_anywhere(make: Any, resumed: bool, direction: str, number: int) -> None:
    """In the first or second flight of either side; a flip in a header's version alone may pass unnoticed before the version is known."""
    chance = random.Random(f"{resumed}{direction}{number}")
    session = None
    if resumed:
        first = ordinary(make)
        first.run()
        (session,) = first.client.take_sessions()
    for _ in range(RUNS):
        pair = ordinary(make, session)
        count, changed = [0], []

        def flip(data: bytes, count: list[int] = count, changed: list[bool] = changed) -> bytes:
            count[0] += 1
            if count[0] != number + 1:
                return data
            position = chance.randrange(len(data))
            changed.append(position not in (1, 2))
            return data[:position] + bytes((data[position] ^ chance.randrange(1, 256),)) + data[position + 1 :]

        setattr(pair, direction, flip)
        check_outcome(pair, changed)


@pytest.mark.parametrize("direction", ["to_client", "to_server"])
def test_bytes_lost_repeated_or_made_up(make: Any, direction: str) -> None:
    chance = random.Random(direction)
    for _ in range(RUNS):
        pair = ordinary(make)
        changed: list[bool] = []

        def disturb(data: bytes, changed: list[bool] = changed) -> bytes:
            if changed:
                return data
            changed.append(True)
            start, end = sorted((chance.randrange(len(data)), chance.randrange(len(data) + 1)))
            kind = chance.randrange(3)
            if kind == 0:
                return data[:start] + data[end + 1 :]
            if kind == 1:
                return data[:end] + data[start : end + 1] + data[end:]
            return data[:start] + chance.randbytes(end - start + 1) + data[end + 1 :]

        setattr(pair, direction, disturb)
        pair.run()
        assert not pair.complete
        for side in (pair.client, pair.server):
            assert not isinstance(side.failed, alerts.InternalError), side.failed.__cause__
