"""A peer, its type and its predicates, all under the test's control: for tests of policy, and of a plugin's own predicates.

`peer_context()` makes what a predicate looks at; `Fake` is a predicate that finds what it is told to find.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import CredentialType, Finding, Key, LocalCredential, PeerContext, Predicate, Verdict
from tlspool_core.testing.memory import MemoryBackend
from tlspool_core.tls.questions import HandshakeFacts
from tlspool_core.tls.seams import CertificateEntry, Credential

FACTS = HandshakeFacts(
    role="client",
    version=0x0304,
    cipher_suite=0x1301,
    cipher_suite_name="TLS_AES_128_GCM_SHA256",
    group=0x001D,
    key_exchange="ECDHE",
    peer_signature_scheme=0x0403,
    server_name="www.example.com",
)


@dataclass(frozen=True)
class Peer:
    """What a peer showed."""

    certificate_type: int = 224
    entries: Sequence[CertificateEntry] = ()

    def verify(self, scheme: int, content: bytes, signature: bytes) -> None:
        """Nobody asks."""


class Kind(CredentialType):
    """A credential type whose answers a test chooses."""

    name = "toy"
    certificate_types = (224,)

    def __init__(self, keys: tuple[bytes, ...] = (), bits: int | None = 128) -> None:
        self.keys = keys
        self.bits = bits

    async def load(self, local: LocalCredential, find_key: Callable[[str], Awaitable[Key]]) -> Credential | None:
        return None

    def trust_keys(self, peer: Any) -> tuple[bytes, ...]:
        return self.keys

    def strength(self, peer: Any) -> int | None:
        return self.bits


@dataclass
class Fake(Predicate):
    """A predicate that says what it is told to, and counts how often it was asked."""

    letter: str
    verdict: Verdict | Callable[[], Any] = Verdict.STRICT
    price: int = 1
    reason: str = ""
    asked: list[PeerContext] = field(default_factory=list)

    def establish(self, context: PeerContext) -> Finding:
        self.asked.append(context)
        if callable(self.verdict):
            return cast("Finding", self.verdict())  # a test may want to see what happens if it is none
        return Finding(self.verdict, self.reason)

    def cost(self) -> int:
        return self.price


def by_letter(predicates: Iterable[Predicate]) -> dict[tuple[str, str | None], tuple[str, Predicate]]:
    """As the registry has predicates: by letter, for any type, with a plugin's name."""
    return {(predicate.letter, None): (f"plugin-{predicate.letter}", predicate) for predicate in predicates}


def peer_context(**changes: Any) -> PeerContext:
    """A client that wanted www.example.com, and got it; any field may be given otherwise."""
    values: dict[str, Any] = {
        "peer": Peer(),
        "identities": (DoNAI.parse("www.example.com"),),
        "own": None,
        "local_identity": DoNAI.parse("john@example.org"),
        "wanted": DoNAI.parse("www.example.com"),
        "domain_represents_user": False,
        "service": "http",
        "facts": FACTS,
        "config": MemoryBackend(),
        "offered_role": "server",
        "credential_type": "toy",
    }
    return PeerContext(**(values | changes))
