"""Do two ends that can both be client or server agree on who is which, on what was dropped, and on nothing an attacker made up?"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tlspool_core.testing.meetings import End, cross, high, low, pair_of
from tlspool_core.testing.peers import Answers, Pair, TicketBox, answer_all, software_credential
from tlspool_core.tls import TlsConnection, alerts
from tlspool_core.tls.alerts import AlertDescription as Alert
from tlspool_core.tls.codec import u16
from tlspool_core.tls.connection import AnySettings
from tlspool_core.tls.enums import SYMMETRY, HandshakeType
from tlspool_core.tls.messages import ClientHello
from tlspool_core.tls.questions import BecomeServer, ClientAuth, JudgePeer, SpeakFirst
from tlspool_core.tls.settings import TLS12, TLS13, ClientSettings, OfferedPsk, ServerSettings
from tlspool_core.tls.symmetry import SymmetryOffer, stays_client
from tlspool_core.tls.tls13.messages import EncryptedExtensions

VECTORS = json.loads((Path(__file__).parent / "vectors" / "symmetry.json").read_text())
VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])


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
