"""An in-memory ConfigBackend: localid, disclose and trust in dictionaries, with the contract's transactions.

Theory of operation
-------------------
A state is never changed, only replaced: a reader keeps the state that it began with, a writer works on copies and puts them in
place when its context ends without an exception.  So reads are consistent and a failed write leaves no trace, as the contract asks
of real databases.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import ConfigBackend, ConfigReader, ConfigWriter, LocalIdentity, TrustRecord


@dataclass(slots=True)
class MemoryDatabases:
    """The three databases in one state; reader and writer at once, since a writer's state is its own."""

    localid_: dict[DoNAI, LocalIdentity] = field(default_factory=dict)
    disclose_: dict[str, tuple[DoNAI, ...]] = field(default_factory=dict)
    trust_: dict[bytes, tuple[TrustRecord, ...]] = field(default_factory=dict)

    def copy(self) -> MemoryDatabases:
        return MemoryDatabases(dict(self.localid_), dict(self.disclose_), dict(self.trust_))

    def localid(self, identity: DoNAI) -> LocalIdentity | None:
        return self.localid_.get(identity)

    def localids(self) -> Iterator[LocalIdentity]:
        return iter([self.localid_[identity] for identity in sorted(self.localid_, key=str)])

    def disclose(self, selector: str) -> tuple[DoNAI, ...] | None:
        return self.disclose_.get(selector)

    def disclosures(self) -> Iterator[tuple[str, tuple[DoNAI, ...]]]:
        return iter(sorted(self.disclose_.items()))

    def trust(self, key: bytes) -> tuple[TrustRecord, ...]:
        return self.trust_.get(key, ())

    def trusts(self, type: str | None = None) -> Iterator[TrustRecord]:
        records = [record for key in sorted(self.trust_) for record in self.trust_[key]]
        return iter([record for record in records if type is None or record.type == type])

    def put_localid(self, entry: LocalIdentity) -> None:
        self.localid_[entry.identity] = entry

    def delete_localid(self, identity: DoNAI) -> bool:
        return self.localid_.pop(identity, None) is not None

    def put_disclose(self, selector: str, identities: Sequence[DoNAI]) -> None:
        self.disclose_[selector] = tuple(identities)

    def delete_disclose(self, selector: str) -> bool:
        return self.disclose_.pop(selector, None) is not None

    def put_trust(self, record: TrustRecord) -> None:
        others = tuple(old for old in self.trust_.get(record.key, ()) if (old.type, old.blob) != (record.type, record.blob))
        self.trust_[record.key] = (*others, record)

    def delete_trust(self, key: bytes, type: str | None = None) -> int:
        records = self.trust_.pop(key, ())
        kept = tuple(record for record in records if type is not None and record.type != type)
        if kept:
            self.trust_[key] = kept
        return len(records) - len(kept)


class MemoryBackend(ConfigBackend):
    """Databases that live as long as the object."""

    name = "memory"

    def __init__(self) -> None:
        self._state = MemoryDatabases()
        self._generation = 0
        self._writing = threading.Lock()

    def open(self, settings: Mapping[str, Any], *, readonly: bool = False) -> None:
        """Takes any settings, and does nothing with them."""

    @contextmanager
    def read(self) -> Iterator[ConfigReader]:
        yield self._state

    @contextmanager
    def write(self) -> Iterator[ConfigWriter]:
        with self._writing:
            state = self._state.copy()
            yield state
            self._state = state
            self._generation += 1

    def generation(self) -> int:
        return self._generation

    def close(self) -> None:
        """Nothing is held."""
