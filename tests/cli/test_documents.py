"""Is any text a document of the databases or refused by the declared error, and does every database survive its document?"""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tlspool_core.cli.documents import DocumentError, Entries, build_document, parse_document
from tlspool_core.identity import DoNAI, Selector
from tlspool_core.interfaces import LocalCredential, LocalIdentity, Role, TrustRecord
from tlspool_core.testing.memory import MemoryBackend

_labels = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True)
_domains = st.lists(_labels, min_size=1, max_size=3).map(".".join)
_identities = st.builds(DoNAI, _domains, st.none() | st.from_regex(r"[A-Za-zü]{1,6}", fullmatch=True))
_selectors = st.builds(
    Selector, st.just(".") | _domains | _domains.map(lambda domain: f".{domain}"), st.none() | st.just("") | st.just("u")
)
_roles = st.sampled_from([Role.CLIENT, Role.SERVER, Role.BOTH])
_expressions = st.sampled_from(["", "1", "TI&", "eti?"])
_texts = st.text(st.characters(codec="utf-8"), max_size=8)
_records = st.builds(
    TrustRecord, st.binary(min_size=1, max_size=9), _texts, _roles, st.booleans(), st.booleans(), _expressions, st.binary()
)


@st.composite
def _locals(draw: st.DrawFn) -> LocalIdentity:
    identity = draw(_identities)
    credentials = st.builds(LocalCredential, st.just(identity), _texts, _roles, _texts, st.binary(max_size=9))
    uids = st.lists(st.integers(0, 2**32 - 1), max_size=3).map(tuple)
    return LocalIdentity(identity, tuple(draw(st.lists(credentials, max_size=3))), draw(_expressions), draw(uids))


@given(
    st.lists(_locals(), max_size=4),
    st.dictionaries(_selectors.map(str), st.lists(_identities, max_size=3), max_size=4),
    st.lists(_records),
)
def test_every_database_survives_its_document(
    locals_: list[LocalIdentity], shown: dict[str, list[DoNAI]], records: list[TrustRecord]
) -> None:
    databases = MemoryBackend()
    with databases.write() as writer:
        for entry in locals_:
            writer.put_localid(entry)
        for selector, identities in shown.items():
            writer.put_disclose(selector, identities)
        for record in records:
            writer.put_trust(record)
    with databases.read() as reader:
        parsed = parse_document(json.dumps(build_document(reader)))
        assert parsed == Entries(tuple(reader.localids()), tuple(reader.disclosures()), tuple(reader.trusts()))


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def _example() -> dict[str, Any]:
    identity = DoNAI("example.com", "john")
    databases = MemoryBackend()
    with databases.write() as writer:
        writer.put_localid(LocalIdentity(identity, (LocalCredential(identity, "x", Role.BOTH, "k", b"p"),), "1", (5,)))
        writer.put_disclose("@.", [identity])
        writer.put_trust(TrustRecord(b"k", "x", blob=b"b"))
    with databases.read() as reader:
        return build_document(reader)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inner for place in _places(each, (*path, key)))]


@given(st.sampled_from(_places(_example())[1:]), _json)
def test_any_value_in_any_place_is_taken_or_refused(place: tuple[Any, ...], value: Any) -> None:
    document = _example()
    at = document
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = value
    with contextlib.suppress(DocumentError):
        parse_document(json.dumps(document))


@given(st.text(max_size=50) | _json.map(json.dumps))
def test_any_text_is_a_document_or_refused(text: str) -> None:
    with contextlib.suppress(DocumentError):
        parse_document(text)
