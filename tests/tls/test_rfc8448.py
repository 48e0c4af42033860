"""Are messages, keys and records of TLS 1.3 what RFC 8448 prints, octet for octet?

A client of ours is put in the place of the RFC's: it is given the printed ClientHello and private keys, is fed the printed records of
the server, and has to send the printed records.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tlspool_core.testing.peers import Answers, answer_all
from tlspool_core.tls import TlsConnection
from tlspool_core.tls.client_hello import Offer
from tlspool_core.tls.messages import ClientHello, ServerHello
from tlspool_core.tls.questions import AnyQuestion, ExaminePeer, Sign
from tlspool_core.tls.seams import CertificateEntry
from tlspool_core.tls.session_state import parse_session_state
from tlspool_core.tls.tls13 import messages as messages13
from tlspool_core.tls.tls13.key_schedule import EarlySecret

VECTORS = json.loads((Path(__file__).parent / "vectors" / "rfc8448.json").read_text())
TRACES = ["simple", "hello_retry", "client_authentication", "compatibility"]


def octets(text: str) -> bytes:
    return bytes.fromhex(text)


class X25519Share:
    def __init__(self, private: bytes) -> None:
        self.key = X25519PrivateKey.from_private_bytes(private)

    @property
    def public(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    def finish(self, peer: bytes) -> bytes:
        return self.key.exchange(X25519PublicKey.from_public_bytes(peer))


class P256Share:
    def __init__(self, private: bytes) -> None:
        self.key = ec.derive_private_key(int.from_bytes(private, "big"), ec.SECP256R1())

    @property
    def public(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def finish(self, peer: bytes) -> bytes:
        return self.key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), peer))


class TracePeer:
    """The RFC's certificates: RSA keys of 1024 bits, which the engine's own verification refuses."""

    certificate_type = 0

    def __init__(self, entries: Any) -> None:
        self.entries = entries
        self.verified = False

    def verify(self, scheme: int, content: bytes, signature: bytes) -> None:
        key = x509.load_der_x509_certificate(self.entries[0].data).public_key()
        if isinstance(key, rsa.RSAPublicKey):
            assert scheme == 0x0804
            key.verify(signature, content, padding.PSS(padding.MGF1(SHA256()), padding.PSS.DIGEST_LENGTH), SHA256())
        else:
            assert isinstance(key, ec.EllipticCurvePublicKey) and scheme == 0x0403
            key.verify(signature, content, ec.ECDSA(SHA256()))
        self.verified = True


class TraceCredential:
    certificate_type = 0
    signature_schemes = (0x0804,)
    issuers = ()

    def __init__(self, certificate: bytes) -> None:
        self.entries = (CertificateEntry(certificate),)


class TraceAnswers(Answers):
    """Signs as the trace did, after comparing what is to be signed."""

    def __init__(self, trace: dict[str, Any]) -> None:
        super().__init__()
        self.trace = trace
        if "client_certificate" in trace:
            self.credentials = (TraceCredential(octets(trace["client_certificate"])),)

    def answer(self, question: AnyQuestion) -> object:
        if isinstance(question, ExaminePeer):
            return TracePeer(question.entries)
        if isinstance(question, Sign):
            assert question.content == octets(self.trace["client_signed"])
            return octets(self.trace["client_signature"])
        return super().answer(question)


def trace_client(make: Any, monkeypatch: pytest.MonkeyPatch, trace: dict[str, Any]) -> TlsConnection:
    """A client that offers what the trace's did."""
    hello = ClientHello.parse(octets(trace["client_hello"])[4:])
    keys = [octets(key) for key in trace["client_private_keys"]]

    async def make_offer(hs: Any) -> Offer:
        return Offer(hello, {0x1D: X25519Share(keys[0])}, [])

    monkeypatch.setattr("tlspool_core.tls.client.make_offer", make_offer)
    monkeypatch.setattr("tlspool_core.tls.tls13.client.generate", lambda group: P256Share(keys[1]))
    return TlsConnection(make.client(server_name="server"))


@pytest.mark.parametrize("step", [0, 1], ids=["coalesced", "byte at a time"])
@pytest.mark.parametrize("name", TRACES)
def test_client_flow(make: Any, monkeypatch: pytest.MonkeyPatch, name: str, step: int) -> None:
    trace = VECTORS[name]
    client, answers = trace_client(make, monkeypatch, trace), TraceAnswers(trace)

    def deliver(data: bytes) -> None:
        for start in range(0, len(data), step or len(data)):
            client.receive(data[start : start + (step or len(data))])
            answer_all(client, answers)

    answer_all(client, answers)
    assert client.data_to_send()[5:] == octets(trace["client_hello"])
    if "hello_retry_request" in trace:
        deliver(octets(trace["hello_retry_request"]))
        check_second_hello(client.data_to_send()[5:], octets(trace["client_hello_2"]))
        return
    deliver(octets("".join(trace["records_to_client"])))
    assert client.failed is None
    assert client.handshake_complete
    assert client.data_to_send() == octets(trace["client_second_flight"])
    assert isinstance(client.peer, TracePeer) and client.peer.verified
    if name == "simple":
        check_data(client, trace)
    deliver(octets(trace["server_close_notify"]))
    assert client.peer_closed
    client.close()
    assert client.data_to_send() == octets(trace["client_close_notify"])


def check_second_hello(ours: bytes, theirs: bytes) -> None:
    """The trace's client also adds padding, and puts the cookie elsewhere: all else is the same."""
    got, expected = ClientHello.parse(ours[4:]), ClientHello.parse(theirs[4:])
    expected.extensions.pop(21)
    assert got == expected


def check_data(client: TlsConnection, trace: dict[str, Any]) -> None:
    client.receive(octets(trace["new_session_ticket"]))
    (session,) = client.take_sessions()
    state = parse_session_state(session.state)
    assert session.ticket == octets(trace["ticket"])
    assert state is not None and state.secret == octets(VECTORS["resumed"]["psk"])
    client.send(octets(trace["data"]))
    assert client.data_to_send() == octets(trace["client_data"])
    client.receive(octets(trace["server_data"]))
    assert client.take_plaintext() == octets(trace["data"])


def test_hello_retry_flow(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of section 5: with the trace's second ClientHello in place of ours, all keys are the trace's."""
    trace = VECTORS["hello_retry"]
    client, answers = trace_client(make, monkeypatch, trace), TraceAnswers(trace)
    second = octets(trace["client_hello_2"])
    monkeypatch.setattr("tlspool_core.tls.tls13.client.send_client_hello", lambda hs, offer: hs.send(ClientHello.parse(second[4:])))
    for flight in (trace["hello_retry_request"], *trace["records_to_client"]):
        client.receive(octets(flight))
        answer_all(client, answers)
    assert client.handshake_complete, client.failed
    assert client.data_to_send().endswith(second + octets(trace["client_second_flight"]))


def test_server_keys_and_records() -> None:
    """The server's side of section 3, from its private key."""
    trace = VECTORS["simple"]
    hello, answer = octets(trace["client_hello"]), octets(trace["server_hello"])
    share = ClientHello.parse(hello[4:]).extensions[51][-32:]
    shared = X25519Share(octets(trace["server_private_key"])).finish(share)
    handshake = EarlySecret("sha256").handshake(shared)
    server = handshake.server(hashlib.sha256(hello + answer).digest())
    flight = [octets(message) for message in trace["server_flight"]]
    assert server.protection("AES-128-GCM").seal(22, b"".join(flight)) == octets(trace["records_to_client"][1])
    digest = hashlib.sha256(hello + answer + b"".join(flight[:-1])).digest()
    assert server.verify_data(digest) == flight[-1][4:]
    data = handshake.master().server(hashlib.sha256(hello + answer + b"".join(flight)).digest()).protection("AES-128-GCM")
    data.sequence = 1  # the first record was the ticket
    assert data.seal(23, octets(trace["data"])) == octets(trace["server_data"])


def test_messages_round_trip() -> None:
    trace = VECTORS["simple"]
    kinds = (messages13.EncryptedExtensions, messages13.Certificate)
    for kind, text in zip(kinds, trace["server_flight"], strict=False):
        body = octets(text)[4:]
        assert kind.parse(body).build() == body
    for body, kind in ((trace["client_hello"], ClientHello), (trace["server_hello"], ServerHello)):
        assert kind.parse(octets(body)[4:]).build() == octets(body)[4:]


def test_binder_and_resumed_keys() -> None:
    """Section 4: the binder over the truncated ClientHello, and the server's flight under keys that the PSK went into."""
    trace = VECTORS["resumed"]
    hello, answer = octets(trace["client_hello"]), octets(trace["server_hello"])
    early = EarlySecret("sha256", octets(trace["psk"]))
    assert early.binder(hashlib.sha256(hello[:-35]).digest(), b"res") == hello[-32:]
    share = ServerHello.parse(answer[4:]).extensions[51][-32:]
    shared = X25519Share(octets(trace["client_private_keys"][0])).finish(share)
    server = early.handshake(shared).server(hashlib.sha256(hello + answer).digest())
    extensions = octets(trace["encrypted_extensions"])
    finished = server.verify_data(hashlib.sha256(hello + answer + extensions).digest())
    flight = extensions + b"\x14\0\0\x20" + finished
    assert server.protection("AES-128-GCM").seal(22, flight) == octets(trace["server_records"])
