"""Does another implementation of TLS-KDH in TLS 1.2, made from its description alone, come to agree with ours in both directions?"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from kdh_helpers import WEB, TicketAnswers, fetch, service_key, source
from kdh_kerberos import SessionKey
from kdh_peer import P256, P384, P521, AlertCame, Client, Server
from tlspool_kdh.codes import FORM, SCHEMES, SUITES, TICKET_TYPE
from tlspool_kdh.exchange import Kdh, ServicePeer, TicketCredential, TicketPeer
from tlspool_kdh.mit import keytab_keys
from tlspool_kdh.tickets import ClientTicket, Service

from tlspool_core.testing.peers import Answers, answer_all, software_credential
from tlspool_core.tls import TlsConnection
from tlspool_core.tls.questions import ClientAuth
from tlspool_core.tls.settings import TLS12, TLS13, ClientSettings, ServerSettings

ENHANCED = 0xC02B  # ECDHE-ECDSA with AES-128-GCM: any suite with a certificate would do
COMMON: dict[str, Any] = {
    "extra_suites": SUITES,
    "extra_schemes": SCHEMES,
    "extra_forms": (FORM,),
    "require_extended_master_secret": False,  # for the tests without it; the pool demands it
}


@pytest.fixture(scope="module")
def held(realm: Any) -> ClientTicket:
    return fetch(source("john@KDH.EXAMPLE", keytab=realm.users), WEB)


@contextmanager
def engine(settings: Any, answers: Answers) -> Iterator[tuple[socket.socket, TlsConnection]]:
    """Our engine at one end of a connection, in a thread; it echoes what it decrypts."""
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    theirs.settimeout(20)
    connection = TlsConnection(settings)

    def serve() -> None:
        with ours:
            while True:
                answer_all(connection, answers)
                if plaintext := connection.take_plaintext():
                    connection.send(bytes(plaintext))
                if data := connection.data_to_send():
                    ours.sendall(data)
                if connection.failed is not None or not (received := ours.recv(65536)):
                    return
                connection.receive(received)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield theirs, connection
    finally:
        theirs.close()
        thread.join(20)
        assert not thread.is_alive()


def our_server(service: Service, *, enhanced: bool = False) -> Any:
    settings = ServerSettings(
        versions=(TLS13, TLS12),
        key_exchanges=() if enhanced else (Kdh(),),
        own_certificate_types=(0,) if enhanced else (TICKET_TYPE, 0),
        peer_certificate_types=(TICKET_TYPE, 0),
        **COMMON,
    )
    answers = TicketAnswers(client_certificate_types=(TICKET_TYPE,), service=service)
    if enhanced:
        answers = replace(answers, credentials=(software_credential(),), client_auth=ClientAuth.REQUIRE)
    return engine(settings, answers)


def our_client(held: ClientTicket, *, enhanced: bool = False) -> Any:
    settings = ClientSettings(
        versions=(TLS12,),
        key_exchanges=(Kdh(),),
        own_certificate_types=(TICKET_TYPE, 0),
        peer_certificate_types=(0,) if enhanced else (TICKET_TYPE, 0),
        **COMMON,
    )
    return engine(settings, TicketAnswers(credentials=(TicketCredential(held, with_subkey=not enhanced),)))


def their_client(sock: socket.socket, held: ClientTicket, suite: int, **more: Any) -> Client:
    key = SessionKey(held.session_key.enctype, held.session_key.value)
    return Client(
        sock, suite, realm="KDH.EXAMPLE", names=("john",), ticket=held.ticket, key=key, server_name="web.kdh.example", **more
    )


def their_server(sock: socket.socket, realm: Any, suite: int, **more: Any) -> Server:
    return Server(sock, suite, key=service_key(realm), **more)


def exchange(peer: Client | Server) -> None:
    """Application data, there and back."""
    peer.send_record(23, b"hello")
    assert peer.read_record() == (23, b"hello")


@pytest.mark.parametrize("extended", [True, False], ids=["extended", "plain"])
@pytest.mark.parametrize("hash_id", [4, 5, 6])
@pytest.mark.parametrize("suite", [0xFFA1, 0xFFA2])
def test_their_client_to_our_server(realm: Any, held: ClientTicket, suite: int, hash_id: int, extended: bool) -> None:
    with our_server(Service(keytab_keys(realm.services))) as (sock, ours):
        peer = their_client(sock, held, suite, hash_id=hash_id, extended=extended)
        peer.run()
        assert peer.server_ticket == b""
        exchange(peer)
    assert isinstance(ours.peer, TicketPeer) and str(ours.peer.principal) == "john@KDH.EXAMPLE"


def test_their_client_that_says_nothing_of_the_servers_certificate(realm: Any, held: ClientTicket) -> None:
    with our_server(Service(keytab_keys(realm.services))) as (sock, _):
        peer = their_client(sock, held, 0xFFA1, server_types=b"")
        peer.run()
        exchange(peer)


@pytest.mark.parametrize("extended", [True, False], ids=["extended", "plain"])
@pytest.mark.parametrize("group", [P256, P384, P521])
@pytest.mark.parametrize("suite", [0xFFA1, 0xFFA2])
def test_our_client_to_their_server(realm: Any, held: ClientTicket, suite: int, group: int, extended: bool) -> None:
    with our_client(held) as (sock, ours):
        peer = their_server(sock, realm, suite, group=group, extended=extended)
        peer.run()
        exchange(peer)
        assert peer.client == "john@KDH.EXAMPLE"
    assert isinstance(ours.peer, ServicePeer) and str(ours.peer.principal) == WEB


@pytest.mark.parametrize("hash_id", [4, 5, 6])
def test_their_client_shows_a_ticket_to_our_certificate(realm: Any, held: ClientTicket, hash_id: int) -> None:
    certificate = x509.load_der_x509_certificate(software_credential().entries[0].data)
    with our_server(Service(keytab_keys(realm.services)), enhanced=True) as (sock, ours):
        peer = their_client(sock, held, ENHANCED, hash_id=hash_id, server_types=b"")
        peer.run(certificate)
        exchange(peer)
    assert isinstance(ours.peer, TicketPeer) and str(ours.peer.principal) == "john@KDH.EXAMPLE"


def test_our_client_shows_a_ticket_to_their_certificate(realm: Any, held: ClientTicket) -> None:
    own = software_credential()
    with our_client(held, enhanced=True) as (sock, _):
        peer = their_server(sock, realm, ENHANCED, certificate=own.entries[0].data, sign_key=own.key)
        peer.run()
        exchange(peer)
        assert peer.client == "john@KDH.EXAMPLE"


def refused(service: Service, held: ClientTicket, alert: int, words: str, spoil: Callable[[Client], None] | None = None) -> None:
    with our_server(service) as (sock, ours):
        peer = their_client(sock, held, 0xFFA1)
        if spoil is not None:
            spoil(peer)
        with pytest.raises(AlertCame) as came:
            peer.run()
            peer.read_record()
        assert came.value.args[0] == bytes((2, alert))
    assert words in str(ours.failed)


def test_refusals_are_alerts_with_reasons(realm: Any, held: ClientTicket) -> None:
    service = Service(keytab_keys(realm.services))

    def other_transcript(peer: Client) -> None:
        peer.change["messages"] = True

    def no_subkey(peer: Client) -> None:
        peer.change["subkey"] = True

    def other_client(peer: Client) -> None:
        peer.names = ("mary",)

    def no_ticket(peer: Client) -> None:
        peer.ticket = b""

    refused(service, held, 51, "another handshake", other_transcript)  # decrypt_error
    refused(service, held, 47, "no subkey", no_subkey)  # illegal_parameter
    refused(service, held, 51, "another client", other_client)
    refused(service, held, 40, "no certificate", no_ticket)  # handshake_failure
    refused(Service(keytab_keys(realm.users)), held, 46, "no key for http/web", None)  # certificate_unknown
    refused(
        Service(keytab_keys(realm.services), now=lambda: held.ends + 301), held, 45, "the ticket ended", None
    )  # certificate_expired


def test_what_was_recorded_cannot_be_sent_again(realm: Any, held: ClientTicket) -> None:
    """Ticket and CertificateVerify of another connection are good for nothing."""
    service = Service(keytab_keys(realm.services))
    with our_server(service) as (sock, _):
        first = their_client(sock, held, 0xFFA1)
        first.run()

    def again(peer: Client) -> None:
        class Recorded(SessionKey):
            def seal(self, usage: int, plaintext: bytes) -> bytes:
                return first.sealed

        peer.key = Recorded(held.session_key.enctype, held.session_key.value)

    refused(service, held, 51, "another handshake", again)
