"""Does GnuTLS understand our TLS 1.3, in both roles, with what OpenSSL 3.0 lacks: record size limits, raw keys, compressed certificates?"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from tlspool_core.testing.peers import Answers, examine, software_credential
from tlspool_core.tls import TlsConnection
from tlspool_core.tls.questions import ClientAuth
from tlspool_core.tls.seams import CertificateEntry, PeerCredential
from tlspool_core.tls.signatures import PublicKeyCredential

KEYS = ["ecdsa-p256", "ecdsa-p384", "rsa-2048", "ed25519", "ed448"]
TLS13_ONLY = "NORMAL:-VERS-ALL:+VERS-TLS1.3"


def as_client(
    make: Any,
    programs: Any,
    link: Any,
    credential: Any,
    *options: str,
    priority: str = TLS13_ONLY,
    answers: Any = None,
    **settings: Any,
) -> Any:
    """A finished handshake with gnutls-serv as an echo server."""
    certificate, key = programs.credential_files(credential)
    port = programs.free_port()
    program = programs.start(
        "gnutls-serv", "--echo", "-p", str(port), f"--x509certfile={certificate}", f"--x509keyfile={key}", f"--priority={priority}",
        *options,
    )  # fmt: skip
    connection = TlsConnection(make.client(**settings))
    ours = link(programs.connect(port, program), connection, answers or Answers())
    ours.handshake()
    return ours, port, program


def check_echo(ours: Any) -> None:
    ours.send(b"hello\n")
    ours.read_until(b"hello\n")


@pytest.mark.parametrize("kind", KEYS)
def test_client_with_each_key(make: Any, programs: Any, link: Any, kind: str) -> None:
    ours, *_ = as_client(make, programs, link, software_credential(kind))
    check_echo(ours)


@pytest.mark.parametrize("group", ["SECP256R1", "SECP384R1", "SECP521R1", "X25519"])
def test_client_with_each_group(make: Any, programs: Any, link: Any, group: str) -> None:
    ours, *_ = as_client(make, programs, link, software_credential(), priority=f"{TLS13_ONLY}:-GROUP-ALL:+GROUP-{group}")
    check_echo(ours)


def test_client_resumes(make: Any, programs: Any, link: Any) -> None:
    ours, port, program = as_client(make, programs, link, software_credential())
    check_echo(ours)
    session = ours.connection.take_sessions()[0]
    ours.close()
    again = link(programs.connect(port, program), TlsConnection(make.client(session=session)), Answers())
    again.handshake()
    assert again.connection.facts.resumed
    check_echo(again)


@pytest.mark.parametrize("kind", KEYS)
def test_client_certificate(make: Any, programs: Any, link: Any, kind: str) -> None:
    mine = software_credential(kind, "client")
    authority, _ = programs.credential_files(mine, "client")
    ours, *_ = as_client(
        make, programs, link, software_credential(), f"--x509cafile={authority}", "--require-client-cert",
        answers=Answers(credentials=(mine,)),
    )  # fmt: skip
    check_echo(ours)
    assert ours.connection.own is mine


def test_client_record_size_limit(make: Any, programs: Any, link: Any) -> None:
    ours, *_ = as_client(make, programs, link, software_credential(), "--recordsize=1024", record_size_limit=512)
    ours.send(b"x" * 5000 + b"\n")
    ours.read_until(b"x" * 5000 + b"\n")


def test_client_compressed_certificate(make: Any, programs: Any, link: Any) -> None:
    ours, *_ = as_client(
        make, programs, link, software_credential("rsa-2048"), "--compress-cert=zlib", certificate_compression=True
    )
    check_echo(ours)


def examine_raw(certificate_type: int, entries: Sequence[CertificateEntry]) -> PeerCredential:
    if certificate_type == 2:
        return PublicKeyCredential(2, tuple(entries), load_der_public_key(entries[0].data))
    return examine(certificate_type, entries)


def raw_files(programs: Any, credential: Any, name: str) -> tuple[str, str]:
    _, key = programs.credential_files(credential, name)
    public = programs.directory / f"{name}.pub"
    public.write_bytes(credential.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return str(public), key


def raw(credential: Any) -> Any:
    spki = credential.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return dataclasses.replace(credential, certificate_type=2, entries=(CertificateEntry(spki),))


def test_server_with_a_raw_public_key(make: Any, programs: Any, link: Any) -> None:
    answers = make.answers(credentials=(raw(software_credential("ed25519")),))
    priority = f"{TLS13_ONLY}:-CTYPE-ALL:+CTYPE-SRV-RAWPK:+CTYPE-CLI-X509"
    ours, program = as_server(make, programs, link, answers, priority=priority, own_certificate_types=(2,))
    check_dialogue(ours, program)


def test_client_meets_a_raw_public_key(make: Any, programs: Any, link: Any) -> None:
    public, key = raw_files(programs, software_credential("ecdsa-p256"), "raw")
    priority = f"{TLS13_ONLY}:-CTYPE-ALL:+CTYPE-SRV-RAWPK:+CTYPE-CLI-X509"
    port = programs.free_port()
    program = programs.start(
        "gnutls-serv", "--echo", "-p", str(port), f"--rawpkfile={public}", f"--rawpkkeyfile={key}", f"--priority={priority}"
    )
    connection = TlsConnection(make.client(peer_certificate_types=(2,)))
    ours = link(programs.connect(port, program), connection, Answers(examine=examine_raw))
    ours.handshake()
    assert ours.connection.peer.certificate_type == 2
    check_echo(ours)


def as_server(make: Any, programs: Any, link: Any, answers: Any, *options: str, priority: str = TLS13_ONLY, **settings: Any) -> Any:
    listener, port = programs.listen()
    program = programs.start(
        "gnutls-cli", "--no-ca-verification", "--sni-hostname=testserver", f"--priority={priority}", "-p", str(port), "127.0.0.1",
        *options,
    )  # fmt: skip
    ours = link(programs.accept(listener), TlsConnection(make.server(**settings)), answers)
    ours.handshake()
    return ours, program


def check_dialogue(ours: Any, program: Any) -> None:
    program.stdin.write(b"from gnutls\n")
    program.stdin.flush()
    ours.read_until(b"from gnutls\n")
    ours.send(b"from the engine\n")
    while b"from the engine" not in (line := program.stdout.readline()):
        assert line, "gnutls-cli has ended"


@pytest.mark.parametrize("kind", KEYS)
def test_server_with_each_key(make: Any, programs: Any, link: Any, kind: str) -> None:
    ours, program = as_server(make, programs, link, make.answers(kind))
    check_dialogue(ours, program)


@pytest.mark.parametrize("kind", KEYS)
def test_server_takes_a_client_certificate(make: Any, programs: Any, link: Any, kind: str) -> None:
    certificate, key = programs.credential_files(software_credential(kind, "client"), "client")
    answers = make.answers(client_auth=ClientAuth.REQUIRE)
    ours, program = as_server(make, programs, link, answers, f"--x509certfile={certificate}", f"--x509keyfile={key}")
    assert ours.connection.peer is not None
    check_dialogue(ours, program)


def test_server_authenticates_the_client_afterwards(make: Any, programs: Any, link: Any) -> None:
    certificate, key = programs.credential_files(software_credential("ed25519", "client"), "client")
    ours, program = as_server(
        make, programs, link, make.answers(), "--post-handshake-auth", f"--x509certfile={certificate}", f"--x509keyfile={key}"
    )
    check_dialogue(ours, program)
    ours.connection.request_client_authentication()
    ours.run(lambda connection: connection.peer is not None)
    assert ours.connection.failed is None
    check_dialogue(ours, program)


def test_server_asks_for_another_group(make: Any, programs: Any, link: Any) -> None:
    ours, program = as_server(make, programs, link, make.answers(), groups=(0x19,))
    assert ours.connection.facts.group == 0x19 and ours.connection.facts.retried
    check_dialogue(ours, program)


def test_server_resumes(make: Any, programs: Any, link: Any) -> None:
    """gnutls-cli -r connects twice, and offers in the second handshake what it got in the first."""
    listener, port = programs.listen()
    program = programs.start(
        "gnutls-cli", "--no-ca-verification", "--sni-hostname=testserver", f"--priority={TLS13_ONLY}", "-p", str(port), "127.0.0.1", "-r",
        "--waitresumption",
    )  # fmt: skip
    answers = make.answers()
    ours = link(programs.accept(listener), TlsConnection(make.server()), answers)
    ours.handshake()
    ours.run(lambda connection: False)
    ours.close()
    again = link(programs.accept(listener), TlsConnection(make.server()), answers)
    again.handshake()
    assert again.connection.facts.resumed
    check_dialogue(again, program)


def test_server_compressed_certificate(make: Any, programs: Any, link: Any) -> None:
    credential = software_credential("rsa-2048")
    long = dataclasses.replace(credential, entries=credential.entries * 3)
    answers = make.answers(credentials=(long,))
    ours, program = as_server(make, programs, link, answers, "--compress-cert=zlib", certificate_compression=True)
    check_dialogue(ours, program)


def test_alpn(make: Any, programs: Any, link: Any) -> None:
    ours, program = as_server(make, programs, link, make.answers(alpn=(b"wanted",)), "--alpn=other", "--alpn=wanted")
    assert ours.connection.facts.alpn == b"wanted"
    check_dialogue(ours, program)
