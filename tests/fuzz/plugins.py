"""Targets for the plugins' parsers: what tokens, their workers, databases, peers and files hold."""

from __future__ import annotations

import json
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from tlspool_lmdb import records
from tlspool_openpgp import message as openpgp_message
from tlspool_openpgp.credential_type import OpenPgpType
from tlspool_openpgp.facts import key_from
from tlspool_openpgp.reader import Reader
from tlspool_pkcs11 import protocol as workers
from tlspool_pkcs11.frames import Frames
from tlspool_pkcs11.publickeys import from_spki, public_key
from tlspool_pkcs11.uri import InvalidUri, build_uri, parse_uri, pin_file
from tlspool_srp.messages import parse_client_public, parse_server_parameters
from tlspool_x509.certificates import Malformed, read_certificates
from tlspool_x509.credential_type import X509Type
from tlspool_x509.ocsp import BadResponse, certificate_status

from tests.fuzz.target import Target, joined, pieces
from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import LocalCredential, LocalIdentity, Role, TrustRecord
from tlspool_core.testing.memory import MemoryBackend
from tlspool_core.testing.peers import software_credential, software_key
from tlspool_core.tls import alerts
from tlspool_core.tls.seams import CertificateEntry

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


def pkcs11_worker(data: bytes) -> None:
    """First byte: in which direction; the rest a stream that is cut in two."""
    direction = workers.REPLIES if data[0] & 1 else workers.REQUESTS
    frames = Frames(direction)
    cut = len(data) * (data[0] >> 1) // 128
    try:
        for part in (data[1:cut], data[max(cut, 1) :]):
            for number, message in frames.feed(part):
                pin = getattr(message, "pin", None)
                size = 0 if pin is None else len(pin)
                built = workers.build_frame(number, message.KIND, workers.build_body(message), size)
                (again,) = Frames(direction).feed(built if pin is None else built + bytes(pin.used))
                assert again == (number, message)
    except workers.ProtocolError:
        return


def pkcs11_worker_seeds() -> Iterable[bytes]:
    token = workers.TokenRecord(1, "token", "maker", "model", "1", "slot", "maker", 0x400, (0x1041, 0x40))
    thing = workers.ObjectRecord(1, 3, 3, b"id", "key", 1, b"p", b"q", b"", (0x1041,))
    requests = (
        workers.Configure("/lib/x.so"), workers.ListTokens(), workers.Login(1, 0), workers.ListObjects(1),
        workers.Sign(1, 0x1041, 0, (), b"data"), workers.ReadValue(1),
    )  # fmt: skip
    replies = (
        workers.Loaded("m", "d", 3, 0), workers.Tokens((token,)), workers.Done(), workers.Objects((thing,)), workers.Value(b"v"),
        workers.Failed(0xA0, "wrong PIN"),
    )  # fmt: skip
    pin = workers.build_body(workers.Login(1, 0)).removesuffix(bytes(4)) + b"\0\0\0\x041234"
    yield bytes((0,)) + workers.build_frame(9, workers.Login.KIND, pin)
    for direction, messages in ((0, requests), (1, replies)):
        yield bytes((direction | 0x40,)) + b"".join(workers.build(1, message) for message in messages)
        yield from (bytes((direction,)) + workers.build(9, message) for message in messages)


def pkcs11_public_key(data: bytes) -> None:
    """Attributes of a key as a token states them: kind of key, three attributes, a certificate."""
    kind = (0, 3, 0x40, 0x4A)[data[0] % 4]
    first, second, info, certificate = ([*pieces(data[1:]), b"", b"", b"", b""])[:4]
    own = workers.ObjectRecord(1, 3, kind, b"id", "key", 1, first, second, info)
    shown = workers.ObjectRecord(2, 1, 0, b"id", "", 0, certificate, b"", b"")
    public_key(own, [], [shown])
    from_spki(info)


def pkcs11_public_key_seeds() -> Iterable[bytes]:
    curve, point = bytes.fromhex("06082a8648ce3d030107"), b"\4\x41\4" + bytes(64)
    for kind, parts in (
        (1, (curve, point)),
        (0, (b"\x80" + bytes(255), b"\1\0\1")),
        (2, (b"\x13\x0cedwards25519", bytes(32))),
        (3, (b"\1", bytes(1312))),
    ):
        yield bytes((kind,)) + joined(parts)


def pkcs11_uri(data: bytes) -> None:
    try:
        uri = parse_uri(data.decode(errors="surrogateescape"))
        pin_file(uri)
    except InvalidUri:
        return
    assert parse_uri(build_uri(uri)) == uri


def pkcs11_uri_seeds() -> Iterable[bytes]:
    yield b"pkcs11:token=My%20token;object=key;type=private;id=%01%02?pin-source=file:/run/pin&module-name=softhsm2"
    yield b"pkcs11:slot-id=3;library-version=2.6;manufacturer=x;serial=0;model=y;library-description=z;library-manufacturer=w"


def lmdb_record(data: bytes) -> None:
    """First byte: which parser, and whether the checksum is put right, without which little gets past it."""
    key, record = ([*pieces(data[1:]), b"", b""])[:2]
    if data[0] & 4 and len(record) >= 6:
        record = record[:2] + struct.pack(">I", zlib.crc32(record[6:])) + record[6:]
    parsers: tuple[Callable[[], object], ...] = (
        lambda: records.parse_localid(key, [record, record]),
        lambda: records.parse_localid(key, [record]),
        lambda: records.parse_disclosure(key, record),
        lambda: records.parse_trust(key, record),
    )
    try:
        parsers[data[0] & 3]()
    except records.DamagedRecord:
        return


def lmdb_record_seeds() -> Iterable[bytes]:
    john = DoNAI.parse("john@example.org")
    local = LocalIdentity(john, (LocalCredential(john, "x509", Role.BOTH, "pkcs11:object=a", b"chain"),), "TI&", (1000,))
    trust = TrustRecord(b"key", "x509", Role.SERVER, True, False, "TI&", b"blob")
    parts = [(1, str(john).encode(), records.build_localid(local)[0]), (0, str(john).encode(), records.build_localid(local)[1])]
    parts += [(2, b"@.example", records.build_disclosure("@.example", [john])), (3, b"key", records.build_trust(trust))]
    for which, key, record in parts:
        for checksum in (0, 4):
            yield bytes((which | checksum,)) + joined((key, record))


@cache
def _x509() -> tuple[X509Type, MemoryBackend]:
    return X509Type(clock=lambda: NOW), MemoryBackend()


def x509_peer(data: bytes) -> None:
    """A chain as a peer shows it, and everything that is asked of it afterwards without a trust decision."""
    kind, backend = _x509()
    try:
        peer = kind.examine(0, [CertificateEntry(piece) for piece in pieces(data)], backend)
    except alerts.TlsError as error:
        assert not isinstance(error, alerts.InternalError)
        return
    kind.identities(peer)
    kind.names(peer, DoNAI.parse("testserver.example"))
    kind.trust_keys(peer)
    kind.strength(peer)
    kind.end_point_binding(peer)
    for field in ("subject", "issuer", "serial", "altname", "fingerprint"):
        kind.describe(peer, field)


def _chain(*kinds: str) -> bytes:
    return joined(software_credential(kind).entries[0].data for kind in kinds)


def x509_peer_seeds() -> Iterable[bytes]:
    yield from (_chain(kind) for kind in ("ecdsa-p256", "ed25519"))
    yield _chain("ecdsa-p256", "ed25519")


def x509_file(data: bytes) -> None:
    """A file that someone wants to import."""
    kind, _ = _x509()
    for load in (
        read_certificates,
        kind.import_local,
        lambda file: kind.import_trust(file, pinned=bool(len(file) & 1)),
        kind.summarize,
    ):
        try:
            load(data)
        except (Malformed, ValueError) as error:
            assert not isinstance(error, UnicodeError | RecursionError), error


def x509_file_seeds() -> Iterable[bytes]:
    yield software_credential().entries[0].data
    yield software_credential("ed25519").chain_pem()
    yield software_credential().chain_pem() + software_credential("ed25519").chain_pem()


@cache
def _ocsp_subject() -> Any:
    return x509.load_der_x509_certificate(software_credential().entries[0].data)


def x509_staple(data: bytes) -> None:
    try:
        certificate_status(data, _ocsp_subject(), _ocsp_subject(), NOW)
    except BadResponse:
        return


def x509_staple_seeds() -> Iterable[bytes]:
    subject = _ocsp_subject()
    builder = ocsp.OCSPResponseBuilder().add_response(subject, subject, SHA256(), ocsp.OCSPCertStatus.GOOD, NOW, NOW, None, None)
    yield (
        builder.responder_id(ocsp.OCSPResponderEncoding.HASH, subject)
        .sign(software_key("ecdsa-p256"), SHA256())
        .public_bytes(Encoding.DER)
    )
    yield ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER).public_bytes(Encoding.DER)


class _ReaderInProcess(Reader):
    """What the worker process does, here: a fault is to be found, not contained."""

    def read(self, key: bytes) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what pgpy's dependencies will refuse one day
            from tlspool_openpgp.pgp import read
        return key_from(json.loads(json.dumps(read(key))))


@cache
def _openpgp() -> tuple[OpenPgpType, MemoryBackend]:
    return OpenPgpType(clock=NOW.timestamp, reader=_ReaderInProcess()), MemoryBackend()


def openpgp_certificate(data: bytes) -> None:
    """The body of a Certificate message, and everything that is asked of it afterwards without a trust decision."""
    kind, backend = _openpgp()
    try:
        entries = openpgp_message.parse12(data)
        assert openpgp_message.parse12(openpgp_message.build12(entries)) == entries
        peer = kind.examine(1, entries, backend)
    except alerts.TlsError as error:
        assert not isinstance(error, alerts.InternalError)
        return
    kind.identities(peer)
    kind.trust_keys(peer)
    kind.strength(peer)
    for field in ("subject", "issuer", "subjectaltname"):
        kind.describe(peer, field)


def openpgp_certificate_seeds() -> Iterable[bytes]:
    """Real keys are in the corpus: they were made by gpg."""
    yield bytes.fromhex("00000401000000")
    yield bytes.fromhex("00001f03080123456789abcdef14") + bytes(20)
    yield bytes.fromhex("00001002080123456789abcdef000003c60104")


def srp_messages(data: bytes) -> None:
    for parse in (parse_server_parameters, parse_client_public):
        try:
            parse(data)
        except alerts.DecodeError:
            continue


TARGETS = (
    Target("pkcs11_worker", pkcs11_worker, pkcs11_worker_seeds),
    Target("pkcs11_public_key", pkcs11_public_key, pkcs11_public_key_seeds),
    Target("pkcs11_uri", pkcs11_uri, pkcs11_uri_seeds),
    Target("lmdb_record", lmdb_record, lmdb_record_seeds),
    Target("x509_peer", x509_peer, x509_peer_seeds),
    Target("x509_file", x509_file, x509_file_seeds),
    Target("x509_staple", x509_staple, x509_staple_seeds),
    Target("openpgp_certificate", openpgp_certificate, openpgp_certificate_seeds, cost=10),
    Target("srp_messages", srp_messages, lambda: (b"\0\1N\0\1g\1s\0\1B", b"\0\1A")),
)  # fmt: skip
