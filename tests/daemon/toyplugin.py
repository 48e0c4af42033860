"""A plugin for daemons under test: toy credentials for a few identities, whose keys every process derives alike, and site rules."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlspool_core.api import (
    Aaa,
    AaaDecision,
    AaaRequest,
    AccountingRecord,
    ConfigBackend,
    CredentialType,
    Denied,
    DoNAI,
    KeyStore,
    hookimpl,
)
from tlspool_core.testing.keys import SoftwareKeys
from tlspool_core.testing.memory import MemoryBackend
from tlspool_core.testing.toy import ToyType, toy_identity, toy_key

SERVER = "www.example.com"
CLIENT = "john@example.com"
STRANGER = "eve@example.com"  # has a credential that nobody trusts
RESERVED = "reserved.example.com"  # for another user id than that of the tests
OTHER = "other.example.com"
KEYLESS = "keyless.example.com"  # its key is in no key store

keys = SoftwareKeys()
backend = MemoryBackend()


class Site(Aaa):
    """Site rules that do what the name of the service says."""

    name = "site"
    records = Path(os.devnull)

    async def start(self, settings: Mapping[str, Any]) -> None:
        self.records = Path(settings.get("records", os.devnull))

    async def account(self, record: AccountingRecord) -> None:
        """Keep the record as a line; the kind "failing" is refused the first time, though it is kept."""
        line = json.dumps(dataclasses.asdict(record) | {"kind": record.kind}, default=lambda value: value.decode())
        with self.records.open("a") as file:
            file.write(line + "\n")
        if record.kind == "failing" and self.records.read_text().count('"failing"') == 1:
            raise Denied("the disk is full")

    async def authorize(self, request: AaaRequest) -> AaaDecision:
        if request.service == "closed":
            raise Denied(f"closed to {request.remote_identity} of type {request.credential_type}")
        if request.service == "named" and request.role == "client":
            raise Denied(f"{request.local_identity} goes to {request.remote_identity}")
        if request.service == "broken":
            raise RuntimeError("a fault of the plugin")
        if request.service == "silent":
            await asyncio.sleep(60)
        if request.service == "short":
            return AaaDecision(session_timeout=0.2)
        if request.service == "idle":
            return AaaDecision(idle_timeout=0.2)
        return AaaDecision(classes=(b"gold",))


def _fill() -> None:
    with backend.write() as databases:
        for name in (SERVER, CLIENT, STRANGER, RESERVED, KEYLESS, OTHER):
            keys.add(name, toy_key(name))
            identity, trusted = toy_identity(name, allowed_uids=(54321,) if name == RESERVED else ())
            databases.put_localid(identity)
            if name != STRANGER:
                databases.put_trust(trusted)
        databases.put_disclose(SERVER, [DoNAI.parse(CLIENT)])
    keys.missing.add(f"software:{KEYLESS}")


_fill()


@hookimpl
def tlspool_register_credential_types() -> Sequence[CredentialType]:
    return [ToyType()]


@hookimpl
def tlspool_register_key_stores() -> Sequence[KeyStore]:
    return [keys]


@hookimpl
def tlspool_register_config_backends() -> Sequence[ConfigBackend]:
    return [backend]


@hookimpl
def tlspool_register_aaa() -> Sequence[Aaa]:
    return [Site()]
