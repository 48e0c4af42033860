"""Does the record layer do what its driver relies on: fragments, limits of both sides, early data, alerts in the clear?"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlspool_core.tls.alerts import RecordOverflow, TooMuchEarlyData, UnexpectedChangeCipherSpec, UnexpectedRecordType
from tlspool_core.tls.protection import NullProtection, Protection, protection13
from tlspool_core.tls.record import CcsRule, RecordLayer


def keys(letter: bytes = b"k") -> Protection:
    return protection13("AES-128-GCM", letter * 16, bytes(12))


def server() -> RecordLayer:
    """TLS 1.3, with the handshake keys of the peer."""
    layer = RecordLayer()
    layer.version = 0x0304
    layer.change_cipher_spec = CcsRule.DROP
    layer.set_read_protection(keys())
    return layer


def drain(layer: RecordLayer) -> list[tuple[int, bytes]]:
    found = []
    while (record := layer.next_record()) is not None:
        found.append(record)
    return found


def test_only_the_first_record_has_the_old_version() -> None:
    """RFC 8446 section 5.1."""
    layer = RecordLayer(0x0301)
    layer.write(22, b"hello")
    layer.write(22, b"second hello")
    output = layer.take_output()
    assert output[:3] == b"\x16\x03\x01"
    assert output[10:13] == b"\x16\x03\x03"


@given(st.lists(st.binary(min_size=1, max_size=40000), max_size=4), st.lists(st.integers(1, 20000), max_size=30))
def test_bytes_may_be_cut_anywhere(messages: list[bytes], cuts: list[int]) -> None:
    sender, receiver = RecordLayer(), RecordLayer()
    for message in messages:
        sender.write(22, message)
    output, found, position = sender.take_output(), [], 0
    for cut in [*cuts, len(output)]:
        receiver.feed(output[position : position + cut])
        position += cut
        found += drain(receiver)
    assert b"".join(content for _, content in found) == b"".join(messages)
    assert all(len(content) <= 16384 for _, content in found)
    assert receiver.buffered == 0


def test_protected_records_keep_to_the_peers_limit() -> None:
    """RFC 8449 section 4: in TLS 1.3 the limit covers the content type, too; records in the clear are exempt."""
    layer = RecordLayer()
    layer.limit_sent(100)
    layer.write(22, bytes(300))
    assert len(layer.take_output()) == 305
    layer.set_write_protection(keys())
    layer.write(23, bytes(300))
    assert len(layer.take_output()) == 300 + 4 * 22


def test_our_own_limit_counts_padding() -> None:
    layer = server()
    layer.limit_received(100)
    sender = keys()
    layer.feed(sender.seal(0, b"x\x17" + bytes(97)))  # 100 bytes: content, type and padding, of which seal adds the last
    assert drain(layer) == [(23, b"x")]
    layer.feed(sender.seal(0, b"x\x17" + bytes(98)))
    with pytest.raises(RecordOverflow):
        layer.next_record()


def test_refused_early_data_is_skipped_up_to_the_first_record_that_opens() -> None:
    layer, early, ours = server(), keys(b"e"), keys()
    layer.skip_early_data(1000)
    layer.feed(early.seal(23, bytes(300)) + b"\x14\x03\x03\x00\x01\x01" + early.seal(23, bytes(300)) + ours.seal(22, b"Finished"))
    assert drain(layer) == [(22, b"Finished")]
    layer.feed(early.seal(23, b"late"))
    with pytest.raises(Exception, match="does not open"):
        layer.next_record()


def test_early_data_before_the_second_hello_is_skipped() -> None:
    """After HelloRetryRequest there are no keys yet (RFC 8446 section 4.2.10)."""
    layer = RecordLayer()
    layer.version = 0x0304
    layer.skip_early_data(1000)
    layer.feed(keys(b"e").seal(23, bytes(300)) + NullProtection().seal(22, b"ClientHello"))
    assert drain(layer) == [(22, b"ClientHello")]


def test_early_data_has_an_end() -> None:
    layer, early = server(), keys(b"e")
    layer.skip_early_data(1000)
    layer.feed(early.seal(23, bytes(600)) * 2)
    with pytest.raises(TooMuchEarlyData):
        drain(layer)


def test_alert_of_a_client_without_keys() -> None:
    """It may come in the clear until the first record that opens, and never after."""
    alert = b"\x15\x03\x03\x00\x02\x02\x28"
    layer = server()
    layer.feed(alert)
    assert drain(layer) == [(21, b"\x02\x28")]
    layer = server()
    layer.feed(keys().seal(22, b"Finished") + alert)
    assert layer.next_record() == (22, b"Finished")
    with pytest.raises(UnexpectedRecordType):
        layer.next_record()


@pytest.mark.parametrize("rule", [CcsRule.DROP, CcsRule.REFUSE])
@pytest.mark.parametrize("body", [b"\x02", b"\x01\x01", b""])
def test_change_cipher_spec_is_a_single_one(rule: CcsRule, body: bytes) -> None:
    layer = server()
    layer.change_cipher_spec = rule
    layer.feed(NullProtection().seal(20, body))
    with pytest.raises(UnexpectedChangeCipherSpec):
        layer.next_record()


def test_change_cipher_spec_is_never_encrypted() -> None:
    layer = RecordLayer()
    layer.set_write_protection(keys())
    layer.write(20, b"\x01")
    assert layer.take_output() == b"\x14\x03\x03\x00\x01\x01"


@pytest.mark.parametrize("kind", [0, 20, 24, 255])
def test_content_types_that_may_not_be_inside(kind: int) -> None:
    layer = server()
    inner = b"content" + bytes((kind,)) if kind else b"\0"
    layer.feed(keys().seal(0, inner))
    with pytest.raises(Exception, match="content type"):
        layer.next_record()


def test_what_was_not_taken_can_be_handed_over(make: Callable[[], Protection]) -> None:
    layer = RecordLayer()
    layer.set_read_protection(make())
    record = make().seal(23, b"data")
    layer.feed(record[:-1])
    assert layer.next_record() is None
    assert layer.take_incoming() == record[:-1]
    assert layer.buffered == 0
