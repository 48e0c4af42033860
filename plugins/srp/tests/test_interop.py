"""Do GnuTLS and OpenSSL understand us, in both roles, with every group; and are their password files read right?"""

from __future__ import annotations

import contextlib
import os
import pty
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tlslite.api import HandshakeSettings, TLSConnection, VerifierDB
from tlslite.errors import TLSError
from tlspool_srp.attempts import Attempts
from tlspool_srp.exchange import ClientSrp, ServerSrp, UserExtension
from tlspool_srp.groups import GROUPS
from tlspool_srp.plugin import SUITES
from tlspool_srp.tpasswd import read_openssl, read_tpasswd
from tlspool_srp.verifiers import Verifier, context_for, make_verifier, record_for

from tlspool_core.api import DoNAI
from tlspool_core.testing.memory import MemoryBackend
from tlspool_core.testing.peers import Answers, software_credential
from tlspool_core.testing.programs import Link, Programs
from tlspool_core.tls import TlsConnection
from tlspool_core.tls.settings import ClientSettings, ServerSettings

PRIORITY = "NONE:+VERS-TLS1.2:+SRP:+SRP-RSA:+AES-128-CBC:+AES-256-CBC:+SHA1:+SIGN-ALL:+GROUP-ALL:+COMP-NULL"
JOHN = DoNAI.parse("john@example.com")
COMMON = {"versions": (0x0303,), "cipher_suites": tuple(row.code for row in SUITES), "extra_suites": SUITES}


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    started = Programs(tmp_path)
    yield started
    started.end()


def srptool(directory: Path, user: str, password: str, group: str) -> tuple[Path, Path]:
    """Files that srptool makes; it reads the password from a terminal, so it gets one."""
    passwords, conf = directory / "tpasswd", directory / "tpasswd.conf"
    subprocess.run(["srptool", "--create-conf", str(conf)], check=True, capture_output=True)
    passwords.touch()
    child, terminal = pty.fork()
    if child == 0:
        os.execvp("srptool", ["srptool", "--passwd", str(passwords), "--passwd-conf", str(conf), "-u", user, "-i", group])  # noqa: S606 - no shell is wanted
    said = b""
    while b"assword" not in said:
        said += os.read(terminal, 1000)
    os.write(terminal, password.encode() + b"\n")
    with contextlib.suppress(OSError):  # the terminal ends with its program
        while os.read(terminal, 1000):
            pass
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    assert status == 0
    return passwords, conf


def fits(verifier: Verifier, user: str, password: str) -> bool:
    """Whether a verifier is that of the password."""
    context = context_for(verifier.group, user, password)
    return bool(context.get_common_password_verifier(context.get_common_password_hash(verifier.salt)) == verifier.value)


def test_files_of_srptool_are_read(tmp_path: Path) -> None:
    passwords, conf = srptool(tmp_path, "john", "secret", "2")
    (verifier,) = read_tpasswd(passwords.read_text(), conf.read_text())
    assert verifier.user == "john"
    assert fits(verifier, "john", "secret")
    assert not fits(verifier, "john", "other")


def test_files_of_openssl_are_read(tmp_path: Path) -> None:
    file = tmp_path / "srp.srpv"
    file.touch()
    for user, bits in (("john", "2048"), ("mary", "4096")):
        command = ["openssl", "srp", "-srpvfile", str(file), "-add", "-gn", bits, "-passout", f"pass:{user}'s", user]
        subprocess.run(command, check=True, capture_output=True)
    verifiers = list(read_openssl(file.read_text()))
    assert [(verifier.user, verifier.group.bits) for verifier in verifiers] == [("john", 2048), ("mary", 4096)]
    assert all(fits(verifier, verifier.user, f"{verifier.user}'s") for verifier in verifiers)


@pytest.mark.parametrize("bits", [bits for bits in GROUPS if bits != 6144])  # GnuTLS does not know the group of 6,144 bits
def test_gnutls_clients_log_in(programs: Programs, bits: int) -> None:
    """GnuTLS refuses groups below 2048 bits on its own account unless told otherwise, so it is told otherwise."""
    databases = MemoryBackend()
    with databases.write() as writer:
        writer.put_trust(record_for(JOHN, make_verifier("john", "secret", bits)))
    extension = UserExtension()
    srp = ServerSrp(extension, databases, Attempts(), lambda: DoNAI.parse("example.com"), "127.0.0.1", minimum_bits=1024)
    server = TlsConnection(ServerSettings(**COMMON, key_exchanges=(srp,), extensions=(extension,)))
    listener, port = programs.listen()
    command = ["gnutls-cli", "127.0.0.1", "-p", str(port), "--insecure", "--srpusername", "john", "--srppasswd", "secret"]
    program = programs.start(*command, "--priority", PRIORITY + ":%VERIFY_ALLOW_BROKEN:%PROFILE_VERY_WEAK")
    link = Link(programs.accept(listener), server, Answers(credentials=(software_credential("rsa-2048"),)))
    link.handshake()
    assert server.peer is not None
    assert server.peer.identity == JOHN  # type: ignore[attr-defined]
    assert program.stdin is not None
    program.stdin.write(b"from gnutls\n")
    program.stdin.flush()
    link.read_until(b"from gnutls\n")


@pytest.mark.parametrize("group", ["2", "3", "4", "5"])  # srptool aborts in the group of 8,192 bits
def test_gnutls_servers_are_logged_in_to(programs: Programs, tmp_path: Path, group: str) -> None:
    passwords, conf = srptool(tmp_path, "john", "secret", group)
    certificate, key = programs.credential_files(software_credential("rsa-2048"))
    port = programs.free_port()
    program = programs.start(
        "gnutls-serv", "-q", "-p", str(port), "--echo", "--priority", PRIORITY, "--srppasswd", str(passwords),
        "--srppasswdconf", str(conf), "--x509certfile", certificate, "--x509keyfile", key,
    )  # fmt: skip
    srp = ClientSrp("john", DoNAI.parse("imap.example.com"), lambda: "secret", minimum_bits=1024)
    client = TlsConnection(ClientSettings(**COMMON, key_exchanges=(srp,), extensions=(UserExtension("john"),)))
    link = Link(programs.connect(port, program), client, Answers())
    link.handshake()
    link.send(b"hello\n")
    link.read_until(b"hello\n")


def _tlslite_client(port: int, password: str, outcome: list[object]) -> None:
    settings = HandshakeSettings()
    settings.maxVersion = (3, 3)
    settings.useEncryptThenMAC = True
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        peer = TLSConnection(sock)
        try:
            peer.handshakeClientSRP("john", password, settings=settings)
            peer.sendall(b"from tlslite")
            outcome.append(peer.session.cipherSuite)
            peer.close()
        except (TLSError, OSError) as error:
            outcome.append(error)


@pytest.mark.parametrize("password", ["secret", "wrong"])
def test_tlslite_clients_log_in_or_fail(programs: Programs, password: str) -> None:
    databases = MemoryBackend()
    with databases.write() as writer:
        writer.put_trust(record_for(JOHN, make_verifier("john", "secret", 2048)))
    extension = UserExtension()
    srp = ServerSrp(extension, databases, Attempts(), lambda: DoNAI.parse("example.com"), "127.0.0.1")
    server = TlsConnection(ServerSettings(**COMMON, key_exchanges=(srp,), extensions=(extension,)))
    listener, port = programs.listen()
    outcome: list[object] = []
    thread = threading.Thread(target=_tlslite_client, args=(port, password, outcome))
    thread.start()
    link = Link(programs.accept(listener), server, Answers(credentials=(software_credential("rsa-2048"),)))
    if password == "secret":
        link.handshake()
        link.read_until(b"from tlslite")
    else:
        link.run(lambda connection: connection.handshake_complete)
        assert server.failed is not None
        assert server.failed.alert == 20
    link.close()
    thread.join(20)
    assert (outcome[0] in COMMON["cipher_suites"]) is (password == "secret")  # type: ignore[operator]


def _tlslite_server(listener: socket.socket, bits: int, outcome: list[object]) -> None:
    passwords = VerifierDB()
    passwords.create()
    passwords[b"john"] = VerifierDB.makeVerifier("john", "secret", bits)
    settings = HandshakeSettings()
    settings.maxVersion = (3, 3)
    sock, _ = listener.accept()
    with sock:
        peer = TLSConnection(sock)
        try:
            peer.handshakeServer(verifierDB=passwords, settings=settings)
            outcome.append(peer.session.srpUsername)
            peer.sendall(b"from tlslite")
            peer.close()
        except (TLSError, OSError) as error:
            outcome.append(error)


@pytest.mark.parametrize("bits", [1024, 1536, 2048, 3072, 4096, 6144, 8192])
def test_tlslite_servers_are_logged_in_to(programs: Programs, bits: int) -> None:
    listener, port = programs.listen()
    outcome: list[object] = []
    thread = threading.Thread(target=_tlslite_server, args=(listener, bits, outcome))
    thread.start()
    srp = ClientSrp("john", DoNAI.parse("imap.example.com"), lambda: "secret", minimum_bits=1024)
    client = TlsConnection(ClientSettings(**COMMON, key_exchanges=(srp,), extensions=(UserExtension("john"),)))
    link = Link(socket.create_connection(("127.0.0.1", port), timeout=20), client, Answers())
    try:
        link.handshake()
        link.read_until(b"from tlslite")
    finally:
        link.close()
        thread.join(20)
    assert outcome == ["john"]
