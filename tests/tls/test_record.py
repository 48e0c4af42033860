"""Does the record layer refuse what no record may be, before it costs anything, and does nothing get past a wrong tag?"""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tlspool_core.testing.peers import Answers
from tlspool_core.tls import TlsConnection, alerts
from tlspool_core.tls.channel import Channel
from tlspool_core.tls.protection import MACS, protection12, protection13
from tlspool_core.tls.record import MAX_CHANGE_CIPHER_SPECS, MAX_EMPTY_RECORDS, CcsRule, RecordLayer

KEY, IV13, MAC_KEY = bytes(16), bytes(12), bytes(20)


def layer(protection: Any = None, version: int = 0x0304) -> RecordLayer:
    records = RecordLayer()
    records.version = version
    if protection is not None:
        records.set_read_protection(protection)
    return records


def record(kind: int, body: bytes, version: bytes = b"\3\3") -> bytes:
    return bytes((kind,)) + version + len(body).to_bytes(2, "big") + body


@pytest.mark.parametrize("kind", [0, 19, 24, 0x80, 0xFF])
def test_unknown_types_are_refused_by_their_header(kind: int) -> None:
    records = layer()
    records.feed(record(kind, bytes(100))[:5])
    with pytest.raises(alerts.UnexpectedRecordType):
        records.next_record()


@pytest.mark.parametrize("version", [b"\2\0", b"\4\3", b"\xfe\xfd"])
def test_what_is_no_tls_is_refused_by_its_header(version: bytes) -> None:
    records = layer(version=0)
    records.feed(record(22, bytes(100), version)[:5])
    with pytest.raises(alerts.ProtocolVersion):
        records.next_record()


@pytest.mark.parametrize(("protection", "limit"), [(None, 16384), (protection13("AES-128-GCM", KEY, IV13), 16384 + 256)])
def test_long_records_are_refused_by_their_header(protection: Any, limit: int) -> None:
    """Nobody waits for, or keeps, what is too long to be taken."""
    for length, error in ((limit, None), (limit + 1, alerts.RecordOverflow)):
        records = layer(protection)
        records.feed(b"\x17\3\3" + length.to_bytes(2, "big"))
        if error is None:
            assert records.next_record() is None
        else:
            with pytest.raises(error):
                records.next_record()


def test_a_record_of_tls12_may_be_longer_only_by_its_expansion() -> None:
    protection = protection12("AES-128-GCM", KEY, bytes(4))
    records = layer(protection12("AES-128-GCM", KEY, bytes(4)), 0x0303)
    records.feed(protection.seal(23, bytes(16385)))
    with pytest.raises(alerts.RecordOverflow):
        records.next_record()


def test_empty_records_do_not_go_on_for_ever() -> None:
    sender = protection13("AES-128-GCM", KEY, IV13)
    records = layer(protection13("AES-128-GCM", KEY, IV13))
    for _ in range(MAX_EMPTY_RECORDS):
        records.feed(sender.seal(23, b""))
        assert records.next_record() == (23, b"")
    records.feed(sender.seal(23, b"x") + sender.seal(23, b""))  # with something in between, it begins anew
    assert records.next_record() == (23, b"x") and records.next_record() == (23, b"")
    for _ in range(MAX_EMPTY_RECORDS):
        records.feed(sender.seal(23, b""))
    with pytest.raises(alerts.TooManyEmptyRecords):
        while records.next_record():
            pass


@pytest.mark.parametrize("kind", [21, 22])
def test_empty_handshake_records_and_alerts_are_refused(kind: int) -> None:
    records = layer()
    records.feed(record(kind, b""))
    with pytest.raises(alerts.EmptyRecord):
        records.next_record()


def test_a_record_of_nothing_but_padding_is_refused() -> None:
    sender = protection13("AES-128-GCM", KEY, IV13)
    records = layer(protection13("AES-128-GCM", KEY, IV13))
    records.feed(sender.seal(0, bytes(40)))
    with pytest.raises(alerts.UnexpectedMessage):
        records.next_record()


def test_change_cipher_specs_do_not_go_on_for_ever() -> None:
    records = layer()
    records.change_cipher_spec = CcsRule.DROP
    records.feed(record(20, b"\1") * MAX_CHANGE_CIPHER_SPECS)
    assert records.next_record() is None
    records.feed(record(20, b"\1"))
    with pytest.raises(alerts.UnexpectedChangeCipherSpec):
        records.next_record()


def test_nothing_may_stand_inside_of_a_handshake_message() -> None:
    for inside in (record(21, b"\1\0"), record(23, b"x"), record(20, b"\1")):
        channel = Channel(layer(version=0x0303))
        channel.records.feed(record(22, b"\1\0\0\4ab") + inside + record(22, b"cd"))
        with pytest.raises(alerts.InterleavedRecord):
            channel.next()


@pytest.mark.parametrize("name", ["AES-128-GCM", "CHACHA20-POLY1305"])
@pytest.mark.parametrize("version", [0x0303, 0x0304])
def test_each_bit_of_a_record_is_vouched_for(name: str, version: int) -> None:
    def protection() -> Any:
        if version == 0x0304:
            return protection13(name, bytes(16 if "128" in name else 32), IV13)
        return protection12(name, bytes(16 if "128" in name else 32), bytes(4 if "GCM" in name else 12))

    sealed = protection().seal(23, b"text")
    assert protection().open(sealed[:5], sealed[5:])[1] == b"text"
    for position in range(5, len(sealed)):
        with pytest.raises(alerts.BadRecordMac):
            protection().open(sealed[:5], sealed[5:position] + bytes((sealed[position] ^ 1,)) + sealed[position + 1 :])
    later = protection()
    later.take_sequences()
    with pytest.raises(alerts.BadRecordMac):
        later.open(sealed[:5], sealed[5:])


@pytest.mark.parametrize("mac", MACS)
def test_cbc_looks_at_the_padding_only_under_a_correct_mac(mac: str) -> None:
    """RFC 7366: a record that was touched fails at its MAC, whatever its padding is: there is no oracle to ask."""

    def protection() -> Any:
        return protection12("AES-128-CBC", KEY, b"", bytes(MACS[mac]), mac)

    sealed = protection().seal(23, b"fifteen bytes..")
    assert protection().open(sealed[:5], sealed[5:]) == (23, b"fifteen bytes..")
    texts = set()
    for position in range(5, len(sealed)):
        with pytest.raises(alerts.BadRecordMac) as caught:
            protection().open(sealed[:5], sealed[5:position] + bytes((sealed[position] ^ 1,)) + sealed[position + 1 :])
        texts.add(str(caught.value))
    assert len(texts) == 1


def test_cbc_with_a_wrong_padding_of_the_peers_own_making() -> None:
    """The MAC is right, as the peer has the keys: the same alert."""
    maker: Any = protection12("AES-128-CBC", KEY, b"", MAC_KEY, "sha1")
    encryptor = Cipher(algorithms.AES(KEY), modes.CBC(bytes(16))).encryptor()
    body = bytes(16) + encryptor.update(b"0123456789abcd\1\2") + encryptor.finalize()
    tag = maker._tag(23, body)
    reader = protection12("AES-128-CBC", KEY, b"", MAC_KEY, "sha1")
    with pytest.raises(alerts.BadRecordMac):
        reader.open(b"\x17\3\3" + (len(body) + len(tag)).to_bytes(2, "big"), body + tag)


def test_ivs_of_cbc_are_not_those_of_the_record_before() -> None:
    """BEAST: each record has an IV of its own, which nobody can know before."""
    protection = protection12("AES-128-CBC", KEY, b"", MAC_KEY, "sha1")
    sealed = [protection.seal(23, b"same") for _ in range(50)]
    assert len({one[5:21] for one in sealed}) == 50


def test_nonces_are_used_once() -> None:
    """RFC 8446 section 5.3: the sequence number makes them, and never wraps."""
    protection = protection13("AES-128-GCM", KEY, IV13)
    assert len({protection.seal(23, b"same")[5:] for _ in range(50)}) == 50
    protection.sequence = 2**64 - 1
    with pytest.raises(alerts.InternalError):
        protection.seal(23, b"x")


def test_a_flood_of_bytes_is_kept_only_up_to_one_record(make: Any) -> None:
    """Whoever sends a byte at a time makes nobody keep more than he sent."""
    server = TlsConnection(make.server())
    hello = TlsConnection(make.client()).data_to_send()
    for position in range(len(hello) - 1):
        server.receive(hello[position : position + 1])
        assert server.records.buffered <= 16389 and server.question is None
    server.receive(hello[-1:])
    assert server.question is not None
    answers: Answers = make.answers()
    assert answers.asked == []
