"""Is a peer refused that lies about one thing only, and makes everything after it fit?

Where a message is merely changed on its way, Finished notices in the end.  A peer that is an attacker itself has its own books in
order: here only the check that is meant for the lie can notice it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tlspool_core.testing.lies import Lie, lying
from tlspool_core.testing.peers import Answers, Pair, TicketBox, software_credential, software_sign
from tlspool_core.tls import TlsConnection, alerts
from tlspool_core.tls.codec import Reader
from tlspool_core.tls.enums import ExtensionType as Ext
from tlspool_core.tls.enums import HandshakeType as Type
from tlspool_core.tls.messages import HELLO_RETRY_REQUEST_RANDOM, ClientHello, ServerHello, frame
from tlspool_core.tls.questions import ClientAuth, Sign
from tlspool_core.tls.seams import CertificateEntry
from tlspool_core.tls.settings import TLS12, TLS13, ClientSettings, ServerSettings
from tlspool_core.tls.tls13.messages import Certificate, CompressedCertificate, EncryptedExtensions

EE_WITH_FTP = frame(Type.ENCRYPTED_EXTENSIONS, EncryptedExtensions({Ext.ALPN: b"\0\4\3ftp"}).build())
CLIENT = ClientSettings(server_name="testserver", versions=(TLS13,))


class OtherKey(Answers):
    """Signs with a key that is not that of the certificate."""

    def answer(self, question: Any) -> Any:
        if not isinstance(question, Sign):
            return super().answer(question)
        return software_sign(ec.generate_private_key(ec.SECP256R1()), question.scheme, question.content)


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a_server_without_the_key_of_its_certificate(version: int) -> None:
    client = TlsConnection(replace(CLIENT, versions=(version,)))
    pair = Pair(client, TlsConnection(ServerSettings()), Answers(), OtherKey(credentials=(software_credential(),)))
    pair.run()
    assert type(client.failed) is alerts.BadSignature and not client.handshake_complete


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a_client_without_the_key_of_its_certificate(version: int) -> None:
    server = TlsConnection(ServerSettings())
    theirs = Answers(credentials=(software_credential(),), client_auth=ClientAuth.REQUIRE)
    client = TlsConnection(replace(CLIENT, versions=(version,)))
    pair = Pair(client, server, OtherKey(credentials=(software_credential("ecdsa-p256", "client"),)), theirs)
    pair.run()
    assert type(server.failed) is alerts.BadSignature and not server.handshake_complete


def test_a_server_that_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes from EncryptedExtensions to its Finished, as if a PSK had been selected."""

    async def bare(hs: Any, plan: Any) -> None:
        hs.send(EncryptedExtensions({}))

    monkeypatch.setattr("tlspool_core.tls.tls13.server._send_flight", bare)
    client = TlsConnection(CLIENT)
    Pair(client, TlsConnection(ServerSettings()), Answers(), Answers(credentials=(software_credential(),))).run()
    assert type(client.failed) is alerts.UnexpectedHandshakeMessage and not client.handshake_complete


def test_a_client_that_shows_a_certificate_and_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes from Certificate to its Finished."""

    async def bare(hs: Any, showing: Any) -> list[bytes]:
        raw = frame(Type.CERTIFICATE, Certificate(b"", software_credential().entries).build())
        hs.transcript.add(raw)
        return [raw]

    monkeypatch.setattr("tlspool_core.tls.tls13.client.build_proof", bare)
    server = TlsConnection(ServerSettings())
    theirs = Answers(credentials=(software_credential(),), client_auth=ClientAuth.REQUIRE)
    Pair(TlsConnection(CLIENT), server, Answers(credentials=(software_credential("ed25519"),)), theirs).run()
    assert type(server.failed) is alerts.UnexpectedHandshakeMessage and not server.handshake_complete


def edited(handshake_type: int, change: Callable[[Any], None], kind: type[ClientHello] | type[ServerHello]) -> Lie:
    """Changes fields of each hello of a type."""

    def lie(message: bytes) -> list[bytes]:
        if message[0] != handshake_type:
            return [message]
        hello = kind.parse(message[4:])
        change(hello)
        return [frame(handshake_type, hello.build())]

    return lie


class StrongerHash(Answers):
    """Signs by rsa_pss_rsae_sha512, whatever was agreed."""

    def answer(self, question: Any) -> Any:
        if not isinstance(question, Sign):
            return super().answer(question)
        return software_sign(software_credential("rsa-2048").key, 0x0806, question.content)


def test_a_valid_signature_by_a_scheme_that_was_not_offered() -> None:
    def name_it(message: bytes) -> list[bytes]:
        return [message[:4] + b"\x08\x06" + message[6:] if message[0] == Type.CERTIFICATE_VERIFY else message]

    client = TlsConnection(replace(CLIENT, signature_schemes=(0x0804,)))
    theirs = StrongerHash(credentials=(software_credential("rsa-2048"),))
    Pair(client, lying(ServerSettings(), name_it), Answers(), theirs).run()
    assert type(client.failed) is alerts.WrongScheme


def test_a_second_hello_retry_request() -> None:
    def again(hello: ServerHello) -> None:
        if not hello.is_hello_retry_request:
            hello.random = HELLO_RETRY_REQUEST_RANDOM
            hello.extensions[Ext.KEY_SHARE] = b"\0\x18"

    server = lying(ServerSettings(groups=(0x17,)), edited(Type.SERVER_HELLO, again, ServerHello))
    client = TlsConnection(CLIENT)
    pair = Pair(client, server, Answers(), Answers(credentials=(software_credential(),)))
    pair.run()
    assert type(client.failed) is alerts.SecondHelloRetryRequest


@pytest.mark.parametrize("index", [1, 2, 0xFFFF])
def test_a_psk_that_was_not_offered(index: int) -> None:
    box = TicketBox()
    theirs = Answers(credentials=(software_credential(),), tickets=box)
    first = Pair(TlsConnection(CLIENT), TlsConnection(ServerSettings()), Answers(), theirs)
    first.run()

    def select(hello: ServerHello) -> None:
        hello.extensions[Ext.PRE_SHARED_KEY] = index.to_bytes(2, "big")

    client = TlsConnection(replace(CLIENT, session=first.client.take_sessions()[0]))
    pair = Pair(client, lying(ServerSettings(), edited(Type.SERVER_HELLO, select, ServerHello)), Answers(), theirs)
    pair.run()
    assert type(client.failed) is alerts.UnofferedChoice


def test_an_application_protocol_that_was_not_offered() -> None:
    server = lying(ServerSettings(), lambda raw: [EE_WITH_FTP] if raw[0] == Type.ENCRYPTED_EXTENSIONS else [raw])
    client = TlsConnection(replace(CLIENT, alpn=(b"h2",)))
    Pair(client, server, Answers(), Answers(credentials=(software_credential(),))).run()
    assert type(client.failed) is alerts.UnofferedChoice


def test_a_certificate_that_unpacks_beyond_the_limit() -> None:
    """Well formed, of exactly the announced length, small on the wire: only the limit speaks against it."""
    body = Certificate(b"", (CertificateEntry(software_credential().entries[0].data + bytes(90_000)),) * 2).build()
    message = CompressedCertificate(1, len(body), zlib.compress(body))
    certificate = frame(message.handshake_type, message.build())
    server = lying(ServerSettings(), lambda raw: [certificate] if raw[0] == Type.CERTIFICATE else [raw])
    client = TlsConnection(replace(CLIENT, certificate_compression=True))
    pair = Pair(client, server, Answers(), Answers(credentials=(software_credential(),)))
    pair.run()
    assert type(client.failed) is alerts.BadCertificateCompression and "announced" in client.failed.text


def test_a_length_reaches_no_further_than_what_it_stands_in() -> None:
    """Heartbleed's fault: the bytes are there, but they belong to what comes after."""
    outer = Reader(b"\0\3\0\4abcdefgh")
    inner = outer.reader16()
    with pytest.raises(alerts.TruncatedMessage):
        inner.vector16()
    inner = Reader(b"\0\3\0\1abcdefgh").reader16()
    assert inner.vector16() == b"a" and not inner
    with pytest.raises(alerts.TruncatedMessage):
        inner.u8()
