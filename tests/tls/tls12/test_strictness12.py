"""Is every departure from the message flow of TLS 1.2 refused, with the alert that the RFC names?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tlspool_core.testing.peers import Answers, software_credential
from tlspool_core.tls import alerts
from tlspool_core.tls.enums import HandshakeType
from tlspool_core.tls.messages import DOWNGRADE_BELOW_12, DOWNGRADE_TO_12, ClientHello, ServerHello
from tlspool_core.tls.questions import ClientAuth
from tlspool_core.tls.settings import TLS12, TLS13
from tlspool_core.tls.tls12.key_schedule import KeySchedule
from tlspool_core.tls.tls12.messages import ServerKeyExchange

CCS = (20, b"\1")
SERVER_FLIGHT = ["server_hello", "certificate", "server_key_exchange", "certificate_request", "server_hello_done"]
CLIENT_FLIGHT = ["certificate", "client_key_exchange", "certificate_verify", "change_cipher_spec", "finished"]


def ordinary(make: Any, **parts: Any) -> Any:
    """A pair in which the client authenticates, so that every message has its place."""
    return make.pair(
        client_answers=Answers(credentials=(software_credential(),)),
        server_answers=make.answers(client_auth=ClientAuth.REQUIRE),
        **parts,
    )


def check_refused(pair: Any, *reasons: type[alerts.TlsError]) -> None:
    """One side refuses for one of the reasons, the other learns of it by alert, and nobody completes."""
    pair.run()
    refusing, other = (
        (pair.client, pair.server) if not pair.client.failed_by_peer and pair.client.failed else (pair.server, pair.client)
    )
    assert isinstance(refusing.failed, reasons), refusing.failed
    assert not isinstance(refusing.failed, alerts.InternalError), refusing.failed.__cause__
    assert other.failed is None or isinstance(other.failed, alerts.AlertReceived) or not other.handshake_complete
    assert not (pair.client.handshake_complete and pair.server.handshake_complete)


def first_flight_only(change: Callable[[list[Any]], list[Any]]) -> Callable[[list[Any]], list[Any]]:
    """Later flights pass as they are."""
    done: list[bool] = []

    def once(items: list[Any]) -> list[Any]:
        if done:
            return items
        done.append(True)
        return change(items)

    return once


def second_flight_only(change: Callable[[list[Any]], list[Any]]) -> Callable[[list[Any]], list[Any]]:
    """The client's first flight is ClientHello alone."""
    count: list[bool] = []

    def second(items: list[Any]) -> list[Any]:
        count.append(True)
        return change(items) if len(count) == 2 else items

    return second


def tamper(pair: Any, flight: Any, side: str, change: Callable[[list[Any]], list[Any]]) -> None:
    if side == "server":
        pair.to_client = flight.edit(first_flight_only(change))
    else:
        pair.to_server = flight.edit(second_flight_only(change))


POSITIONS = [("server", index) for index in range(5)] + [("client", index) for index in range(5)]


@pytest.mark.parametrize(("side", "index"), POSITIONS)
def test_a_message_left_out(make: Any, flight: Any, side: str, index: int) -> None:
    """Those that are optional as such are missed when the next one comes, which would not follow without them."""
    pair = ordinary(make)
    tamper(pair, flight, side, lambda items: items[:index] + items[index + 1 :])
    if (side, index) in {("server", 4), ("client", 4)}:  # the last message: the other side just waits
        pair.run()
        assert not pair.complete
        return
    check_refused(pair, alerts.UnexpectedMessage)


@pytest.mark.parametrize(("side", "index"), POSITIONS)
def test_a_message_twice(make: Any, flight: Any, side: str, index: int) -> None:
    pair = ordinary(make)
    tamper(pair, flight, side, lambda items: [*items[: index + 1], *items[index:]])
    if (side, index) == ("client", 4):  # Finished was good; its replay does not open
        pair.run()
        assert isinstance(pair.server.failed, alerts.BadRecordMac)
        return
    check_refused(pair, alerts.UnexpectedMessage, alerts.BadRecordMac)


@pytest.mark.parametrize(("side", "index"), [(side, index) for side, index in POSITIONS if index < 4])
def test_two_messages_swapped(make: Any, flight: Any, side: str, index: int) -> None:
    def swap(items: list[Any]) -> list[Any]:
        return [*items[:index], items[index + 1], items[index], *items[index + 2 :]]

    pair = ordinary(make)
    tamper(pair, flight, side, swap)
    check_refused(pair, alerts.UnexpectedMessage, alerts.BadRecordMac)


@pytest.mark.parametrize(("side", "index"), POSITIONS)
def test_change_cipher_spec_too_early(make: Any, flight: Any, side: str, index: int) -> None:
    """CVE-2014-0224: it is taken at one point only. After that, one in the clear is a record that does not open."""
    pair = ordinary(make)
    tamper(pair, flight, side, lambda items: [*items[:index], CCS, *items[index:]])
    check_refused(pair, alerts.BadRecordMac if side == "client" and index >= 3 else alerts.UnexpectedMessage)


@pytest.mark.parametrize("content", [b"", b"\0", b"\1\1"])
def test_change_cipher_spec_malformed(make: Any, flight: Any, content: bytes) -> None:
    pair = ordinary(make)
    tamper(pair, flight, "client", lambda items: [(kind, content if kind == 20 else data) for kind, data in items])
    check_refused(pair, alerts.UnexpectedMessage)


@pytest.mark.parametrize(
    ("side", "index"), [(side, index) for side, index in POSITIONS if (side, index) not in {("client", 3), ("client", 4)}]
)
def test_a_byte_too_many(make: Any, flight: Any, side: str, index: int) -> None:
    def lengthen(items: list[Any]) -> list[Any]:
        kind, data = items[index]
        longer = data[:1] + (len(data) - 3).to_bytes(3) + data[4:] + b"\0"
        return [*items[:index], (kind, longer), *items[index + 1 :]]

    pair = ordinary(make)
    tamper(pair, flight, side, lengthen)
    check_refused(pair, alerts.DecodeError)


@pytest.mark.parametrize(
    ("side", "index"), [(side, index) for side, index in POSITIONS if (side, index) not in {("client", 3), ("client", 4)}]
)
def test_a_message_cut_short(make: Any, flight: Any, side: str, index: int) -> None:
    """Every proper prefix of a body is refused, and never by anything but a reason."""
    for keep in (0, 1, 2, 3, 5, 40):

        def shorten(items: list[Any], keep: int = keep) -> list[Any]:
            kind, data = items[index]
            body = data[4 : 4 + min(keep, len(data) - 5)] if len(data) > 4 else b""
            return [*items[:index], (kind, data[:1] + len(body).to_bytes(3) + body), *items[index + 1 :]]

        if (side, index) == ("server", 4):
            continue  # ServerHelloDone has no body
        pair = ordinary(make)
        tamper(pair, flight, side, shorten)
        check_refused(pair, alerts.DecodeError, alerts.IllegalParameter, alerts.HandshakeFailure)


@pytest.mark.parametrize("role", ["client", "server"])
def test_a_wrong_finished(make: Any, monkeypatch: pytest.MonkeyPatch, role: str) -> None:
    real = KeySchedule.verify_data
    calls: list[str] = []

    def lie(keys: KeySchedule, whose: str, digest: bytes) -> bytes:
        """The first to ask for the data of `role` is the one who sends it."""
        data = real(keys, whose, digest)
        calls.append(whose)
        return data[:-1] + bytes((data[-1] ^ 1,)) if whose == role and calls.count(role) == 1 else data

    monkeypatch.setattr(KeySchedule, "verify_data", lie)
    check_refused(ordinary(make), alerts.BadFinished)


# --- hellos ------------------------------------------------------------------------------------------------------------------------


def without(code: int) -> Callable[[Any], None]:
    return lambda hello: hello.extensions.pop(code)


def setting(**fields: Any) -> Callable[[Any], None]:
    def change(hello: Any) -> None:
        for name, value in fields.items():
            setattr(hello, name, value)

    return change


def extension(code: int, content: bytes) -> Callable[[Any], None]:
    return lambda hello: hello.extensions.__setitem__(code, content)


CLIENT_HELLOS = {
    "no extended master secret": (without(23), alerts.HandshakeFailure),
    "renegotiation_info of another connection": (extension(0xFF01, b"\x0c" + bytes(12)), alerts.HandshakeFailure),
    "compression only": (setting(compression_methods=b"\1"), alerts.IllegalParameter),
    "no signature_algorithms means SHA-1": (without(13), alerts.HandshakeFailure),
    "static RSA only": (setting(cipher_suites=(0x009C, 0x002F)), alerts.HandshakeFailure),
    "CBC only": (setting(cipher_suites=(0xC013, 0xC009)), alerts.HandshakeFailure),
    "no group in common": (extension(10, b"\0\2\0\x15"), alerts.HandshakeFailure),
    "ec_point_formats without uncompressed": (extension(11, b"\1\1"), alerts.IllegalParameter),
    "extended_master_secret with content": (extension(23, b"\0"), alerts.DecodeError),
    "TLS 1.1": (setting(legacy_version=0x0302), alerts.ProtocolVersion),
    "a session_id of 33 bytes": (setting(legacy_session_id=bytes(33)), alerts.DecodeError),
    "RSA schemes for an ECDSA credential": (extension(13, b"\0\2\x08\x04"), alerts.HandshakeFailure),
    "SHA-1 schemes": (extension(13, b"\0\4\x02\x03\x02\x01"), alerts.HandshakeFailure),
}


@pytest.mark.parametrize("name", CLIENT_HELLOS)
def test_client_hello_refused(make: Any, flight: Any, name: str) -> None:
    change, reason = CLIENT_HELLOS[name]
    pair = ordinary(make)
    pair.to_server = flight.edit_hello(ClientHello, change)
    check_refused(pair, reason)


SERVER_HELLOS = {
    "no extended master secret": (without(23), alerts.HandshakeFailure),
    "no renegotiation_info": (without(0xFF01), alerts.HandshakeFailure),
    "renegotiation_info of another connection": (extension(0xFF01, b"\x18" + bytes(24)), alerts.HandshakeFailure),
    "compression": (setting(compression_method=1), alerts.IllegalParameter),
    "a suite that was not offered": (setting(cipher_suite=0xC013), alerts.IllegalParameter),
    "a suite of TLS 1.3": (setting(cipher_suite=0x1301), alerts.IllegalParameter),
    "an extension that was not offered": (extension(16, b"\0\3\2h2"), alerts.UnsupportedExtension),
    "an unknown extension": (extension(0x1234, b""), alerts.UnsupportedExtension),
    "an extension of ClientHello alone": (extension(13, b"\0\2\4\3"), alerts.IllegalParameter),
    "encrypt_then_mac with an AEAD": (extension(22, b""), alerts.UnsupportedExtension),
    "TLS 1.1": (setting(legacy_version=0x0302), alerts.ProtocolVersion),
}


@pytest.mark.parametrize("name", SERVER_HELLOS)
def test_server_hello_refused(make: Any, flight: Any, name: str) -> None:
    change, reason = SERVER_HELLOS[name]
    pair = ordinary(make)
    pair.to_client = flight.edit_hello(ServerHello, change)
    check_refused(pair, reason)


def test_an_echo_of_the_compatibility_session_id_is_no_resumption(make: Any, flight: Any) -> None:
    """RFC 8446 appendix D.4: a client of both versions sends a session_id without having a session."""
    seen: list[bytes] = []
    pair = ordinary(make, client=make.client(versions=(TLS13, TLS12)))
    pair.to_server = flight.edit_hello(ClientHello, lambda hello: seen.append(hello.legacy_session_id))
    pair.to_client = flight.edit_hello(ServerHello, lambda hello: setattr(hello, "legacy_session_id_echo", seen[0]))
    check_refused(pair, alerts.IllegalParameter)


def test_client_sees_the_downgrade(make: Any, flight: Any) -> None:
    """Somebody takes supported_versions away: the server's random tells (RFC 8446 section 4.1.3)."""
    both = {"versions": (TLS13, TLS12)}
    pair = ordinary(make, client=make.client(**both), server=make.server(**both))

    def downgrade(hello: Any) -> None:
        for code in (43, 51, 45):
            del hello.extensions[code]

    pair.to_server = flight.edit_hello(ClientHello, downgrade)
    check_refused(pair, alerts.DowngradeDetected)


@pytest.mark.parametrize("sentinel", [DOWNGRADE_TO_12, DOWNGRADE_BELOW_12])
def test_client_of_both_versions_refuses_either_sentinel(make: Any, flight: Any, sentinel: bytes) -> None:
    pair = ordinary(make, client=make.client(versions=(TLS13, TLS12)))
    pair.to_client = flight.edit_hello(ServerHello, lambda hello: setattr(hello, "random", hello.random[:24] + sentinel))
    check_refused(pair, alerts.DowngradeDetected)


@pytest.mark.parametrize("scsv", [True, False])
def test_a_client_that_signals_by_cipher_suite_or_not_at_all(make: Any, flight: Any, scsv: bool) -> None:
    """RFC 5746 section 3.6: the signal is answered in either form; who gives none is served, but told nothing."""

    def change(hello: Any) -> None:
        del hello.extensions[0xFF01]
        hello.cipher_suites = (*hello.cipher_suites, *((0x00FF,) if scsv else ()))

    answers: list[Any] = []
    pair = ordinary(make)
    pair.to_server = flight.edit_hello(ClientHello, change)
    pair.to_client = flight.edit_hello(ServerHello, answers.append)
    pair.run()
    assert answers[0].extensions.get(0xFF01) == (b"\0" if scsv else None)


# --- proofs ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [-1, 1, 2, 3, 40, 72])
def test_server_parameters_are_signed(make: Any, flight: Any, position: int) -> None:
    """A flip in curve type, group, point, scheme or signature."""

    def flip(body: bytes) -> bytes:
        changed = bytearray(body)
        changed[position] ^= 1
        return bytes(changed)

    pair = ordinary(make)
    pair.to_client = flight.edit_message(ServerKeyExchange.handshake_type, flip)
    check_refused(pair, alerts.DecryptError, alerts.IllegalParameter, alerts.DecodeError)


def test_client_proof_is_verified(make: Any, flight: Any) -> None:
    pair = ordinary(make)
    pair.to_server = flight.edit_message(HandshakeType.CERTIFICATE_VERIFY, lambda body: body[:-1] + bytes((body[-1] ^ 1,)))
    check_refused(pair, alerts.BadSignature)


def test_client_proof_by_a_scheme_that_was_not_offered(make: Any, flight: Any) -> None:
    pair = ordinary(make, server=make.server(signature_schemes=(0x0403,)))
    pair.to_server = flight.edit_message(HandshakeType.CERTIFICATE_VERIFY, lambda body: b"\x05\x03" + body[2:])
    check_refused(pair, alerts.WrongScheme)


def test_server_without_certificate(make: Any, flight: Any) -> None:
    pair = ordinary(make)
    pair.to_client = flight.edit_message(HandshakeType.CERTIFICATE, lambda body: bytes(3))
    check_refused(pair, alerts.NoPeerCertificate)


def test_client_without_the_certificate_that_is_required(make: Any) -> None:
    pair = make.pair(server_answers=make.answers(client_auth=ClientAuth.REQUIRE))
    check_refused(pair, alerts.HandshakeFailure)


@pytest.mark.parametrize("point", [b"", bytes(32), b"\x04" * 31, b"\x04" + b"\x01" * 64])
def test_bad_client_point(make: Any, flight: Any, point: bytes) -> None:
    """An empty one, the zero point of X25519, a short one, and one of another curve."""
    pair = ordinary(make, server=make.server(groups=(0x1D,)))
    pair.to_server = flight.edit_message(HandshakeType.CLIENT_KEY_EXCHANGE, lambda body: bytes((len(point),)) + point)
    check_refused(pair, alerts.IllegalParameter, alerts.DecodeError)


def test_a_group_that_was_not_offered(make: Any, flight: Any) -> None:
    """Signed by the server itself, so it is the client's own check that refuses."""
    pair = ordinary(make, client=make.client(groups=(0x17,)), server=make.server(groups=(0x18,)))
    pair.to_server = flight.edit_hello(ClientHello, lambda hello: hello.extensions.__setitem__(10, b"\0\2\0\x18"))
    check_refused(pair, alerts.UnofferedChoice)


@pytest.mark.parametrize("role", ["client", "server"])
def test_judges_refusal_is_sent(make: Any, role: str) -> None:
    def judge(question: Any) -> bytes:
        if question.facts.role == role:
            raise alerts.AccessDenied("not you")
        return b""

    pair = make.pair(
        client_answers=Answers(credentials=(software_credential(),), judge=judge),
        server_answers=make.answers(client_auth=ClientAuth.REQUIRE, judge=judge),
    )
    check_refused(pair, alerts.AccessDenied)


# --- after the handshake -----------------------------------------------------------------------------------------------------------


def test_renegotiation_is_refused_on_both_sides(make: Any) -> None:
    hello = ClientHello(bytes(32), (0xC02B,), {0xFF01: b"\0"})
    for sender, message in (("server", b"\0\0\0\0"), ("client", b"\1" + len(hello.build()).to_bytes(3) + hello.build())):
        pair = make.established()
        source, target = (pair.server, pair.client) if sender == "server" else (pair.client, pair.server)
        source.established.channel.queue(message)
        pair.run()
        assert isinstance(target.failed, alerts.RenegotiationRefused)
        assert isinstance(source.failed, alerts.AlertReceived) and source.failed.received == 100


@pytest.mark.parametrize("message", [b"\x14\0\0\x0c" + bytes(12), b"\x04\0\0\x06" + bytes(6), b"\x18\0\0\1\0", b"\0\0\0\1\0"])
def test_other_messages_after_the_handshake(make: Any, message: bytes) -> None:
    pair = make.established()
    pair.server.established.channel.queue(message)
    pair.run()
    assert isinstance(pair.client.failed, alerts.UnexpectedMessage | alerts.DecodeError)


def test_change_cipher_spec_after_the_handshake(make: Any) -> None:
    pair = make.established()
    pair.server.established.channel.write(20, b"\1")
    pair.run()
    assert isinstance(pair.client.failed, alerts.UnexpectedMessage | alerts.BadRecordMac)
