"""What a scenario is, and what a peer has to be able to do to take part in the matrix.

Theory of operation
-------------------
A `Spec` is one row of the table: which role is ours, and what is to happen.  A `Peer` says by `supports` which rows it can play, and
plays the other role in them.  As a server it sends back each line; as a client it sends `HELLO`, waits for a line, and leaves - twice
where a session is to be resumed.  `Programs` keeps what was started, and `Files` the credentials on disk.
"""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import (
    CertificateBuilder,
    DNSName,
    ExtendedKeyUsage,
    Name,
    NameAttribute,
    SubjectAlternativeName,
    load_der_x509_certificate,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tlspool_core.testing.peers import SoftwareCredential, software_credential
from tlspool_core.testing.programs import Programs
from tlspool_core.tls.seams import CertificateEntry

HELLO = b"from the peer\n"
REPLY = b"from the engine\n"
TLS12, TLS13 = 0x0303, 0x0304
GROUPS = {"X25519": 0x1D, "P-256": 0x17, "P-384": 0x18, "P-521": 0x19, "X25519MLKEM768": 0x11EC}
ALL_KEYS = frozenset(("ecdsa-p256", "ecdsa-p384", "rsa-2048", "rsa-pss", "ed25519"))
FEATURES = frozenset(("", "client certificate", "resumption", "ALPN", "KeyUpdate", "HelloRetryRequest"))


@dataclass(frozen=True)
class Spec:
    """One scenario. `role` is ours; `key` is of whoever is the server; `group` is the only one that we allow, if any."""

    role: str
    version: int
    key: str = "ecdsa-p256"
    group: str = ""
    feature: str = ""

    def __str__(self) -> str:
        what = self.feature or self.group or self.key
        return f"{self.role}-{'1.2' if self.version == TLS12 else '1.3'}-{what}"

    @property
    def connections(self) -> int:
        return 2 if self.feature == "resumption" else 1


@dataclass
class Files:
    """Credentials, and where programs find them."""

    directory: Path
    pss: SoftwareCredential | None = field(default=None, repr=False)

    def credential(self, kind: str, name: str = "testserver") -> SoftwareCredential:
        if kind == "rsa-pss":
            assert self.pss is not None
            return self.pss
        return software_credential(kind, name)

    def paths(self, kind: str, name: str = "testserver") -> tuple[str, str]:
        """Certificate and key, in PEM."""
        certificate, key = self.directory / f"{kind}-{name}.pem", self.directory / f"{kind}-{name}.key"
        if not key.exists():
            credential = self.credential(kind, name)
            certificate.write_bytes(credential.chain_pem())
            key.write_bytes(credential.key_pem())
        return str(certificate), str(key)


@cache
def issued_client() -> tuple[SoftwareCredential, bytes]:
    """A client's credential that an authority issued, and the authority's certificate in PEM: some refuse what issued itself."""
    authority = software_credential("ecdsa-p256", "authority")
    issuer = load_der_x509_certificate(authority.entries[0].data)
    mine = software_credential("ecdsa-p256", "issued")
    certificate = (
        CertificateBuilder(issuer.subject, Name([NameAttribute(NameOID.COMMON_NAME, "issued")]), mine.key.public_key(), 2)
        .not_valid_before(issuer.not_valid_before_utc)
        .not_valid_after(issuer.not_valid_after_utc)
        .add_extension(SubjectAlternativeName([DNSName("client")]), critical=False)
        .add_extension(ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(authority.key, SHA256())
    )
    entry = CertificateEntry(certificate.public_bytes(Encoding.DER))
    return replace(mine, entries=(entry,)), authority.chain_pem()


class Peer(ABC):
    """Another implementation; one object for the module. Class attributes say what it can do."""

    name: str
    hello = HELLO  # what it begins with as a client
    reply = REPLY  # what it waits for then
    alpn = b"wanted"  # what it selects, or offers among others
    versions: frozenset[int] = frozenset((TLS12, TLS13))
    keys: frozenset[str] = ALL_KEYS
    groups: frozenset[str] = frozenset(GROUPS)
    roles: frozenset[str] = frozenset(("client", "server"))  # that the peer can play
    features: frozenset[str] = FEATURES
    # rows that it cannot play though the sets above allow them: role of ours (or ""), version, what; each with the reason beside it
    exceptions: frozenset[tuple[str, int, str]] = frozenset()

    def __init__(self, files: Files, programs: Programs) -> None:
        self.files, self.programs = files, programs

    def client_credential(self) -> SoftwareCredential:
        """What whoever is the client shows, if it shows anything."""
        return self.files.credential("ecdsa-p256", "client")

    def supports(self, spec: Spec) -> bool:
        what = spec.feature or spec.group or spec.key
        return (
            spec.version in self.versions
            and ("server" if spec.role == "client" else "client") in self.roles
            and spec.key in self.keys
            and (not spec.group or spec.group in self.groups)
            and spec.feature in self.features
            and not {(spec.role, spec.version, what), ("", spec.version, what)} & self.exceptions
        )

    # what we say to the peer as a server, and what must be in its answer; None: any line comes back
    question: tuple[bytes, bytes] | None = None

    @abstractmethod
    def open(self, spec: Spec) -> Callable[[], socket.socket]:
        """Start the peer for a scenario; each call of the result gives the socket of one more connection with it."""


class ProgramPeer(Peer):
    """A program that takes its configuration as JSON: a server prints its port, a client is told where to go."""

    def command(self) -> list[str]:
        raise NotImplementedError

    def _configuration(self, spec: Spec) -> dict[str, Any]:
        auth = spec.feature == "client certificate"
        found: dict[str, Any] = {"Version": spec.version, "Alpn": ["other", "wanted"] if spec.feature == "ALPN" else []}
        found |= {"ClientAuth": auth and spec.role == "client", "Count": spec.connections, "Groups": None}
        server, client = self.files.paths(spec.key), self.files.paths("ecdsa-p256", "client")
        own, other = (server, client) if spec.role == "client" else (client, server)
        show = spec.role == "client" or auth
        return found | {"Cert": own[0] if show else "", "Key": own[1] if show else "", "Ca": other[0]}

    def open(self, spec: Spec) -> Callable[[], socket.socket]:
        configuration = self._configuration(spec)
        if spec.role == "client":
            program = self._start({**configuration, "Role": "server", "Address": ""})
            assert program.stdout is not None
            port = int(program.stdout.readline())
            return lambda: self.programs.connect(port, program)
        listener, port = self.programs.listen()
        self._start({**configuration, "Role": "client", "Address": f"127.0.0.1:{port}"})
        return lambda: self.programs.accept(listener)

    def _start(self, configuration: dict[str, Any]) -> subprocess.Popen[bytes]:
        return self.programs.start(*self.command(), json.dumps(configuration))


class ThreadPeer(Peer):
    """A Python library, in a thread of ours at the other end of a socket pair."""

    def __init__(self, files: Files, programs: Programs) -> None:
        super().__init__(files, programs)
        self.faults: list[BaseException] = []

    def play(self, spec: Spec, sock: socket.socket, state: dict[str, Any]) -> None:
        """One connection; `state` lives as long as the scenario."""
        raise NotImplementedError

    def open(self, spec: Spec) -> Callable[[], socket.socket]:
        state: dict[str, Any] = {}

        def connect() -> socket.socket:
            ours, theirs = socket.socketpair()
            theirs.settimeout(20)
            self.programs.adopt(ours)

            def run() -> None:
                with theirs:
                    try:
                        self.play(spec, theirs, state)
                    except Exception as fault:
                        self.faults.append(fault)

            threading.Thread(target=run, daemon=True).start()
            return ours

        return connect
