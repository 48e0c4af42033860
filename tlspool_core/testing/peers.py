"""Two ends of TLS in memory, with software keys: what tests of the engine, of plugins and of interoperability are made of.

Theory of operation
-------------------
`SoftwareCredential` is a key pair with an X.509 certificate, made on the spot.  `Answers` settles the questions of a connection
at once, from a handful of attributes that a test sets; `answer_all` applies it.  `Pair` lets a client and a server talk, with a hook
on every flight.  Nothing here decides on trust: by default everyone is believed, and `judge` is the place to differ.

For tests only: keys lie in the memory of the process, which is what the pool exists to avoid.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID, PublicKeyAlgorithmOID

from tlspool_core.tls.alerts import BadCertificate, TlsError
from tlspool_core.tls.connection import TlsConnection
from tlspool_core.tls.questions import (
    AnyQuestion,
    BecomeServer,
    Call,
    ChooseClientCredential,
    ChooseServerCredential,
    ClientAuth,
    ExaminePeer,
    ExternalPsk,
    JudgePeer,
    OpenTicket,
    SealTicket,
    ServerChoice,
    Sign,
    SpeakFirst,
)
from tlspool_core.tls.seams import CertificateEntry, Credential, PeerCredential
from tlspool_core.tls.settings import ClientSettings, ServerSettings
from tlspool_core.tls.signatures import PublicKeyCredential, schemes_for_key

_HASHES: dict[int, HashAlgorithm] = {4: SHA256(), 5: SHA384(), 6: SHA512()}
_PSS_HASHES: dict[int, HashAlgorithm] = {4: SHA256(), 5: SHA384(), 6: SHA512(), 9: SHA256(), 10: SHA384(), 11: SHA512()}

KEY_KINDS: dict[str, Callable[[], Any]] = {
    "ecdsa-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ecdsa-p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
    "mldsa44": mldsa.MLDSA44PrivateKey.generate,
    "mldsa65": mldsa.MLDSA65PrivateKey.generate,
    "mldsa87": mldsa.MLDSA87PrivateKey.generate,
}


@cache
def software_key(kind: str) -> Any:
    """A private key of a kind in KEY_KINDS; one per process, as RSA keys take long to make."""
    return KEY_KINDS[kind]()


def software_sign(key: Any, scheme: int, content: bytes) -> bytes:
    """A signature in TLS's encoding, by any scheme of the table that goes with the key."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(content, ec.ECDSA(_HASHES[scheme >> 8]))
    if isinstance(key, rsa.RSAPrivateKey):
        if scheme >> 8 == 8:
            algorithm = _PSS_HASHES[scheme & 0xFF]
            return key.sign(content, padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH), algorithm)
        return key.sign(content, padding.PKCS1v15(), _HASHES[scheme >> 8])
    signature: bytes = key.sign(content)
    return signature


@dataclass(frozen=True, slots=True)
class SoftwareCredential:
    """A Credential with its private key beside it."""

    key: Any = field(repr=False)
    entries: Sequence[CertificateEntry] = ()
    signature_schemes: Sequence[int] = ()
    issuers: Sequence[bytes] = ()
    certificate_type: int = 0

    def sign(self, scheme: int, content: bytes) -> bytes:
        return software_sign(self.key, scheme, content)

    def key_pem(self) -> bytes:
        """The private key for a program under test."""
        pem: bytes = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return pem

    def chain_pem(self) -> bytes:
        """The certificate chain for a program under test."""
        return b"".join([x509.load_der_x509_certificate(entry.data).public_bytes(Encoding.PEM) for entry in self.entries])


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def self_signed(key: Any, name: str = "testserver", *, emails: Sequence[str] = ()) -> bytes:
    """DER of a certificate that a key issues to itself, valid for a day either way."""
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName(name), *(x509.RFC822Name(email) for email in emails)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(name))
        .public_key(key.public_key())
        .serial_number(int.from_bytes(secrets.token_bytes(8), "big") | 1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    unhashed = not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    return builder.sign(key, None if unhashed else SHA256()).public_bytes(Encoding.DER)


def software_credential(kind: str = "ecdsa-p256", name: str = "testserver") -> SoftwareCredential:
    """A self-signed credential of a kind in KEY_KINDS; one per kind and name in a process."""
    return _credential(kind, name)


@cache
def _credential(kind: str, name: str) -> SoftwareCredential:
    key = software_key(kind)
    return SoftwareCredential(
        key=key,
        entries=(CertificateEntry(self_signed(key, name)),),
        signature_schemes=schemes_for_key(key.public_key()),
    )


def examine(certificate_type: int, entries: Sequence[CertificateEntry]) -> PeerCredential:
    """What a plugin for X.509 does at the least: the public key of the first certificate."""
    try:
        certificate = x509.load_der_x509_certificate(entries[0].data)
        pss = certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS
        return PublicKeyCredential(certificate_type, tuple(entries), certificate.public_key(), pss)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise BadCertificate("no X.509 certificate") from None


class TicketBox:
    """Tickets kept by the server instead of being encrypted: enough to resume in memory."""

    def __init__(self) -> None:
        self.states: dict[bytes, bytes] = {}

    def seal(self, state: bytes) -> bytes | None:
        ticket = secrets.token_bytes(32)
        self.states[ticket] = state
        return ticket

    def open(self, ticket: bytes) -> bytes | None:
        return self.states.get(ticket)


@dataclass(slots=True)
class Answers:
    """How one side answers; set what a test needs. `asked` records all questions."""

    credentials: Sequence[Credential] = ()
    alpn: Sequence[bytes] = ()
    client_auth: ClientAuth = ClientAuth.NONE
    client_certificate_types: Sequence[int] = (0,)
    certificate_authorities: Sequence[bytes] = ()
    tickets: TicketBox | None = None
    psks: dict[bytes, bytes] = field(default_factory=dict)
    judge: Callable[[JudgePeer], bytes] = lambda question: b""
    examine: Callable[[int, Sequence[CertificateEntry]], PeerCredential] = examine
    as_client: ClientSettings | None = None  # of an end that has to find out its role: to speak first, None to listen
    as_server: ServerSettings = field(default_factory=ServerSettings)
    asked: list[AnyQuestion] = field(default_factory=list)

    def answer(self, question: AnyQuestion) -> object:
        """The answer to one question; a TlsError that is raised is meant as a refusal."""
        self.asked.append(question)
        match question:
            case ChooseServerCredential():
                return ServerChoice(
                    credentials=self.credentials,
                    alpn=self.alpn,
                    client_auth=self.client_auth,
                    certificate_authorities=self.certificate_authorities,
                    client_certificate_types=self.client_certificate_types,
                )
            case ChooseClientCredential():
                return self.credentials
            case Sign(credential=SoftwareCredential() as credential):
                return credential.sign(question.scheme, question.content)
            case ExaminePeer():
                return self.examine(question.certificate_type, question.entries)
            case JudgePeer():
                return self.judge(question)
            case OpenTicket():
                return None if self.tickets is None else self.tickets.open(question.ticket)
            case SealTicket():
                return None if self.tickets is None else self.tickets.seal(question.state)
            case ExternalPsk():
                return self.psks.get(question.identity)
            case SpeakFirst():
                return self.as_client
            case BecomeServer():
                return self.as_server
            case Call():
                return question.work()
        raise AssertionError(f"no answer to {question}")


def answer_all(connection: TlsConnection, answers: Answers) -> None:
    """Settle questions until the connection waits for input or has ended."""
    while connection.question is not None:
        try:
            answer = answers.answer(connection.question)
        except TlsError as refusal:
            connection.refuse(refusal)
        else:
            connection.answer(answer)


Tamper = Callable[[bytes], bytes]


class Pair:
    """A client and a server that talk in memory. `step` limits how many bytes are delivered at a time."""

    def __init__(self, client: TlsConnection, server: TlsConnection, client_answers: Answers, server_answers: Answers) -> None:
        self.client, self.server = client, server
        self.client_answers, self.server_answers = client_answers, server_answers
        self.step = 0
        self.to_server: Tamper = lambda data: data
        self.to_client: Tamper = lambda data: data

    def _deliver(self, sender: TlsConnection, receiver: TlsConnection, answers: Answers, tamper: Tamper) -> bool:
        data = sender.data_to_send()
        if not data:
            return False
        data = tamper(data)
        step = self.step or len(data) or 1
        for start in range(0, len(data), step):
            receiver.receive(data[start : start + step])
            answer_all(receiver, answers)
        return True

    def run(self) -> None:
        """Until neither side has anything left to send."""
        answer_all(self.client, self.client_answers)
        answer_all(self.server, self.server_answers)
        moved = True
        while moved:
            moved = self._deliver(self.client, self.server, self.server_answers, self.to_server)
            moved = self._deliver(self.server, self.client, self.client_answers, self.to_client) or moved

    @property
    def complete(self) -> bool:
        """Both sides are established and none has failed."""
        sides = (self.client, self.server)
        return all(side.handshake_complete and side.failed is None for side in sides)
