"""A plugin for pools under test: identities with toy credentials, and a revocation check that waits until it is told the outcome."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from tlspool_core.api import (
    ConfigBackend,
    CredentialType,
    Finding,
    KeyStore,
    PeerContext,
    Predicate,
    Verdict,
    hookimpl,
)
from tlspool_core.testing.keys import SoftwareKeys
from tlspool_core.testing.memory import MemoryBackend
from tlspool_core.testing.toy import ToyType, toy_identity, toy_key

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
            keys.add(name, toy_key(name))
            identity, trusted = toy_identity(name)
            databases.put_localid(identity)
            if identity.identity.user != STRANGER:
                databases.put_trust(trusted)


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
