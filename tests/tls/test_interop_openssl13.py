"""Do OpenSSL's programs understand our TLS 1.3, in both roles, with every kind of key and group that they have?"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tlspool_core.testing.peers import Answers, SoftwareCredential, software_credential
from tlspool_core.tls import TlsConnection
from tlspool_core.tls.questions import ClientAuth

KEYS = ["ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048", "ed25519", "ed448"]
GROUPS = {"X25519": 0x1D, "P-256": 0x17, "P-384": 0x18, "P-521": 0x19}
SUITES = {"TLS_AES_128_GCM_SHA256": 0x1301, "TLS_AES_256_GCM_SHA384": 0x1302, "TLS_CHACHA20_POLY1305_SHA256": 0x1303}


def s_server(programs: Any, credential: Any, *options: str) -> Any:
    certificate, key = programs.credential_files(credential)
    port = programs.free_port()
    program = programs.start(
        "openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", certificate, "-key", key, "-tls1_3", "-rev", *options
    )
    return port, program


def as_client(make: Any, programs: Any, link: Any, credential: Any, *options: str, answers: Any = None, **settings: Any) -> Any:
    """A finished handshake with s_server -rev, which answers each line in reverse."""
    port, program = s_server(programs, credential, *options)
    connection = TlsConnection(make.client(**settings))
    ours = link(programs.connect(port, program), connection, answers or Answers())
    ours.handshake()
    return ours, port, program


def check_reversal(ours: Any) -> None:
    ours.send(b"hello\n")
    ours.read_until(b"olleh\n")


@pytest.mark.parametrize("kind", KEYS)
def test_client_with_each_server_key(make: Any, programs: Any, link: Any, kind: str) -> None:
    ours, *_ = as_client(make, programs, link, software_credential(kind))
    check_reversal(ours)


@pytest.mark.parametrize("group", GROUPS)
def test_client_with_each_group(make: Any, programs: Any, link: Any, group: str) -> None:
    ours, *_ = as_client(make, programs, link, software_credential(), "-groups", group)
    assert ours.connection.facts.group == GROUPS[group]  # all but X25519 take a HelloRetryRequest
    check_reversal(ours)


@pytest.mark.parametrize("suite", SUITES)
def test_client_with_each_suite(make: Any, programs: Any, link: Any, suite: str) -> None:
    ours, *_ = as_client(make, programs, link, software_credential(), "-ciphersuites", suite)
    assert ours.connection.facts.cipher_suite == SUITES[suite]
    check_reversal(ours)


PSS_SCHEMES = {0x0809: "rsa_pss_pss_sha256", 0x080A: "rsa_pss_pss_sha384", 0x080B: "rsa_pss_pss_sha512"}


@pytest.mark.parametrize("scheme", PSS_SCHEMES)
def test_client_with_a_pss_key(make: Any, programs: Any, link: Any, pss_credential: SoftwareCredential, scheme: int) -> None:
    certificate, key = str(programs.directory / "pss.pem"), str(programs.directory / "pss.key")
    port = programs.free_port()
    program = programs.start("openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", certificate, "-key", key, "-rev")
    ours = link(programs.connect(port, program), TlsConnection(make.client(signature_schemes=(scheme,))), Answers())
    ours.handshake()
    assert ours.connection.facts.peer_signature_scheme == scheme
    check_reversal(ours)


@pytest.mark.parametrize("scheme", PSS_SCHEMES)
def test_server_with_a_pss_key(make: Any, programs: Any, link: Any, pss_credential: SoftwareCredential, scheme: int) -> None:
    ours, program = as_server(make, programs, link, make.answers(credentials=(pss_credential,)), "-sigalgs", PSS_SCHEMES[scheme])
    assert ours.connection.facts.own_signature_scheme == scheme
    check_dialogue(ours, program)


def test_client_resumes(make: Any, programs: Any, link: Any) -> None:
    ours, port, program = as_client(make, programs, link, software_credential())
    check_reversal(ours)
    session = ours.connection.take_sessions()[0]
    ours.close()
    again = link(programs.connect(port, program), TlsConnection(make.client(session=session)), Answers())
    again.handshake()
    assert again.connection.facts.resumed
    check_reversal(again)


def test_client_alpn_key_update_and_exporter(make: Any, programs: Any, link: Any) -> None:
    ours, *_ = as_client(make, programs, link, software_credential(), "-alpn", "other,wanted", alpn=(b"wanted",))
    assert ours.connection.facts.alpn == b"wanted"
    ours.connection.update_keys(True)
    check_reversal(ours)
    ours.connection.update_keys(False)
    check_reversal(ours)


@pytest.mark.parametrize("kind", KEYS)
def test_client_certificate(make: Any, programs: Any, link: Any, kind: str) -> None:
    mine = software_credential(kind, "client")
    certificate, _ = programs.credential_files(mine, "client")
    answers = Answers(credentials=(mine,))
    ours, *_ = as_client(
        make, programs, link, software_credential(), "-Verify", "1", "-verify_return_error", "-CAfile", certificate, answers=answers
    )
    check_reversal(ours)
    assert ours.connection.own is mine


def as_server(make: Any, programs: Any, link: Any, answers: Any, *options: str, **settings: Any) -> Any:
    listener, port = programs.listen()
    program = programs.start(
        "openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3", "-servername", "testserver", *options
    )
    ours = link(programs.accept(listener), TlsConnection(make.server(**settings)), answers)
    ours.handshake()
    return ours, program


def check_dialogue(ours: Any, program: Any) -> None:
    program.stdin.write(b"from openssl\n")
    program.stdin.flush()
    ours.read_until(b"from openssl\n")
    ours.send(b"from the engine\n")
    while b"from the engine" not in (line := program.stdout.readline()):
        assert line, "s_client has ended"


@pytest.mark.parametrize("kind", KEYS)
def test_server_with_each_key(make: Any, programs: Any, link: Any, kind: str) -> None:
    certificate, _ = programs.credential_files(software_credential(kind))
    ours, program = as_server(make, programs, link, make.answers(kind), "-CAfile", certificate, "-verify_return_error")
    check_dialogue(ours, program)


@pytest.mark.parametrize("group", GROUPS)
def test_server_with_each_group(make: Any, programs: Any, link: Any, group: str) -> None:
    ours, program = as_server(make, programs, link, make.answers(), "-groups", group)
    assert ours.connection.facts.group == GROUPS[group]
    check_dialogue(ours, program)


@pytest.mark.parametrize("suite", SUITES)
def test_server_with_each_suite(make: Any, programs: Any, link: Any, suite: str) -> None:
    ours, program = as_server(make, programs, link, make.answers(), "-ciphersuites", suite)
    assert ours.connection.facts.cipher_suite == SUITES[suite]
    check_dialogue(ours, program)


def test_server_asks_for_another_group(make: Any, programs: Any, link: Any) -> None:
    ours, program = as_server(make, programs, link, make.answers(), "-groups", "X25519:P-384", groups=(0x18,))
    assert ours.connection.facts.group == 0x18
    check_dialogue(ours, program)


@pytest.mark.parametrize("kind", KEYS)
def test_server_takes_a_client_certificate(make: Any, programs: Any, link: Any, kind: str) -> None:
    certificate, key = programs.credential_files(software_credential(kind, "client"), "client")
    answers = make.answers(client_auth=ClientAuth.REQUIRE)
    ours, program = as_server(make, programs, link, answers, "-cert", certificate, "-key", key)
    assert ours.connection.peer.entries[0].data == software_credential(kind, "client").entries[0].data
    check_dialogue(ours, program)


def test_server_authenticates_the_client_afterwards(make: Any, programs: Any, link: Any) -> None:
    certificate, key = programs.credential_files(software_credential("ed25519", "client"), "client")
    ours, program = as_server(make, programs, link, make.answers(), "-cert", certificate, "-key", key, "-enable_pha")
    check_dialogue(ours, program)
    assert ours.connection.peer is None
    ours.connection.request_client_authentication()
    ours.run(lambda connection: connection.peer is not None)
    assert ours.connection.failed is None
    check_dialogue(ours, program)


def test_server_resumes(make: Any, programs: Any, link: Any) -> None:
    stored = str(programs.directory / "session")
    ours, program = as_server(make, programs, link, make.answers(), "-sess_out", stored)
    check_dialogue(ours, program)
    ours.close()
    program.communicate()
    again, program = as_server(make, programs, link, make.answers(), "-sess_in", stored)
    assert again.connection.facts.resumed
    check_dialogue(again, program)


def test_server_skips_early_data(make: Any, programs: Any, link: Any) -> None:
    """A ticket that OpenSSL believes to allow 0-RTT: ours never do, so one of s_server's is offered to us."""
    stored, early = str(programs.directory / "session"), programs.directory / "early"
    early.write_bytes(b"early data\n")
    certificate, key = programs.credential_files(software_credential())
    port = programs.free_port()
    server = programs.start("openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", certificate, "-key", key, "-early_data")
    while b"ACCEPT" not in (line := server.stdout.readline()):
        assert line, "s_server has ended"
    client = programs.start("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3", "-sess_out", stored)
    while not Path(stored).exists() and client.poll() is None:
        time.sleep(0.02)
    client.communicate()
    ours, program = as_server(make, programs, link, make.answers(), "-sess_in", stored, "-early_data", str(early))
    assert ours.connection.facts.early_data_refused and not ours.connection.facts.resumed
    check_dialogue(ours, program)


def test_key_update_from_the_other_side(make: Any, programs: Any, link: Any) -> None:
    ours, program = as_server(make, programs, link, make.answers())
    check_dialogue(ours, program)
    program.stdin.write(b"K\n")
    program.stdin.flush()
    check_dialogue(ours, program)


def test_external_psk(make: Any, programs: Any, link: Any) -> None:
    key = bytes(range(32))
    answers = make.answers(psks={b"us": key})
    ours, program = as_server(make, programs, link, answers, "-psk", key.hex(), "-psk_identity", "us", takes_raw_psks=True)
    assert ours.connection.facts.key_exchange == "PSK+ECDHE" and not ours.connection.facts.resumed
    check_dialogue(ours, program)
