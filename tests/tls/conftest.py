"""What the tests of the engine share: pairs in memory, and a socket driver for programs of others."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tlspool_core.testing.lies import lying
from tlspool_core.testing.peers import Answers, Pair, SoftwareCredential, TicketBox, software_credential
from tlspool_core.testing.programs import Link, Programs
from tlspool_core.tls import TlsConnection
from tlspool_core.tls.seams import CertificateEntry
from tlspool_core.tls.settings import TLS13, ClientSettings, ServerSettings


class Maker:
    """Makes pairs; what is not given is the ordinary case of TLS 1.3 with an ECDSA server."""

    def __init__(self) -> None:
        self.tickets = TicketBox()

    def client(self, **changes: Any) -> ClientSettings:
        return ClientSettings(**{"versions": (TLS13,), "server_name": "testserver", **changes})

    def server(self, **changes: Any) -> ServerSettings:
        return ServerSettings(**{"versions": (TLS13,), **changes})

    def answers(self, kind: str = "ecdsa-p256", **changes: Any) -> Answers:
        return Answers(**{"credentials": (software_credential(kind),), "tickets": self.tickets, **changes})

    def pair(
        self,
        client: ClientSettings | None = None,
        server: ServerSettings | None = None,
        client_answers: Answers | None = None,
        server_answers: Answers | None = None,
    ) -> Pair:
        return Pair(
            TlsConnection(client or self.client()),
            TlsConnection(server or self.server()),
            client_answers or Answers(),
            server_answers or self.answers(),
        )

    def established(self, **parts: Any) -> Pair:
        pair = self.pair(**parts)
        pair.run()
        assert pair.complete, (pair.client.failed, pair.server.failed)
        return pair


@pytest.fixture
def make() -> Maker:
    return Maker()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    started = Programs(tmp_path)
    yield started
    started.end()


@pytest.fixture
def link() -> type[Link]:
    return Link


@pytest.fixture
def tampering() -> Callable[[Any, Callable[[bytes], list[bytes]]], TlsConnection]:
    """Makes a connection from settings and a function from each of its messages to what is sent instead."""
    return lying


@pytest.fixture
def pss_credential(programs: Programs) -> SoftwareCredential:
    """Made by OpenSSL, since `cryptography` makes no keys of the kind id-RSASSA-PSS; pss.pem and pss.key are left for programs."""
    key, certificate = programs.directory / "pss.key", programs.directory / "pss.pem"
    kind = ["-newkey", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"]
    make = ["openssl", "req", "-x509", *kind, "-nodes", "-subj", "/CN=pss", "-batch"]
    subprocess.run([*make, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    entry = CertificateEntry(ssl.PEM_cert_to_DER_cert(certificate.read_text()))
    private = load_pem_private_key(key.read_bytes(), None)
    return SoftwareCredential(private, (entry,), (0x0809, 0x080A, 0x080B))
