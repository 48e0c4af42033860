"""Does a connection keep its word to whoever drives it: closing, truncation, alerts, floods, keys, exporters, faults of our own?"""

from __future__ import annotations

from typing import Any

import pytest

from tlspool_core.testing.peers import Answers, Pair, answer_all
from tlspool_core.tls import TlsConnection, alerts
from tlspool_core.tls.questions import ChooseServerCredential, JudgePeer, Sign


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_delivery_in_pieces(make: Any, step: int) -> None:
    pair = make.pair()
    pair.step = step
    pair.run()
    assert pair.complete
    pair.client.send(b"x" * 40_000)
    pair.run()
    assert pair.server.take_plaintext() == b"x" * 40_000


def test_half_close(make: Any) -> None:
    pair = make.established()
    pair.client.close()
    pair.run()
    assert pair.server.peer_closed and not pair.client.peer_closed
    pair.server.send(b"still here")
    pair.run()
    assert pair.client.take_plaintext() == b"still here"
    with pytest.raises(ValueError, match="between handshake and close"):
        pair.client.send(b"no more")
    pair.server.close()
    pair.run()
    pair.client.receive_eof()
    pair.server.receive_eof()
    assert pair.client.peer_closed and pair.client.failed is None and pair.server.failed is None


def test_data_after_close_notify_is_ignored(make: Any) -> None:
    pair = make.established()
    pair.client.send(b"before")
    pair.client.close()
    data = pair.client.data_to_send()
    pair.server.receive(data + b"\x17\x03\x03\0\x20" + bytes(32))
    assert pair.server.take_plaintext() == b"before"
    assert pair.server.failed is None


def test_truncation(make: Any) -> None:
    pair = make.established()
    pair.server.receive_eof()
    assert isinstance(pair.server.failed, alerts.Truncated) and pair.server.failed_by_peer
    assert pair.server.data_to_send() == b""
    client = TlsConnection(make.client())
    client.data_to_send()
    client.receive_eof()
    assert isinstance(client.failed, alerts.Truncated)


def test_close_notify_in_the_handshake_ends_it(make: Any) -> None:
    client = TlsConnection(make.client())
    client.data_to_send()
    client.receive(b"\x15\x03\x03\0\2\1\0")
    assert isinstance(client.failed, alerts.AlertReceived) and client.failed.received == 0


def test_closing_in_the_handshake_gives_it_up(make: Any) -> None:
    client = TlsConnection(make.client())
    client.data_to_send()
    client.close()
    assert client.data_to_send() == b"\x15\x03\x03\0\2\1\0"
    assert client.question is None and not client.handshake_complete


ALERTS = {
    "fatal": (b"\2\x28", alerts.AlertReceived),
    "unknown fatal": (b"\2\xee", alerts.AlertReceived),
    "one byte": (b"\2", alerts.MalformedAlert),
    "three bytes": (b"\2\x28\0", alerts.MalformedAlert),
    "two alerts": (b"\1\0\1\0", alerts.MalformedAlert),
    "no level": (b"\3\x28", alerts.UnknownAlertLevel),
    "a warning that TLS 1.3 does not have": (b"\1\x70", alerts.MalformedAlert),
}


@pytest.mark.parametrize("name", ALERTS)
def test_alerts_from_the_peer(make: Any, name: str) -> None:
    content, reason = ALERTS[name]
    pair = make.established()
    pair.client._channel.write(21, content)
    pair.run()
    assert type(pair.server.failed) is reason
    assert pair.server.failed_by_peer is (reason is alerts.AlertReceived)


def test_user_canceled_is_followed_by_the_end(make: Any) -> None:
    pair = make.established()
    pair.client._channel.write(21, b"\1\x5a")
    pair.client.close()
    pair.run()
    assert pair.server.failed is None and pair.server.peer_closed


def test_flood_of_warnings(make: Any) -> None:
    pair = make.established()
    for _ in range(5):
        pair.client._channel.write(21, b"\1\x5a")
    pair.run()
    assert isinstance(pair.server.failed, alerts.TooManyWarnings)


def test_data_in_bulk_makes_warnings_right(make: Any) -> None:
    pair = make.established()
    for _ in range(4):
        pair.client._channel.write(21, b"\1\x5a")
    pair.run()
    pair.server.received_bulk()
    for _ in range(4):
        pair.client._channel.write(21, b"\1\x5a")
    pair.run()
    assert pair.complete
    pair.client._channel.write(21, b"\1\x5a")
    pair.run()
    assert isinstance(pair.server.failed, alerts.TooManyWarnings)


@pytest.mark.parametrize("request_peer", [False, True])
def test_key_update(make: Any, request_peer: bool) -> None:
    pair = make.established()
    for text in (b"one", b"two", b"three"):
        pair.client.update_keys(request_peer)
        pair.client.send(text)
        pair.run()
        pair.server.send(text)
        pair.run()
        assert pair.server.take_plaintext() == pair.client.take_plaintext() == text
    assert pair.complete


def test_flood_of_key_updates(make: Any) -> None:
    pair = make.established()
    for _ in range(32):
        pair.client.update_keys(True)
    pair.run()
    assert pair.complete
    pair.client.send(b"data makes it right")
    for _ in range(33):
        pair.client.update_keys(True)
    pair.run()
    assert isinstance(pair.server.failed, alerts.TooManyKeyUpdates)


def test_many_requests_get_one_answer_when_data_goes_out(make: Any) -> None:
    pair = make.established()
    for _ in range(5):
        pair.client.update_keys(True)
    pair.run()
    assert pair.server.data_to_send() == b""
    pair.server.send(b"x")
    data = pair.server.data_to_send()
    assert data.count(b"\x17\x03\x03") == 2  # a KeyUpdate and the data
    pair.client.receive(data)
    assert pair.client.take_plaintext() == b"x" and pair.client.failed is None


def test_keys_are_changed_before_their_limit(make: Any) -> None:
    pair = make.established()
    old = pair.client.records.write_protection
    old.update_after = old.sequence + 2
    pair.client.send(b"1")
    pair.client.send(b"2")
    assert pair.client.records.write_protection is old
    pair.client.send(b"3")
    assert pair.client.records.write_protection is not old
    pair.run()
    assert pair.server.take_plaintext() == b"123" and pair.complete


def test_the_peer_is_asked_for_new_keys_before_their_limit(make: Any) -> None:
    pair = make.established()
    reading = pair.server.records.read_protection
    reading.update_after = reading.sequence + 1
    pair.client.send(b"1")
    pair.run()
    pair.client.send(b"2")
    pair.run()
    assert pair.server.records.read_protection is not reading
    assert pair.server.take_plaintext() == b"12" and pair.complete


def test_exporters_and_bindings_agree(make: Any) -> None:
    pair = make.established()
    for context in (None, b"", b"context"):
        for length in (1, 32, 33, 100):
            assert pair.client.export(b"label", context, length) == pair.server.export(b"label", context, length)
    assert pair.client.export(b"a", None, 32) != pair.client.export(b"b", None, 32)
    assert pair.client.export(b"a", b"", 32) == pair.client.export(b"a", None, 32)  # RFC 8446 section 7.5
    binding = pair.client.channel_binding("tls-exporter")
    assert binding is not None and len(binding) == 32 and binding == pair.server.channel_binding("tls-exporter")
    assert pair.client.channel_binding("tls-unique") is None
    assert pair.client.channel_binding("tls-what") is None


def test_key_log_is_the_same_on_both_sides_and_nowhere_else(make: Any) -> None:
    logs: tuple[list[str], list[str]] = ([], [])
    pair = make.established(client=make.client(key_log=logs[0].append), server=make.server(key_log=logs[1].append))
    assert sorted(logs[0]) == sorted(logs[1])
    assert [line.split()[0] for line in logs[0]] == [
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET",
        "CLIENT_TRAFFIC_SECRET_0",
        "SERVER_TRAFFIC_SECRET_0",
        "EXPORTER_SECRET",
    ]
    for line in logs[0]:
        assert line.split()[2] not in repr(pair.client.facts) + repr(pair.client.established)


def test_bytes_that_come_while_a_question_is_open_are_kept(make: Any) -> None:
    client, server = TlsConnection(make.client()), TlsConnection(make.server())
    hello = client.data_to_send()
    server.receive(hello)
    assert isinstance(server.question, ChooseServerCredential)
    server.receive(b"\x15\x03\x03\0\2\2\x28")
    assert server.failed is None
    answer_all(server, make.answers())
    assert isinstance(server.failed, alerts.AlertReceived)


def test_a_refusal_sends_its_alert(make: Any) -> None:
    pair = make.pair()
    hello = pair.client.data_to_send()
    pair.server.receive(hello)
    pair.server.refuse(alerts.UnrecognizedName("who?"))
    assert pair.server.data_to_send() == b"\x15\x03\x03\0\2\2\x70"
    assert pair.server.question is None
    with pytest.raises(ValueError, match="no question"):
        pair.server.answer(None)


def test_an_answer_of_the_wrong_kind_is_our_fault_and_no_other(make: Any) -> None:
    pair = make.pair()
    pair.server.receive(pair.client.data_to_send())
    pair.server.answer("nonsense")
    assert isinstance(pair.server.failed, alerts.InternalError)
    assert isinstance(pair.server.failed.__cause__, AttributeError)
    assert pair.server.data_to_send() == b"\x15\x03\x03\0\2\2\x50"


def test_judgement_is_asked_once_and_its_answer_is_bounded(make: Any) -> None:
    ours = Answers(judge=lambda question: b"x" * 8193)
    pair = make.pair(client_answers=ours)
    pair.run()
    assert isinstance(pair.client.failed, alerts.InternalError)
    theirs = make.answers()
    make.established(server_answers=theirs)
    assert len([question for question in theirs.asked if isinstance(question, JudgePeer)]) == 1


def test_wrong_signature_of_ours_is_refused_by_the_peer(make: Any) -> None:
    class Wrong(Answers):
        def answer(self, question: Any) -> object:
            return b"\x30\x06\2\1\1\2\1\1" if isinstance(question, Sign) else super().answer(question)

    pair = Pair(
        TlsConnection(make.client()), TlsConnection(make.server()), Answers(), Wrong(credentials=make.answers().credentials)
    )
    pair.run()
    assert isinstance(pair.client.failed, alerts.BadSignature)
    assert isinstance(pair.server.failed, alerts.AlertReceived) and pair.server.failed.received == 51


def test_what_is_no_tls(make: Any) -> None:
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x80\x2e\x01\x03\x01", b"\x16\x05\x01\0\1\1", b"\x16\x03\x01\xff\xff"):
        server = TlsConnection(make.server())
        server.receive(data)
        assert server.failed is not None and not isinstance(server.failed, alerts.InternalError)


def test_messages_longer_than_allowed(make: Any) -> None:
    server = TlsConnection(make.server())
    server.receive(b"\x16\x03\x01\0\4\1\x10\0\0")
    assert isinstance(server.failed, alerts.HandshakeMessageTooLong)
    pair = make.pair(client=make.client(max_certificate_message=100), server_answers=make.answers("rsa-2048"))
    pair.run()
    assert pair.complete  # a limit below the ordinary message length does not count
    pair = make.pair(client=make.client(max_handshake_bytes=500))
    pair.run()
    assert isinstance(pair.client.failed, alerts.HandshakeMessageTooLong)


def test_properties_before_completion(make: Any) -> None:
    client = TlsConnection(make.client())
    assert not client.handshake_complete and client.take_sessions() == []
    with pytest.raises(ValueError, match="not complete"):
        _ = client.facts
    with pytest.raises(ValueError, match="between handshake"):
        client.send(b"early")


def test_nothing_of_the_handshake_is_kept(make: Any) -> None:
    """An idle session costs little: no flow, no transcript, nothing buffered, and no attribute dictionary anywhere."""
    pair = make.established(client=make.client(post_handshake_auth=False))
    for side in (pair.client, pair.server):
        assert side._flow is None
        assert not hasattr(side, "__dict__") and not hasattr(side.established, "__dict__")
        assert not side.records.buffered
    assert pair.server.established._asking is None
    assert pair.client.established._transcript is None
