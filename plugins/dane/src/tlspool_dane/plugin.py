"""The predicate D for certificates: a record under DNSSEC says that this is the peer's.

Theory of operation
-------------------
A server's certificates stand in TLSA records at the port and name that it is reached by (RFC 6698 section 3): `_443._tcp.www.example.com`.
The name is the one that the application asked for, and the port the one that its socket is connected to.  A user's stand in SMIMEA records
(RFC 8162 section 3), under a hash of the name before the @.  Clients that are domains have no records.

Strict: a record matches.  Lenient: it is proven that there is none.  An answer that is not secure shows neither.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from tlspool_core.api import DoNAI, Finding, PeerContext, Predicate, Verdict, hookimpl
from tlspool_dane.associations import Path, client_path, matches, server_path
from tlspool_dane.resolver import Resolver, Security

TLSPOOL_API = 1

_PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}


class Dane(Predicate):
    """D for certificates, by TLSA and SMIMEA records."""

    letter = "D"
    types = frozenset({"x509"})

    def __init__(self, resolver: Callable[[], Resolver] = Resolver.of_system) -> None:
        self._resolver = resolver

    def cost(self) -> int:
        """It asks the network."""
        return 2

    def establish(self, context: PeerContext) -> Finding:
        """Asks the DNS, in a thread. Raises NoAnswer, which establishes nothing."""
        if context.peer is None:
            return Finding(Verdict.FALSE, "the peer shows no certificate")
        chain = [entry.data for entry in context.peer.entries]
        if context.offered_role == "server":
            return self._server(context, chain)
        return self._client(context, chain)

    def _server(self, context: PeerContext, chain: Sequence[bytes]) -> Finding:
        protocol, (_, _, port) = _PROTOCOLS.get(context.ip_protocol), context.peer_address.rpartition(":")
        if context.wanted is None:
            return Finding(Verdict.FALSE, "no name was asked for, at which a record could stand")
        if protocol is None or not (port.isascii() and port.isdigit()):
            return Finding(Verdict.FALSE, "the peer has no port, at which a record could stand")
        domain = context.wanted.domain
        return self._look(f"_{port}._{protocol}.{domain}.", "TLSA", chain, server_path(domain))

    def _client(self, context: PeerContext, chain: Sequence[bytes]) -> Finding:
        # the one that is believed in the end: a certificate can claim one with a record beside others without
        identity = context.wanted or next(iter(context.identities), None)
        if identity is None or identity not in context.identities:
            return Finding(Verdict.FALSE, "the peer does not claim the identity that was asked for")
        if identity.user is None:
            return Finding(Verdict.FALSE, "only users have records as clients")
        return self._look(smimea_name(identity), "SMIMEA", chain, client_path())

    def _look(self, name: str, kind: str, chain: Sequence[bytes], path: Path) -> Finding:
        answer = self._resolver().look_up(name, kind)
        if answer.security is not Security.SECURE:
            return Finding(Verdict.FALSE, f"what the DNS says of {name} is not signed")
        if not answer.records:
            return Finding(Verdict.LENIENT, f"there is no {kind} record at {name}")
        if any(matches(record, chain, path) for record in answer.records):
            return Finding(Verdict.STRICT)
        return Finding(Verdict.FALSE, f"none of the {len(answer.records)} {kind} records at {name} is about this certificate")


def smimea_name(identity: DoNAI) -> str:
    """Where the records of a user stand: RFC 8162 section 3, with the hash of RFC 7929."""
    local = (identity.user or "").encode()
    return f"{hashlib.sha256(local).digest()[:28].hex()}._smimecert.{identity.domain}."


@hookimpl
def tlspool_register_predicates() -> Sequence[Predicate]:
    return [Dane()]
