"""Does every change to any message of any complete handshake end in the alert of its kind, never in success or another exception?

Two ends conduct a handshake; one changes one of its messages as it goes out (under the right keys, its own books kept as if it had not),
or one record is changed on its way.  All kinds of handshake, both ends, all messages, all kinds of change.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest

from tlspool_core.testing.lies import Lie, lying
from tlspool_core.testing.peers import Answers, Pair, TicketBox, software_credential
from tlspool_core.tls import TlsConnection, alerts
from tlspool_core.tls.alerts import AlertDescription as Alert
from tlspool_core.tls.enums import HandshakeType as Type
from tlspool_core.tls.padding import POWERS, Padding
from tlspool_core.tls.questions import ClientAuth
from tlspool_core.tls.settings import TLS12, TLS13, ClientSettings, OfferedPsk, ServerSettings
from tlspool_core.tls.tls13.external_psk import PskNames

PADDING = Padding(handshake=512, data=POWERS)
FLIPS = 24  # places in each message at which a bit is flipped


@dataclass(frozen=True)
class Scenario:
    """One kind of handshake."""

    version: int
    mutual: bool = False
    resumed: bool = False
    retried: bool = False
    stapled: bool = False
    compressed: bool = False
    shared_key: bool = False
    padded: bool = False

    def client_settings(self) -> ClientSettings:
        settings = ClientSettings(
            server_name="testserver",
            versions=(self.version,),
            alpn=(b"a", b"b"),
            key_share_groups=(0x17,) if self.retried else (),
            certificate_compression=self.compressed,
            psk=OfferedPsk(b"key", b"k" * 32, PskNames(b"alice", b"bob")) if self.shared_key else None,
            padding=PADDING if self.padded else None,
        )
        return replace(settings, session=stored(self)[0]) if self.resumed else settings

    def server_settings(self) -> ServerSettings:
        settings = ServerSettings(
            groups=(0x1D,) if self.retried else (),
            certificate_compression=self.compressed,
            psk_name=b"bob" if self.shared_key else b"",
            padding=PADDING if self.padded else None,
        )
        return replace(settings, ocsp_response=lambda _: b"0\3\x0a\1\1") if self.stapled else settings

    def answers(self) -> tuple[Answers, Answers]:
        box = stored(self)[1] if self.resumed else TicketBox()
        auth = ClientAuth.REQUIRE if self.mutual else ClientAuth.NONE
        credentials = (software_credential("rsa-2048" if self.compressed else "ecdsa-p256"),)
        keys = {b"key": b"k" * 32} if self.shared_key else {}
        server = Answers(credentials=credentials, alpn=(b"b",), client_auth=auth, tickets=box, psks=keys)
        return Answers(credentials=(software_credential("ed25519", "client"),)), server


SCENARIOS = {
    "tls13": Scenario(TLS13),
    "tls13-mutual": Scenario(TLS13, mutual=True),
    "tls13-retried": Scenario(TLS13, retried=True),
    "tls13-resumed": Scenario(TLS13, resumed=True),
    "tls13-stapled-compressed": Scenario(TLS13, stapled=True, compressed=True),
    "tls13-shared-key": Scenario(TLS13, shared_key=True),
    "tls13-padded": Scenario(TLS13, mutual=True, padded=True),
    "tls12": Scenario(TLS12),
    "tls12-mutual": Scenario(TLS12, mutual=True),
    "tls12-resumed": Scenario(TLS12, resumed=True),
    "tls12-stapled": Scenario(TLS12, stapled=True),
}


@cache
def stored(scenario: Scenario) -> tuple[Any, TicketBox]:
    """A session that can be resumed, and the box of tickets that knows it."""
    first = replace(scenario, resumed=False)
    client_answers, server_answers = first.answers()
    pair = Pair(TlsConnection(first.client_settings()), TlsConnection(first.server_settings()), client_answers, server_answers)
    pair.run()
    assert server_answers.tickets is not None
    return pair.client.take_sessions()[0], server_answers.tickets


def honest(message: bytes) -> list[bytes]:
    return [message]


def pair_of(scenario: Scenario, liar: str = "", lie: Lie = honest) -> Pair:
    client, server = scenario.client_settings(), scenario.server_settings()
    return Pair(
        lying(client, lie if liar == "client" else honest),
        lying(server, lie if liar == "server" else honest),
        *scenario.answers(),
    )


@cache
def flow(scenario: Scenario, liar: str) -> tuple[int, ...]:
    """Types of the messages that one end sends up to its Finished."""
    seen: list[int] = []

    def watch(message: bytes) -> list[bytes]:
        seen.append(message[0])
        return [message]

    pair = pair_of(scenario, liar, watch)
    pair.run()
    assert pair.complete, (pair.client.failed, pair.server.failed)
    assert pair.client.facts.resumed is scenario.resumed and pair.client.facts.retried is scenario.retried
    return tuple(seen[: seen.index(Type.FINISHED) + 1])


def outcome(scenario: Scenario, liar: str, lie: Lie) -> Alert | None:
    """The alert of the end that was lied to; None if it waits. It is never satisfied, and nobody stumbles over himself."""
    pair = pair_of(scenario, liar, lie)
    pair.run()
    believer, other = (pair.server, pair.client) if liar == "client" else (pair.client, pair.server)
    for side in (believer, other):
        assert not isinstance(side.failed, alerts.InternalError), side.failed.__cause__
    assert not believer.handshake_complete or believer.failed is not None, "not noticed"
    if isinstance(believer.failed, alerts.AlertReceived):
        return other.failed.alert if other.failed is not None else None
    return None if believer.failed is None else believer.failed.alert


def at(number: int, change: Callable[[bytes], list[bytes]]) -> Lie:
    """Changes the message of that number, once."""
    seen = [-1]

    def lie(message: bytes) -> list[bytes]:
        seen[0] += 1
        return change(message) if seen[0] == number else [message]

    return lie


def with_body(message: bytes, body: bytes) -> bytes:
    return message[:1] + len(body).to_bytes(3, "big") + body


def steps() -> Iterator[Any]:
    """Each message of each handshake."""
    for name, scenario in SCENARIOS.items():
        for liar in ("client", "server"):
            for number, kind in enumerate(flow(scenario, liar)):
                yield pytest.param(scenario, liar, number, kind, id=f"{name}-{liar}-{number}-{Type(kind).name}")


EVERY_MESSAGE = pytest.mark.parametrize(("scenario", "liar", "number", "kind"), [*steps()])
# what a client may not tell from a server that never meant to send it, until Finished or a signature vouches for the whole
OPTIONAL = (Type.CERTIFICATE_REQUEST, Type.CERTIFICATE_STATUS)
# two ends whose transcripts differ: signature and Finished do not verify, or (extended master secret) their keys differ already
DIFFERENT_BOOKS = {Alert.DECRYPT_ERROR, Alert.BAD_RECORD_MAC}


@EVERY_MESSAGE
def test_dropped(scenario: Scenario, liar: str, number: int, kind: int) -> None:
    expected = {Alert.UNEXPECTED_MESSAGE, None}
    if kind in OPTIONAL:
        expected |= DIFFERENT_BOOKS
    assert outcome(scenario, liar, at(number, lambda message: [])) in expected


@EVERY_MESSAGE
def test_repeated(scenario: Scenario, liar: str, number: int, kind: int) -> None:
    # what follows a message that ends its keys came under the old ones: it is left over, or does not open
    alert = outcome(scenario, liar, at(number, lambda message: [message, message]))
    last = kind == Type.FINISHED and scenario.version == TLS12
    assert alert in ({Alert.UNEXPECTED_MESSAGE, Alert.DECODE_ERROR} if last else {Alert.UNEXPECTED_MESSAGE})


@EVERY_MESSAGE
def test_in_the_place_of_the_next(scenario: Scenario, liar: str, number: int, kind: int) -> None:
    held: list[bytes] = []

    def swap(message: bytes) -> list[bytes]:
        seen[0] += 1
        if seen[0] == number:
            held.append(message)
            return []
        return [message, held.pop()] if held else [message]

    seen = [-1]
    alert = outcome(scenario, liar, swap)
    assert alert in {Alert.UNEXPECTED_MESSAGE, None} | (DIFFERENT_BOOKS if kind in OPTIONAL else set())


@EVERY_MESSAGE
def test_cut_short(scenario: Scenario, liar: str, number: int, kind: int) -> None:
    if kind == Type.SERVER_HELLO_DONE:
        return  # it has no body
    for cut in (1, 2, 3, 7, 40):
        alert = outcome(
            scenario, liar, at(number, lambda message, cut=cut: [with_body(message, message[4 : max(4, len(message) - cut)])])
        )
        expected = {Alert.DECODE_ERROR}
        if kind == Type.FINISHED:
            expected = {Alert.DECRYPT_ERROR, Alert.DECODE_ERROR}
        elif kind in (Type.CERTIFICATE, Type.COMPRESSED_CERTIFICATE):
            expected |= {Alert.BAD_CERTIFICATE}  # the compressed one may say so in its own way
        assert alert in expected, cut


@EVERY_MESSAGE
def test_longer(scenario: Scenario, liar: str, number: int, kind: int) -> None:
    alert = outcome(scenario, liar, at(number, lambda message: [with_body(message, message[4:] + b"\0")]))
    expected = {Alert.DECODE_ERROR}
    if kind == Type.FINISHED:
        expected |= {Alert.DECRYPT_ERROR}
    elif kind == Type.COMPRESSED_CERTIFICATE:
        expected |= {Alert.BAD_CERTIFICATE}
    assert alert in expected


# a flipped bit makes nonsense of a structure, or sense of another kind: these are the alerts for it
NONSENSE = {
    Alert.DECODE_ERROR, Alert.ILLEGAL_PARAMETER, Alert.DECRYPT_ERROR, Alert.UNEXPECTED_MESSAGE, Alert.UNSUPPORTED_EXTENSION,
    Alert.HANDSHAKE_FAILURE, None,
}  # fmt: skip
OF_KIND: dict[int, set[Alert]] = {
    Type.CLIENT_HELLO: {
        Alert.PROTOCOL_VERSION, Alert.MISSING_EXTENSION, Alert.NO_APPLICATION_PROTOCOL, Alert.BAD_RECORD_MAC, Alert.UNRECOGNIZED_NAME,
    },
    Type.SERVER_HELLO: {Alert.PROTOCOL_VERSION, Alert.MISSING_EXTENSION, Alert.BAD_RECORD_MAC},
    Type.CERTIFICATE: {Alert.BAD_CERTIFICATE, Alert.UNSUPPORTED_CERTIFICATE, Alert.BAD_RECORD_MAC},
    Type.CERTIFICATE_STATUS: {Alert.BAD_RECORD_MAC},
    Type.COMPRESSED_CERTIFICATE: {Alert.BAD_CERTIFICATE},
    Type.CERTIFICATE_REQUEST: {Alert.MISSING_EXTENSION},
    Type.SERVER_KEY_EXCHANGE: {Alert.BAD_RECORD_MAC},
    Type.CLIENT_KEY_EXCHANGE: {Alert.BAD_RECORD_MAC},
    Type.FINISHED: set(),
}  # fmt: skip


@EVERY_MESSAGE
def test_a_bit_flipped(scenario: Scenario, liar: str, number: int, kind: int) -> None:
    """Anywhere in the message, its header included."""
    source = random.Random(f"{scenario}{liar}{number}")
    for _ in range(FLIPS):
        place, bit = source.random(), 1 << source.randrange(8)

        def flip(message: bytes, place: float = place, bit: int = bit) -> list[bytes]:
            position = int(place * len(message))
            return [message[:position] + bytes((message[position] ^ bit,)) + message[position + 1 :]]

        assert outcome(scenario, liar, at(number, flip)) in NONSENSE | OF_KIND.get(kind, set())


# --- on the way ------------------------------------------------------------------------------------------------------------------


def records_of(data: bytes) -> list[bytes]:
    records = []
    while data:
        end = 5 + int.from_bytes(data[3:5], "big")
        records.append(data[:end])
        data = data[end:]
    return records


CHANGES: dict[str, Callable[[list[bytes], int], list[bytes]]] = {
    "drop": lambda records, at: records[:at] + records[at + 1 :],
    "repeat": lambda records, at: [*records[: at + 1], *records[at:]],
    "reorder": lambda records, at: [*records[:at], *records[at + 1 : at + 2], records[at], *records[at + 2 :]],
    "truncate": lambda records, at: [*records[:at], shortened(records[at]), *records[at + 1 :]],
    "flip": lambda records, at: [*records[:at], records[at][:-1] + bytes((records[at][-1] ^ 1,)), *records[at + 1 :]],
}
ON_THE_WAY = {
    Alert.UNEXPECTED_MESSAGE, Alert.BAD_RECORD_MAC, Alert.DECODE_ERROR, Alert.DECRYPT_ERROR, Alert.ILLEGAL_PARAMETER,
    Alert.HANDSHAKE_FAILURE, Alert.BAD_CERTIFICATE, Alert.UNSUPPORTED_EXTENSION,
    Alert.PROTOCOL_VERSION,  # of a first ClientHello that comes again: its record says TLS 1.0
}  # fmt: skip
CHANGE_CIPHER_SPEC = 20


def shortened(record: bytes) -> bytes:
    return record[:3] + (len(record) - 6).to_bytes(2, "big") + record[5:-1]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("direction", ["to_client", "to_server"])
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_records_changed_on_the_way(scenario: Scenario, direction: str, change: str) -> None:
    """Each record up to the receiver's completion, one at a time."""
    for number in range(12):
        if not _changed_record(scenario, direction, CHANGES[change], number):
            break
    assert number > 1


def _changed_record(scenario: Scenario, direction: str, change: Callable[[list[bytes], int], list[bytes]], number: int) -> bool:
    """Whether there was such a record."""
    pair, seen = pair_of(scenario), [0]
    receiver = pair.client if direction == "to_client" else pair.server
    touched: list[tuple[bytes, bool]] = []

    def tamper(data: bytes) -> bytes:
        records = records_of(data)
        at, seen[0] = number - seen[0], seen[0] + len(records)
        if 0 <= at < len(records) and not receiver.handshake_complete:
            changed = change(records, at)
            touched.append((records[at], changed != records))
            return b"".join(changed)
        return data

    setattr(pair, direction, tamper)
    pair.run()
    if not touched:
        return False
    record, different = touched[0]
    # TLS 1.3's change_cipher_spec is for middleboxes: without, or with one more, or elsewhere in the handshake, it is the same to us
    ignored = scenario.version == TLS13 and record[0] == CHANGE_CIPHER_SPEC
    for side in (pair.client, pair.server):
        assert not isinstance(side.failed, alerts.InternalError), side.failed.__cause__
    if different and not ignored:
        assert not pair.complete, number
        assert {side.failed.alert for side in (pair.client, pair.server) if side.failed and not side.failed_by_peer} <= ON_THE_WAY
    return True


# --- delivery ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2, 7, 0], ids=["bytes", "pairs", "sevens", "flights"])
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_delivery_in_any_pieces(scenario: Scenario, step: int) -> None:
    pair = pair_of(scenario)
    pair.step = step
    pair.run()
    assert pair.complete
    pair.client.send(b"hello")
    pair.run()
    assert pair.server.take_plaintext() == b"hello"
