"""The engine by itself: handshakes of both roles and versions in memory, records, and the primitives that they are made of.

Theory of operation
-------------------
No socket, no event loop, one process.  A handshake's CPU is measured per role: the clock runs only while that role works.  Handshakes
of all kinds and their primitives (`bench.primitives`) take turns, so that whatever else the machine does disturbs all alike, and each
turn follows a handshake that does not count, so that all find the same caches.  The quickest tenth counts: what disturbs only ever adds.

Between a role and its primitives lie messages, checks, and the order in which things are done.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from bench import primitives
from bench.load import Figure
from bench.report import verdict
from tlspool_core.testing.peers import TicketBox, examine, software_credential, software_key
from tlspool_core.tls.bulk import open_batch, seal_batch
from tlspool_core.tls.connection import TlsConnection
from tlspool_core.tls.enums import NamedGroup
from tlspool_core.tls.protection import Protection, protection12, protection13
from tlspool_core.tls.questions import (
    Call,
    ChooseServerCredential,
    ExaminePeer,
    JudgePeer,
    OpenTicket,
    SealTicket,
    ServerChoice,
    Sign,
)
from tlspool_core.tls.record import RecordLayer
from tlspool_core.tls.settings import TLS12, TLS13, ClientSettings, ServerSettings, StoredSession

BATCH = 512 * 1024
KINDS = {"ECDSA P-256": "ecdsa-p256", "RSA-2048": "rsa-2048"}
CLASSIC = (NamedGroup.X25519, NamedGroup.SECP256R1)
HYBRID = (NamedGroup.X25519MLKEM768, *CLASSIC)
LEAST = "primitives of a TLS 1.3 server"
AGAINST_PRIMITIVES = "full server / its primitives at their places"
AGAINST_LOOP = "full server / its primitives in a loop"
RESUMED = "resumed server / full server"
# row -> largest ratio that is aimed at
GOALS = {
    f"{AGAINST_PRIMITIVES}, ECDSA P-256": 2.0,
    f"{AGAINST_LOOP}, ECDSA P-256": 2.0,
    f"{RESUMED}, ECDSA P-256": 0.6,
    f"{RESUMED}, RSA-2048": 0.6,
}

Answers = dict[type, Callable[[Any], object]]


class Box(TicketBox):
    """Numbers for tickets: what seals them is not the engine."""

    def seal(self, state: bytes) -> bytes:
        ticket = len(self.states).to_bytes(32, "big")
        self.states[ticket] = state
        return ticket


def answers(kind: str, tickets: TicketBox) -> Answers:
    """What either side says to each kind of question, in as few steps as can be: only the engine is to be measured."""
    choice = ServerChoice(credentials=(software_credential(KINDS[kind]),))
    sign = signer(kind)
    return {
        ChooseServerCredential: lambda question: choice,
        Sign: lambda question: sign(question.content),
        ExaminePeer: lambda question: examine(question.certificate_type, question.entries),
        JudgePeer: lambda question: b"",
        OpenTicket: lambda question: tickets.open(question.ticket),
        SealTicket: lambda question: tickets.seal(question.state),
        Call: lambda question: question.work(),
    }


@functools.cache
def signer(kind: str) -> primitives.Sign:
    """The same for handshakes and for their primitives."""
    key = software_key(KINDS[kind])
    digest = hashes.SHA256()
    ecdsa, pss = ec.ECDSA(digest), padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return lambda content: key.sign(content, ecdsa)
    assert isinstance(key, rsa.RSAPrivateKey)
    return lambda content: key.sign(content, pss, digest)


class Side:
    """One role, and the CPU that it has used."""

    def __init__(self, settings: ClientSettings | ServerSettings, answers: Answers) -> None:
        begin = time.thread_time()
        self.connection = TlsConnection(settings)
        self.seconds = time.thread_time() - begin
        self._answers = answers

    def work(self, data: bytes) -> bytes:
        begin = time.thread_time()
        connection, answers = self.connection, self._answers
        if data:
            connection.receive(data)
        while (question := connection.question) is not None:
            connection.answer(answers[type(question)](question))
        output = connection.data_to_send()
        self.seconds += time.thread_time() - begin
        return output


@dataclass(frozen=True)
class Case:
    """One kind of handshake."""

    kind: str
    version: int
    groups: tuple[int, ...] = CLASSIC

    def run(
        self,
        session: StoredSession | None = None,
        tickets: TicketBox | None = None,
        before_server: Callable[[], None] | None = None,
    ) -> tuple[Side, Side]:
        """Client and server after a handshake with its tickets; a full one unless the session is resumed."""
        ours = answers(self.kind, tickets or Box())
        settings = ClientSettings(server_name="testserver", versions=(self.version,), groups=self.groups, session=session)
        client, server = Side(settings, ours), Side(ServerSettings(versions=(self.version,), groups=self.groups), ours)
        data = client.work(b"")
        while data:
            if before_server is not None:
                before_server()
            data = client.work(server.work(data))
        assert client.connection.handshake_complete and server.connection.facts.resumed is (session is not None)
        return client, server

    def session(self) -> tuple[StoredSession, TicketBox]:
        """One to be resumed, and who opens its ticket."""
        tickets = Box()
        client, _ = self.run(tickets=tickets)
        return client.connection.take_sessions()[0], tickets


CASES = {
    "TLS 1.3": (TLS13, CLASSIC),
    "TLS 1.3, X25519MLKEM768": (TLS13, HYBRID),
    "TLS 1.2": (TLS12, CLASSIC),
}


def handshakes(count: int) -> dict[str, Figure]:
    """CPU per handshake of each role, full and resumed, and of its primitives; then what the goals speak of."""
    turns: list[Callable[[], dict[str, float]]] = []
    for text, (version, groups) in CASES.items():
        for kind in KINDS:
            case = Case(kind, version, groups)
            turns.append(functools.partial(_turn, f"{text}, {kind}", case, None, None))
            turns.append(functools.partial(_turn, f"{text}, {kind}, resumed", case, *case.session()))
    for name, work in _primitives().items():
        turns.append(functools.partial(_turn_of_primitives, f"{LEAST}, {name}", work))
        turns.append(functools.partial(_turn_of_loop, f"{LEAST}, {name}, in a loop", work))
    found: dict[str, list[float]] = {}
    usual = Case("ECDSA P-256", TLS13)
    for number in range(count + 1):
        for turn in turns:
            usual.run()  # so that all find the same caches
            for name, seconds in turn().items():
                if number:  # the first fills caches
                    found.setdefault(name, []).append(seconds)
    rows = {name: Figure(_quickest(values) * 1e6, "us") for name, values in found.items()}
    return rows | _ratios({name: figure.value for name, figure in rows.items()})


def _turn(name: str, case: Case, session: StoredSession | None, tickets: TicketBox | None) -> dict[str, float]:
    client, server = case.run(session, tickets)
    return {f"{name}, client": client.seconds, f"{name}, server": server.seconds}


def _turn_of_primitives(name: str, work: Callable[[], Iterator[None]]) -> dict[str, float]:
    """In a handshake that does not count: whenever it is the server's turn, what it cannot do without."""
    steps, seconds = work(), 0.0

    def step() -> None:
        nonlocal seconds
        begin = time.thread_time()
        next(steps, None)
        seconds += time.thread_time() - begin

    Case("ECDSA P-256", TLS13).run(before_server=step)
    return {name: seconds}


def _turn_of_loop(name: str, work: Callable[[], Iterator[None]]) -> dict[str, float]:
    """The same when nothing else has been done in between."""
    for _ in range(4):
        begin = time.thread_time()
        for _ in work():
            pass
        seconds = time.thread_time() - begin
    return {name: seconds}


def _primitives() -> dict[str, Callable[[], Iterator[None]]]:
    return {**{kind: functools.partial(primitives.full, signer(kind)) for kind in KINDS}, "resumed": primitives.resumed}


def _ratios(us: dict[str, float]) -> dict[str, Figure]:
    rows = {}
    for kind in KINDS:
        server = us[f"TLS 1.3, {kind}, server"]
        rows[f"{AGAINST_PRIMITIVES}, {kind}"] = server / us[f"{LEAST}, {kind}"]
        rows[f"{AGAINST_LOOP}, {kind}"] = server / us[f"{LEAST}, {kind}, in a loop"]
        rows[f"{RESUMED}, {kind}"] = us[f"TLS 1.3, {kind}, resumed, server"] / server
        rows[f"the same of primitives alone, {kind}"] = us[f"{LEAST}, resumed"] / us[f"{LEAST}, {kind}"]
    return {name: Figure(value, "") for name, value in rows.items()}


def _quickest(values: list[float]) -> float:
    """Mean of the quickest tenth."""
    return statistics.mean(sorted(values)[: max(1, len(values) // 10)])


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
    count = 20 if quick else 300
    return handshakes(count) | records(count)


def text(rows: dict[str, Figure]) -> str:
    """One line per row, with what was aimed at where there is a goal."""
    width = max(map(len, rows))
    lines = []
    for name, figure in rows.items():
        goal = f"  <= {GOALS[name]:g}: {verdict(figure.value, GOALS[name])}" if name in GOALS else ""
        lines.append(f"{name.ljust(width)}  {figure.value:9.4g} {figure.unit:5} {goal}".rstrip())
    return "\n".join(lines)
