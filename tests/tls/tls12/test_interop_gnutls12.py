"""Do GnuTLS's programs understand our TLS 1.2, in both roles?"""

from __future__ import annotations

from typing import Any

import pytest

from tlspool_core.testing.peers import Answers, software_credential
from tlspool_core.tls import TlsConnection, alerts
from tlspool_core.tls.questions import ClientAuth

KEYS = ["ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048", "ed25519", "ed448"]
PRIORITY = "NORMAL:-VERS-ALL:+VERS-TLS1.2"


class GnuTls:
    """One side of ours against one program."""

    def __init__(self, make: Any, programs: Any, link: Any) -> None:
        self.make, self.programs, self.link = make, programs, link

    def server(self, kind: str, *options: str, priority: str = "") -> Any:
        certificate, key = self.programs.credential_files(software_credential(kind))
        port = self.programs.free_port()
        command = ["gnutls-serv", "-q", "-p", str(port), "--x509certfile", certificate, "--x509keyfile", key, "--echo"]
        return port, self.programs.start(*command, "--priority", PRIORITY + priority, *options)

    def as_client(self, server: Any, answers: Any = None, **settings: Any) -> Any:
        """A finished handshake with gnutls-serv --echo, and one echo."""
        ours = self.begin_as_client(server, answers, **settings)
        ours.handshake()
        ours.send(b"hello\n")
        ours.read_until(b"hello\n")
        return ours

    def begin_as_client(self, server: Any, answers: Any = None, **settings: Any) -> Any:
        """A link to gnutls-serv, before its handshake."""
        port, program = server
        connection = TlsConnection(self.make.client(**settings))
        return self.link(self.programs.connect(port, program), connection, answers or Answers())

    def begin_as_server(self, kind: str, *options: str, priority: str = "", answers: Any = None, **settings: Any) -> Any:
        """A link to gnutls-cli, before its handshake."""
        listener, port = self.programs.listen()
        certificate, _ = self.programs.credential_files(software_credential(kind))
        command = ["gnutls-cli", "127.0.0.1", "-p", str(port), "--sni-hostname", "testserver", "--verify-hostname", "testserver"]
        program = self.programs.start(*command, "--x509cafile", certificate, "--priority", PRIORITY + priority, *options)
        connection = TlsConnection(self.make.server(**settings))
        return self.link(self.programs.accept(listener), connection, answers or self.make.answers(kind)), program

    def as_server(self, kind: str, *options: str, priority: str = "", answers: Any = None, **settings: Any) -> Any:
        """A finished handshake with gnutls-cli, and a line in each direction."""
        ours, program = self.begin_as_server(kind, *options, priority=priority, answers=answers, **settings)
        ours.handshake()
        program.stdin.write(b"from gnutls\n")
        program.stdin.flush()
        ours.read_until(b"from gnutls\n")
        ours.send(b"from the engine\n")
        while b"from the engine" not in (line := program.stdout.readline()):
            assert line, "gnutls-cli has ended"
        return ours.connection


@pytest.fixture
def gnutls(make: Any, programs: Any, link: Any) -> GnuTls:
    return GnuTls(make, programs, link)


@pytest.mark.parametrize("kind", KEYS)
def test_client_with_each_key(gnutls: GnuTls, kind: str) -> None:
    mine = software_credential(kind, "client")
    ours = gnutls.as_client(gnutls.server(kind, "--require-client-cert"), Answers(credentials=(mine,)))
    assert ours.connection.own is mine and ours.connection.facts.extended_master_secret


@pytest.mark.parametrize(
    ("priority", "suite"),
    [(":-CIPHER-ALL:+AES-256-GCM", 0xC02C), (":-CIPHER-ALL:+CHACHA20-POLY1305", 0xCCA9), (":-GROUP-ALL:+GROUP-SECP384R1", 0xC02B)],
)
def test_client_with_other_suites_and_groups(gnutls: GnuTls, priority: str, suite: int) -> None:
    ours = gnutls.as_client(gnutls.server("ecdsa-p256", priority=priority))
    assert ours.connection.facts.cipher_suite == suite


def test_client_resumes(gnutls: GnuTls) -> None:
    server = gnutls.server("ecdsa-p256")
    ours = gnutls.as_client(server)
    (session,) = ours.connection.take_sessions()
    ours.close()
    assert gnutls.as_client(server, session=session).connection.facts.resumed


def test_client_with_a_record_size_limit(gnutls: GnuTls) -> None:
    ours = gnutls.as_client(gnutls.server("ecdsa-p256"), record_size_limit=512)
    ours.received = b""
    ours.send(b"x" * 2000 + b"\n")
    ours.read_until(b"x\n")
    assert ours.received == b"x" * 2000 + b"\n"


@pytest.mark.parametrize("kind", KEYS)
def test_server_with_each_key(gnutls: GnuTls, kind: str) -> None:
    mine = software_credential(kind, "client")
    certificate, key = gnutls.programs.credential_files(mine, "client")
    answers = gnutls.make.answers(kind, client_auth=ClientAuth.REQUIRE)
    connection = gnutls.as_server(kind, "--x509certfile", certificate, "--x509keyfile", key, answers=answers)
    assert connection.peer.entries[0].data == mine.entries[0].data and connection.facts.server_name == "testserver"


@pytest.mark.parametrize(
    ("priority", "suite"),
    [(":-CIPHER-ALL:+AES-256-GCM", 0xC02C), (":-CIPHER-ALL:+CHACHA20-POLY1305", 0xCCA9), (":-GROUP-ALL:+GROUP-SECP521R1", 0xC02B)],
)
def test_server_with_other_suites_and_groups(gnutls: GnuTls, priority: str, suite: int) -> None:
    assert gnutls.as_server("ecdsa-p256", priority=priority).facts.cipher_suite == suite


def test_server_with_a_record_size_limit(gnutls: GnuTls) -> None:
    assert gnutls.as_server("ecdsa-p256", "--recordsize", "600", record_size_limit=700).facts.version == 0x0303


NO_EMS = ":%NO_SESSION_HASH"


def test_client_and_a_server_without_extended_master_secret(gnutls: GnuTls) -> None:
    """Refused as a rule; where that is relaxed, no session is kept and there is no channel binding (RFC 7627)."""
    server = gnutls.server("ecdsa-p256", priority=NO_EMS)
    ours = gnutls.begin_as_client(server)
    ours.run(lambda connection: False)
    assert isinstance(ours.connection.failed, alerts.HandshakeFailure)
    connection = gnutls.as_client(server, require_extended_master_secret=False).connection
    assert not connection.facts.extended_master_secret and connection.take_sessions() == []
    assert connection.channel_binding("tls-exporter") is None


def test_server_and_a_client_without_extended_master_secret(gnutls: GnuTls) -> None:
    ours, _ = gnutls.begin_as_server("ecdsa-p256", priority=NO_EMS)
    ours.run(lambda connection: False)
    assert isinstance(ours.connection.failed, alerts.HandshakeFailure)
    connection = gnutls.as_server("ecdsa-p256", priority=NO_EMS, require_extended_master_secret=False)
    assert not connection.facts.extended_master_secret and not gnutls.make.tickets.states


def test_server_resumes(gnutls: GnuTls) -> None:
    """gnutls-cli -r connects twice, and offers in the second handshake what it got in the first."""
    answers = gnutls.make.answers()
    listener, port = gnutls.programs.listen()
    certificate, _ = gnutls.programs.credential_files(software_credential())
    command = ["gnutls-cli", "127.0.0.1", "-p", str(port), "--sni-hostname=testserver", "--verify-hostname=testserver", "-r"]
    program = gnutls.programs.start(*command, f"--x509cafile={certificate}", f"--priority={PRIORITY}")
    for again in (False, True):
        ours = gnutls.link(gnutls.programs.accept(listener), TlsConnection(gnutls.make.server()), answers)
        ours.handshake()
        assert ours.connection.facts.resumed is again
        if not again:
            ours.run(lambda connection: False)
            ours.close()
    program.stdin.write(b"from gnutls\n")
    program.stdin.flush()
    ours.read_until(b"from gnutls\n")


def test_server_that_promised_a_ticket_and_has_none(gnutls: GnuTls) -> None:
    """RFC 5077 section 3.3: it is empty then."""
    gnutls.as_server("ecdsa-p256", answers=gnutls.make.answers(tickets=None))
