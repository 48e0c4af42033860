"""Is an identity always in one form, and is it found under the selectors that cover it, concrete before abstract?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlspool_core.identity import DoNAI, InvalidIdentity, Selector


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.Com", "example.com"),
        ("localhost", "localhost"),
        ("John@Example.COM", "john@example.com"),
        ("john.doe+tag@mail.example.com", "john.doe+tag@mail.example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("JÜRGEN@example.com", "jürgen@example.com"),
        ("r3---sn-4g5e.example.com", "r3---sn-4g5e.example.com"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
        ("host/www@example.com", "host/www@example.com"),
    ],
)
def test_text_becomes_canonical(text: str, canonical: str) -> None:
    identity = DoNAI.parse(text)
    assert str(identity) == canonical
    assert DoNAI.parse(canonical) == identity


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "@example.com",
        "john@",
        ".",
        ".example.com",
        "john@.example.com",
        "example.com.",
        "exa mple.com",
        "example..com",
        "-a.example",
        "a-.example",
        "a_b.example",
        "*.example.com",
        "*@example.com",
        "jo*n@example.com",
        "john@doe@example.com",
        "john\0@example.com",
        "example.com\0",
        "example.com\n",
        "jo hn@example.com",
        "jo\u200bhn@example.com",
        "jo\u202ehn@example.com",
        "ｊohn@example.com",
        ".john@example.com",
        "john.@example.com",
        "jo..hn@example.com",
        "127.0.0.1",
        "john@10.0.0.1",
        "[::1]",
        "a" * 64 + ".example",
        ".".join(["a" * 49] * 6),
        "a." * 1000 + "example",
        "u" * 129 + "@example.com",
        "xn--a.example",
        "xn--zzzzzzzzz99999.example",
        "ex\u3002ample\u200d.com",
        "\ud800.example",
        "\ud800@example.com",
        "faß\u0000.example",
    ],
)
def test_what_is_no_identity_is_refused(text: str) -> None:
    with pytest.raises(InvalidIdentity):
        DoNAI.parse(text)


def test_the_constructor_refuses_what_is_not_canonical() -> None:
    for domain, user in (("Example.com", None), ("bücher.example", None), ("example.com", ""), ("example.com", "a@b")):
        with pytest.raises(InvalidIdentity):
            DoNAI(domain, user)


def test_case_of_users_counts_only_by_policy() -> None:
    assert DoNAI.parse("John@Example.com", user_case_counts=True) == DoNAI("example.com", "John")
    assert DoNAI.parse("John@Example.com") == DoNAI("example.com", "john")


def test_selectors_of_a_user() -> None:
    assert DoNAI.parse("john@mail.example.com").selectors() == (
        "john@mail.example.com",
        "john@.example.com",
        "john@.com",
        "john@.",
        "@mail.example.com",
        "@.example.com",
        "@.com",
        "@.",
    )


def test_selectors_of_a_domain() -> None:
    mail = DoNAI.parse("mail.example.com")
    assert mail.selectors() == ("mail.example.com", ".example.com", ".com", ".")
    assert mail.selectors(for_users=True) == ("@mail.example.com", "@.example.com", "@.com", "@.")


def test_the_two_hierarchies_do_not_mix() -> None:
    everybody, every_domain = Selector.parse("@."), Selector.parse(".")
    john, example = DoNAI.parse("john@example.com"), DoNAI.parse("example.com")
    assert everybody.covers(john) and not everybody.covers(example) and everybody.covers(example, for_users=True)
    assert every_domain.covers(example) and not every_domain.covers(john)
    assert not Selector.parse(".example.com").covers(example)


@pytest.mark.parametrize(
    "text", [".", "@.", "john@.", ".com", "@.com", "john@.example.com", "@example.com", "john@example.com", "com"]
)
def test_selectors_survive_their_text(text: str) -> None:
    assert str(Selector.parse(text)) == text


def test_selectors_become_canonical() -> None:
    assert str(Selector.parse("John@.BÜCHER.example")) == "john@.xn--bcher-kva.example"


@pytest.mark.parametrize(
    "text", ["", "..", "@", "*", "*.example.com", ".example.com.", "@..com", "john@@.", "jo hn@.", "1.2.3.4", "john@\0"]
)
def test_what_is_no_selector_is_refused(text: str) -> None:
    with pytest.raises(InvalidIdentity):
        Selector.parse(text)


_label = st.from_regex(r"[a-z]([a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
_domains = st.lists(_label, min_size=1, max_size=5).map(".".join)
_identities = st.builds(DoNAI, _domains, st.none() | st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,8})?", fullmatch=True))


@given(_identities)
def test_every_selector_of_an_identity_covers_it(identity: DoNAI) -> None:
    for text in identity.selectors():
        assert Selector.parse(text).covers(identity)
        assert str(Selector.parse(text)) == text


@given(st.text(max_size=40))
def test_any_text_is_an_identity_or_refused(text: str) -> None:
    for parse in (DoNAI.parse, Selector.parse):
        try:
            found = parse(text)
        except InvalidIdentity:
            continue
        assert parse(str(found)) == found
