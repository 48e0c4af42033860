"""What does an attacker, or a peer that lies, get out of two ends that may both be client or server? The right alert, and no session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tlspool_core.testing.lies import Lie
from tlspool_core.testing.meetings import HIGH, LOW, End, cross, high, low, pair_of, rebuilt, with_extension
from tlspool_core.testing.peers import Answers, Pair, answer_all, software_credential
from tlspool_core.tls import TlsConnection, alerts
from tlspool_core.tls.alerts import AlertDescription as Alert
from tlspool_core.tls.enums import SYMMETRY, HandshakeType
from tlspool_core.tls.messages import ClientHello, ServerHello, frame
from tlspool_core.tls.settings import TLS12, TLS13, ClientSettings
from tlspool_core.tls.symmetry import SymmetryOffer
from tlspool_core.tls.tls13.messages import EncryptedExtensions

VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])


# --- what is refused -------------------------------------------------------------------------------------------------------------

GOOD = SymmetryOffer(3, HIGH * 32).build()


@VERSIONS
@pytest.mark.parametrize("listens", [False, True])
@pytest.mark.parametrize(
    ("content", "alert"),
    [
        (b"", Alert.DECODE_ERROR),
        (GOOD[:-1], Alert.DECODE_ERROR),
        (GOOD + b"x", Alert.DECODE_ERROR),
        (GOOD + bytes(2000), Alert.DECODE_ERROR),
        (b"\0" + GOOD[1:], Alert.ILLEGAL_PARAMETER),
        (b"\2" + GOOD[1:], Alert.ILLEGAL_PARAMETER),
        *[(GOOD[:1] + bytes((value,)) + GOOD[2:], Alert.ILLEGAL_PARAMETER) for value in (0, 2, 4, 7, 0x83)],
    ],
)
def test_a_malformed_extension(version: int, listens: bool, content: bytes, alert: Alert) -> None:
    pair = pair_of(low(version=version, listens=listens), high(version=version))
    cross(pair, to_client=with_extension(content))
    failed = pair.client.failed
    assert failed is not None and failed.alert is alert and not isinstance(failed, alerts.InternalError)


@pytest.mark.parametrize("fill", [LOW, HIGH])
@pytest.mark.parametrize(
    "change", [bytes, with_extension(None), with_extension(SymmetryOffer(3, bytes(32)).build()), with_extension(GOOD)], ids=range(4)
)
def test_our_own_hello_comes_back(fill: bytes, change: Callable[[bytes], bytes]) -> None:
    connection, answers = End("one", fill).make()
    answer_all(connection, answers)
    connection.receive(change(connection.data_to_send()))
    answer_all(connection, answers)
    assert type(connection.failed) is alerts.Reflected and connection.data_to_send() == b"\x15\3\3\0\2\2\x2f"


def test_our_tie_break_comes_back_in_another_hello() -> None:
    pair = pair_of(low(), high())
    cross(pair, to_client=with_extension(SymmetryOffer(3, LOW * 32).build()))
    assert type(pair.client.failed) is alerts.Reflected


def twice(message: bytes) -> list[bytes]:
    return [message, message] if message[0] == HandshakeType.CLIENT_HELLO else [message]


@pytest.mark.parametrize("liar", [low, high])
@VERSIONS
def test_two_client_hellos(version: int, liar: Callable[..., End]) -> None:
    """To the one that stays client: not a ServerHello. To the one that serves: more than the client may send now."""
    honest = high if liar is low else low
    pair = cross(pair_of(honest(version=version), liar(version=version, lie=twice)))
    assert type(pair.client.failed) is (alerts.UnexpectedHandshakeMessage if liar is low else alerts.ExcessHandshakeData)


def answering(version: int, change: Callable[[bytes | None], bytes | None]) -> Lie:
    """Changes the server's answer in whichever message it stands."""
    kind: Any = EncryptedExtensions if version == TLS13 else ServerHello

    def lie(message: bytes) -> list[bytes]:
        if message[0] != kind.handshake_type:
            return [message]
        parsed = kind.parse(message[4:])
        content = change(parsed.extensions.pop(SYMMETRY, None))
        if content is not None:
            parsed.extensions[SYMMETRY] = content
        return [frame(kind.handshake_type, parsed.build())]

    return lie


def flip(content: bytes | None) -> bytes:
    assert content is not None
    return content[:-1] + bytes((content[-1] ^ 1,))


@VERSIONS
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (flip, alerts.DroppedHelloDiffers),
        (lambda content: None, alerts.DroppedHelloDiffers),
        (lambda content: content[:-1], alerts.DecodeError),
        (lambda content: content + b"x", alerts.DecodeError),
        (lambda content: b"", alerts.DecodeError),
        (lambda content: b"\2" + content[1:], alerts.IllegalParameter),
    ],
)
def test_a_server_that_does_not_tell_what_it_dropped(version: int, change: Any, reason: type) -> None:
    pair = cross(pair_of(high(version=version), low(version=version, lie=answering(version, change))))
    assert isinstance(pair.client.failed, reason) and not pair.client.handshake_complete
    assert alerts.DroppedHelloDiffers.alert is Alert.ILLEGAL_PARAMETER


@VERSIONS
def test_a_server_that_dropped_what_never_came(version: int) -> None:
    answer = b"\1" + bytes(32)
    pair = pair_of(low(version=version), high(version=version, listens=True, lie=answering(version, lambda content: answer)))
    pair.run()
    assert type(pair.client.failed) is alerts.DroppedHelloDiffers


def test_the_extension_in_other_messages() -> None:
    def misplaced(message: bytes) -> list[bytes]:
        if message[0] != HandshakeType.SERVER_HELLO:
            return [message]
        hello = ServerHello.parse(message[4:])
        hello.extensions[SYMMETRY] = b"\1" + bytes(32)
        return [frame(message[0], hello.build())]

    pair = cross(pair_of(high(), low(lie=misplaced)))
    assert type(pair.client.failed) is alerts.MisplacedExtension
    (server, answers) = low(listens=True, lie=answering(TLS13, lambda content: b"\1" + bytes(32))).make()
    pair = Pair(TlsConnection(ClientSettings()), server, Answers(credentials=(software_credential(),)), answers)
    pair.run()
    assert type(pair.client.failed) is alerts.UnsolicitedExtension


def test_another_tie_break_after_hello_retry_request() -> None:
    seen: list[bytes] = []

    def lie(message: bytes) -> list[bytes]:
        if message[0] != HandshakeType.CLIENT_HELLO:
            return [message]
        seen.append(message)
        hello = ClientHello.parse(message[4:])
        if len(seen) == 2:
            hello.extensions[SYMMETRY] = SymmetryOffer(3, b"z" * 32).build()
        return [frame(message[0], hello.build())]

    client = high(client={"groups": (0x1D, 0x17), "key_share_groups": (0x1D,)}, lie=lie)
    pair = cross(pair_of(low(server={"groups": (0x17,)}), client))
    assert len(seen) == 2 and type(pair.client.failed) is alerts.SecondHelloDiffers


# --- between the two ends ----------------------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("field_of", ["tie_break", "roles", "cipher_suites", "random", "alpn", "stripped"])
@pytest.mark.parametrize("counts", [True, False], ids=["the one that counts", "the one that is dropped"])
def test_a_hello_changed_on_its_way(version: int, field_of: str, counts: bool) -> None:
    """Whatever an attacker makes of either hello: no session between two ends that saw different ones."""

    def change(hello: ClientHello) -> None:
        offer = SymmetryOffer.parse(hello.extensions[SYMMETRY])
        if field_of == "tie_break":
            hello.extensions[SYMMETRY] = replace(offer, tie_break=offer.tie_break[:-1] + b"!").build()
        elif field_of == "roles":
            hello.extensions[SYMMETRY] = replace(offer, roles=1).build()
        elif field_of == "cipher_suites":
            hello.cipher_suites = (*hello.cipher_suites, 0x1303)
        elif field_of == "random":
            hello.random = b"r" * 32
        elif field_of == "alpn":
            hello.extensions[16] = b"\0\2\1a"
        else:
            del hello.extensions[SYMMETRY]

    changed = lambda data: rebuilt(data, change)  # noqa: E731
    loser, winner = low(version=version), high(version=version)
    pair = cross(pair_of(loser, winner), **{"to_client" if counts else "to_server": changed})
    assert not pair.complete
    assert not pair.server.handshake_complete, "the client is complete only once it has compared everything"


@VERSIONS
def test_any_bit_of_the_dropped_hello(version: int) -> None:
    size = len(cross_hello(version))
    for place in range(9, size, 23):

        def flip_bit(data: bytes, place: int = place) -> bytes:
            return data[:place] + bytes((data[place] ^ 1 << place % 8,)) + data[place + 1 :]

        pair = cross(pair_of(low(version=version), high(version=version)), to_server=flip_bit)
        assert not pair.server.handshake_complete and not pair.complete, place


def cross_hello(version: int) -> bytes:
    connection, answers = low(version=version).make()
    answer_all(connection, answers)
    return connection.data_to_send()


@VERSIONS
def test_a_dropped_hello_that_never_arrives(version: int) -> None:
    pair = cross(pair_of(low(version=version), high(version=version)), to_server=lambda data: b"")
    assert type(pair.server.failed) is alerts.DroppedHelloDiffers


@VERSIONS
def test_a_dropped_hello_out_of_nothing(version: int) -> None:
    """An attacker makes the client believe that its server has spoken, too."""
    invented = low(version=version).make()
    answer_all(*invented)
    pair = pair_of(high(version=version), low(version=version, listens=True))
    answer_all(pair.client, pair.client_answers)
    pair.client.receive(invented[0].data_to_send())
    pair.run()
    assert type(pair.client.failed) is alerts.DroppedHelloDiffers


@VERSIONS
def test_tie_breaks_changed_so_that_both_serve_or_both_wait(version: int) -> None:
    for value in (b"\0" * 32, b"\xff" * 32):
        change = with_extension(SymmetryOffer(3, value).build())
        pair = cross(pair_of(low(version=version), high(version=version)), to_server=change, to_client=change)
        assert not pair.client.handshake_complete and not pair.server.handshake_complete
