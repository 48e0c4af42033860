"""Do OpenSSL's programs understand our TLS 1.2, in both roles, with every kind of key, suite and group that they share with us?"""

from __future__ import annotations

from typing import Any

import pytest

from tlspool_core.testing.peers import Answers, software_credential
from tlspool_core.tls import TlsConnection, alerts
from tlspool_core.tls.questions import ClientAuth

KEYS = ["ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048", "ed25519", "ed448"]
GROUPS = {"X25519": 0x1D, "P-256": 0x17, "P-384": 0x18, "P-521": 0x19}
SUITES = {
    "ECDHE-ECDSA-AES128-GCM-SHA256": 0xC02B,
    "ECDHE-RSA-AES128-GCM-SHA256": 0xC02F,
    "ECDHE-ECDSA-AES256-GCM-SHA384": 0xC02C,
    "ECDHE-RSA-AES256-GCM-SHA384": 0xC030,
    "ECDHE-ECDSA-CHACHA20-POLY1305": 0xCCA9,
    "ECDHE-RSA-CHACHA20-POLY1305": 0xCCA8,
}


def key_for(suite: str) -> str:
    return "rsa-2048" if "RSA-AES" in suite or ("RSA-CHACHA" in suite and "ECDSA" not in suite) else "ecdsa-p256"


class OpenSsl:
    """One side of ours against one program."""

    def __init__(self, make: Any, programs: Any, link: Any) -> None:
        self.make, self.programs, self.link = make, programs, link

    def s_server(self, kind: str, *options: str) -> Any:
        certificate, key = self.programs.credential_files(software_credential(kind))
        port = self.programs.free_port()
        command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", certificate, "-key", key, "-tls1_2", "-rev"]
        return port, self.programs.start(*command, *options)

    def as_client(self, kind: str = "ecdsa-p256", *options: str, answers: Any = None, server: Any = None, **settings: Any) -> Any:
        """A link to s_server -rev, before its handshake."""
        port, program = server or self.s_server(kind, *options)
        connection = TlsConnection(self.make.client(**settings))
        return self.link(self.programs.connect(port, program), connection, answers or Answers())

    def as_server(self, kind: str = "ecdsa-p256", *options: str, answers: Any = None, **settings: Any) -> Any:
        """A link to s_client, before its handshake."""
        listener, port = self.programs.listen()
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_2", "-servername", "testserver"]
        program = self.programs.start(*command, *options)
        connection = TlsConnection(self.make.server(**settings))
        return self.link(self.programs.accept(listener), connection, answers or self.make.answers(kind)), program


@pytest.fixture
def openssl(make: Any, programs: Any, link: Any) -> OpenSsl:
    return OpenSsl(make, programs, link)


def reversed_by_server(ours: Any) -> Any:
    """Completes the handshake, then has s_server turn a line around."""
    ours.handshake()
    ours.send(b"hello\n")
    ours.read_until(b"olleh\n")
    return ours.connection


def dialogue(ours: Any, program: Any) -> Any:
    """Completes the handshake, then exchanges a line in each direction with s_client; its output up to there is in `ours.output`."""
    ours.handshake()
    ours.output = b""
    program.stdin.write(b"from openssl\n")
    program.stdin.flush()
    ours.read_until(b"from openssl\n")
    ours.send(b"from the engine\n")
    while b"from the engine" not in (line := program.stdout.readline()):
        assert line, "s_client has ended"
        ours.output += line
    return ours.connection


@pytest.mark.parametrize("kind", KEYS)
def test_client_with_each_key(openssl: OpenSsl, kind: str) -> None:
    mine = software_credential(kind, "client")
    certificate, _ = openssl.programs.credential_files(mine, "client")
    demand = ("-Verify", "1", "-verify_return_error", "-CAfile", certificate)
    connection = reversed_by_server(openssl.as_client(kind, *demand, answers=Answers(credentials=(mine,))))
    assert connection.own is mine and connection.facts.own_signature_scheme in mine.signature_schemes


@pytest.mark.parametrize("suite", SUITES)
def test_client_with_each_suite(openssl: OpenSsl, suite: str) -> None:
    connection = reversed_by_server(openssl.as_client(key_for(suite), "-cipher", suite))
    assert connection.facts.cipher_suite == SUITES[suite] and connection.facts.extended_master_secret


@pytest.mark.parametrize("group", GROUPS)
def test_client_with_each_group(openssl: OpenSsl, group: str) -> None:
    connection = reversed_by_server(openssl.as_client("ecdsa-p256", "-groups", group))
    assert connection.facts.group == GROUPS[group]


@pytest.mark.parametrize("scheme", ["rsa_pss_rsae_sha512", "rsa_pkcs1_sha384"])
def test_client_with_each_kind_of_rsa_signature(openssl: OpenSsl, scheme: str) -> None:
    connection = reversed_by_server(openssl.as_client("rsa-2048", "-sigalgs", scheme))
    assert connection.facts.peer_signature_scheme == {"rsa_pss_rsae_sha512": 0x0806, "rsa_pkcs1_sha384": 0x0501}[scheme]


@pytest.mark.parametrize("scheme", [0x0809, 0x080B])
def test_client_with_a_pss_key(openssl: OpenSsl, pss_credential: Any, scheme: int) -> None:
    directory, port = openssl.programs.directory, openssl.programs.free_port()
    files = ["-cert", str(directory / "pss.pem"), "-key", str(directory / "pss.key")]
    program = openssl.programs.start("openssl", "s_server", "-accept", f"127.0.0.1:{port}", *files, "-tls1_2", "-rev")
    connection = reversed_by_server(openssl.as_client(server=(port, program), signature_schemes=(scheme,)))
    assert connection.facts.peer_signature_scheme == scheme and connection.facts.cipher_suite == 0xC02F


def test_server_with_a_pss_key(openssl: OpenSsl, pss_credential: Any) -> None:
    answers = openssl.make.answers(credentials=(pss_credential,))
    ours, program = openssl.as_server("", "-sigalgs", "rsa_pss_pss_sha384", answers=answers)
    assert dialogue(ours, program).facts.own_signature_scheme == 0x080A


@pytest.mark.parametrize("options", [[], ["-no_ticket"]])
def test_client_resumes_by_ticket_or_identifier(openssl: OpenSsl, options: list[str]) -> None:
    server = openssl.s_server("ecdsa-p256", *options)
    ours = openssl.as_client(server=server)
    (session,) = reversed_by_server(ours).take_sessions()
    assert bool(session.ticket) is not bool(options)
    ours.close()
    again = reversed_by_server(openssl.as_client(server=server, session=session))
    assert again.facts.resumed and again.peer is not None


def test_client_alpn_and_exporter(openssl: OpenSsl) -> None:
    connection = reversed_by_server(openssl.as_client("ecdsa-p256", "-alpn", "other,wanted", alpn=(b"wanted",)))
    assert connection.facts.alpn == b"wanted"


def test_client_and_a_server_of_both_versions(openssl: OpenSsl) -> None:
    """A client that also speaks TLS 1.3 meets a server limited to TLS 1.2."""
    assert reversed_by_server(openssl.as_client(versions=(0x0304, 0x0303))).facts.version == 0x0303


@pytest.mark.parametrize("kind", KEYS)
def test_server_with_each_key(openssl: OpenSsl, kind: str) -> None:
    certificate, _ = openssl.programs.credential_files(software_credential(kind))
    ours, program = openssl.as_server(kind, "-CAfile", certificate, "-verify_return_error")
    dialogue(ours, program)


@pytest.mark.parametrize("suite", SUITES)
def test_server_with_each_suite(openssl: OpenSsl, suite: str) -> None:
    ours, program = openssl.as_server(key_for(suite), "-cipher", suite)
    assert dialogue(ours, program).facts.cipher_suite == SUITES[suite]


@pytest.mark.parametrize("group", GROUPS)
def test_server_with_each_group(openssl: OpenSsl, group: str) -> None:
    ours, program = openssl.as_server("rsa-2048", "-groups", group)
    assert dialogue(ours, program).facts.group == GROUPS[group]


@pytest.mark.parametrize("kind", KEYS)
def test_server_takes_a_client_certificate(openssl: OpenSsl, kind: str) -> None:
    mine = software_credential(kind, "client")
    certificate, key = openssl.programs.credential_files(mine, "client")
    answers = openssl.make.answers(client_auth=ClientAuth.REQUIRE)
    ours, program = openssl.as_server("rsa-2048", "-cert", certificate, "-key", key, answers=answers)
    assert dialogue(ours, program).peer.entries[0].data == mine.entries[0].data


def test_server_resumes(openssl: OpenSsl) -> None:
    stored = str(openssl.programs.directory / "session")
    ours, program = openssl.as_server("ecdsa-p256", "-sess_out", stored)
    dialogue(ours, program)
    ours.close()
    program.communicate()
    again, program = openssl.as_server("ecdsa-p256", "-sess_in", stored)
    assert dialogue(again, program).facts.resumed


def test_server_staples_and_names_authorities(openssl: OpenSsl) -> None:
    """The response is no real one, which s_client says, but shows."""
    answers = openssl.make.answers(
        client_auth=ClientAuth.REQUEST, certificate_authorities=(bytes.fromhex("300d310b3009060355040613024e4c"),)
    )
    ours, program = openssl.as_server("ecdsa-p256", "-status", answers=answers, ocsp_response=lambda _: b"0\3\n\1\1")
    dialogue(ours, program)
    assert b"C = NL" in ours.output and b"malformedrequest" in ours.output


def test_server_alpn_and_record_limit(openssl: OpenSsl) -> None:
    answers = openssl.make.answers(alpn=(b"wanted",))
    ours, program = openssl.as_server("ecdsa-p256", "-alpn", "other,wanted", answers=answers)
    assert dialogue(ours, program).facts.alpn == b"wanted"


@pytest.mark.parametrize("groups", ["X25519", "P-384:X25519"])
def test_a_credential_on_a_curve_that_the_client_lacks(openssl: OpenSsl, groups: str) -> None:
    """RFC 8422 section 5.1: s_client would refuse the certificate, so the other credential is taken."""
    answers = openssl.make.answers(credentials=(software_credential("ecdsa-p256"), software_credential("rsa-2048")))
    ours, program = openssl.as_server("", "-groups", groups, answers=answers)
    assert dialogue(ours, program).facts.cipher_suite_name.startswith("TLS_ECDHE_RSA")


def test_server_refuses_renegotiation(openssl: OpenSsl) -> None:
    ours, program = openssl.as_server()
    dialogue(ours, program)
    program.stdin.write(b"R\n")
    program.stdin.flush()
    ours.run(lambda connection: False)
    assert isinstance(ours.connection.failed, alerts.RenegotiationRefused)
