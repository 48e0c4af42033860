"""Is a TLS 1.3 session resumed when it may be and only then, and is its peer judged again?"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tlspool_core.testing.peers import Answers, Pair, software_credential
from tlspool_core.tls import TlsConnection, alerts
from tlspool_core.tls.enums import ExtensionType as Ext
from tlspool_core.tls.enums import HandshakeType
from tlspool_core.tls.messages import ClientHello, frame
from tlspool_core.tls.questions import ClientAuth, JudgePeer, OpenTicket, Sign
from tlspool_core.tls.session_state import SessionState, parse_session_state
from tlspool_core.tls.settings import StoredSession


def judged(answers: Answers) -> list[JudgePeer]:
    return [question for question in answers.asked if isinstance(question, JudgePeer)]


def first_session(make: Any, client: Any = None, **parts: Any) -> StoredSession:
    pair = make.established(client=client, **parts)
    sessions = pair.client.take_sessions()
    assert len(sessions) == 2
    assert pair.client.take_sessions() == []
    session: StoredSession = sessions[0]
    return session


def resume(make: Any, session: StoredSession, client: dict[str, Any] | None = None, **parts: Any) -> Pair:
    pair: Pair = make.established(client=make.client(session=session, **(client or {})), **parts)
    return pair


def test_resumption_signs_nothing_and_judges_both_sides_again(make: Any) -> None:
    mine = software_credential("ed25519", "client")
    ours = Answers(credentials=(mine,), judge=lambda question: b"client's memory")
    theirs = make.answers(client_auth=ClientAuth.REQUIRE, judge=lambda question: b"server's memory")
    session = first_session(make, client_answers=ours, server_answers=theirs)
    again_ours, again_theirs = Answers(credentials=(mine,)), make.answers(client_auth=ClientAuth.REQUIRE)
    pair = resume(make, session, client_answers=again_ours, server_answers=again_theirs)
    assert pair.client.facts.resumed and pair.server.facts.resumed
    assert pair.client.facts.key_exchange == "PSK+ECDHE"
    assert not [question for question in again_ours.asked + again_theirs.asked if isinstance(question, Sign)]
    (at_client,), (at_server,) = judged(again_ours), judged(again_theirs)
    assert at_client.context == b"client's memory"
    assert at_server.context == b"server's memory"
    assert at_server.peer is not None and at_server.peer.entries[0].data == mine.entries[0].data
    assert at_client.peer is not None and at_client.peer.entries[0].data == software_credential().entries[0].data
    assert at_client.facts.peer_signature_scheme == 0x0403
    assert len(pair.client.take_sessions()) == 1


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_resumed_session_can_be_refused(make: Any, side: str) -> None:
    def refuse(question: JudgePeer) -> bytes:
        raise alerts.AccessDenied("not any more")

    session = first_session(make)
    ours = Answers(judge=refuse) if side == "client" else Answers()
    theirs = make.answers(judge=refuse) if side == "server" else make.answers()
    pair = make.pair(client=make.client(session=session), client_answers=ours, server_answers=theirs)
    pair.run()
    refuser, other = (pair.client, pair.server) if side == "client" else (pair.server, pair.client)
    assert isinstance(refuser.failed, alerts.AccessDenied)
    assert isinstance(other.failed, alerts.AlertReceived) and other.failed.received == 49


def test_another_server_name_is_another_session(make: Any) -> None:
    session = first_session(make)
    pair = resume(make, session, {"server_name": "elsewhere"})
    assert not pair.client.facts.resumed
    # and a client that offers it all the same meets a server that does not take it
    state = parse_session_state(session.state)
    assert state is not None
    forged = StoredSession(session.ticket, dataclasses.replace(state, server_name="elsewhere").build(), session.obtained)
    pair = resume(make, forged, {"server_name": "elsewhere"})
    assert not pair.server.facts.resumed


def test_an_expired_ticket_is_neither_offered_nor_taken(make: Any) -> None:
    session = first_session(make)
    later = {"now": lambda: session.obtained + 7201}
    pair = resume(make, session, later)
    assert not pair.client.facts.resumed
    pair = resume(make, session, server=make.server(**later))
    assert not pair.server.facts.resumed
    pair = resume(make, session, server=make.server(now=lambda: session.obtained + 7100))
    assert pair.server.facts.resumed


def test_a_suite_with_another_hash_does_not_fit(make: Any) -> None:
    session = first_session(make, server=make.server(cipher_suites=(0x1301,)))
    pair = resume(make, session, server=make.server(cipher_suites=(0x1302,)))
    assert pair.complete and not pair.server.facts.resumed
    pair = resume(make, session, server=make.server(cipher_suites=(0x1303, 0x1301)))
    assert pair.server.facts.resumed and pair.server.facts.cipher_suite == 0x1303


def test_resumption_after_a_retry(make: Any) -> None:
    session = first_session(make)
    pair = resume(make, session, server=make.server(groups=(0x18,)))
    assert pair.server.facts.resumed and pair.server.facts.retried
    # a retry that changes the hash makes the client drop the ticket, which the server accepts
    pair = resume(make, session, server=make.server(groups=(0x18,), cipher_suites=(0x1302,)))
    assert pair.complete and not pair.server.facts.resumed


def test_a_server_that_now_requires_a_certificate(make: Any) -> None:
    session = first_session(make)
    mine = Answers(credentials=(software_credential("ed25519", "client"),))
    pair = resume(make, session, client_answers=mine, server_answers=make.answers(client_auth=ClientAuth.REQUIRE))
    assert not pair.server.facts.resumed and pair.server.peer is not None


def test_an_unknown_ticket_leads_to_a_full_handshake(make: Any) -> None:
    session = first_session(make)
    pair = resume(make, dataclasses.replace(session, ticket=b"nobody knows this"))
    assert not pair.server.facts.resumed


def test_a_damaged_state_is_no_session(make: Any) -> None:
    session = first_session(make)
    for state in (b"", b"\x02", session.state[:-1], session.state + b"\0"):
        assert parse_session_state(state) is None
        assert not resume(make, dataclasses.replace(session, state=state)).client.facts.resumed
        make.tickets.states[session.ticket] = state
        assert not resume(make, session).server.facts.resumed


def test_state_round_trip(make: Any) -> None:
    state = parse_session_state(first_session(make).state)
    assert isinstance(state, SessionState)
    assert parse_session_state(state.build()) == state
    assert state.secret.hex() not in repr(state)


def test_wrong_binder(make: Any, tampering: Any) -> None:
    def tamper(message: bytes) -> list[bytes]:
        return [message[:-1] + bytes((message[-1] ^ 1,))] if message[0] == HandshakeType.CLIENT_HELLO else [message]

    client = tampering(make.client(session=first_session(make)), tamper)
    pair = Pair(client, TlsConnection(make.server()), Answers(), make.answers())
    pair.run()
    assert type(pair.server.failed) is alerts.BadBinder
    assert pair.server.failed.alert is not None and pair.server.failed.alert.name == "DECRYPT_ERROR"


def test_a_changed_hello_does_not_go_with_its_binder(make: Any) -> None:
    pair = make.pair(client=make.client(session=first_session(make)))

    def tamper(data: bytes) -> bytes:
        if data[5:6] != b"\1":
            return data
        hello = ClientHello.parse(data[9:])
        hello.cipher_suites = tuple(reversed(hello.cipher_suites))
        message = frame(1, hello.build())
        return data[:3] + len(message).to_bytes(2, "big") + message

    pair.to_server = tamper
    pair.run()
    assert type(pair.server.failed) is alerts.BadBinder


def test_psk_without_dhe_is_not_spoken(make: Any, tampering: Any) -> None:
    """A ClientHello that allows only psk_ke gets a full handshake."""

    def tamper(message: bytes) -> list[bytes]:
        if message[0] != HandshakeType.CLIENT_HELLO:
            return [message]
        hello = ClientHello.parse(message[4:])
        hello.extensions[Ext.PSK_KEY_EXCHANGE_MODES] = b"\1\0"
        return [frame(1, hello.build())]

    client = tampering(make.client(session=first_session(make)), tamper)
    pair = Pair(client, TlsConnection(make.server()), Answers(), make.answers())
    pair.run()
    assert not [message for message in pair.server_answers.asked if isinstance(message, OpenTicket)]
    assert type(pair.client.failed) is alerts.BadRecordMac  # it does not know of the change, so its transcript differs


def test_no_tickets_if_none_are_wanted(make: Any) -> None:
    for settings in ({"tickets": 0}, {"ticket_lifetime": 0}):
        assert make.established(server=make.server(**settings)).client.take_sessions() == []
    assert make.established(server_answers=make.answers(tickets=None)).client.take_sessions() == []


def test_few_identities_are_looked_at(make: Any, tampering: Any) -> None:
    """Each identity costs questions: a ClientHello with hundreds of them must not."""

    def tamper(message: bytes) -> list[bytes]:
        hello = ClientHello.parse(message[4:])
        identities, binders = b"\0\x01x\0\0\0\0" * 500, (b"\x20" + bytes(32)) * 500
        many = len(identities).to_bytes(2, "big") + identities + len(binders).to_bytes(2, "big") + binders
        hello.extensions[Ext.PRE_SHARED_KEY] = many
        return [frame(1, hello.build())]

    client = tampering(make.client(), tamper)
    theirs = make.answers()
    Pair(client, TlsConnection(make.server()), Answers(), theirs).run()
    assert len([question for question in theirs.asked if isinstance(question, OpenTicket)]) == 4
