"""Targets for the core's parsers: a value or the declared error, and what was parsed can be built and parsed again."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from tests.fuzz.target import Target, joined, pieces
from tlspool_core.identity import DoNAI, InvalidIdentity, Selector
from tlspool_core.policy.expression import InvalidExpression, parse_expression
from tlspool_core.testing.peers import software_credential
from tlspool_core.tls import alerts
from tlspool_core.tls.codec import Reader
from tlspool_core.tls.extensions import CORE_ROWS, Place, table_for
from tlspool_core.tls.messages import CertificateVerify, ClientHello, Finished, ServerHello, build_extensions, parse_extensions
from tlspool_core.tls.seams import CertificateEntry
from tlspool_core.tls.session_state import SessionState, parse_session_state
from tlspool_core.tls.tls12 import messages as messages12
from tlspool_core.tls.tls13 import messages as messages13
from tlspool_core.tls.tls13.external_psk import ImportedIdentity, PskNames
from tlspool_core.wire.application import ApplicationSide
from tlspool_core.wire.codec import PACKET_SIZE, decode, encode
from tlspool_core.wire.connection import Asked, PoolSide
from tlspool_core.wire.errors import MalformedPacket, WireError
from tlspool_core.wire.messages import Packet, Ping, PlaintextConnect, StartTls

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)

# --- TLS -------------------------------------------------------------------------------------------------------------------------

MESSAGES: tuple[Any, ...] = (
    ClientHello, ServerHello, CertificateVerify, Finished,
    messages13.EncryptedExtensions, messages13.CertificateRequest, messages13.Certificate, messages13.CompressedCertificate,
    messages13.NewSessionTicket, messages13.KeyUpdate,
    messages12.Certificate, messages12.ServerKeyExchange, messages12.ClientKeyExchange, messages12.HelloRequest,
    messages12.ServerHelloDone, messages12.CertificateRequest, messages12.CertificateStatus, messages12.NewSessionTicket,
)  # fmt: skip


def tls_message(data: bytes) -> None:
    """First byte: which message."""
    kind = MESSAGES[data[0] % len(MESSAGES)]
    try:
        message = kind.parse(data[1:])
    except (alerts.DecodeError, alerts.IllegalParameter):
        return
    assert kind.parse(message.build()).build() == message.build()


def tls_message_seeds() -> Iterable[bytes]:
    chain = software_credential().entries
    yield b"\0" + ClientHello(bytes(32), (0x1301, 0xC02B), {10: b"\0\2\0\x1d", 43: b"\2\3\4"}, bytes(32)).build()
    yield b"\1" + ServerHello(bytes(32), 0x1301, {43: b"\3\4", 51: b"\0\x1d\0\1\1"}, bytes(32)).build()
    yield b"\2" + CertificateVerify(0x0403, bytes(70)).build()
    yield b"\3" + bytes(32)
    yield b"\4" + messages13.EncryptedExtensions({0: b"", 16: b"\0\3\2h2"}).build()
    yield b"\5" + messages13.CertificateRequest(b"x", {13: b"\0\2\4\3"}).build()
    yield b"\6" + messages13.Certificate(b"", (CertificateEntry(chain[0].data, {5: b"\1\0\0\1x"}),)).build()
    yield b"\7" + messages13.CompressedCertificate(1, 100, zlib.compress(bytes(100))).build()
    yield b"\x08" + messages13.NewSessionTicket(7200, 1, b"\0", bytes(32), {42: bytes(4)}).build()
    yield b"\x09\1"
    yield b"\x0f" + messages12.CertificateRequest(b"\1\x40", (0x0403,), (b"0\0",)).build()
    yield b"\x10" + messages12.CertificateStatus(b"0\0").build()
    yield b"\x11" + messages12.NewSessionTicket(7200, bytes(32)).build()


def tls_extensions(data: bytes) -> None:
    """First byte: in which message the block stands; the rest is the block."""
    place = list(Place)[data[0] % len(Place)]
    try:
        reader = Reader(data[1:])
        block = parse_extensions(reader)
        reader.finish()
        table_for(()).parse(place, block, block)
    except (alerts.DecodeError, alerts.IllegalParameter, alerts.UnsupportedExtension):
        return
    assert parse_extensions(Reader(build_extensions(block))) == block


def tls_extensions_seeds() -> Iterable[bytes]:
    samples = (
        b"", b"\0", b"\1", b"\0\0", b"\3\4", b"\2\3\4", b"\0\2\0\x1d", b"\0\4\4\3\x08\4", b"\0\5\4host", b"\0\x07\0\0\4host", b"\0\3\2h2",
        b"\1\0\0\0\0", b"\1\0\0\1x", b"\0\6\0\x1d\0\2ab", b"\0\x1d\0\2ab", b"\0\7\0\1x\0\0\0\0\0\x21" + b"\x20" + bytes(32), b"\x40\0",
        b"\0\4\0\2\x30\0",
        b"\0\6\3\x55\x1d\x25\0\0", b"\1\1", b"\0\0\0\0",
    )  # fmt: skip
    for index, place in enumerate(Place):
        for row in CORE_ROWS:
            if place in row.places:
                some = samples[(index + row.code) % 5 :: 5]  # all of them in all places would be thousands
                yield from (bytes((index,)) + build_extensions({row.code: sample}) for sample in some)


def session_state(data: bytes) -> None:
    """What comes out of a ticket that our own key sealed: still not believed."""
    state = parse_session_state(data)
    assert state is None or parse_session_state(state.build()) == state


def session_state_seeds() -> Iterable[bytes]:
    entries = (CertificateEntry(b"certificate", {5: b"\1\0\0\1x"}),)
    common = {"cipher_suite": 0x1301, "created": 1, "lifetime": 7200, "secret": bytes(32)}
    yield SessionState(version=0x0304, **common, server_name="host", alpn=b"h2", entries=entries, context=b"c").build()  # type: ignore[arg-type]
    yield SessionState(version=0x0303, **common, extended_master_secret=True, session_id=bytes(32)).build()  # type: ignore[arg-type]


def psk_identity(data: bytes) -> None:
    found = ImportedIdentity.parse(data)
    assert found is None or found.build() == data


def psk_identity_seeds() -> Iterable[bytes]:
    for hash_name in ("sha256", "sha384"):
        yield ImportedIdentity(b"identity", PskNames(b"client", b"server"), hash_name).build()


# --- the socket protocol -----------------------------------------------------------------------------------------------------------


def wire_packet(data: bytes) -> None:
    """First byte: in which direction."""
    packet = data[1:].ljust(PACKET_SIZE, b"\0")[:PACKET_SIZE]
    try:
        decoded = decode(packet, answer=bool(data[0] & 1))
    except MalformedPacket as fault:
        assert 0 < len(fault.text.encode()) < 128
        return
    assert decode(encode(decoded), answer=bool(data[0] & 1)) == decoded


def wire_packet_seeds() -> Iterable[bytes]:
    for direction in (b"\0", b"\1"):
        for message in (Ping("yes", 7), StartTls(localid="a.example", remoteid="b.example"), PlaintextConnect()):
            yield direction + encode(Packet(1, 2, message))


def wire_dialogue(data: bytes) -> None:
    """A stream of packets, cut anywhere and with descriptors (here: numbers) anywhere. None of those may be lost or doubled."""
    side: PoolSide[int] = PoolSide(max_exchanges=8)
    given = 0
    seen: list[Any] = []
    for piece in pieces(data):
        step_data, with_descriptors = piece[1:], piece[0] & 3
        while step_data:
            taken, step_data = step_data[: side.wanted], step_data[side.wanted :]
            descriptors = tuple(range(given, given + with_descriptors))
            given, with_descriptors = given + len(descriptors), 0
            step = side.receive(taken, descriptors)
            seen += step.discard
            assert len(step.replies) % PACKET_SIZE == 0
            for event in step.events:
                if getattr(event, "descriptor", None) is not None:
                    seen.append(event.descriptor)  # type: ignore[union-attr]
                if isinstance(event, Asked) and event.exchange.open and isinstance(event.exchange.request, StartTls):
                    try:
                        side.call_back(event.exchange, PlaintextConnect())
                    except WireError:
                        continue
    seen += side.close().discard
    assert sorted(seen) == list(range(given))


def wire_dialogue_seeds() -> Iterable[bytes]:
    start = encode(Packet(1, 0, StartTls(localid="a", remoteid="b")))
    answer = encode(Packet(1, 1, PlaintextConnect()))
    ping = encode(Packet(2, 0, Ping("x", 1)))
    for parts in (
        (b"\1" + start, b"\1" + answer),
        (b"\0" + ping,),
        (b"\2" + start, b"\0" + answer),
        (b"\1" + start[:100], b"\1" + start[100:]),
    ):
        yield joined(parts)


def wire_application(data: bytes) -> None:
    """What a pool may send to an application."""
    side = ApplicationSide()
    side.request(Ping("x", 1))
    while data:
        taken, data = data[: side.wanted], data[side.wanted :]
        try:
            side.receive(taken)
        except MalformedPacket:
            return


def wire_application_seeds() -> Iterable[bytes]:
    yield encode(Packet(1, 0, Ping("yes", 7)))
    yield encode(Packet(1, 3, PlaintextConnect())) + encode(Packet(1, 0, Ping("yes", 7)))


# --- identities and expressions ------------------------------------------------------------------------------------------------------


def identity(data: bytes) -> None:
    text = data.decode(errors="replace")
    for parse in (DoNAI.parse, Selector.parse):
        try:
            found = parse(text)
        except InvalidIdentity:
            continue
        assert parse(str(found)) == found
        if isinstance(found, DoNAI):
            assert all(Selector.parse(selector).covers(found) for selector in found.selectors())


def expression(data: bytes) -> None:
    try:
        parsed = parse_expression(data.decode("latin-1"))
    except InvalidExpression:
        return
    letters = sorted(parsed.letters)
    outcome = parsed.outcome(dict.fromkeys(letters, True))
    assert outcome is not None and not parsed.pending(dict.fromkeys(letters, True))
    parsed.blame(dict.fromkeys(letters, False))


TARGETS = (
    Target("tls_message", tls_message, tls_message_seeds),
    Target("tls_extensions", tls_extensions, tls_extensions_seeds),
    Target("session_state", session_state, session_state_seeds),
    Target("psk_identity", psk_identity, psk_identity_seeds),
    Target("wire_packet", wire_packet, wire_packet_seeds),
    Target("wire_dialogue", wire_dialogue, wire_dialogue_seeds),
    Target("wire_application", wire_application, wire_application_seeds),
    Target("identity", identity, lambda: (b"john@example.org", b"@.example.org", "\u00fc@b\u00fccher.example".encode())),
    Target("expression", expression, lambda: (b"TI&", b"Tt|I&01|&~", b"TIF?")),
)  # fmt: skip
