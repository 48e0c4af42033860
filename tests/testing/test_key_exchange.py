"""Can a plugin bring a key exchange of its own: a password (as SRP does), or tickets that prove by CertificateVerify (as Kerberos does)?"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from tlspool_core.interfaces import EngineParts, SessionParts
from tlspool_core.testing.flights import edit_hello
from tlspool_core.testing.key_exchange import ExchangeUnderTest, KeyExchangeConformance
from tlspool_core.testing.peers import Answers, software_credential
from tlspool_core.tls.alerts import BadSignature, DecodeError, HandshakeFailure, IllegalParameter, InternalError
from tlspool_core.tls.groups import KeyShare, generate, respond
from tlspool_core.tls.messages import ClientHello
from tlspool_core.tls.questions import AnyQuestion, Call, ClientAuth, ExaminePeer, Sign
from tlspool_core.tls.seams import (
    CertificateEntry,
    CertificateForm,
    CipherSuite,
    Credential,
    KeyExchangeContext,
    KeyExchangeRun,
    PeerCredential,
    SignatureScheme,
)
from tlspool_core.tls.settings import TLS12

X25519 = 0x1D
USER = 0xFF42
TICKET = 230
TICKET_SCHEME = 0x04E0
ONLY_12 = frozenset({TLS12})


class EphemeralRun(KeyExchangeRun):
    """What both toys share: X25519, each side's public value with one byte of length."""

    group = X25519

    def __init__(self, role: str) -> None:
        self._share: KeyShare | None = generate(X25519) if role == "server" else None
        self._public = self._share.public if self._share else b""
        self.shared = b""

    def parameters_length(self, message: bytes) -> int:
        if not message:
            raise DecodeError("no parameters")
        return 1 + message[0]

    def own_parameters(self) -> bytes | None:
        return bytes((len(self._public),)) + self._public

    def peer_parameters(self, body: bytes) -> None:
        if not body or body[0] != len(body) - 1:
            raise DecodeError("not one vector")
        if self._share is not None:
            self.shared = self._share.finish(body[1:])
        else:
            self._public, self.shared = respond(X25519, body[1:])

    def premaster(self) -> bytes:
        return self.shared


# --- a password --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class User:
    """Whom the password proved."""

    name: str
    certificate_type: int = -1
    entries: Sequence[CertificateEntry] = ()

    def verify(self, scheme: int, content: bytes, signature: bytes) -> None:
        raise InternalError("a password does not sign")


@dataclass
class UserName:
    """The extension that names the user."""

    name: str = ""
    code: int = USER
    versions: frozenset[int] = ONLY_12

    def client_hello(self, retry: bool) -> bytes | None:
        return self.name.encode()

    def received_client_hello(self, content: bytes | None) -> None:
        self.name = (content or b"").decode()

    def server_hello(self, version: int) -> bytes | None:
        return b""

    def received_server_hello(self, version: int, content: bytes | None) -> None:
        if content:
            raise IllegalParameter("an answer with content")

    def psk_input(self, transcript_hash: Callable[[], bytes], group: int) -> bytes | None:
        return None

    def peer_credential(self) -> PeerCredential | None:
        return None


class PasswordRun(EphemeralRun):
    def __init__(self, role: str, password: bytes, user: UserName) -> None:
        super().__init__(role)
        self._password = password
        self._user = user if role == "server" else None

    def premaster(self) -> bytes:
        return self.shared + self._password

    def peer_credential(self) -> PeerCredential | None:
        return User(self._user.name) if self._user else None


@dataclass
class Password:
    password: bytes
    user: UserName
    name: str = "TOY_PASSWORD"

    def usable(self, client_extensions: Mapping[int, bytes]) -> bool:
        return USER in client_extensions

    def start(self, role: str, context: KeyExchangeContext) -> KeyExchangeRun:
        return PasswordRun(role, self.password, self.user)


PASSWORD_SUITES = (
    CipherSuite(0xFFB1, "TOY_AES_128_CBC_SHA", TLS12, "TOY_PASSWORD", "", "AES-128-CBC", "sha256", mac="sha1"),
    CipherSuite(0xFFB2, "TOY_RSA_AES_256_CBC_SHA384", TLS12, "TOY_PASSWORD", "rsa", "AES-256-CBC", "sha384", mac="sha384"),
    CipherSuite(0xFFB3, "TOY_AES_128_GCM_SHA256", TLS12, "TOY_PASSWORD", "", "AES-128-GCM", "sha256"),
)


def password_exchange(client_password: bytes) -> ExchangeUnderTest:
    def side(password: bytes, user: UserName) -> SessionParts:
        return SessionParts((Password(password, user),), (user,))

    engine = EngineParts(cipher_suites=PASSWORD_SUITES)
    return ExchangeUnderTest(engine, client=side(client_password, UserName("john")), server=side(b"secret", UserName()))


class TestPassword(KeyExchangeConformance):
    def exchange(self) -> ExchangeUnderTest:
        return password_exchange(b"secret")

    def hostile(self) -> ExchangeUnderTest:
        return password_exchange(b"Secret")

    def test_who_was_proven(self) -> None:
        for suite in PASSWORD_SUITES:
            pair = self.established(self.exchange().pair((suite,)))
            assert pair.server.peer == User("john")
            assert (pair.client.peer is None) is (suite.authentication == "")
            assert pair.client.facts.group == X25519

    def test_cbc_needs_encrypt_then_mac(self) -> None:
        """A client that does not offer it gets no suite, and is not spoken to by MAC-then-encrypt (RFC 7366)."""
        pair = self.exchange().pair(PASSWORD_SUITES[:1])
        pair.to_server = edit_hello(ClientHello, lambda hello: hello.extensions.pop(22))
        pair.run()
        assert isinstance(pair.server.failed, HandshakeFailure)

    def test_plugin_code_is_called_through_a_question(self) -> None:
        under_test = self.exchange()
        self.established(under_test.pair())
        for answers in (under_test.client_answers, under_test.server_answers):
            who = {question.who for question in answers.asked if isinstance(question, Call)}
            assert who >= {"key exchange TOY_PASSWORD", f"extension {USER}"}

    def test_beside_the_engines_own_suites(self) -> None:
        """A server without the plugin, or a client that names no user: ECDHE is there for them."""
        for offered in (True, False):
            under_test = self.exchange()
            plain = CipherSuite(0xC02F, "", TLS12, "ECDHE", "rsa", "AES-128-GCM", "sha256")
            if offered:
                under_test.server = SessionParts()
            else:
                under_test.client = SessionParts()
            pair = self.established(under_test.pair((PASSWORD_SUITES[1], plain)))
            assert pair.client.facts.key_exchange == "ECDHE" and pair.server.peer is None

    def test_a_plugin_that_fails_is_an_internal_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def stumble(run: PasswordRun) -> bytes:
            raise InternalError("as the driver refuses when work() raises")

        monkeypatch.setattr(PasswordRun, "premaster", stumble)
        pair = self.exchange().pair()
        pair.run()
        assert isinstance(pair.client.failed, InternalError) and not pair.complete


# --- tickets -----------------------------------------------------------------------------------------------------------------------


def session_key(server_key: bytes, ticket: bytes) -> bytes:
    return hmac.digest(server_key, ticket, "sha256")


@dataclass(frozen=True)
class TicketCredential:
    """The client's: its key is that of the ticket, and no token has it."""

    ticket: bytes
    key: bytes = field(repr=False)
    certificate_type: int = TICKET
    signature_schemes: Sequence[int] = (TICKET_SCHEME,)
    issuers: Sequence[bytes] = ()

    @property
    def entries(self) -> Sequence[CertificateEntry]:
        return (CertificateEntry(self.ticket),)

    def sign(self, content: bytes) -> bytes:
        subkey = os.urandom(16)
        return subkey + hmac.digest(self.key, subkey + content, "sha256")


@dataclass(frozen=True)
class TicketPeer:
    """The client as the server sees it."""

    entries: Sequence[CertificateEntry]
    key: bytes = field(repr=False)
    certificate_type: int = TICKET

    def verify(self, scheme: int, content: bytes, signature: bytes) -> None:
        if not hmac.compare_digest(hmac.digest(self.key, signature[:16] + content, "sha256"), signature[16:]):
            raise BadSignature("the authenticator does not verify")


class TicketRun(EphemeralRun):
    premaster_after_certificate_verify = True

    def __init__(self, role: str) -> None:
        super().__init__(role)
        self._proven = b""

    def proof(self, credential: Credential | PeerCredential, scheme: int, content: bytes, signature: bytes) -> None:
        assert isinstance(credential, TicketCredential | TicketPeer) and scheme == TICKET_SCHEME
        self._proven = hmac.digest(credential.key, signature[:16], "sha256")

    def premaster(self) -> bytes:
        assert self._proven
        return self.shared + self._proven


class Tickets:
    name = "TOY_TICKET"

    def usable(self, client_extensions: Mapping[int, bytes]) -> bool:
        return True

    def start(self, role: str, context: KeyExchangeContext) -> KeyExchangeRun:
        return TicketRun(role)


def parse_ticket(body: bytes) -> tuple[CertificateEntry, ...]:
    if len(body) < 3 or int.from_bytes(body[:3]) != len(body) - 3:
        raise DecodeError("not one ticket")
    return (CertificateEntry(body[3:]),) if len(body) > 3 else ()


def build_ticket(entries: Sequence[CertificateEntry]) -> bytes:
    data = entries[0].data if entries else b""
    return len(data).to_bytes(3) + data


TICKET_PARTS = EngineParts(
    certificate_forms=(CertificateForm(TICKET, "ticket", ONLY_12, parse_ticket, build_ticket, client_certificate_types=(224,)),),
    signature_schemes=(SignatureScheme(TICKET_SCHEME, "toy_ticket", ONLY_12, "ticket"),),
    cipher_suites=tuple(
        CipherSuite(code, name, TLS12, "TOY_TICKET", "", cipher, digest, verify_data_length=length, client_certificate_type=TICKET)
        for code, name, cipher, digest, length in (
            (0xFFC1, "TOY_TICKET_AES_128_GCM_SHA256", "AES-128-GCM", "sha256", 32),
            (0xFFC2, "TOY_TICKET_AES_256_GCM_SHA384", "AES-256-GCM", "sha384", 48),
        )
    ),
)


@dataclass
class TicketAnswers(Answers):
    server_key: bytes = b"server key"

    def answer(self, question: AnyQuestion) -> object:
        match question:
            case Sign(credential=TicketCredential() as credential):
                return credential.sign(question.content)
            case ExaminePeer(certificate_type=230):
                ticket = question.entries[0].data
                return TicketPeer(question.entries, session_key(self.server_key, ticket))
        return Answers.answer(self, question)


def ticket_exchange(server_key: bytes, **server_changes: Any) -> ExchangeUnderTest:
    client = TicketAnswers(credentials=(TicketCredential(b"john", session_key(server_key, b"john")),))
    server = TicketAnswers(
        **{"credentials": (software_credential("rsa-2048"),), "client_certificate_types": (0,), **server_changes}
    )
    parts = SessionParts((Tickets(),))
    return ExchangeUnderTest(TICKET_PARTS, parts, parts, client, server, certificate_types=(TICKET, 0))


class TestTickets(KeyExchangeConformance):
    refusals = (BadSignature,)

    def exchange(self) -> ExchangeUnderTest:
        return ticket_exchange(b"server key")

    def hostile(self) -> ExchangeUnderTest:
        return ticket_exchange(b"another key")

    def test_a_finished_of_another_handshake_is_refused(self) -> None:
        """Here CertificateVerify covers the transcript, and finds it out earlier."""
        super().test_a_finished_of_another_handshake_is_refused()

    def test_who_was_proven(self) -> None:
        pair = self.established(self.exchange().pair())
        assert isinstance(pair.server.peer, TicketPeer) and pair.server.peer.entries[0].data == b"john"
        assert pair.server.facts.peer_signature_scheme == TICKET_SCHEME
        assert len(pair.client.channel_binding("tls-unique") or b"") == 32  # verify_data is longer than usual

    def test_a_client_without_ticket_is_refused(self) -> None:
        under_test = self.exchange()
        under_test.client_answers.credentials = ()
        pair = under_test.pair()
        pair.run()
        assert isinstance(pair.client.failed, HandshakeFailure) or isinstance(pair.server.failed, HandshakeFailure)
        assert not pair.complete

    def test_the_server_may_show_a_ticket_of_its_own(self) -> None:
        """User-to-user: the client's exchange sees it before it answers."""
        seen: list[KeyExchangeContext] = []

        class Watching(Tickets):
            def start(self, role: str, context: KeyExchangeContext) -> KeyExchangeRun:
                if role == "client":
                    seen.append(context)
                return super().start(role, context)

        own = TicketCredential(b"server's own", b"")
        under_test = ticket_exchange(b"server key", credentials=(own,))
        under_test.client = SessionParts((Watching(),))
        self.established(under_test.pair())
        assert [entry.data for entry in seen[0].server_entries] == [b"server's own"]

    def test_the_server_may_show_nothing(self) -> None:
        """An empty Certificate, where the client does not take tickets from servers."""
        under_test = self.exchange()
        under_test.server_answers.credentials = ()
        self.established(under_test.pair())

    def test_a_ticket_beside_an_ordinary_suite(self) -> None:
        """The server has its certificate and signs, the client shows a ticket; Finished is as long as ever."""
        under_test = ticket_exchange(b"server key", client_auth=ClientAuth.REQUIRE, client_certificate_types=(TICKET,))
        plain = CipherSuite(0xC02F, "", TLS12, "ECDHE", "rsa", "AES-128-GCM", "sha256")
        pair = self.established(under_test.pair((plain,)))
        assert isinstance(pair.server.peer, TicketPeer) and pair.client.peer is not None
        assert len(pair.client.channel_binding("tls-unique") or b"") == 12
