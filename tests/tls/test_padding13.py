"""Do padded records look alike, never exceed what the peer takes, and say the same as unpadded ones?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlspool_core.testing.peers import software_credential
from tlspool_core.tls.bulk import seal_batch, sealed_capacity
from tlspool_core.tls.padding import MAX_MULTIPLE, POWERS, SMALLEST_POWER, Padding
from tlspool_core.tls.protection import protection12, protection13
from tlspool_core.tls.questions import ClientAuth
from tlspool_core.tls.record import RecordLayer
from tlspool_core.tls.settings import TLS12

RULES = st.one_of(st.just(POWERS), st.integers(0, MAX_MULTIPLE))


def lengths(wire: bytes) -> list[tuple[int, int]]:
    """Content type and body length of each record, as whoever watches sees them."""
    found = []
    while wire:
        size = int.from_bytes(wire[3:5], "big")
        found.append((wire[0], size))
        wire = wire[5 + size :]
    return found


def layers(padding: Padding, limit: int = 16385) -> tuple[RecordLayer, RecordLayer]:
    sender, receiver = RecordLayer(), RecordLayer()
    sender.set_write_protection(protection13("AES-128-GCM", b"k" * 16, bytes(12)))
    receiver.set_read_protection(protection13("AES-128-GCM", b"k" * 16, bytes(12)))
    receiver.version = 0x0304
    sender.padding = padding
    sender.limit_sent(limit)
    receiver.limit_received(limit)
    return sender, receiver


def opened(receiver: RecordLayer, wire: bytes) -> bytes:
    receiver.feed(wire)
    found = b""
    while (record := receiver.next_record()) is not None:
        found += record[1]
    return found


@given(rule=RULES, size=st.integers(1, 40_000), limit=st.integers(64, 16385), content_type=st.sampled_from((22, 23)))
@settings(max_examples=60, deadline=None)
def test_padded_records_open_and_stay_within_the_limit(rule: int, size: int, limit: int, content_type: int) -> None:
    sender, receiver = layers(Padding(rule, rule), limit)
    sender.write(content_type, b"x" * size)
    wire = sender.take_output()
    for _, length in lengths(wire):
        inner = length - 16
        assert inner <= limit
        if rule == POWERS:
            assert inner == limit or (inner >= SMALLEST_POWER and inner & (inner - 1) == 0)
        elif rule:
            assert inner == limit or inner % rule == 0
    assert opened(receiver, wire) == b"x" * size


@pytest.mark.parametrize(("rule", "same"), [(256, (1, 100, 255)), (POWERS, (1, 40, 63)), (POWERS, (513, 1023))])
def test_lengths_within_a_step_look_alike(rule: int, same: tuple[int, ...]) -> None:
    seen = set()
    for size in same:
        sender, _ = layers(Padding(data=rule))
        sender.write(23, b"x" * size)
        seen.add(len(sender.take_output()))
    assert len(seen) == 1


@given(rule=RULES, size=st.integers(1, 70_000), limit=st.integers(64, 16385))
@settings(max_examples=30, deadline=None)
def test_the_batch_pads_as_the_records_do(rule: int, size: int, limit: int) -> None:
    sender, receiver = layers(Padding(data=rule), limit)
    other, _ = layers(Padding(data=rule), limit)
    data, room = b"x" * size, 5_000_000
    out = memoryview(bytearray(room))
    assert size <= sealed_capacity(sender, room)
    filled = seal_batch(sender, memoryview(bytearray(data + b"?")), size, out)
    other.write(23, data)
    assert bytes(out[:filled]) == other.take_output()
    assert opened(receiver, bytes(out[:filled])) == data


def test_alerts_are_padded_as_data_is() -> None:
    sender, _ = layers(Padding(data=256))
    sender.write(21, b"\1\0")
    sender.write(23, b"x" * 200)
    assert [length for _, length in lengths(sender.take_output())] == [256 + 16] * 2


def test_tls12_has_no_padding() -> None:
    plain, padded = RecordLayer(), RecordLayer()
    padded.padding = Padding(512, 512)
    for layer in (plain, padded):
        layer.set_write_protection(protection12("AES-128-GCM", b"k" * 16, bytes(4)))
        layer.write(23, b"x" * 100)
    assert plain.take_output() == padded.take_output()


@pytest.mark.parametrize("rule", [-2, MAX_MULTIPLE + 1])
def test_rules_that_make_no_sense(rule: int) -> None:
    with pytest.raises(ValueError, match="powers"):
        Padding(data=rule)


def flights(make: Callable[..., Any], kind: str, padding: Padding | None, **changes: Any) -> tuple[list[tuple[int, int]], ...]:
    """What whoever watches sees of client and server in a handshake with client certificates of this kind at both ends."""
    pair = make.pair(
        client=make.client(padding=padding, **changes),
        server=make.server(padding=padding, **changes),
        client_answers=make.answers(kind),
        server_answers=make.answers(kind, client_auth=ClientAuth.REQUIRE),
    )
    seen: tuple[list[bytes], list[bytes]] = ([], [])
    pair.to_server = lambda data: seen[0].append(data) or data
    pair.to_client = lambda data: seen[1].append(data) or data
    pair.run()
    assert pair.complete, (pair.client.failed, pair.server.failed)
    pair.server.send(b"x" * 100_000)
    pair.run()
    assert pair.client.take_plaintext() == b"x" * 100_000
    return lengths(b"".join(seen[0])), lengths(b"".join(seen[1]))


def test_handshakes_do_not_tell_certificates_apart(make: Any) -> None:
    kinds = ("ecdsa-p256", "ecdsa-p384", "ed25519")
    sizes = {len(software_credential(kind).entries[0].data) for kind in kinds}
    assert len(sizes) == len(kinds)
    assert len({str(flights(make, kind, None)) for kind in kinds}) == len(kinds)
    assert len({str(flights(make, kind, Padding(handshake=2048))) for kind in kinds}) == 1


@pytest.mark.parametrize("padding", [Padding(512), Padding(512, 1000), Padding(POWERS, POWERS), Padding(16384, 16384)], ids=str)
@pytest.mark.parametrize("limit", [64, 1000, 16385])
def test_handshakes_with_padding(make: Any, padding: Padding, limit: int) -> None:
    for records in flights(make, "ecdsa-p256", padding, record_size_limit=limit):
        assert {length for kind, length in records if kind == 23 and length > limit + 16} == set()


def test_a_handshake_of_tls12_goes_on_without(make: Any) -> None:
    assert flights(make, "ecdsa-p256", Padding(512, 512), versions=(TLS12,))[0]
