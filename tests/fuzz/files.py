"""Targets for what operators give to the pool, and for the credentials of the other plugins."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache
from typing import Any

from tlspool_kdh import asn1, codes, relief
from tlspool_kdh.tickets import Principal
from tlspool_openpgp import message as openpgp
from tlspool_openpgp import packets as pgp
from tlspool_radius.packets import ACCESS_REQUEST, BadReply, Request, well_formed
from tlspool_rawkey.plugin import parse12 as parse_raw
from tlspool_rawkey.plugin import parse_key
from tlspool_srp.groups import GROUPS
from tlspool_srp.tpasswd import read_openssl, read_tpasswd
from tlspool_srp.verifiers import Verifier

from tests.fuzz.target import Target
from tlspool_core.cli.documents import build_document, parse_document
from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import ConfigError, LocalCredential, LocalIdentity, Role, TrustRecord
from tlspool_core.pool.config import parse_config
from tlspool_core.pool.tomlfile import ConfigurationError
from tlspool_core.testing.memory import MemoryBackend
from tlspool_core.testing.peers import software_key
from tlspool_core.tls import alerts


def _refused(work: Callable[[], object], *declared: type[Exception]) -> None:
    """A value, or one of the declared errors - and no subclass of them that only a stumble raises."""
    try:
        work()
    except declared as error:
        assert not isinstance(error, UnicodeError | RecursionError | alerts.InternalError), error


# --- what operators write --------------------------------------------------------------------------------------------------------


def configuration(data: bytes) -> None:
    _refused(lambda: parse_config(data.decode(errors="replace")), ConfigurationError)


CONFIGURATION = b"""
[[socket]]
path = "/run/x"
mode = "0660"
[limits]
handshake_timeout = 3.5
[tls]
versions = ["1.3"]
[policy]
default = "TI&"
[plugins]
disabled = ["srp"]
"""


def document(data: bytes) -> None:
    """An export of the databases that somebody edited."""
    _refused(lambda: parse_document(data.decode(errors="replace")), ValueError, ConfigError)


def document_seeds() -> Iterable[bytes]:
    backend, john = MemoryBackend(), DoNAI.parse("john@example.org")
    with backend.write() as databases:
        databases.put_localid(
            LocalIdentity(john, (LocalCredential(john, "x509", Role.BOTH, "pkcs11:object=a", b"chain"),), "TI&", (1000,))
        )
        databases.put_disclose("@.example", (john,))
        databases.put_trust(TrustRecord(b"key", "x509", Role.SERVER, True, False, "TI&", b"blob"))
    with backend.read() as reader:
        yield json.dumps(build_document(reader)).encode()
    yield b"{}"


def srp_file(data: bytes) -> None:
    """First byte: which kind of file."""
    text = data[1:].decode(errors="replace")
    kinds: tuple[Callable[[], object], ...] = (
        lambda: list(read_tpasswd(text, "1:2:3\n")),
        lambda: list(read_tpasswd("a:b:c:1", text)),
        lambda: list(read_openssl(text)),
    )
    _refused(kinds[data[0] % 3], ValueError)


def srp_verifier(data: bytes) -> None:
    try:
        verifier = Verifier.decode(data)
    except ValueError:
        return
    assert verifier.encode() == data


# --- credentials -------------------------------------------------------------------------------------------------------------------


def openpgp_key(data: bytes) -> None:
    """First byte: as a message of TLS, as packets, or as a file."""
    kinds: tuple[Callable[[], object], ...] = (
        lambda: openpgp.parse12(data[1:]),
        lambda: list(pgp.walk(data[1:])),
        lambda: pgp.keys_of(data[1:]),
    )
    _refused(kinds[data[0] % 3], alerts.DecodeError, alerts.BadCertificate, pgp.Malformed)


def openpgp_key_seeds() -> Iterable[bytes]:
    key = b"\x99\0\x0d\4" + bytes(12) + b"\xb4\x10john@example.org" + b"\x88\x0c\4\x13\1\x08\0\0\0\0\0\0\0\0"
    descriptor = openpgp.subkey_descriptor(bytes(8), key)
    yield b"\0" + len(descriptor).to_bytes(3, "big") + descriptor
    yield b"\1" + key
    yield b"\2" + key
    yield b"\2-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQANBAAA\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n"


def raw_key(data: bytes) -> None:
    _refused(lambda: parse_raw(data), alerts.DecodeError)
    _refused(lambda: parse_key(data), ValueError)


def raw_key_seeds() -> Iterable[bytes]:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    for kind in ("ecdsa-p256", "ed25519"):
        spki = software_key(kind).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        yield from (spki, len(spki).to_bytes(3, "big") + spki)


KERBEROS: tuple[type[Any], ...] = (asn1.Ticket, asn1.EncTicketPart, asn1.Authenticator)


def kerberos(data: bytes) -> None:
    """First byte: which message."""
    which = data[0] % 5
    if which < 3:
        _refused(lambda: asn1.decode(KERBEROS[which], data[1:]), ValueError)
    elif which == 3:
        _refused(lambda: codes.parse_ticket(data[1:]), alerts.DecodeError)
    else:
        _refused(lambda: relief.parse(data[1:]), alerts.DecodeError, alerts.IllegalParameter)


def kerberos_seeds() -> Iterable[bytes]:
    principal = {"name-type": 1, "name-string": ["HTTP", "host.example"]}
    sealed = {"etype": 18, "kvno": 2, "cipher": bytes(64)}
    ticket = asn1.encode(asn1.Ticket, {"tkt-vno": 5, "realm": "EXAMPLE", "sname": principal, "enc-part": sealed})
    authenticator = {
        "authenticator-vno": 5,
        "crealm": "EXAMPLE",
        "cname": principal,
        "cusec": 1,
        "ctime": datetime(2026, 6, 1, tzinfo=UTC),
    }
    yield b"\0" + ticket
    yield b"\2" + asn1.encode(asn1.Authenticator, authenticator)
    yield b"\3" + codes.build_ticket([type("Entry", (), {"data": ticket})])
    yield b"\4" + relief.build(ticket)
    yield b"\4" + relief.build(ticket, Principal(("john",), "EXAMPLE"))


@cache
def _request() -> Request:
    return Request.make(ACCESS_REQUEST, [(1, b"john")], b"secret", 7)


def radius_reply(data: bytes) -> None:
    """Nothing that a fuzzer makes is signed, so nothing may be believed."""
    _refused(lambda: well_formed(data), BadReply)
    try:
        reply = _request().read(data)
    except BadReply:
        return
    raise AssertionError(f"{reply} was believed")


TARGETS = (
    Target("configuration", configuration, lambda: (CONFIGURATION, b'state = "/x"\n'), 2),
    Target("document", document, document_seeds),
    Target("srp_file", srp_file, lambda: (b"\0john:2b:3c:1", b"\x011:2:3\n", b"\2V\t2b\t3c\tjohn\t2048\n")),
    Target("srp_verifier", srp_verifier, lambda: (Verifier("john", GROUPS[2048], b"salt", 12345).encode(),)),
    Target("openpgp_key", openpgp_key, openpgp_key_seeds),
    Target("raw_key", raw_key, raw_key_seeds),
    Target("kerberos", kerberos, kerberos_seeds, 2),
    Target("radius_reply", radius_reply, lambda: (b"\2\7\0\x14" + bytes(16), b"\2\7\0\x26" + bytes(16) + b"\x50\x12" + bytes(16))),
)
