"""The engine by itself: handshakes of both roles and versions in memory, records, and the primitives that they are made of.

Theory of operation
-------------------
No socket, no event loop, one process.  A handshake's CPU is measured per role: the clock runs only while that role works.  Next to it
stands the sum of the primitives that the role cannot do without, each measured as called from Python; what lies between the two is
messages, checks and the key schedule.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bench.load import Figure
from tlspool_core.testing.peers import Answers, TicketBox, answer_all, software_credential, software_key
from tlspool_core.tls.bulk import open_batch, seal_batch
from tlspool_core.tls.connection import TlsConnection
from tlspool_core.tls.protection import Protection, protection12, protection13
from tlspool_core.tls.record import RecordLayer
from tlspool_core.tls.settings import TLS12, TLS13, ClientSettings, ServerSettings

BATCH = 512 * 1024
KINDS = {"ecdsa-p256": "ECDSA P-256", "rsa-2048": "RSA-2048"}


@dataclass
class Side:
    """One role, and the CPU that it has used."""

    connection: TlsConnection
    answers: Answers
    seconds: float = 0.0

    def work(self, data: bytes) -> bytes:
        begin = time.thread_time()
        if data:
            self.connection.receive(data)
        answer_all(self.connection, self.answers)
        output = self.connection.data_to_send()
        self.seconds += time.thread_time() - begin
        return output


def handshake(kind: str, version: int) -> tuple[float, float]:
    """CPU seconds of client and server for a full handshake, tickets included; making the settings is not counted."""
    begin = time.thread_time()
    client = Side(TlsConnection(ClientSettings(server_name="testserver", versions=(version,))), Answers())
    client.seconds = time.thread_time() - begin
    begin = time.thread_time()
    server = Side(TlsConnection(ServerSettings(versions=(version,))), Answers([software_credential(kind)], tickets=TicketBox()))
    server.seconds = time.thread_time() - begin
    data = client.work(b"")
    while data:
        data = client.work(server.work(data))
    assert client.connection.handshake_complete and server.connection.handshake_complete
    return client.seconds, server.seconds


def handshakes(count: int) -> dict[str, Figure]:
    """Median CPU per handshake of each role."""
    rows = {}
    for kind, name in KINDS.items():
        for version, text in ((TLS13, "1.3"), (TLS12, "1.2")):
            handshake(kind, version)
            times = [handshake(kind, version) for _ in range(count)]
            for role, values in zip(("client", "server"), zip(*times, strict=True), strict=True):
                rows[f"TLS {text}, {name}, {role}"] = Figure(sorted(values)[count // 2] * 1e6, "us")
    return rows


def records(count: int) -> dict[str, Figure]:
    """CPU per GiB of sealing and opening by the batch."""
    rows = {}
    makers: dict[str, Callable[[], Protection]] = {
        "TLS 1.3 AES-128-GCM": lambda: protection13("AES-128-GCM", bytes(16), bytes(12)),
        "TLS 1.3 CHACHA20-POLY1305": lambda: protection13("CHACHA20-POLY1305", bytes(32), bytes(12)),
        "TLS 1.2 AES-128-GCM": lambda: protection12("AES-128-GCM", bytes(16), bytes(4)),
    }
    plain, wire, back = (memoryview(bytearray(BATCH + 65536)) for _ in range(3))
    for name, make in makers.items():
        layer = RecordLayer()
        layer.set_write_protection(make())
        layer.set_read_protection(make())
        filled = seal_batch(layer, plain, BATCH, wire)

        opening = functools.partial(_open, layer, wire, filled, back)
        opening()
        scale = (1 << 30) / BATCH
        rows[f"{name}, open"] = Figure(_each(opening, count) * scale, "s/GiB")
        rows[f"{name}, seal"] = Figure(_each(functools.partial(seal_batch, layer, plain, BATCH, wire), count) * scale, "s/GiB")
    return rows


def _open(layer: RecordLayer, wire: memoryview, filled: int, back: memoryview) -> None:
    """The same records again and again: the sequence number goes back to their first."""
    layer.read_protection.sequence = 0
    open_batch(layer, wire, 0, filled, back, 0, BATCH)


def primitives(count: int) -> dict[str, Figure]:
    """What a server's TLS 1.3 handshake needs at the least, each by itself, and the sum for either key."""
    ours, theirs = X25519PrivateKey.generate(), X25519PrivateKey.generate().public_key()
    curve, modulus = software_key("ecdsa-p256"), software_key("rsa-2048")
    assert isinstance(curve, ec.EllipticCurvePrivateKey) and isinstance(modulus, rsa.RSAPrivateKey)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    seconds = {
        "X25519 key": _each(X25519PrivateKey.generate, count),
        "X25519 exchange": _each(lambda: ours.exchange(theirs), count),
        "ECDSA P-256 signature": _each(lambda: curve.sign(b"x" * 130, ec.ECDSA(hashes.SHA256())), count),
        "RSA-2048 PSS signature": _each(lambda: modulus.sign(b"x" * 130, pss, hashes.SHA256()), count),
        "key schedule": _each(_key_schedule, count),
        "records": _each(_records, count),
    }
    rows = {name: Figure(value * 1e6, "us") for name, value in seconds.items()}
    exchange = sum(seconds[name] for name in ("X25519 key", "X25519 exchange", "key schedule", "records"))
    rows["server, sum with ECDSA"] = Figure((exchange + seconds["ECDSA P-256 signature"]) * 1e6, "us")
    rows["server, sum with RSA"] = Figure((exchange + seconds["RSA-2048 PSS signature"]) * 1e6, "us")
    return rows


def _key_schedule() -> None:
    """What RFC 8446 section 7.1 makes a server compute, tickets included: 20 HMACs, and the hash of some 2 KiB of messages."""
    for _ in range(20):
        hmac.digest(b"k" * 32, b"x" * 54, "sha256")
    transcript = hashlib.sha256(b"x" * 1200)
    for _ in range(4):
        transcript.update(b"x" * 200)
        transcript.copy().digest()


def _records() -> None:
    """Four ciphers, and the records of a handshake: three sealed, one opened."""
    ciphers = [AESGCM(b"k" * 16) for _ in range(4)]
    for cipher in ciphers[:3]:
        sealed = cipher.encrypt(b"n" * 12, b"x" * 400, b"h" * 5)
    ciphers[2].decrypt(b"n" * 12, sealed, b"h" * 5)


def _each(work: Callable[[], object], count: int) -> float:
    """CPU seconds of one call: the best of five runs, as what disturbs only ever adds."""
    times = []
    for _ in range(5):
        begin = time.thread_time()
        for _ in range(count):
            work()
        times.append((time.thread_time() - begin) / count)
    return min(times)


def measure(quick: bool) -> dict[str, Figure]:
    """All rows."""
    count = 20 if quick else 200
    return handshakes(count) | records(count) | primitives(count)


def text(rows: dict[str, Figure]) -> str:
    width = max(map(len, rows))
    return "\n".join(f"{name.ljust(width)}  {figure.value:9.3g} {figure.unit}" for name, figure in rows.items())
