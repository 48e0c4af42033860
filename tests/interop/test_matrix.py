"""Do the implementations that the world uses understand us, in both roles and versions, whatever they and we can do in common?

One table of scenarios; each peer plays those that it supports (`peer.Peer.supports`).  OpenSSL 3.0 and GnuTLS have tests of their own
as well, in `tests/tls/test_interop_*.py` and `tests/tls/tls12/test_interop_*.py`, which go further.
"""

from __future__ import annotations

import contextlib
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.interop.libraries import MbedTls, PyOpenSsl, TlsLite
from tests.interop.peer import ALL_KEYS, GROUPS, TLS12, TLS13, Files, Peer, Spec, ThreadPeer
from tests.interop.programs import Go, Node, Nss, Rustls
from tests.interop.tools import GnuTls, OpenSsl
from tlspool_core.testing.peers import Answers, SoftwareCredential, TicketBox
from tlspool_core.testing.programs import Link, Programs
from tlspool_core.tls import TlsConnection
from tlspool_core.tls.padding import POWERS, Padding
from tlspool_core.tls.questions import ClientAuth
from tlspool_core.tls.seams import CertificateEntry
from tlspool_core.tls.settings import ClientSettings, ServerSettings

PEERS: tuple[type[Peer], ...] = (OpenSsl, GnuTls, Go, Node, Nss, Rustls, PyOpenSsl, TlsLite, MbedTls)


def _table() -> Iterator[Spec]:
    for role in ("client", "server"):
        for version in (TLS12, TLS13):
            yield from (Spec(role, version, key=key) for key in sorted(ALL_KEYS))
            key = (
                "ecdsa-p256" if version == TLS13 else "rsa-2048"
            )  # in TLS 1.2 groups also say which curves a certificate may be on
            yield from (Spec(role, version, key=key, group=group) for group in GROUPS if version == TLS13 or "MLKEM" not in group)
            yield from (Spec(role, version, feature=feature) for feature in ("client certificate", "resumption", "ALPN"))
        yield from (Spec(role, TLS13, feature=feature) for feature in ("KeyUpdate", "HelloRetryRequest"))


TABLE = tuple(_table())


def _pss(directory: Path) -> SoftwareCredential:
    """Made by OpenSSL, since `cryptography` makes no keys of the kind id-RSASSA-PSS."""
    key, certificate = directory / "rsa-pss-testserver.key", directory / "rsa-pss-testserver.pem"
    kind = ["-newkey", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048", "-addext", "subjectAltName=DNS:testserver"]
    make = ["openssl", "req", "-x509", *kind, "-nodes", "-subj", "/CN=testserver", "-batch"]
    subprocess.run([*make, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    entry = CertificateEntry(ssl.PEM_cert_to_DER_cert(certificate.read_text()))
    return SoftwareCredential(load_pem_private_key(key.read_bytes(), None), (entry,), (0x0809, 0x080A, 0x080B))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    directory = tmp_path_factory.mktemp("interop")
    return Files(directory, _pss(directory))


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    started = Programs(tmp_path)
    yield started
    started.end()


def _rows() -> list[Any]:
    return [
        pytest.param(kind, spec, id=f"{kind.name}-{spec}")
        for kind in PEERS
        for spec in TABLE
        if kind.supports(object.__new__(kind), spec)
    ]


@pytest.mark.parametrize(("kind", "spec"), _rows())
def test_matrix(kind: type[Peer], spec: Spec, files: Files, programs: Programs) -> None:
    peer = kind(files, programs)
    try:
        (_as_client if spec.role == "client" else _as_server)(peer, spec, files)
    except AssertionError as fault:
        for other in peer.faults if isinstance(peer, ThreadPeer) else ():
            fault.add_note(f"{kind.name}: {other!r}")
        raise


def _settings(spec: Spec, kind: type[Any], **more: Any) -> Any:
    """What both roles have in common."""
    groups = (GROUPS[spec.group],) if spec.group else (0x18,) if spec.feature == "HelloRetryRequest" else ()
    return kind(versions=(spec.version,), groups=groups, padding=Padding(handshake=512, data=POWERS), **more)


def _check_facts(peer: Peer, spec: Spec, connection: TlsConnection, *, again: bool) -> None:
    facts = connection.facts
    assert facts.version == spec.version and facts.resumed is again
    assert not spec.group or facts.group == GROUPS[spec.group]
    assert facts.retried is (spec.feature == "HelloRetryRequest") or spec.role == "server"
    assert facts.alpn == (peer.alpn if spec.feature == "ALPN" else None)
    assert spec.feature != "HelloRetryRequest" or facts.retried


def _as_client(peer: Peer, spec: Spec, files: Files) -> None:
    """Ours is the client: the peer sends back what it is sent."""
    retry = spec.feature == "HelloRetryRequest"
    settings: ClientSettings = _settings(
        spec,
        ClientSettings,
        server_name="testserver",
        alpn=(peer.alpn,) if spec.feature == "ALPN" else (),
        key_share_groups=(0x1D,) if retry else (),  # not among the groups: an empty list asks the server to choose
    )
    mine = peer.client_credential()
    open_connection = peer.open(spec)
    for number in range(spec.connections):
        link = Link(open_connection(), TlsConnection(settings), Answers(credentials=(mine,)))
        link.handshake()
        _check_facts(peer, spec, link.connection, again=number > 0)
        _exchange(peer, spec, link)
        shown = link.connection.peer
        assert shown is not None and shown.entries[0].data == files.credential(spec.key).entries[0].data
        assert link.connection.own is mine or spec.feature != "client certificate"  # some servers always ask
        if number + 1 < spec.connections:
            settings = replace(settings, session=link.connection.take_sessions()[-1])
        link.close()


def _exchange(peer: Peer, spec: Spec, link: Link) -> None:
    """A line there and back, twice; a web server is asked once."""
    if spec.feature == "KeyUpdate":
        link.connection.update_keys(request_peer=True)
    if peer.question is not None:
        link.send(peer.question[0])
        link.read_until(peer.question[1])
        return
    for number in range(2):
        line = b"line %d\n" % number
        link.send(line)
        link.read_until(line)
        if spec.feature == "KeyUpdate":
            link.connection.update_keys(request_peer=True)


def _as_server(peer: Peer, spec: Spec, files: Files) -> None:
    """Ours is the server: the peer speaks first, and leaves once it has an answer."""
    settings: ServerSettings = _settings(spec, ServerSettings)
    wants = spec.feature == "client certificate"
    answers = Answers(
        credentials=(files.credential(spec.key),),
        alpn=(peer.alpn,) if spec.feature == "ALPN" else (),
        client_auth=ClientAuth.REQUIRE if wants else ClientAuth.NONE,
        tickets=TicketBox(),
    )
    open_connection = peer.open(spec)
    for number in range(spec.connections):
        link = Link(open_connection(), TlsConnection(settings), answers)
        link.handshake()
        _check_facts(peer, spec, link.connection, again=number > 0)
        link.read_until(peer.hello)
        if spec.feature == "KeyUpdate":
            link.connection.update_keys(request_peer=True)
        link.send(peer.reply)
        with contextlib.suppress(ConnectionError):
            link.connection.close()
            link.run(lambda connection: False)  # until the peer leaves
        shown = link.connection.peer
        assert (shown is not None) is wants
        assert shown is None or shown.entries[0].data == peer.client_credential().entries[0].data
        link.sock.close()


@pytest.mark.parametrize("spec", TABLE, ids=str)
def test_every_row_is_played_by_somebody(spec: Spec) -> None:
    players = [kind.name for kind in PEERS if kind.supports(object.__new__(kind), spec)]
    assert len(players) >= 2, players
