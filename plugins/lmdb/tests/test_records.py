"""Are records decoded strictly: a value or DamagedRecord, nothing else, and never another value than was stored?"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tlspool_lmdb import records
from tlspool_lmdb.records import DamagedRecord

from tlspool_core.api import DoNAI, LocalCredential, LocalIdentity, Role, TrustRecord

JOHN = DoNAI.parse("john@example.com")
LOCAL = LocalIdentity(JOHN, (LocalCredential(JOHN, "x509", Role.SERVER, "pkcs11:id=%01", b"chain"),), "TI&", (0, 1000))
TRUST = TrustRecord(b"key", "x509", Role.CLIENT, True, False, "T", b"anchor")

PARSERS: dict[str, tuple[list[bytes], Callable[[list[bytes]], Any], Any]] = {
    "localid": (records.build_localid(LOCAL), lambda found: records.parse_localid(b"john@example.com", found), LOCAL),
    "disclose": (
        [records.build_disclosure("@.", [JOHN])],
        lambda found: records.parse_disclosure(b"@.", found[0]),
        (JOHN,),
    ),
    "trust": ([records.build_trust(TRUST)], lambda found: records.parse_trust(b"key", found[0]), TRUST),
}
each_kind = pytest.mark.parametrize("kind", sorted(PARSERS))


def sealed(record: bytes) -> bytes:
    """With the checksum that its content has: damage behind the checksum's back."""
    return record[:2] + zlib.crc32(record[6:]).to_bytes(4) + record[6:]


@each_kind
def test_what_was_built_is_parsed(kind: str) -> None:
    built, parse, value = PARSERS[kind]
    assert parse(built) == value


@each_kind
def test_every_changed_byte_is_noticed(kind: str) -> None:
    built, parse, _ = PARSERS[kind]
    for index, record in enumerate(built):
        for at in range(len(record)):
            changed = record[:at] + bytes([record[at] ^ 0x01]) + record[at + 1 :]
            with pytest.raises(DamagedRecord):
                parse([*built[:index], changed, *built[index + 1 :]])


@each_kind
def test_every_prefix_is_noticed_even_with_a_right_checksum(kind: str) -> None:
    built, parse, _ = PARSERS[kind]
    for index, record in enumerate(built):
        for length in range(len(record)):
            cut = record[:length] if length < 6 else sealed(record[:length])
            if kind == "disclose" and length == len(record) - 4 - len(str(JOHN)):
                continue  # a list with one identity less is as good as any
            with pytest.raises(DamagedRecord):
                parse([*built[:index], cut, *built[index + 1 :]])


@given(st.sampled_from(sorted(PARSERS)), st.binary(max_size=200))
def test_any_bytes_are_a_value_or_damage(kind: str, data: bytes) -> None:
    built, parse, _ = PARSERS[kind]
    for record in (data, sealed(built[0][:6] + data)):
        with contextlib.suppress(DamagedRecord):
            parse([record])


@given(st.sampled_from(sorted(PARSERS)), st.data())
def test_scrambled_records_are_a_value_or_damage(kind: str, data: st.DataObject) -> None:
    built, parse, _ = PARSERS[kind]
    record = bytearray(built[data.draw(st.integers(0, len(built) - 1))])
    for _ in range(data.draw(st.integers(1, 4))):
        record[data.draw(st.integers(6, len(record) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DamagedRecord):
        parse([sealed(bytes(record))])
    with contextlib.suppress(DamagedRecord):
        parse([built[0], sealed(bytes(record))])
