"""Are sessions of TLS 1.2 resumed when they may be, judged again, and never when they may not?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tlspool_core.testing.peers import Answers, software_credential
from tlspool_core.tls import alerts
from tlspool_core.tls.messages import ClientHello, ServerHello
from tlspool_core.tls.questions import ClientAuth, JudgePeer
from tlspool_core.tls.session_state import parse_session_state
from tlspool_core.tls.settings import TLS12, TLS13
from tlspool_core.tls.tls12.messages import NewSessionTicket


def first(make: Any, **parts: Any) -> Any:
    """A full handshake, and the one session that the client got of it."""
    pair = make.established(**parts)
    (session,) = pair.client.take_sessions()
    return pair, session


def test_resumed_with_the_same_facts(make: Any) -> None:
    before, session = first(make, client=make.client(want_ocsp=True), server=make.server(ocsp_response=lambda _: b"status"))
    pair = make.established(client=make.client(session=session))
    for side in (pair.client, pair.server):
        assert side.facts.resumed and side.facts.cipher_suite == before.client.facts.cipher_suite
        assert side.facts.extended_master_secret and side.facts.server_name == "testserver"
    assert pair.server.own is before.server.own is not None
    assert pair.client.peer.entries == before.client.peer.entries and pair.client.facts.peer_ocsp == b"status"
    assert pair.client.export(b"EXPORTER-t", None, 9) == pair.server.export(b"EXPORTER-t", None, 9)
    assert pair.client.export(b"EXPORTER-t", None, 9) != before.client.export(b"EXPORTER-t", None, 9)
    assert pair.client.channel_binding("tls-unique") == pair.server.channel_binding("tls-unique")
    pair.client.send(b"again")
    pair.run()
    assert pair.server.take_plaintext() == b"again"


def test_a_client_is_known_again_and_judged_again(make: Any) -> None:
    contexts: list[tuple[Any, bytes]] = []

    def judge(question: JudgePeer) -> bytes:
        contexts.append((question.peer, question.context))
        return b"remember"

    server_answers = make.answers(client_auth=ClientAuth.REQUIRE, judge=judge)
    _, session = first(
        make, client_answers=Answers(credentials=(software_credential("ed25519", "me"),)), server_answers=server_answers
    )
    pair = make.established(client=make.client(session=session), server_answers=server_answers)
    assert pair.server.facts.resumed
    assert [context for _, context in contexts] == [b"", b"remember"]
    assert contexts[0][0].entries[0].data == contexts[1][0].entries[0].data == pair.server.peer.entries[0].data


@pytest.mark.parametrize("role", ["client", "server"])
def test_todays_judgement_counts(make: Any, role: str) -> None:
    _, session = first(make)

    def judge(question: JudgePeer) -> bytes:
        assert question.facts.resumed
        raise alerts.CertificateRevoked("since yesterday")

    answers = {f"{role}_answers": make.answers(judge=judge)}
    pair = make.pair(client=make.client(session=session), **answers)
    pair.run()
    assert isinstance(getattr(pair, role).failed, alerts.CertificateRevoked) and not pair.complete


def resumes(make: Any, session: Any, **parts: Any) -> bool:
    """The handshake succeeds in any case; was it resumed?"""
    pair = make.established(client=parts.pop("client", None) or make.client(session=session), **parts)
    assert pair.client.facts.resumed is pair.server.facts.resumed
    return bool(pair.client.facts.resumed)


def test_falls_back_to_a_full_handshake(make: Any) -> None:
    _, session = first(make)
    assert resumes(make, session)
    assert not resumes(make, session, server_answers=make.answers(tickets=None))
    assert not resumes(make, session, server=make.server(cipher_suites=(0xC02C,)))
    assert not resumes(make, session, client=make.client(session=session, server_name="other"))
    assert not resumes(
        make, session, client=make.client(session=session, versions=(TLS13, TLS12)), server=make.server(versions=(TLS13, TLS12))
    )
    client_auth = make.answers(client_auth=ClientAuth.REQUIRE)
    assert not resumes(make, session, server_answers=client_auth, client_answers=Answers(credentials=(software_credential(),)))


def test_too_old(make: Any) -> None:
    now = [1_000_000.0]
    clock = {"now": lambda: now[0]}
    _, session = first(make, client=make.client(**clock), server=make.server(**clock, ticket_lifetime=100))
    for later, expected in ((99, True), (101, False)):
        now[0] = 1_000_000.0 + later
        server = make.server(**clock, ticket_lifetime=100)
        assert resumes(make, session, client=make.client(session=session, **clock), server=server) is expected
    # a client whose clock stands still still offers it, and the server decides
    assert not resumes(make, session, client=make.client(session=session, now=lambda: 1_000_000.0), server=make.server(**clock))


def test_garbage_in_the_ticket_is_no_session(make: Any) -> None:
    _, session = first(make)
    for ticket in make.tickets.states:
        make.tickets.states[ticket] = b"\1garbage"
    assert not resumes(make, session)


def test_no_tickets_where_the_server_wants_none(make: Any) -> None:
    for server in (make.server(tickets=0), make.server(ticket_lifetime=0)):
        assert make.established(server=server).client.take_sessions() == []
    assert make.established(server_answers=make.answers(tickets=None)).client.take_sessions() == []  # an empty ticket


def test_alpn_is_negotiated_anew(make: Any) -> None:
    _, session = first(make, client=make.client(alpn=(b"a",)), server_answers=make.answers(alpn=(b"a",)))
    pair = make.established(client=make.client(alpn=(b"b",), session=session), server_answers=make.answers(alpn=(b"a", b"b")))
    assert pair.client.facts.resumed and pair.client.facts.alpn == pair.server.facts.alpn == b"b"


def test_the_server_may_renew_the_ticket(make: Any, flight: Any) -> None:
    """Ours does not, so NewSessionTicket is put into its flight; the transcripts then differ, but not before the client took it."""
    _, session = first(make)
    pair = make.pair(client=make.client(session=session))
    renewed = NewSessionTicket(5, b"new").build()

    def insert(items: list[Any]) -> list[Any]:
        hello = ServerHello.parse(items[0][1][4:])
        hello.extensions[35] = b""
        body = hello.build()
        return [(22, b"\2" + len(body).to_bytes(3) + body), (22, b"\4" + len(renewed).to_bytes(3) + renewed), *items[1:]]

    pair.to_client = flight.edit(insert)
    pair.run()
    assert isinstance(pair.client.failed, alerts.BadFinished)


def test_session_identifier_instead_of_a_ticket(make: Any, flight: Any) -> None:
    """A server that keeps sessions itself; ours does not, so its ServerHello is edited, which Finished then finds out."""
    _, session = first(make)
    state = parse_session_state(session.state)
    assert state is not None
    named = replace(state, session_id=b"n" * 32)
    pair = make.pair(client=make.client(session=replace(session, ticket=b"", state=named.build())))
    offered: list[Any] = []
    pair.to_server = flight.edit_hello(ClientHello, offered.append)
    pair.to_client = flight.edit_hello(ServerHello, lambda hello: setattr(hello, "legacy_session_id_echo", b"n" * 32))
    pair.run()
    assert offered[0].legacy_session_id == b"n" * 32 and offered[0].extensions[35] == b""
    # taken for a resumption: the full handshake that the server goes on with is out of order
    assert isinstance(pair.client.failed, alerts.UnexpectedMessage)


def test_client_that_drops_the_extended_master_secret(make: Any, flight: Any) -> None:
    """RFC 7627 section 5.3: that is an attack, not a reason for a full handshake."""
    _, session = first(make)
    relaxed = make.server(require_extended_master_secret=False)
    pair = make.pair(client=make.client(session=session), server=relaxed)
    pair.to_server = flight.edit_hello(ClientHello, lambda hello: hello.extensions.pop(23))
    pair.run()
    assert isinstance(pair.server.failed, alerts.HandshakeFailure) and not pair.complete


def test_server_that_drops_the_extended_master_secret(make: Any, flight: Any) -> None:
    _, session = first(make)
    pair = make.pair(client=make.client(session=session, require_extended_master_secret=False))
    pair.to_client = flight.edit_hello(ServerHello, lambda hello: hello.extensions.pop(23))
    pair.run()
    assert isinstance(pair.client.failed, alerts.HandshakeFailure)


def test_wrong_suite_in_resumption(make: Any, flight: Any) -> None:
    _, session = first(make)
    pair = make.pair(client=make.client(session=session))
    pair.to_client = flight.edit_hello(ServerHello, lambda hello: setattr(hello, "cipher_suite", 0xC02C))
    pair.run()
    assert isinstance(pair.client.failed, alerts.IllegalParameter)


def test_a_session_of_tls12_is_not_offered_in_tls13(make: Any) -> None:
    _, session = first(make)
    pair = make.established(client=make.client(session=session, versions=(TLS13,)), server=make.server(versions=(TLS13, TLS12)))
    assert pair.client.facts.version == TLS13 and not pair.client.facts.resumed
    assert parse_session_state(session.state).version == TLS12  # type: ignore[union-attr]


def test_secrets_do_not_show(make: Any) -> None:
    _, session = first(make)
    state = parse_session_state(session.state)
    assert state is not None
    for text in (repr(session), repr(state)):
        assert repr(state.secret)[2:20] not in text and session.ticket.hex() not in text
