"""`python -m bench.engine`: what the TLS engine costs by itself, in memory, with software keys.

Theory of operation
-------------------
A client and a server of the engine talk in one process.  Each side's share is timed on its own: everything from the first call on
its `TlsConnection` to the last, questions answered at once.  Beside it stands the sum of the primitives that a TLS 1.3 server
cannot do without, called from Python the way the engine calls them, and timed between handshakes so that both find the caches
in the same state.  Figures are in microseconds: the tenth percentile, which other load on the machine hardly touches, and the median.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import os
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tlspool_core.testing.peers import Answers, TicketBox, answer_all, software_credential
from tlspool_core.tls import TlsConnection
from tlspool_core.tls.settings import TLS12, TLS13, ClientSettings, ServerSettings, StoredSession

GROUPS = (0x1D, 0x17)  # X25519 is used; P-256 is for the certificate in TLS 1.2 (RFC 8422 section 5.1.1)
HMACS = 23  # extracts, derivations, keys, Finished, and the PSKs of two tickets
PEER_SHARE = X25519PrivateKey.generate().public_key().public_bytes_raw()


class Stopwatch:
    """Adds up the time of one side."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def run(self, work: Callable[[], None]) -> None:
        start = time.perf_counter()
        work()
        self.seconds += time.perf_counter() - start


class Side:
    """One end of the connection, with its watch."""

    def __init__(self, settings: ClientSettings | ServerSettings, answers: Answers) -> None:
        self.watch = Stopwatch()
        self.answers = answers
        self.output = b""
        self.watch.run(lambda: self._start(settings))

    def _start(self, settings: ClientSettings | ServerSettings) -> None:
        self.connection = TlsConnection(settings)
        self.output = self.connection.data_to_send()

    def take(self, data: bytes) -> None:
        self.watch.run(lambda: self._take(data))

    def _take(self, data: bytes) -> None:
        self.connection.receive(data)
        answer_all(self.connection, self.answers)
        self.output = self.connection.data_to_send()


def handshake(version: int, kind: str, tickets: TicketBox, session: StoredSession | None = None) -> tuple[Side, Side]:
    """A complete handshake; returns client and server."""
    client = Side(
        ClientSettings(versions=(version,), server_name="testserver", groups=GROUPS, key_share_groups=GROUPS[:1], session=session),
        Answers(),
    )
    answers = Answers(credentials=(software_credential(kind),), tickets=tickets)
    server = Side(ServerSettings(versions=(version,), groups=GROUPS), answers)
    while client.output or server.output:
        if client.output:
            server.take(client.output)
            client.output = b""
        if server.output:
            client.take(server.output)
            server.output = b""
    assert client.connection.handshake_complete and server.connection.handshake_complete
    return client, server


def primitives(kind: str) -> float:
    """Seconds for what a TLS 1.3 server with X25519 and AES-128-GCM has to compute in a full handshake."""
    credential = software_credential(kind)
    flight, key, nonce = bytes(700), bytes(16), bytes(12)
    start = time.perf_counter()
    private = X25519PrivateKey.generate()
    private.public_key().public_bytes_raw()
    private.exchange(X25519PublicKey.from_public_bytes(PEER_SHARE))
    for _ in range(HMACS):
        hmac.digest(key, flight[:60], "sha256")
    running = hashlib.sha256(flight[:200])
    for _ in range(6):
        running.update(flight[:150])
        running.digest()
    credential.sign(credential.signature_schemes[0], flight[:130])
    for _ in range(3):  # our flight, the client's Finished, the tickets
        AESGCM(key).encrypt(nonce, flight, b"head.")
    os.urandom(32)
    return time.perf_counter() - start


def percentiles(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return f"{ordered[len(ordered) // 10] * 1e6:7.0f} {ordered[len(ordered) // 2] * 1e6:7.0f}"


def measure(version: int, kind: str, rounds: int) -> None:
    """Print the rows of one version and kind of key."""
    tickets = TicketBox()
    first, _ = handshake(version, kind, tickets)
    session = first.connection.take_sessions()[0]
    name = {TLS12: "TLS 1.2", TLS13: "TLS 1.3"}[version]
    for label, offered in (("full", None), ("resumed", session)):
        sides: tuple[list[float], list[float]] = ([], [])
        basis: list[float] = []
        for _ in range(rounds):
            for times, side in zip(sides, handshake(version, kind, tickets, offered), strict=True):
                times.append(side.watch.seconds)
            basis.append(primitives(kind))
        print(f"{name} {kind:12} {label:8} client {percentiles(sides[0])}   server {percentiles(sides[1])}", end="")
        print(f"   primitives {percentiles(basis)}" if version == TLS13 and offered is None else "")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    options = parser.parse_args()
    print("microseconds per handshake: tenth percentile, median")
    for version in (TLS13, TLS12):
        for kind in ("ecdsa-p256", "rsa-2048", "ed25519"):
            measure(version, kind, options.rounds)


if __name__ == "__main__":
    main()
