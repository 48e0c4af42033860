"""Are the bytes those that existing applications send and expect?"""

from __future__ import annotations

import sys

import pytest

from tlspool_core.secret import Secret
from tlspool_core.wire.codec import LAYOUTS, PACKET_SIZE, decode, encode, seal
from tlspool_core.wire.errors import BASE, ErrorCode, advice, describe
from tlspool_core.wire.flags import Command, StartTlsFlags
from tlspool_core.wire.messages import (
    AccountingStop,
    ControlDetach,
    Error,
    Info,
    LidentryRegister,
    Packet,
    PinEntry,
    Ping,
    PlaintextConnect,
    Prng,
    PrngOutput,
    StartTls,
)

pytestmark = pytest.mark.skipif(
    sys.byteorder != "little", reason="the published packets are little endian; host order is the protocol's"
)

KEY = bytes(range(0xA0, 0xB0))


def packet(**pieces: bytes) -> bytes:
    """388 zero bytes with pieces at their hexadecimal offsets, as `x0008=b"..."`."""
    out = bytearray(PACKET_SIZE)
    for offset, piece in pieces.items():
        start = int(offset[1:], 16)
        out[start : start + len(piece)] = piece
    return bytes(out)


PING = packet(
    x0000=bytes.fromhex("00 00 00 00 10 00 00 00"), x0008=b"20151111api@tlspool.arpa2.net\0", x0090=bytes.fromhex("ff ff ff ff")
)
STARTTLS = packet(
    x0000=bytes.fromhex("00 00 00 00 24 00 00 00 09 00 00 00 00 00 00 00 06 00 00 00"),
    x0014=b"testcli@tlspool.arpa2.lab",
    x0094=b"testsrv@tlspool.arpa2.lab",
    x0114=KEY,
    x0124=b"generic",
)
STARTTLS_MESSAGE = StartTls(
    flags=StartTlsFlags.LOCALROLE_CLIENT | StartTlsFlags.REMOTEROLE_SERVER,
    localid="testcli@tlspool.arpa2.lab",
    remoteid="testsrv@tlspool.arpa2.lab",
    ctlkey=KEY,
    service="generic",
)


def test_ping_request() -> None:
    assert encode(Packet(0, 0, Ping())) == PING
    assert decode(PING) == Packet(0, 0, Ping())


def test_starttls_request() -> None:
    assert encode(Packet(0, 0, STARTTLS_MESSAGE)) == STARTTLS
    assert decode(STARTTLS) == Packet(0, 0, STARTTLS_MESSAGE)


def test_callback_echoes_the_whole_structure() -> None:
    """All 304 bytes overwrite the caller's own."""
    callback = encode(Packet(0, 0x0102, STARTTLS_MESSAGE.ask_plaintext()))
    assert callback[:8] == bytes.fromhex("00 00 02 01 2a 00 00 00")
    assert callback[8:] == STARTTLS[8:]
    assert encode(Packet(0, 7, STARTTLS_MESSAGE.ask_localid()))[:8] == bytes.fromhex("00 00 07 00 28 00 00 00")


def test_answer_echoes_the_whole_structure() -> None:
    answer = encode(Packet(0, 0, STARTTLS_MESSAGE.echo(localid="a", remoteid="b")))
    assert answer[0x10:0x14] == STARTTLS[0x10:0x14]
    assert answer[0x114:] == STARTTLS[0x114:]
    assert decode(answer).message == STARTTLS_MESSAGE.echo(localid="a", remoteid="b")


def test_error_reply() -> None:
    reply = encode(Packet(0x0304, 0, Error.of(BASE + 18, "TLS Pool has it")))
    assert reply == packet(x0000=bytes.fromhex("04 03 00 00 01 00 00 00 12 50 6b ba"), x000c=b"TLS Pool has it\0")


def test_table_base_is_that_of_com_err() -> None:
    """com_err packs a table's letters with six bits each, in this alphabet counted from 1, above the eight bits of the code."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"
    packed = 0
    for letter in "tlsP":
        packed = packed << 6 | alphabet.index(letter) + 1
    assert (packed << 8) - (1 << 32) == BASE
    assert list(ErrorCode) == [BASE + step for step in range(len(ErrorCode))]


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_says_what_and_what_to_do(code: ErrorCode) -> None:
    assert 0 < len(describe(code).encode()) < 128
    assert advice(code).endswith(".")


def test_names_of_published_codes() -> None:
    assert ErrorCode.CLIENT_DISCONNECT == BASE + 2
    assert ErrorCode.CTLKEY_ALREADY_ATTACHED == BASE + 18
    assert ErrorCode.HANDSHAKE_FAILED == BASE + 24
    assert ErrorCode.INFO_NOT_FOUND == BASE + 29


def test_pin_entry_offsets() -> None:
    message = PinEntry(1, 2, 60_000_000, "PIN?", "maker", "model", "serial", "label", Secret.of(b"1234"))
    with seal(Packet(9, 0, message)) as sealed:
        raw = bytes(sealed.used)
    assert decode(raw) == Packet(9, 0, message)
    assert raw == packet(
        x0000=bytes.fromhex("09 00 00 00 29 00 00 00 01 00 00 00 02 00 00 00 00 87 93 03"),
        x0014=b"1234",
        x0094=b"PIN?",
        x0114=b"maker",
        x0138=b"model",
        x014c=b"serial",
        x0160=b"label",
    )


def test_lidentry_offsets() -> None:
    from tlspool_core.wire.flags import LidentryFlags

    message = LidentryRegister(LidentryFlags.WANT_DBENTRY, 3, 300, "local", "remote")
    assert encode(Packet(0, 0, message)) == packet(
        x0000=bytes.fromhex("00 00 00 00 00 02 00 00 00 01 00 00 03 00 2c 01 00 00"), x0012=b"local", x0092=b"remote"
    )


def test_control_offsets() -> None:
    assert encode(Packet(0, 0, ControlDetach(0, KEY, "me"))) == packet(
        x0000=bytes.fromhex("00 00 00 00 00 01 00 00 00 00 00 00"), x000c=KEY, x001c=b"me"
    )


def test_prng_request_and_answer() -> None:
    request = Prng(KEY, b"EXPERIMENTAL-x", None, 64)
    raw = packet(x0000=bytes.fromhex("00 00 00 00 2b 00 00 00 0e 00 ff ff 40 00"), x000e=KEY, x001e=b"EXPERIMENTAL-x")
    assert encode(Packet(0, 0, request)) == raw
    assert decode(raw).message == request
    with_context = Prng(KEY, b"EXPERIMENTAL-x", b"", 350)
    assert encode(Packet(0, 0, with_context))[8:14] == bytes.fromhex("0e 00 00 00 5e 01")
    answer = encode(Packet(0, 0, PrngOutput(b"random")))
    assert answer[12:20] == b"\x06\0random"
    assert decode(answer, answer=True).message == PrngOutput(b"random")


def test_info_query_and_answer() -> None:
    query = packet(x0000=bytes.fromhex("00 00 00 00 2c 00 00 00"), x0008=KEY, x0018=bytes.fromhex("02 00 29 59 ff ff"))
    assert encode(Packet(0, 0, Info(KEY, 0x59290002))) == query
    assert decode(query).message == Info(KEY, 0x59290002)
    assert encode(Packet(0, 0, Info(KEY, 0x59290002, b"xyz")))[28:33] == b"\x03\0xyz"
    assert decode(encode(Packet(0, 0, Info(KEY, 1, b"")))).message == Info(KEY, 1, b"")


def test_accounting_offsets() -> None:
    message = AccountingStop(KEY, "kind", "instance", "local", "remote", 1, None, 2, 3)
    assert encode(Packet(0, 0, message)) == packet(
        x0000=bytes.fromhex("00 00 00 00 02 03 00 00 03 00 00 00"),
        x000c=KEY,
        x001c=b"kind",
        x003c=b"instance",
        x006c=b"local",
        x00ec=b"remote",
        x016c=b"\x01",
        x0174=b"\xff" * 8,
        x017c=b"\x02",
    )


def test_no_field_overlaps_another_or_the_end() -> None:
    sizes = {"I": 4, "i": 4, "H": 2, "B": 1}
    for kind, fields in LAYOUTS.items():
        end = 8
        for entry in fields:
            size = getattr(entry, "size", 0) or sizes.get(getattr(entry, "letter", ""), 8)
            assert entry.offset >= end, (kind, entry)
            end = entry.offset + size
        assert end <= PACKET_SIZE


def test_every_command_has_one_layout() -> None:
    assert {kind.command for kind in LAYOUTS} | {Command.PRNG, Command.INFO} == set(Command)
    assert PlaintextConnect.command == Command.PLAINTEXT_CONNECT == 0x2A


def test_secrets_stay_out_of_repr() -> None:
    shown = [
        repr(message)
        for message in (
            PinEntry(pin=Secret.of(b"4711")),
            StartTls(ctlkey=b"S" * 16),
            Prng(b"S" * 16, b"x", None, 1),
            PrngOutput(b"S"),
        )
    ]
    assert not any("4711" in text or "SSS" in text or "b'S'" in text for text in shown)
