"""Do the pool's own predicates say of a session what the language means by their letters?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import PeerContext, Role
from tlspool_core.policy.levels import SecurityLevel
from tlspool_core.policy.predicates import MEANINGS, PredicateTable, meaning
from tlspool_core.testing.policy import FACTS, Kind
from tlspool_core.tls.questions import HandshakeFacts


def values(context: PeerContext, letter: str, kind: Kind | None = None) -> tuple[bool, bool]:
    own = PredicateTable({}, {"toy": kind or Kind()}).own(letter)
    assert own is not None
    found = own(context)
    assert found.reason or found.values[letter]
    return found.values[letter], found.values[letter.lower()]


STRICT, LENIENT, FALSE = (True, True), (False, True), (False, False)


@pytest.mark.parametrize(
    ("letter", "facts", "expected"),
    [
        ("F", FACTS, STRICT),
        ("F", replace(FACTS, forward_secret=False, key_exchange="PSK"), FALSE),
        ("A", FACTS, LENIENT),
        ("A", replace(FACTS, server_name=None), STRICT),
        ("A", replace(FACTS, version=0x0303, server_name=None), FALSE),
        ("A", replace(FACTS, server_name=None, key_exchange="KDH"), FALSE),
        ("Q", FACTS, FALSE),
        ("Q", replace(FACTS, quantum_safe_exchange=True), (True, False)),
        ("Q", replace(FACTS, quantum_safe_authentication=True), LENIENT),
        ("Q", replace(FACTS, quantum_safe_exchange=True, quantum_safe_authentication=True), STRICT),
    ],
)
def test_facts(context: PeerContext, letter: str, facts: HandshakeFacts, expected: tuple[bool, bool]) -> None:
    assert values(replace(context, facts=facts), letter) == expected


@pytest.mark.parametrize(
    ("role", "own", "s", "c"),
    [
        ("server", Role.SERVER, STRICT, FALSE),
        ("server", Role.BOTH, LENIENT, FALSE),
        ("server", None, LENIENT, FALSE),
        ("client", Role.CLIENT, FALSE, STRICT),
        ("client", Role.BOTH, FALSE, LENIENT),
        ("client", None, FALSE, LENIENT),
    ],
)
def test_roles(context: PeerContext, role: str, own: Role | None, s: tuple[bool, bool], c: tuple[bool, bool]) -> None:
    context = replace(context, facts=replace(FACTS, role=role), own_roles=own)
    assert (values(context, "S"), values(context, "C")) == (s, c)


@pytest.mark.parametrize(
    ("wanted", "proven", "identity", "user"),
    [
        ("example.com", ["example.com"], STRICT, FALSE),
        ("example.com", ["other.example", "example.com"], STRICT, FALSE),
        ("example.com", ["www.example.com"], FALSE, FALSE),
        ("example.com", ["john@example.com"], FALSE, FALSE),
        ("john@example.com", ["john@example.com"], STRICT, STRICT),
        ("john@example.com", ["example.com"], LENIENT, FALSE),
        ("john@example.com", ["mary@example.com"], FALSE, FALSE),
        ("john@mail.example.com", ["example.com"], FALSE, FALSE),
        (None, ["john@example.com"], STRICT, STRICT),
        (None, ["example.com"], STRICT, FALSE),
        (None, [], FALSE, FALSE),
        ("example.com", [], FALSE, FALSE),
    ],
)
def test_identities(
    context: PeerContext, wanted: str | None, proven: list[str], identity: tuple[bool, bool], user: tuple[bool, bool]
) -> None:
    context = replace(
        context, wanted=DoNAI.parse(wanted) if wanted else None, identities=tuple(DoNAI.parse(text) for text in proven)
    )
    assert (values(context, "I"), values(context, "U")) == (identity, user)


@pytest.mark.parametrize(
    ("changes", "bits", "expected"),
    [
        ({}, 128, STRICT),
        ({}, 112, LENIENT),
        ({}, 80, FALSE),
        ({}, None, FALSE),
        ({"peer_signature_scheme": 0x0203}, 256, FALSE),
        ({"group": 0x0100}, 256, FALSE),
        ({"group": 0, "key_exchange": "SRP"}, 128, STRICT),
        ({"cipher_suite_name": "TLS_SRP_SHA_WITH_AES_128_CBC_SHA"}, 128, LENIENT),
        ({"cipher_suite_name": "TLS_RSA_WITH_RC4_128_SHA"}, 128, FALSE),
        ({"cipher_suite_name": "TLS_CHACHA20_POLY1305_SHA256"}, 128, STRICT),
        ({"group": 0x11EC, "peer_signature_scheme": 0x0905}, 192, STRICT),
    ],
)
def test_levels(context: PeerContext, changes: dict[str, object], bits: int | None, expected: tuple[bool, bool]) -> None:
    facts = replace(FACTS, **changes)  # type: ignore[arg-type]
    assert values(replace(context, facts=facts), "L", Kind(bits=bits)) == expected


@pytest.mark.parametrize(
    ("strict", "lenient", "expected"),
    [
        (SecurityLevel(128, aead=True, suites=frozenset({"TLS_AES_128_GCM_SHA256"})), SecurityLevel(112, aead=False), STRICT),
        (SecurityLevel(128, aead=True, suites=frozenset({"TLS_AES_256_GCM_SHA384"})), SecurityLevel(112, aead=False), LENIENT),
        (SecurityLevel(192, aead=True), SecurityLevel(128, aead=False), LENIENT),
        (SecurityLevel(256, aead=True), SecurityLevel(192, aead=False), FALSE),
        (SecurityLevel(112, aead=True), SecurityLevel(192, aead=False), FALSE),
    ],
)
def test_levels_are_the_local_policys(
    context: PeerContext, strict: SecurityLevel, lenient: SecurityLevel, expected: tuple[bool, bool]
) -> None:
    own = PredicateTable({}, {"toy": Kind(bits=256)}, strict=strict, lenient=lenient).own("L")
    assert own is not None
    assert (own(context).values["L"], own(context).values["l"]) == expected


def test_a_peer_that_showed_nothing_has_no_key_to_rate(context: PeerContext) -> None:
    assert values(replace(context, peer=None, credential_type=""), "L", Kind(bits=None)) == STRICT


def test_every_letter_of_the_language_has_a_meaning() -> None:
    assert set(MEANINGS) == set("LIFATDREOGPUSCQ")
    assert meaning("t") == "a correct self-signature is enough"
    assert meaning("X") == "a predicate of a plugin"
