"""Our engine over a socket, and programs of others at its far end: what interoperability tests are made of.

Theory of operation
-------------------
A `Link` drives one connection over a blocking socket, with the answers of `peers`.  `Programs` starts peers such as `openssl s_server`
on free ports of loopback, and ends exactly those that it started, by their process ids.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tlspool_core.testing.peers import Answers, SoftwareCredential, answer_all
from tlspool_core.tls import TlsConnection

PATIENCE = 20.0  # seconds for what a program on this machine may take


class Link:
    """A connection of ours over a socket."""

    def __init__(self, sock: socket.socket, connection: TlsConnection, answers: Answers) -> None:
        self.sock, self.connection, self.answers = sock, connection, answers
        self.received = b""
        sock.settimeout(PATIENCE)

    def run(self, until: Callable[[TlsConnection], bool]) -> None:
        """Exchange until the condition holds, or either side has ended."""
        while True:
            answer_all(self.connection, self.answers)
            data = self.connection.data_to_send()
            if data:
                self.sock.sendall(data)
            self.received += self.connection.take_plaintext()
            if until(self.connection) or self.connection.failed or self.connection.peer_closed:
                return
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                data = b""
            if data:
                self.connection.receive(data)
            else:
                self.connection.receive_eof()

    def handshake(self) -> None:
        self.run(lambda connection: connection.handshake_complete)
        assert self.connection.handshake_complete, self.connection.failed

    def read_until(self, text: bytes) -> None:
        self.run(lambda connection: text in self.received)
        assert text in self.received, (self.received, self.connection.failed)

    def send(self, data: bytes) -> None:
        self.connection.send(data)
        self.run(lambda connection: True)

    def close(self) -> None:
        if self.connection.handshake_complete:
            self.connection.close()
            self.sock.sendall(self.connection.data_to_send())
        self.sock.close()


class Programs:
    """Starts programs of others, and ends those that it started."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._running: list[subprocess.Popen[bytes]] = []
        self._sockets: list[socket.socket] = []

    def credential_files(self, credential: SoftwareCredential, name: str = "server") -> tuple[str, str]:
        """Paths of the certificate and the key in PEM."""
        certificate, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        certificate.write_bytes(credential.chain_pem())
        key.write_bytes(credential.key_pem())
        return str(certificate), str(key)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._running.append(program)
        return program

    def free_port(self) -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port

    def connect(self, port: int, program: subprocess.Popen[bytes]) -> socket.socket:
        """To a server that was started just now."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if program.poll() is not None:
                raise AssertionError((program.stdout.read() if program.stdout else b"").decode(errors="replace"))
            try:
                sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
            except ConnectionRefusedError:
                time.sleep(0.02)
            else:
                self._sockets.append(sock)
                return sock
        raise AssertionError("the server does not listen")

    def listen(self) -> tuple[socket.socket, int]:
        sock = socket.create_server(("127.0.0.1", 0))
        sock.settimeout(PATIENCE)
        self._sockets.append(sock)
        return sock, sock.getsockname()[1]

    def accept(self, listener: socket.socket) -> socket.socket:
        sock, _ = listener.accept()
        self._sockets.append(sock)
        return sock

    def adopt(self, sock: socket.socket) -> None:
        """Close this socket, too, in the end."""
        self._sockets.append(sock)

    def end(self) -> None:
        for sock in self._sockets:
            sock.close()
        for program in self._running:
            program.kill()
            program.communicate()
