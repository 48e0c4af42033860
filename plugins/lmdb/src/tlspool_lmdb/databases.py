"""The three databases inside one LMDB transaction.

Theory of operation
-------------------
LMDB limits keys, and values of which a key has several, to 511 bytes; a certificate does not fit.  So `localid`, `disclose` and `trust`
are indices: they map a key to numbers, kept in order, and `record` maps a number to bytes of any length (see `records`).  Numbers only
grow, so the order of numbers is the order in which records were put.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lmdb

from tlspool_core.api import ConfigError, DoNAI, LocalIdentity, TrustRecord
from tlspool_lmdb import records
from tlspool_lmdb.records import DamagedRecord

NAMES = (b"localid", b"disclose", b"trust", b"record")
MAX_KEY = 511
_NUMBER = 8  # bytes, big-endian, so that byte order is numeric order

Number = bytes


@dataclass(frozen=True, slots=True)
class Handles:
    """LMDB's handles of the databases in one environment."""

    localid: Any
    disclose: Any
    trust: Any
    record: Any


def open_handles(env: lmdb.Environment, txn: lmdb.Transaction | None, *, create: bool) -> Handles:
    """Open all databases. Raises lmdb.NotFoundError if one is missing and may not be created."""
    localid, disclose, trust = (env.open_db(name, txn=txn, dupsort=True, dupfixed=True, create=create) for name in NAMES[:3])
    return Handles(localid, disclose, trust, env.open_db(NAMES[3], txn=txn, create=create))


class Databases:
    """A ConfigReader over a read transaction, a ConfigWriter over a write transaction."""

    def __init__(self, txn: lmdb.Transaction, handles: Handles, where: str) -> None:
        """`where` names the environment in errors."""
        self._txn = txn
        self._db = handles
        self._where = where

    # --- reading

    def localid(self, identity: DoNAI) -> LocalIdentity | None:
        key = str(identity).encode()
        found = self._records(self._db.localid, key)
        return self._parsed("localid", key, records.parse_localid, key, found) if found else None

    def localids(self) -> Iterator[LocalIdentity]:
        for key in self._keys(self._db.localid):
            yield self._parsed("localid", key, records.parse_localid, key, self._listed(self._db.localid, key))

    def disclose(self, selector: str) -> tuple[DoNAI, ...] | None:
        key = selector.encode()
        found = self._records(self._db.disclose, key)
        return self._parsed("disclose", key, records.parse_disclosure, key, found[0]) if found else None

    def disclosures(self) -> Iterator[tuple[str, tuple[DoNAI, ...]]]:
        for key in self._keys(self._db.disclose):
            record = self._listed(self._db.disclose, key)[0]
            identities = self._parsed("disclose", key, records.parse_disclosure, key, record)
            yield self._parsed("disclose", key, records.parse_selector, key), identities

    def trust(self, key: bytes) -> tuple[TrustRecord, ...]:
        return tuple(self._parsed("trust", key, records.parse_trust, key, found) for found in self._records(self._db.trust, key))

    def trusts(self, type: str | None = None) -> Iterator[TrustRecord]:
        for key in self._keys(self._db.trust):
            yield from (record for record in self.trust(key) if type is None or record.type == type)

    # --- writing

    def put_localid(self, entry: LocalIdentity) -> None:
        key = str(entry.identity).encode()
        self._replace(self._db.localid, key, records.build_localid(entry))

    def delete_localid(self, identity: DoNAI) -> bool:
        return self._replace(self._db.localid, str(identity).encode(), []) > 0

    def put_disclose(self, selector: str, identities: Sequence[DoNAI]) -> None:
        self._replace(self._db.disclose, selector.encode(), [records.build_disclosure(selector, identities)])

    def delete_disclose(self, selector: str) -> bool:
        return self._replace(self._db.disclose, selector.encode(), []) > 0

    def put_trust(self, record: TrustRecord) -> None:
        others = [old for old in self.trust(record.key) if (old.type, old.blob) != (record.type, record.blob)]
        self._replace(self._db.trust, record.key, [records.build_trust(each) for each in (*others, record)])

    def delete_trust(self, key: bytes, type: str | None = None) -> int:
        found = self.trust(key)
        kept = [record for record in found if type is not None and record.type != type]
        if len(kept) < len(found):
            self._replace(self._db.trust, key, [records.build_trust(record) for record in kept])
        return len(found) - len(kept)

    # --- index and records

    def _keys(self, index: Any) -> Iterator[bytes]:
        with self._txn.cursor(index) as cursor:
            yield from map(bytes, cursor.iternext_nodup(values=False))

    def _numbers(self, index: Any, key: bytes) -> list[Number]:
        if not 1 <= len(key) <= MAX_KEY:
            return []
        with self._txn.cursor(index) as cursor:
            return list(map(bytes, cursor.iternext_dup())) if cursor.set_key(key) else []

    def _records(self, index: Any, key: bytes) -> list[bytes]:
        found = []
        for number in self._numbers(index, key):
            record = self._txn.get(number, db=self._db.record)
            if record is None:
                raise ConfigError(f"{self._where}: damaged: {key!r} leads to record {number.hex()}, which is not there")
            found.append(bytes(record))
        return found

    def _listed(self, index: Any, key: bytes) -> list[bytes]:
        """Records of a key that is there."""
        found = self._records(index, key)
        if not found:
            raise ConfigError(f"{self._where}: damaged: {key!r} is listed, and cannot be found")
        return found

    def _parsed(self, database: str, key: bytes, parse: Any, *arguments: Any) -> Any:
        try:
            return parse(*arguments)
        except DamagedRecord as error:
            raise ConfigError(f"{self._where}: damaged: a record of {key!r} in {database} cannot be used: {error}") from error

    def _replace(self, index: Any, key: bytes, new: Sequence[bytes]) -> int:
        """Put records in place of all that the key has; returns how many those were."""
        if not 1 <= len(key) <= MAX_KEY:
            raise ConfigError(f"{self._where}: a key has 1 to {MAX_KEY} bytes, not {len(key)}")
        old = self._numbers(index, key)
        for number in old:
            self._txn.delete(number, db=self._db.record)
        self._txn.delete(key, db=index)
        for record in new:
            number = self._next_number()
            self._txn.put(number, record, db=self._db.record, append=True)
            self._txn.put(key, number, db=index)
        return len(old)

    def _next_number(self) -> Number:
        with self._txn.cursor(self._db.record) as cursor:
            last = int.from_bytes(cursor.key()) if cursor.last() else 0
        return (last + 1).to_bytes(_NUMBER)
