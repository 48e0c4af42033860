"""Do GnuTLS's programs take our raw public keys, and we theirs: both versions of TLS, both roles?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from tlspool_rawkey.plugin import FORM, RawKeyType

from tlspool_core.api import DoNAI, LocalCredential, Role
from tlspool_core.testing.credential_type import TypeAnswers, TypeUnderTest
from tlspool_core.testing.keys import SoftwareKeys, public_der
from tlspool_core.testing.programs import Link, Programs
from tlspool_core.tls import TlsConnection
from tlspool_core.tls.questions import ClientAuth
from tlspool_core.tls.settings import ClientSettings, ServerSettings

KINDS = {
    "ecdsa": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
}
PRIORITIES = {0x0303: "NORMAL:-VERS-ALL:+VERS-TLS1.2", 0x0304: "NORMAL:-VERS-ALL:+VERS-TLS1.3"}
RAW = ":-CTYPE-ALL:+CTYPE-CLI-RAWPK:+CTYPE-SRV-RAWPK"
CASES = pytest.mark.parametrize(("version", "kind"), [(version, kind) for version in PRIORITIES for kind in KINDS])


class Party:
    """A key pair, for us or for them."""

    def __init__(self, kind: str, directory: Path, name: str) -> None:
        key: Any = KINDS[kind]()
        self.public = public_der(key)
        self.private_file, self.public_file = directory / f"{name}.key", directory / f"{name}.pub"
        self.private_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.public_file.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        keys = SoftwareKeys()
        local = LocalCredential(DoNAI("example.org"), "rawkey", Role.BOTH, keys.add(name, key), self.public)
        self.tested = TypeUnderTest(RawKeyType(), local, keys.find, ())

    def options(self) -> list[str]:
        return ["--rawpkkeyfile", str(self.private_file), "--rawpkfile", str(self.public_file)]

    def answers(self) -> TypeAnswers:
        credential = self.tested.load()
        return TypeAnswers(
            credentials=(credential,), client_auth=ClientAuth.REQUIRE, client_certificate_types=(2,), tested=self.tested
        )


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    started = Programs(tmp_path)
    yield started
    started.end()


def settings(version: int) -> dict[str, Any]:
    return {"versions": (version,), "extra_forms": (FORM,), "own_certificate_types": (2,), "peer_certificate_types": (2,)}


@CASES
def test_gnutls_is_the_server(programs: Programs, version: int, kind: str) -> None:
    ours, theirs = Party(kind, programs.directory, "ours"), Party(kind, programs.directory, "theirs")
    port = programs.free_port()
    command = ["gnutls-serv", "-q", "-p", str(port), "--echo", "--require-client-cert", "--priority", PRIORITIES[version] + RAW]
    program = programs.start(*command, *theirs.options())
    connection = TlsConnection(ClientSettings(**settings(version), server_name="example.org"))
    link = Link(programs.connect(port, program), connection, ours.answers())
    link.handshake()
    link.send(b"hello\n")
    link.read_until(b"hello\n")
    assert connection.facts.version == version
    assert connection.peer is not None and connection.peer.entries[0].data == theirs.public and connection.own is not None


@CASES
def test_gnutls_is_the_client(programs: Programs, version: int, kind: str) -> None:
    ours, theirs = Party(kind, programs.directory, "ours"), Party(kind, programs.directory, "theirs")
    listener, port = programs.listen()
    command = ["gnutls-cli", "127.0.0.1", "-p", str(port), "--no-ca-verification", "--priority", PRIORITIES[version] + RAW]
    program = programs.start(*command, *theirs.options())
    connection = TlsConnection(ServerSettings(**settings(version)))
    link = Link(programs.accept(listener), connection, ours.answers())
    link.handshake()
    assert program.stdin is not None
    program.stdin.write(b"from gnutls\n")
    program.stdin.flush()
    link.read_until(b"from gnutls\n")
    assert connection.facts.version == version
    assert connection.peer is not None and connection.peer.entries[0].data == theirs.public
