"""Configuration databases: what localid, disclose and trust hold, and the backend that keeps them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from tlspool_core.identity import DoNAI
from tlspool_core.interfaces.common import Role


@dataclass(frozen=True, slots=True)
class LocalCredential:
    """One credential of a local identity as the localid database holds it."""

    identity: DoNAI
    type: str  # name of the CredentialType
    roles: Role
    key_uri: str  # RFC 7512 URI of the private key; "" where the type has none
    public: bytes  # meaning is the credential type's: chain, public key, verifier...


@dataclass(frozen=True, slots=True)
class LocalIdentity:
    """Everything stored for one DoNAI: its credentials in order of preference, and a validation expression ("" = none)."""

    identity: DoNAI
    credentials: tuple[LocalCredential, ...] = ()
    expression: str = ""
    # uids of applications that may use the identity; empty: any that reach the socket
    allowed_uids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TrustRecord:
    """One value of the trust database."""

    key: bytes  # authority key identifier, key id, fingerprint, pin, or a plugin's own key with a prefix "name:"
    type: str  # name of the CredentialType it is for
    roles: Role = Role.BOTH
    pinned: bool = False
    revoked: bool = False
    expression: str = ""
    blob: bytes = b""  # anchor, parameters, revocation list: the type's business


class ConfigReader(Protocol):
    """A consistent view of the three databases."""

    def localid(self, identity: DoNAI) -> LocalIdentity | None: ...
    def localids(self) -> Iterator[LocalIdentity]: ...
    def disclose(self, selector: str) -> tuple[DoNAI, ...] | None: ...
    def disclosures(self) -> Iterator[tuple[str, tuple[DoNAI, ...]]]: ...
    def trust(self, key: bytes) -> tuple[TrustRecord, ...]: ...
    def trusts(self, type: str | None = None) -> Iterator[TrustRecord]: ...


class ConfigWriter(ConfigReader, Protocol):
    """A write transaction: all or nothing, committed when its context ends without exception."""

    def put_localid(self, entry: LocalIdentity) -> None: ...
    def delete_localid(self, identity: DoNAI) -> bool: ...
    def put_disclose(self, selector: str, identities: Sequence[DoNAI]) -> None: ...
    def delete_disclose(self, selector: str) -> bool: ...
    def put_trust(self, record: TrustRecord) -> None: ...
    def delete_trust(self, key: bytes, type: str | None = None) -> int: ...


class ConfigError(Exception):
    """A database cannot be read or written; the text says which, why and what to do."""


class ConfigBackend(ABC):
    """Where localid, disclose and trust are kept. Reads are quick enough for the event loop; `write` may block."""

    name: str

    @abstractmethod
    def open(self, settings: Mapping[str, Any], *, readonly: bool = False) -> None:
        """Open with the plugin's configuration section. Raises ConfigError."""

    @abstractmethod
    def read(self) -> AbstractContextManager[ConfigReader]: ...

    @abstractmethod
    def write(self) -> AbstractContextManager[ConfigWriter]: ...

    @abstractmethod
    def generation(self) -> int:
        """Changes whenever any database was changed by any process; lets callers keep what they derived from a read."""

    @abstractmethod
    def close(self) -> None: ...
