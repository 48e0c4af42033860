"""A plugin for pools under test: identities with toy credentials, and a revocation check that waits until it is told the outcome."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from tlspool_core.api import (
    ConfigBackend,
    CredentialType,
    DoNAI,
    Finding,
    KeyStore,
    LocalCredential,
    LocalIdentity,
    PeerContext,
    Predicate,
    Role,
    TrustRecord,
    Verdict,
    hookimpl,
)
from tlspool_core.testing.keys import SoftwareKeys, public_der
from tlspool_core.testing.memory import MemoryBackend
from tlspool_core.testing.toy import ToyType, toy_entry, toy_trust_key

WEB = "www.example.com"
USERS = ("john", "eve", "ann", "mute", "naked", "short", "idle", "bob", "mallory")
STRANGER = "mallory"  # has credentials that nobody trusts
OUTCOME = Path(os.environ.get("RADIUS_TOYS_OUTCOME", os.devnull))  # once it is there: "clean", or something else

keys = SoftwareKeys()
backend = MemoryBackend()


class Revocation(Predicate):
    """R: what the file says, as soon as there is one."""

    letter = "R"
    types = frozenset({"toy"})

    def establish(self, context: PeerContext) -> Finding:
        for _ in range(1500):  # the pool waits no longer
            if OUTCOME.is_file() and OUTCOME.stat().st_size:  # a file is there before its word is
                break
            time.sleep(0.01)
        clean = OUTCOME.read_text() == "clean"
        return Finding(Verdict.STRICT) if clean else Finding(Verdict.FALSE, "the credential is revoked")

    def cost(self) -> int:
        return 2


class Toys(ToyType):
    def predicates(self) -> Iterable[Predicate]:
        return (*super().predicates(), Revocation())


def _fill() -> None:
    with backend.write() as databases:
        for name in (WEB, *(f"{user}@example.com" for user in USERS)):
            identity = DoNAI.parse(name)
            key = ec.derive_private_key(int.from_bytes(hashlib.sha256(name.encode()).digest()) >> 1, ec.SECP256R1())
            public = toy_entry(identity, public_der(key))
            credential = LocalCredential(identity, "toy", Role.BOTH, keys.add(name, key), public)
            databases.put_localid(LocalIdentity(identity, (credential,)))
            if identity.user != STRANGER:
                databases.put_trust(TrustRecord(toy_trust_key(public), "toy", pinned=True))


_fill()


@hookimpl
def tlspool_register_credential_types() -> Sequence[CredentialType]:
    return [Toys()]


@hookimpl
def tlspool_register_key_stores() -> Sequence[KeyStore]:
    return [keys]


@hookimpl
def tlspool_register_config_backends() -> Sequence[ConfigBackend]:
    return [backend]
