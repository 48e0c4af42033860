"""Do two ends that can both be client or server agree on who is which, on what was dropped, and on nothing an attacker made up?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tlspool_core.testing.lies import Lie, lying
from tlspool_core.testing.peers import Answers, Pair, TicketBox, answer_all, software_credential
from tlspool_core.tls import TlsConnection, alerts
from tlspool_core.tls.alerts import AlertDescription as Alert
from tlspool_core.tls.codec import u16
from tlspool_core.tls.connection import AnySettings
from tlspool_core.tls.enums import SYMMETRY, HandshakeType
from tlspool_core.tls.messages import ClientHello, ServerHello, frame
from tlspool_core.tls.questions import BecomeServer, ClientAuth, JudgePeer, SpeakFirst
from tlspool_core.tls.settings import TLS12, TLS13, ClientSettings, OfferedPsk, PeerSettings, ServerSettings
from tlspool_core.tls.symmetry import SymmetryOffer, stays_client
from tlspool_core.tls.tls13.messages import EncryptedExtensions

VECTORS = json.loads((Path(__file__).parent / "vectors" / "symmetry.json").read_text())
VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
LOW, HIGH = b"\x11", b"\xee"
ASIS: Callable[[bytes], bytes] = lambda data: data  # noqa: E731 - the default of a parameter


@dataclass
class End:
    """One end that wants to speak first unless `listens`; `fill` decides on its tie-break."""

    name: str
    fill: bytes
    version: int = TLS13
    listens: bool = False
    may_serve: bool = True
    lie: Lie = lambda message: [message]
    client: dict[str, Any] = field(default_factory=dict)
    server: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)

    def make(self) -> tuple[TlsConnection, Answers]:
        client = ClientSettings(**{"versions": (self.version,), "random": lambda size: self.fill * size, **self.client})
        server = ServerSettings(**{"versions": (self.version,), **self.server})
        answers = Answers(
            **{
                "credentials": (software_credential("ecdsa-p256", self.name),),
                "client_auth": ClientAuth.REQUIRE,
                "tickets": TicketBox(),
                "as_client": None if self.listens else client,
                "as_server": server,
                **self.answers,
            }
        )
        return lying(PeerSettings(may_serve=self.may_serve), self.lie), answers


def low(**changes: Any) -> End:
    return End(**{"name": "low", "fill": LOW, **changes})


def high(**changes: Any) -> End:
    return End(**{"name": "high", "fill": HIGH, **changes})


def pair_of(one: End, other: End) -> Pair:
    (first, first_answers), (second, second_answers) = one.make(), other.make()
    return Pair(first, second, first_answers, second_answers)


def cross(
    pair: Pair, step: int = 0, to_server: Callable[[bytes], bytes] = ASIS, to_client: Callable[[bytes], bytes] = ASIS
) -> Pair:
    """Both ends speak before either hears the other; the functions change the hellos on their way."""
    answer_all(pair.client, pair.client_answers)
    answer_all(pair.server, pair.server_answers)
    first, second = to_server(pair.client.data_to_send()), to_client(pair.server.data_to_send())
    pair.step = step
    for receiver, answers, data in ((pair.server, pair.server_answers, first), (pair.client, pair.client_answers, second)):
        for start in range(0, len(data), step or len(data) or 1):
            receiver.receive(data[start : start + (step or len(data))])
            answer_all(receiver, answers)
    pair.run()
    return pair


def roles(pair: Pair) -> tuple[str, str]:
    assert pair.complete, (pair.client.failed, pair.server.failed)
    assert pair.client.export(b"EXPERIMENTAL", b"", 32) == pair.server.export(b"EXPERIMENTAL", b"", 32)
    pair.client.send(b"ping")
    pair.server.send(b"pong")
    pair.run()
    assert (pair.client.take_plaintext(), pair.server.take_plaintext()) == (b"pong", b"ping")
    return pair.client.facts.role, pair.server.facts.role


def failures(pair: Pair) -> set[type]:
    return {
        type(end.failed) for end in (pair.client, pair.server) if end.failed and not isinstance(end.failed, alerts.AlertReceived)
    }


def rebuilt(data: bytes, change: Callable[[ClientHello], object]) -> bytes:
    """A record with a ClientHello, changed."""
    hello = ClientHello.parse(data[9:])
    change(hello)
    message = frame(HandshakeType.CLIENT_HELLO, hello.build())
    return data[:3] + u16(len(message)) + message


def with_extension(content: bytes | None) -> Callable[[bytes], bytes]:
    def change(hello: ClientHello) -> None:
        hello.extensions.pop(SYMMETRY)
        if content is not None:
            hello.extensions[SYMMETRY] = content

    return lambda data: rebuilt(data, change)


# --- who is which ------------------------------------------------------------------------------------------------------------------


@VERSIONS
def test_whoever_speaks_first_is_the_client(version: int) -> None:
    pair = pair_of(low(version=version), high(version=version, listens=True))
    pair.run()
    assert roles(pair) == ("client", "server")


@VERSIONS
@pytest.mark.parametrize("step", [0, 1, 1000])
def test_of_two_that_speak_at_once_the_larger_tie_break_is_the_client(version: int, step: int) -> None:
    assert roles(cross(pair_of(low(version=version), high(version=version)), step)) == ("server", "client")
    assert roles(cross(pair_of(high(version=version), low(version=version)), step)) == ("client", "server")


@VERSIONS
def test_hello_and_answer_may_come_together(version: int) -> None:
    """The loser hears our ClientHello before it has sent its own bytes off."""
    pair = pair_of(high(version=version), low(version=version))
    pair.run()
    assert roles(pair) == ("client", "server")


@VERSIONS
def test_both_are_proven_and_judged_once(version: int) -> None:
    pair = cross(pair_of(low(version=version), high(version=version)))
    assert pair.complete
    for end, answers, other in ((pair.client, pair.client_answers, "high"), (pair.server, pair.server_answers, "low")):
        judged = [question for question in answers.asked if isinstance(question, JudgePeer)]
        assert len(judged) == 1 and judged[0].facts.role == end.facts.role
        assert end.peer is not None and end.peer.entries == software_credential("ecdsa-p256", other).entries
    asked = [[type(question) for question in answers.asked] for answers in (pair.client_answers, pair.server_answers)]
    assert asked[0].count(SpeakFirst) == asked[1].count(SpeakFirst) == 1
    assert (asked[0].count(BecomeServer), asked[1].count(BecomeServer)) == (1, 0)


@VERSIONS
def test_versions_and_protocols_are_those_of_the_hello_that_counts(version: int) -> None:
    pair = cross(
        pair_of(
            low(
                client={"alpn": (b"a",), "versions": (TLS13, TLS12)},
                server={"versions": (TLS13, TLS12)},
                answers={"alpn": (b"b", b"c")},
            ),
            high(version=version, client={"alpn": (b"c",), "server_name": "low"}),
        )
    )
    assert roles(pair) == ("server", "client")
    assert pair.client.facts.alpn == pair.server.facts.alpn == b"c"
    assert pair.client.facts.version == version and pair.client.facts.server_name == "low"


def test_a_hello_retry_request() -> None:
    pair = cross(pair_of(low(server={"groups": (0x17,)}), high(client={"groups": (0x1D, 0x17), "key_share_groups": (0x1D,)})))
    assert roles(pair) == ("server", "client")
    assert pair.client.facts.retried and pair.server.facts.retried


@VERSIONS
@pytest.mark.parametrize("crossed_again", [True, False])
def test_a_session_is_resumed(version: int, crossed_again: bool) -> None:
    box = TicketBox()
    pair = cross(pair_of(low(version=version, answers={"tickets": box}), high(version=version)))
    assert pair.complete
    session = pair.server.take_sessions()[0]
    again = pair_of(
        low(version=version, listens=not crossed_again, answers={"tickets": box}),
        high(version=version, client={"session": session}),
    )
    if crossed_again:
        cross(again)
    again.run()
    assert roles(again) == ("server", "client")
    assert again.client.facts.resumed and again.server.facts.resumed


# --- others than ends of this kind -----------------------------------------------------------------------------------------------


def run_with(one: End, other: AnySettings, *, other_first: bool = False) -> Pair:
    connection, answers = one.make()
    credentials = (software_credential("ecdsa-p256", "plain"),)
    others = Answers(credentials=credentials, client_auth=ClientAuth.REQUIRE)
    pair = Pair(connection, TlsConnection(other), answers, others)
    if other_first:
        pair = Pair(pair.server, pair.client, others, answers)
    pair.run()
    return pair


@VERSIONS
def test_a_plain_server_does_not_notice(version: int) -> None:
    pair = run_with(high(version=version), ServerSettings())
    assert roles(pair) == ("client", "server") and pair.client.facts.version == version


@VERSIONS
def test_a_plain_client_that_is_listened_to(version: int) -> None:
    pair = run_with(high(version=version, listens=True), ClientSettings(), other_first=True)
    assert roles(pair) == ("client", "server") and pair.client.facts.version == version


def test_a_plain_client_that_hears_a_client_hello_gives_up() -> None:
    pair = run_with(high(), ClientSettings())
    assert failures(pair) == {alerts.UnexpectedHandshakeMessage}
    assert type(pair.server.failed) is alerts.UnexpectedHandshakeMessage


@VERSIONS
def test_crossed_by_a_hello_without_the_extension_we_serve(version: int) -> None:
    """The server that we become must not answer what was not asked."""
    connection, answers = high(version=version).make()
    answer_all(connection, answers)
    connection.data_to_send()
    plain = TlsConnection(ClientSettings())
    pair = Pair(plain, connection, Answers(credentials=(software_credential(),)), answers)
    pair.run()
    assert roles(pair) == ("client", "server")


@VERSIONS
def test_an_end_that_can_only_be_the_client_is(version: int) -> None:
    for other in (high(version=version), high(version=version, listens=True)):
        pair = pair_of(low(version=version, may_serve=False), other)
        assert roles(cross(pair)) == ("client", "server")
    assert roles(run_with(low(version=version, may_serve=False), ServerSettings())) == ("client", "server")


def test_two_ends_that_can_only_be_clients() -> None:
    pair = cross(pair_of(low(may_serve=False), high(may_serve=False)))
    assert failures(pair) == {alerts.NoRoleInCommon} and alerts.NoRoleInCommon.alert is Alert.HANDSHAKE_FAILURE
    pair = run_with(low(may_serve=False), ClientSettings())
    assert failures(pair) == {alerts.UnexpectedHandshakeMessage, alerts.NoRoleInCommon}


def test_listening_is_for_servers() -> None:
    connection, answers = low(may_serve=False, listens=True).make()
    answer_all(connection, answers)
    assert type(connection.failed) is alerts.InternalError


def test_an_external_key_does_not_tell_two_ends_apart() -> None:
    connection, answers = low(client={"psk": OfferedPsk(b"name", bytes(32))}).make()
    answer_all(connection, answers)
    assert type(connection.failed) is alerts.InternalError and ClientHello.handshake_type not in connection.data_to_send()[:6]


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
    "change", [ASIS, with_extension(None), with_extension(SymmetryOffer(3, bytes(32)).build()), with_extension(GOOD)], ids=range(4)
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


# --- the published bytes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS["roles"], ids=lambda vector: vector["what"])
def test_vectors_of_roles(vector: dict[str, str]) -> None:
    ours, theirs = (SymmetryOffer.parse(bytes.fromhex(vector[side])) for side in ("ours", "theirs"))
    if vector["outcome"] in ("client", "server"):
        assert stays_client(ours, theirs) is (vector["outcome"] == "client")
    else:
        with pytest.raises(alerts.TlsError) as caught:
            stays_client(ours, theirs)
        assert caught.value.alert is not None and caught.value.alert.name.lower() == vector["outcome"]
    assert ours.build().hex() == vector["ours"]


def test_vector_of_a_crossing() -> None:
    """Two hellos as they were sent, byte for byte, and what the server answers: hashed here without the engine."""
    vector = VECTORS["crossing"]
    dropped = bytes.fromhex(vector["server_client_hello"])
    sent: list[bytes] = []
    server, answers = low(lie=lambda message: sent.append(message) or [message]).make()  # type: ignore[func-returns-value]
    answer_all(server, answers)
    server.data_to_send()
    theirs = bytes.fromhex(vector["client_client_hello"])
    server.receive(b"\x16\3\1" + u16(len(theirs)) + theirs)
    answer_all(server, answers)
    assert server.failed is None
    answered = next(EncryptedExtensions.parse(message[4:]) for message in sent if message[0] == HandshakeType.ENCRYPTED_EXTENSIONS)
    assert answered.extensions[SYMMETRY] == b"\1" + hashlib.sha256(sent[0]).digest()
    assert bytes.fromhex(vector["answer"]) == b"\1" + hashlib.sha256(dropped).digest()
    for hello, side in ((dropped, "server"), (theirs, "client")):
        assert ClientHello.parse(hello[4:]).extensions[SYMMETRY].hex() == vector[f"{side}_extension"]
