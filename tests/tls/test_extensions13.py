"""Does each extension of TLS 1.3 do what it is for: names, protocols, staples, limits, compression, types, plugins' own?"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from tlspool_core.testing.meetings import cross, high, low, pair_of
from tlspool_core.testing.peers import Answers, Pair, SoftwareCredential, software_credential
from tlspool_core.tls import TlsConnection, alerts
from tlspool_core.tls.enums import ExtensionType as Ext
from tlspool_core.tls.enums import HandshakeType
from tlspool_core.tls.messages import frame
from tlspool_core.tls.questions import ChooseClientCredential, ChooseServerCredential, ClientAuth
from tlspool_core.tls.seams import CertificateEntry, CertificateForm, PeerCredential
from tlspool_core.tls.settings import TLS12, TLS13
from tlspool_core.tls.signatures import PublicKeyCredential
from tlspool_core.tls.tls13.messages import Certificate, CompressedCertificate, EncryptedExtensions


def asked(answers: Answers, kind: type) -> Any:
    (question,) = [question for question in answers.asked if isinstance(question, kind)]
    return question


def changing(kind: int, change: Callable[[bytes], bytes]) -> Callable[[bytes], list[bytes]]:
    """Changes the body of one kind of message."""
    return lambda message: [frame(kind, change(message[4:]))] if message[0] == kind else [message]


def test_the_offer_reaches_the_question(make: Any) -> None:
    theirs = make.answers()
    make.established(client=make.client(alpn=(b"a", b"bc"), want_scts=True), server_answers=theirs)
    offer = asked(theirs, ChooseServerCredential).offer
    assert offer.server_name == "testserver" and offer.alpn == (b"a", b"bc")
    assert offer.versions == (TLS13,) and 0x1301 in offer.cipher_suites and 0x1D in offer.groups
    assert 0x0403 in offer.signature_schemes and offer.signature_schemes_cert == offer.signature_schemes
    assert offer.wants_ocsp and offer.wants_scts


# --- ALPN --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "chosen"),
    [((b"a", b"b"), (b"b", b"a"), b"b"), ((b"a",), (), None), ((), (b"a",), None), ((b"a", b"c"), (b"x", b"c"), b"c")],
)
def test_alpn(make: Any, ours: Sequence[bytes], theirs: Sequence[bytes], chosen: bytes | None) -> None:
    pair = make.established(client=make.client(alpn=ours), server_answers=make.answers(alpn=theirs))
    assert pair.client.facts.alpn == pair.server.facts.alpn == chosen


def test_no_protocol_in_common(make: Any) -> None:
    pair = make.pair(client=make.client(alpn=(b"a",)), server_answers=make.answers(alpn=(b"b",)))
    pair.run()
    assert type(pair.server.failed) is alerts.NoApplicationProtocol
    assert isinstance(pair.client.failed, alerts.AlertReceived) and pair.client.failed.received == 120


@pytest.mark.parametrize(
    ("code", "content", "reason"),
    [
        (Ext.ALPN, b"\0\2\1z", alerts.UnofferedChoice),
        (Ext.ALPN, b"\0\4\1a\1b", alerts.MalformedExtension),
        (Ext.SERVER_NAME, b"x", alerts.MalformedExtension),
        (Ext.EARLY_DATA, b"", alerts.UnsolicitedExtension),
        (Ext.KEY_SHARE, b"", alerts.MisplacedExtension),
        (Ext.SUPPORTED_VERSIONS, b"\3\4", alerts.MisplacedExtension),
        (Ext.RECORD_SIZE_LIMIT, b"\0\1", alerts.IllegalParameter),
        (Ext.SERVER_CERTIFICATE_TYPE, b"\2", alerts.UnsolicitedExtension),
        (0x4242, b"", alerts.UnsolicitedExtension),
    ],
)
def test_bad_encrypted_extensions(make: Any, tampering: Any, code: int, content: bytes, reason: type) -> None:
    def change(body: bytes) -> bytes:
        message = EncryptedExtensions.parse(body)
        message.extensions[code] = content
        return message.build()

    server = tampering(make.server(), changing(HandshakeType.ENCRYPTED_EXTENSIONS, change))
    pair = Pair(TlsConnection(make.client(alpn=(b"a", b"b"))), server, Answers(), make.answers())
    pair.run()
    assert type(pair.client.failed) is reason


# --- staples -----------------------------------------------------------------------------------------------------------------------

SCTS = b"\0\4\0\2ab"


def stapled(credential: SoftwareCredential, extensions: dict[int, bytes]) -> SoftwareCredential:
    return dataclasses.replace(credential, entries=(CertificateEntry(credential.entries[0].data, extensions),))


def test_staples_are_sent_if_wanted(make: Any) -> None:
    credential = stapled(software_credential(), {Ext.SIGNED_CERTIFICATE_TIMESTAMP: SCTS})
    theirs = make.answers(credentials=(credential,))
    server = make.server(ocsp_response=lambda own: b"ocsp" if own is credential else None)
    pair = make.established(client=make.client(want_scts=True), server=server, server_answers=theirs)
    assert pair.client.facts.peer_ocsp == b"ocsp" and pair.client.facts.peer_scts == SCTS
    again = make.established(
        client=make.client(want_scts=True, session=pair.client.take_sessions()[0]), server=server, server_answers=theirs
    )
    assert again.client.facts.resumed and again.client.facts.peer_ocsp == b"ocsp" and again.client.facts.peer_scts == SCTS
    pair = make.established(client=make.client(want_ocsp=False), server=server, server_answers=theirs)
    assert pair.client.facts.peer_ocsp is None and pair.client.facts.peer_scts is None


@pytest.mark.parametrize(
    ("extensions", "reason"),
    [
        ({Ext.SIGNED_CERTIFICATE_TIMESTAMP: SCTS}, alerts.UnsolicitedExtension),
        ({Ext.STATUS_REQUEST: b"\2\0\0\1x"}, alerts.IllegalParameter),
        ({Ext.STATUS_REQUEST: b"\1\0\0\0"}, alerts.MalformedExtension),
        ({Ext.ALPN: b"\0\2\1a"}, alerts.UnsolicitedExtension),
        ({Ext.SERVER_NAME: b""}, alerts.MisplacedExtension),
    ],
)
def test_staples_that_may_not_be(make: Any, tampering: Any, extensions: dict[int, bytes], reason: type) -> None:
    def change(body: bytes) -> bytes:
        (entry,) = Certificate.parse(body).entries
        return Certificate(b"", (CertificateEntry(entry.data, extensions),)).build()

    server = tampering(make.server(), changing(HandshakeType.CERTIFICATE, change))
    pair = Pair(TlsConnection(make.client()), server, Answers(), make.answers())
    pair.run()
    assert type(pair.client.failed) is reason


# --- certificates --------------------------------------------------------------------------------------------------------------------


def test_an_empty_certificate_of_a_server(make: Any, tampering: Any) -> None:
    server = tampering(make.server(), changing(HandshakeType.CERTIFICATE, lambda body: Certificate(b"", ()).build()))
    pair = Pair(TlsConnection(make.client()), server, Answers(), make.answers())
    pair.run()
    assert type(pair.client.failed) is alerts.NoPeerCertificate


def test_a_chain_that_is_too_long(make: Any) -> None:
    long = dataclasses.replace(software_credential(), entries=software_credential().entries * 11)
    pair = make.pair(server_answers=make.answers(credentials=(long,)))
    pair.run()
    assert type(pair.client.failed) is alerts.CertificateChainTooLong


@pytest.mark.parametrize("mode", [ClientAuth.REQUEST, ClientAuth.REQUIRE])
def test_a_client_without_certificate(make: Any, mode: ClientAuth) -> None:
    pair = make.pair(server_answers=make.answers(client_auth=mode))
    pair.run()
    if mode is ClientAuth.REQUEST:
        assert pair.complete and pair.server.peer is None
    else:
        assert type(pair.server.failed) is alerts.CertificateRequired
        assert isinstance(pair.client.failed, alerts.AlertReceived) and pair.client.failed.received == 116


def test_the_request_reaches_the_client(make: Any) -> None:
    ours = Answers(credentials=(software_credential("ed25519", "client"),))
    theirs = make.answers(client_auth=ClientAuth.REQUIRE, certificate_authorities=(b"0\x03one", b"0\x03two"))
    pair = make.established(
        server=make.server(signature_schemes=(0x0807, 0x0403), signature_schemes_cert=(0x0401,)),
        client_answers=ours,
        server_answers=theirs,
    )
    offer = asked(ours, ChooseClientCredential).offer
    assert offer.certificate_authorities == (b"0\x03one", b"0\x03two")
    assert offer.signature_schemes == (0x0807, 0x0403) and offer.signature_schemes_cert == (0x0401,)
    assert pair.server.facts.peer_signature_scheme == pair.client.facts.own_signature_scheme == 0x0807


def test_authorities_select_among_credentials(make: Any) -> None:
    one = dataclasses.replace(software_credential("ed25519", "one"), issuers=(b"0\x03one",))
    two = dataclasses.replace(software_credential("ed25519", "two"), issuers=(b"0\x03two",))
    for wanted, chosen in ((b"0\x03two", two), (b"0\x03one", one), (b"0\x05three", one)):
        theirs = make.answers(client_auth=ClientAuth.REQUIRE, certificate_authorities=(wanted,))
        pair = make.established(client_answers=Answers(credentials=(one, two)), server_answers=theirs)
        assert pair.client.own is chosen


def test_a_scheme_that_was_not_offered(make: Any, tampering: Any) -> None:
    """RFC 8446 section 4.4.3; PKCS #1 was offered for certificates, and still may not sign."""
    for scheme in (b"\x04\x01", b"\x02\x03", b"\x05\x03", b"\xfe\xfe"):
        server = tampering(make.server(), changing(HandshakeType.CERTIFICATE_VERIFY, lambda body, scheme=scheme: scheme + body[2:]))
        pair = Pair(TlsConnection(make.client(signature_schemes=(0x0403, 0x0401))), server, Answers(), make.answers())
        pair.run()
        assert type(pair.client.failed) is alerts.WrongScheme


# --- certificate compression ---------------------------------------------------------------------------------------------------------


def compressible(make: Any) -> Answers:
    answers: Answers = make.answers(
        credentials=(dataclasses.replace(software_credential(), entries=software_credential().entries * 5),)
    )
    return answers


def test_compression_of_certificates(make: Any, tampering: Any) -> None:
    seen: list[int] = []

    def note(message: bytes) -> list[bytes]:
        seen.append(message[0])
        return [message]

    server = tampering(make.server(certificate_compression=True), note)
    pair = Pair(TlsConnection(make.client(certificate_compression=True)), server, Answers(), compressible(make))
    pair.run()
    assert pair.complete and HandshakeType.COMPRESSED_CERTIFICATE in seen and HandshakeType.CERTIFICATE not in seen
    assert pair.client.peer is not None and len(pair.client.peer.entries) == 5
    pair = make.established(server=make.server(certificate_compression=True), server_answers=compressible(make))
    assert len(pair.client.peer.entries) == 5  # the client did not offer it


def test_compression_of_the_clients_certificate(make: Any) -> None:
    theirs = make.answers(client_auth=ClientAuth.REQUIRE)
    both = {"certificate_compression": True}
    pair = make.established(
        client=make.client(**both), server=make.server(**both), client_answers=compressible(make), server_answers=theirs
    )
    assert len(pair.server.peer.entries) == 5
    pair.server.request_client_authentication()
    pair.run()
    assert pair.complete


BODY = Certificate(b"", software_credential().entries * 3).build()
COMPRESSED = zlib.compress(BODY)
BOMB = zlib.compress(bytes(20_000_000))
BAD_COMPRESSION = {
    "another algorithm": CompressedCertificate(2, len(BODY), COMPRESSED),
    "announced too short": CompressedCertificate(1, len(BODY) - 1, COMPRESSED),
    "announced too long": CompressedCertificate(1, len(BODY) + 1, COMPRESSED),
    "truncated": CompressedCertificate(1, len(BODY), COMPRESSED[:-5]),
    "followed by something": CompressedCertificate(1, len(BODY), COMPRESSED + b"x"),
    "not zlib": CompressedCertificate(1, len(BODY), b"not zlib"),
    "a bomb": CompressedCertificate(1, 50_000, BOMB[:50_000]),
    "announced beyond the limit": CompressedCertificate(1, 100_001, COMPRESSED),
    "nothing": CompressedCertificate(1, 0, COMPRESSED),
}


@pytest.mark.parametrize("name", BAD_COMPRESSION)
def test_bad_compression(make: Any, tampering: Any, name: str) -> None:
    message = BAD_COMPRESSION[name]

    def tamper(original: bytes) -> list[bytes]:
        return [frame(25, message.build())] if original[0] == HandshakeType.CERTIFICATE else [original]

    pair = Pair(
        TlsConnection(make.client(certificate_compression=True)), tampering(make.server(), tamper), Answers(), make.answers()
    )
    pair.run()
    expected = alerts.IllegalParameter if name == "another algorithm" else alerts.BadCertificateCompression
    assert type(pair.client.failed) is expected


def test_a_compressed_certificate_that_was_not_offered(make: Any, tampering: Any) -> None:
    def tamper(original: bytes) -> list[bytes]:
        return (
            [frame(25, CompressedCertificate(1, len(BODY), COMPRESSED).build())]
            if original[0] == HandshakeType.CERTIFICATE
            else [original]
        )

    pair = Pair(TlsConnection(make.client()), tampering(make.server(), tamper), Answers(), make.answers())
    pair.run()
    assert type(pair.client.failed) is alerts.UnexpectedHandshakeMessage


# --- record_size_limit ---------------------------------------------------------------------------------------------------------------


def test_record_size_limit_is_kept_in_both_directions(make: Any) -> None:
    pair = make.established(client=make.client(record_size_limit=100), server=make.server(record_size_limit=200))
    assert pair.server.records.max_fragment == 99 and pair.client.records.max_fragment == 199  # the type counts (RFC 8449)
    pair.server.send(b"s" * 1000)
    pair.client.send(b"c" * 1000)
    pair.run()
    assert pair.complete
    assert pair.client.take_plaintext() == b"s" * 1000 and pair.server.take_plaintext() == b"c" * 1000


def test_a_record_beyond_the_limit(make: Any) -> None:
    pair = make.established(client=make.client(record_size_limit=100))
    pair.server.records.limit_sent(16385)
    pair.server.send(b"s" * 100)
    pair.run()
    assert type(pair.client.failed) is alerts.RecordOverflow


# --- certificate types (RFC 7250) ------------------------------------------------------------------------------------------------------


def raw_public_key(name: str) -> SoftwareCredential:
    credential = software_credential("ed25519", name)
    spki = credential.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return dataclasses.replace(credential, certificate_type=2, entries=(CertificateEntry(spki),))


def examine_either(certificate_type: int, entries: Sequence[CertificateEntry]) -> PeerCredential:
    from tlspool_core.testing.peers import examine

    if certificate_type == 2:
        return PublicKeyCredential(2, tuple(entries), load_der_public_key(entries[0].data))
    return examine(certificate_type, entries)


def test_raw_public_keys_on_both_sides(make: Any) -> None:
    types = {"own_certificate_types": (2, 0), "peer_certificate_types": (2, 0)}
    ours = Answers(credentials=(raw_public_key("client"),), examine=examine_either)
    theirs = make.answers(
        credentials=(raw_public_key("server"), software_credential()),
        client_auth=ClientAuth.REQUIRE,
        client_certificate_types=(2,),
        examine=examine_either,
    )
    pair = make.established(client=make.client(**types), server=make.server(**types), client_answers=ours, server_answers=theirs)
    assert pair.client.peer.certificate_type == 2 and pair.server.peer.certificate_type == 2
    offer = asked(theirs, ChooseServerCredential).offer
    assert offer.certificate_types == (2, 0) and offer.peer_certificate_types == (2, 0)
    again = make.established(
        client=make.client(session=pair.client.take_sessions()[0], **types),
        server=make.server(**types),
        client_answers=Answers(examine=examine_either),
        server_answers=theirs,
    )
    assert again.server.facts.resumed and again.server.peer.certificate_type == 2


def only_tls12(certificate_type: int) -> CertificateForm:
    return CertificateForm(certificate_type, "old", frozenset({0x0303}), lambda body: (), lambda entries: b"")


def test_a_type_of_tls12_alone_is_not_used(make: Any) -> None:
    """As OpenPGP's, which RFC 8446 section 4.4.2 forbids."""
    forms = {"extra_forms": (only_tls12(2),)}
    types = {"own_certificate_types": (2, 0), "peer_certificate_types": (2, 0)}
    theirs = make.answers(credentials=(raw_public_key("server"), software_credential()), client_auth=ClientAuth.REQUEST)
    pair = make.established(client=make.client(**types), server=make.server(**types, **forms), server_answers=theirs)
    assert pair.client.peer.certificate_type == 0
    both = make.client(**types, **forms, versions=(0x0304, 0x0303))  # so that it offers the type, for TLS 1.2
    pair = make.pair(client=both, server=make.server(**types), server_answers=theirs)
    pair.run()
    assert type(pair.client.failed) is alerts.UnofferedChoice
    pair = make.established(client=make.client(**types, **forms), server=make.server(**types), server_answers=theirs)
    assert pair.client.peer.certificate_type == 0  # for TLS 1.3 alone it was not offered


def test_types_fall_back_to_x509(make: Any) -> None:
    pair = make.established(client=make.client(peer_certificate_types=(2, 0)))
    assert pair.client.peer.certificate_type == 0


def test_no_certificate_type_in_common(make: Any) -> None:
    pair = make.pair(client=make.client(peer_certificate_types=(2,)))
    pair.run()
    assert type(pair.server.failed) is alerts.NoCertificateTypeInCommon
    theirs = make.answers(client_auth=ClientAuth.REQUIRE, client_certificate_types=(2,))
    pair = make.pair(server_answers=theirs)
    pair.run()
    assert type(pair.server.failed) is alerts.NoCertificateTypeInCommon
    theirs = make.answers(client_auth=ClientAuth.REQUEST, client_certificate_types=(2,))
    assert make.established(server_answers=theirs).server.peer is None


# --- post-handshake authentication -----------------------------------------------------------------------------------------------------


def test_post_handshake_authentication(make: Any) -> None:
    mine = software_credential("ed25519", "client")
    pair = make.established(client_answers=Answers(credentials=(mine,)))
    assert pair.server.peer is None
    for _ in range(2):
        pair.server.request_client_authentication()
        pair.server.send(b"data goes on")
        pair.run()
        assert pair.complete
        assert pair.server.peer.entries == mine.entries
        assert pair.client.own is mine and pair.server.facts.peer_signature_scheme == 0x0807
        assert pair.client.take_plaintext() == b"data goes on"


def test_post_handshake_authentication_between_data_and_key_updates(make: Any) -> None:
    pair = make.established(client_answers=Answers(credentials=(software_credential("ed25519", "client"),)))
    pair.client.update_keys(True)
    pair.server.request_client_authentication()
    pair.client.send(b"before the request was seen")
    pair.run()
    assert pair.complete and pair.server.peer is not None
    assert pair.server.take_plaintext() == b"before the request was seen"


def test_post_handshake_authentication_declined(make: Any) -> None:
    pair = make.established()
    pair.server.request_client_authentication()
    pair.run()
    assert pair.complete and pair.server.peer is None


def test_a_client_that_declines_stays_who_it_was(make: Any) -> None:
    ours = Answers(credentials=(software_credential("ed25519", "client"),))
    pair = make.established(client_answers=ours, server_answers=make.answers(client_auth=ClientAuth.REQUIRE))
    ours.credentials = ()
    pair.server.request_client_authentication()
    pair.run()
    assert pair.complete and pair.server.peer is not None and pair.server.facts.peer_signature_scheme == 0x0807


def test_post_handshake_authentication_refused_by_the_judge(make: Any) -> None:
    theirs = make.answers()
    pair = make.established(server_answers=theirs)

    def refuse(question: Any) -> bytes:
        raise alerts.CertificateRequired("not without")

    theirs.judge = refuse
    pair.server.request_client_authentication()
    pair.run()
    assert type(pair.server.failed) is alerts.CertificateRequired


def test_post_handshake_authentication_that_was_not_offered(make: Any) -> None:
    pair = make.established(client=make.client(post_handshake_auth=False))
    with pytest.raises(alerts.RenegotiationRefused):
        pair.server.request_client_authentication()
    pair.server._channel.queue(frame(13, b"\1x\0\x08\0\x0d\0\4\0\2\4\3"))
    pair.run()
    assert type(pair.client.failed) is alerts.UnexpectedHandshakeMessage


def test_an_answer_to_a_request_that_was_never_made(make: Any) -> None:
    pair = make.established(client_answers=Answers(credentials=(software_credential("ed25519", "client"),)))
    pair.server.request_client_authentication()
    pair.client._channel.queue(frame(11, Certificate(b"other", ()).build()))
    pair.run()
    assert type(pair.server.failed) is alerts.IllegalParameter


def test_open_requests_are_bounded(make: Any) -> None:
    pair = make.established()
    for _ in range(4):
        pair.server.request_client_authentication()
    with pytest.raises(alerts.RenegotiationRefused):
        pair.server.request_client_authentication()


# --- a plugin's extension ---------------------------------------------------------------------------------------------------------------


class Toy:
    """An extension that proves both sides by a shared secret, as Kerberos does by a ticket."""

    code = 0xFF42
    versions = frozenset({TLS13})

    def __init__(self, role: str, secret: bytes, *, answers: bool = True) -> None:
        self.role, self.secret, self.answers = role, secret, answers
        self.calls: list[str] = []
        self.agreed = False

    def client_hello(self, retry: bool) -> bytes | None:
        self.calls.append(f"client_hello {retry}")
        return b"again" if retry else b"hello"

    def received_client_hello(self, content: bytes | None) -> None:
        self.calls.append(f"received_client_hello {content!r}")

    def server_hello(self, version: int) -> bytes | None:
        self.calls.append("server_hello")
        self.agreed = self.answers
        return b"answer" if self.answers else None

    def received_server_hello(self, version: int, content: bytes | None) -> None:
        self.calls.append(f"received_server_hello {content!r}")
        self.agreed = content is not None

    def psk_input(self, transcript_hash: Callable[[], bytes], group: int) -> bytes | None:
        self.calls.append("psk_input")
        return self.secret + transcript_hash() + group.to_bytes(2, "big") if self.agreed else None

    def peer_credential(self) -> PeerCredential | None:
        return software_peer() if self.agreed else None


def software_peer() -> PeerCredential:
    return PublicKeyCredential(224, (CertificateEntry(b"by the extension"),), None)


def toys(make: Any, **changes: Any) -> tuple[Any, Any, Toy, Toy]:
    client, server = Toy("client", b"secret"), Toy("server", changes.pop("server_secret", b"secret"), **changes)
    return make.client(extensions=(client,)), make.server(extensions=(server,)), client, server


def test_plugin_extension_authenticates_both_sides(make: Any) -> None:
    client_settings, server_settings, client, server = toys(make)
    theirs = make.answers(credentials=())
    pair = make.established(client=client_settings, server=server_settings, server_answers=theirs)
    assert client.calls == ["client_hello False", "received_server_hello b'answer'", "psk_input"]
    assert server.calls == ["received_client_hello b'hello'", "server_hello", "psk_input"]
    for side in (pair.client, pair.server):
        assert side.peer.entries[0].data == b"by the extension"
    assert pair.client.take_sessions() == []
    assert pair.client.export(b"x", None, 32) == pair.server.export(b"x", None, 32)


def test_plugin_extension_with_another_secret(make: Any) -> None:
    client_settings, server_settings, *_ = toys(make, server_secret=b"other")
    pair = make.pair(client=client_settings, server=server_settings, server_answers=make.answers(credentials=()))
    pair.run()
    assert type(pair.client.failed) is alerts.BadRecordMac


def test_plugin_extension_beside_certificates(make: Any) -> None:
    client_settings, server_settings, *_ = toys(make)
    ours = Answers(credentials=(software_credential("ed25519", "client"),))
    theirs = make.answers(client_auth=ClientAuth.REQUIRE)
    pair = make.established(client=client_settings, server=server_settings, client_answers=ours, server_answers=theirs)
    assert pair.client.peer.certificate_type == 0 and pair.server.peer.certificate_type == 0


def test_plugin_extension_between_ends_that_find_out_their_role() -> None:
    """The part that was begun for a client takes no more part in the end that becomes the server."""
    dropped, server, client = Toy("client", b"secret"), Toy("server", b"secret"), Toy("client", b"secret")
    nothing_to_show = {"credentials": (), "client_auth": ClientAuth.NONE}
    loser = low(client={"extensions": (dropped,)}, server={"extensions": (server,)}, answers=nothing_to_show)
    pair = cross(pair_of(loser, high(client={"extensions": (client,)}, answers={"credentials": ()})))
    assert pair.server.failed is None and pair.client.failed is None
    assert dropped.calls == ["client_hello False"]
    assert server.calls == ["received_client_hello b'hello'", "server_hello", "psk_input"]
    assert client.calls == ["client_hello False", "received_server_hello b'answer'", "psk_input"]
    assert pair.client.peer is not None and pair.client.peer.entries[0].data == b"by the extension"


def test_plugin_extension_that_is_not_answered(make: Any) -> None:
    client_settings, server_settings, client, _ = toys(make, answers=False)
    pair = make.established(client=client_settings, server=server_settings)
    assert "received_server_hello None" in client.calls
    assert pair.client.peer.certificate_type == 0
    assert len(pair.client.take_sessions()) == 2


def test_plugin_extension_after_a_retry(make: Any) -> None:
    client_settings, server_settings, client, server = toys(make)
    server_settings = dataclasses.replace(server_settings, groups=(0x18,))
    pair = make.established(client=client_settings, server=server_settings, server_answers=make.answers(credentials=()))
    assert client.calls[:2] == ["client_hello False", "client_hello True"]
    assert server.calls[0] == "received_client_hello b'again'"
    assert pair.server.peer is not None


@pytest.mark.parametrize(("of", "spoken"), [(TLS13, TLS12), (TLS12, TLS13)])
def test_plugin_extension_of_the_version_that_is_not_spoken(make: Any, of: int, spoken: int) -> None:
    """A client offers before it knows; the server passes over it, and neither side hears of it again."""
    client_settings, server_settings, client, server = toys(make)
    client.versions = server.versions = frozenset({of})  # type: ignore[misc]
    both = dataclasses.replace(client_settings, versions=(TLS13, TLS12))
    pair = make.established(client=both, server=dataclasses.replace(server_settings, versions=(spoken,)))
    assert pair.server.facts.version == spoken
    assert (client.calls, server.calls) == (["client_hello False"], [])
    only_server = make.established(
        client=make.client(versions=(spoken,)), server=dataclasses.replace(server_settings, versions=(spoken,))
    )
    assert only_server.complete and server.calls == []


def test_a_server_that_answers_nothing_may_not_leave_out_its_certificate(make: Any, tampering: Any) -> None:
    client_settings, server_settings, *_ = toys(make, answers=False)
    drop = lambda message: [] if message[0] in (11, 15) else [message]  # noqa: E731
    pair = Pair(TlsConnection(client_settings), tampering(server_settings, drop), Answers(), make.answers())
    pair.run()
    assert type(pair.client.failed) is alerts.UnexpectedHandshakeMessage


def test_a_fault_of_the_plugin_is_a_refusal(make: Any) -> None:
    client_settings, server_settings, _, server = toys(make)

    def fail(content: bytes | None) -> None:
        raise alerts.AccessDenied("no such ticket")

    server.received_client_hello = fail  # type: ignore[method-assign]
    pair = make.pair(client=client_settings, server=server_settings)
    pair.run()
    assert type(pair.server.failed) is alerts.AccessDenied
