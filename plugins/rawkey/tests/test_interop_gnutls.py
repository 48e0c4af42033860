"""Do GnuTLS's programs take our raw public keys, and we theirs: both versions of TLS, both roles?"""

from __future__ import annotations

import socket
import subprocess
import time
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
from tlspool_core.testing.peers import answer_all
from tlspool_core.tls import TlsConnection
from tlspool_core.tls.questions import ClientAuth
from tlspool_core.tls.settings import ClientSettings, ServerSettings

PATIENCE = 20.0
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
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    programs: list[subprocess.Popen[bytes]] = []
    yield programs
    for program in programs:
        program.kill()
        program.communicate()


def start(started: list[subprocess.Popen[bytes]], *command: str) -> subprocess.Popen[bytes]:
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    started.append(program)
    return program


def talk(sock: socket.socket, connection: TlsConnection, answers: TypeAnswers, until: bytes = b"") -> None:
    """Shake hands, and then, if wanted, read up to `until`."""
    received = b""
    sock.settimeout(PATIENCE)
    while True:
        answer_all(connection, answers)
        sock.sendall(connection.data_to_send())
        assert connection.failed is None, connection.failed
        received += connection.take_plaintext()
        if connection.handshake_complete and until in received:
            return
        data = sock.recv(65536)
        assert data, "the other side has ended"
        connection.receive(data)


def settings(version: int) -> dict[str, Any]:
    return {"versions": (version,), "extra_forms": (FORM,), "own_certificate_types": (2,), "peer_certificate_types": (2,)}


@CASES
def test_gnutls_is_the_server(tmp_path: Path, started: list[subprocess.Popen[bytes]], version: int, kind: str) -> None:
    ours, theirs = Party(kind, tmp_path, "ours"), Party(kind, tmp_path, "theirs")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["gnutls-serv", "-q", "-p", str(port), "--echo", "--require-client-cert", "--priority", PRIORITIES[version] + RAW]
    program = start(started, *command, *theirs.options())
    connection, answers = TlsConnection(ClientSettings(**settings(version), server_name="example.org")), ours.answers()
    with connect(port, program) as sock:
        talk(sock, connection, answers)
        connection.send(b"hello\n")
        talk(sock, connection, answers, b"hello\n")
    assert connection.facts.version == version
    assert connection.peer is not None and connection.peer.entries[0].data == theirs.public and connection.own is not None


def connect(port: int, program: subprocess.Popen[bytes]) -> socket.socket:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert program.poll() is None, program.stdout and program.stdout.read()
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise AssertionError("the server does not listen")


@CASES
def test_gnutls_is_the_client(tmp_path: Path, started: list[subprocess.Popen[bytes]], version: int, kind: str) -> None:
    ours, theirs = Party(kind, tmp_path, "ours"), Party(kind, tmp_path, "theirs")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        port = str(listener.getsockname()[1])
        command = ["gnutls-cli", "127.0.0.1", "-p", port, "--no-ca-verification", "--priority", PRIORITIES[version] + RAW]
        program = start(started, *command, *theirs.options())
        sock, _ = listener.accept()
    connection, answers = TlsConnection(ServerSettings(**settings(version))), ours.answers()
    with sock:
        talk(sock, connection, answers)
        assert program.stdin is not None
        program.stdin.write(b"from gnutls\n")
        program.stdin.flush()
        talk(sock, connection, answers, b"from gnutls\n")
    assert connection.facts.version == version
    assert connection.peer is not None and connection.peer.entries[0].data == theirs.public
