"""Peers that are the command-line tools of their libraries: OpenSSL 3.0 and GnuTLS, as the system has them."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable

from tests.interop.peer import FEATURES, GROUPS, HELLO, TLS12, TLS13, Peer, Spec


class Tool(Peer):
    """What both have in common: a server that answers lines, and a client that is given its line on standard input."""

    groups = frozenset(GROUPS) - {"X25519MLKEM768"}

    def server(self, spec: Spec, port: int) -> list[str]:
        """The command of a server for a scenario."""
        raise NotImplementedError

    def client(self, spec: Spec, port: int, number: int) -> list[str]:
        """The command of a client for connection `number` of a scenario."""
        raise NotImplementedError

    def open(self, spec: Spec) -> Callable[[], socket.socket]:
        if spec.role == "client":
            port = self.programs.free_port()
            program = self.programs.start(*self.server(spec, port))
            return lambda: self.programs.connect(port, program)
        listener, port = self.programs.listen()
        started: list[subprocess.Popen[bytes]] = []

        def connect() -> socket.socket:
            for earlier in started:
                earlier.communicate(timeout=20)  # it has kept its session by then
            started.append(self.programs.start(*self.client(spec, port, len(started))))
            stdin = started[-1].stdin
            assert stdin is not None
            stdin.write(HELLO)
            stdin.flush()
            return self.programs.accept(listener)

        return connect


class OpenSsl(Tool):
    """s_server, which sends lines back in reverse, and s_client."""

    name = "OpenSSL 3.0"
    question = (b"marker\n", b"rekram\n")

    def _version(self, spec: Spec) -> str:
        return {TLS12: "-tls1_2", TLS13: "-tls1_3"}[spec.version]

    def server(self, spec: Spec, port: int) -> list[str]:
        certificate, key = self.files.paths(spec.key)
        command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", certificate, "-key", key, "-rev"]
        if spec.feature == "client certificate":
            command += ["-Verify", "1", "-verify_return_error", "-CAfile", self.files.paths("ecdsa-p256", "client")[0]]
        return [*command, self._version(spec), *(["-alpn", "other,wanted"] if spec.feature == "ALPN" else [])]

    def client(self, spec: Spec, port: int, number: int) -> list[str]:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "testserver", "-verify_return_error"]
        command += ["-CAfile", self.files.paths(spec.key)[0], "-ign_eof", self._version(spec)]
        if spec.feature == "client certificate":
            certificate, key = self.files.paths("ecdsa-p256", "client")
            command += ["-cert", certificate, "-key", key]
        if spec.feature == "resumption":
            command += ["-sess_in" if number else "-sess_out", str(self.files.directory / f"session-{spec.version:x}")]
        return [*command, *(["-alpn", "other,wanted"] if spec.feature == "ALPN" else [])]


class GnuTls(Tool):
    """gnutls-serv --echo, and gnutls-cli."""

    name = "GnuTLS"
    # gnutls-cli says nothing in the first of its two connections: see the tests of GnuTLS alone
    exceptions = frozenset((("server", TLS12, "resumption"), ("server", TLS13, "resumption")))
    features = FEATURES

    def _priority(self, spec: Spec) -> str:
        return f"--priority=NORMAL:-VERS-ALL:+VERS-TLS{'1.2' if spec.version == TLS12 else '1.3'}"

    def _shows(self, paths: tuple[str, str]) -> list[str]:
        return [f"--x509certfile={paths[0]}", f"--x509keyfile={paths[1]}"]

    def server(self, spec: Spec, port: int) -> list[str]:
        command = ["gnutls-serv", "-q", "--echo", "-p", str(port), self._priority(spec), *self._shows(self.files.paths(spec.key))]
        if spec.feature == "client certificate":
            command += [
                "--require-client-cert",
                "--verify-client-cert",
                f"--x509cafile={self.files.paths('ecdsa-p256', 'client')[0]}",
            ]
        return [*command, *(["--alpn=other", "--alpn=wanted"] if spec.feature == "ALPN" else [])]

    def client(self, spec: Spec, port: int, number: int) -> list[str]:
        command = ["gnutls-cli", "127.0.0.1", "-p", str(port), "--sni-hostname=testserver", "--verify-hostname=testserver"]
        command += [f"--x509cafile={self.files.paths(spec.key)[0]}", self._priority(spec)]
        if spec.feature == "client certificate":
            command += self._shows(self.files.paths("ecdsa-p256", "client"))
        return [*command, *(["--alpn=other", "--alpn=wanted"] if spec.feature == "ALPN" else [])]
