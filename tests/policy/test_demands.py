"""Are exactly those expressions demanded that apply, and can keys of the trust database be written and read by people?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlspool_core.identity import DoNAI, Selector
from tlspool_core.interfaces import LocalIdentity, Role, TrustRecord
from tlspool_core.policy.demands import Demand, RemoteIdentity, Setting, collect, combined, parse_key, remote_key, spell_key
from tlspool_core.policy.disclosure import disclosed, may_disclose
from tlspool_core.testing.memory import MemoryBackend

JOHN, WWW, MARY = (DoNAI.parse(text) for text in ("john@example.org", "www.example.com", "mary@example.com"))


def setting(**changes: object) -> Setting:
    values: dict[str, object] = {
        "local": JOHN,
        "remote": WWW,
        "wanted": None,
        "mode": RemoteIdentity.REQUIRED,
        "peer_role": Role.SERVER,
        "credential_type": "toy",
    }
    return Setting(**(values | changes))  # type: ignore[arg-type]


def expressions(databases: MemoryBackend, **changes: object) -> list[str]:
    with databases.read() as reader:
        return [demand.expression for demand in collect(reader, setting(**changes))]


def test_the_default_applies_only_without_anything_configured(databases: MemoryBackend) -> None:
    assert expressions(databases) == ["TI&"]
    with databases.write() as writer:
        writer.put_localid(LocalIdentity(JOHN, expression="P"))
    assert expressions(databases) == ["P"]
    assert expressions(databases, local=None) == ["TI&"]


@pytest.mark.parametrize(
    ("mode", "shown", "expected"),
    [
        (RemoteIdentity.REQUIRED, True, ["TI&", "I"]),
        (RemoteIdentity.REQUIRED, False, ["TI&", "I"]),
        (RemoteIdentity.REQUESTED, True, ["TI&", "I"]),
        (RemoteIdentity.REQUESTED, False, []),
        (RemoteIdentity.IGNORED, True, []),
        (RemoteIdentity.IGNORED, False, []),
    ],
)
def test_what_the_application_cares_for(databases: MemoryBackend, mode: RemoteIdentity, shown: bool, expected: list[str]) -> None:
    assert expressions(databases, mode=mode, wanted=WWW, credential_type="toy" if shown else "") == expected


def test_a_lenient_identity_in_any_expression_is_the_administrators_word(databases: MemoryBackend) -> None:
    assert expressions(databases, wanted=MARY, service="x", service_expression="Ti&") == ["Ti&", "i"]
    assert expressions(databases, wanted=MARY, service="x", service_expression="T") == ["T", "I"]


def test_the_most_concrete_selector_with_an_expression_wins(databases: MemoryBackend) -> None:
    with databases.write() as writer:
        for selector, expression in ((".", "A"), (".com", "D"), (".example.com", ""), ("@.", "P"), ("mary@example.com", "G")):
            writer.put_trust(TrustRecord(remote_key(Selector.parse(selector)), "", expression=expression))

    def rule(text: str) -> list[str]:
        remote = DoNAI.parse(text)
        return expressions(databases, remote=remote, wanted=remote)

    assert rule("www.example.com") == ["D", "I"]
    assert rule("www.example.org") == ["A", "I"]
    assert rule("mary@example.com") == ["G", "I"]
    assert rule("john@example.org") == ["P", "I"]
    assert expressions(databases, remote=None) == ["TI&"]


def test_a_rule_for_a_remote_that_only_claims_to_be_it_takes_no_demand_away(databases: MemoryBackend) -> None:
    with databases.write() as writer:
        writer.put_trust(TrustRecord(remote_key(Selector.parse("mary@example.com")), "", expression="1"))
    assert expressions(databases, remote=MARY, wanted=None) == ["TI&", "1"]
    assert expressions(databases, remote=MARY, wanted=MARY) == ["1", "I"]


def test_trust_records_apply_by_type_and_role_beside_the_default(databases: MemoryBackend) -> None:
    with databases.write() as writer:
        writer.put_trust(TrustRecord(b"one", "toy", Role.SERVER, expression="R"))
        writer.put_trust(TrustRecord(b"one", "other", Role.BOTH, expression="D"))
        writer.put_trust(TrustRecord(b"two", "toy", Role.CLIENT, expression="G"))
    assert expressions(databases, trust_keys=(b"one", b"two", b"one", b"none")) == ["TI&", "R"]
    assert expressions(databases, trust_keys=(b"one", b"two"), peer_role=Role.CLIENT) == ["TI&", "G"]
    assert expressions(databases, trust_keys=(b"one",), service="x", service_expression="P") == ["P", "R"]


def test_equal_demands_are_evaluated_once() -> None:
    assert combined([Demand("I", "a"), Demand("T", "b"), Demand("I", "c")]).text == "IT&"
    assert combined([]).text == "1"


@given(st.binary(min_size=1, max_size=40) | st.from_regex(rb"[a-z]{1,8}:[!-~]{1,20}", fullmatch=True))
def test_keys_survive_their_text(key: bytes) -> None:
    assert parse_key(spell_key(key)) == key


def test_keys_as_people_write_them() -> None:
    assert parse_key("AB:cd:01") == parse_key("abcd01") == b"\xab\xcd\x01"
    assert spell_key(b"remote:@.example.com") == "remote:@.example.com"
    for text in ("", "abc", "Remote:x", "remote:", "remote:with space", "remote:é", "xyz"):
        with pytest.raises(ValueError, match="no key of the trust database"):
            parse_key(text)


def test_the_most_concrete_selector_decides_what_is_disclosed(databases: MemoryBackend) -> None:
    work, home = DoNAI.parse("john@work.example"), DoNAI.parse("john@home.example")
    with databases.write() as writer:
        writer.put_disclose(".", [home])
        writer.put_disclose(".example.com", [work, home])
        writer.put_disclose("secret.example.com", [])
        writer.put_disclose("@example.com", [work])
    with databases.read() as reader:
        assert disclosed(reader, WWW) == (".example.com", (work, home))
        assert disclosed(reader, DoNAI.parse("example.org")) == (".", (home,))
        assert disclosed(reader, DoNAI.parse("secret.example.com")) == ("secret.example.com", ())
        assert disclosed(reader, MARY) == ("@example.com", (work,))
        assert disclosed(reader, DoNAI.parse("mary@example.org")) is None
        assert disclosed(reader, DoNAI.parse("example.com"), for_users=True) == ("@example.com", (work,))
        assert may_disclose(reader, WWW, home)
        assert not may_disclose(reader, DoNAI.parse("secret.example.com"), home)
        assert not may_disclose(reader, DoNAI.parse("mary@example.org"), home)
