"""Does the machine decide as the published cases say, start only what can matter, and refuse what is no expression?"""

from __future__ import annotations

import contextlib
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlspool_core.interfaces import Verdict
from tlspool_core.policy.expression import InvalidExpression, check_expression, joined, parse_expression, values_of

CASES = json.loads((Path(__file__).parent / "validation-expressions.json").read_text())


def run(text: str, signals: str) -> str:
    """Feed signals one by one, as the cases mean them, and stop when the outcome is known."""
    expression = parse_expression(text)
    known: dict[str, bool] = {}
    value = True
    for signal in signals:
        if expression.outcome(known) is not None:
            break
        if signal == "~":
            value = not value
        else:
            known[signal] = value
    return "VALIDATED" if expression.outcome(known) else "FAILED"


def test_all_published_cases_are_there() -> None:
    assert len(CASES) == 300


@pytest.mark.parametrize("expression", sorted({case["expression"] for case in CASES}))
def test_published_cases(expression: str) -> None:
    for case in (case for case in CASES if case["expression"] == expression):
        assert run(expression, case["signals"]) == case["outcome"], case
        assert "".join(sorted(parse_expression(expression).pending({}))) == case["started"], case


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "1 to 500 characters"),
        ("&", "needs 2 operands before it, there are 0"),
        ("A&", "needs 2 operands before it, there are 1"),
        ("AB?", "needs 3 operands"),
        ("~", "needs 1 operands"),
        ("AB", "2 expressions stand side by side"),
        ("TI& ", "' ' at 4"),
        ("T I &", "' ' at 2"),
        ("T2&", "'2' at 2"),
        ("Ä", "neither a letter"),
        ("T\0", "neither a letter"),
        ("A" * 10_001, "not 10001"),
    ],
)
def test_what_is_no_expression_is_refused(text: str, problem: str) -> None:
    with pytest.raises(InvalidExpression) as caught:
        parse_expression(text)
    assert problem in str(caught.value)


def test_a_stored_expression_has_a_limit_and_may_be_empty() -> None:
    assert check_expression("") == ""
    assert check_expression("A" + "~" * 499)
    with pytest.raises(InvalidExpression):
        check_expression("A" + "~" * 500)


def test_joined_expressions_must_all_hold() -> None:
    assert joined([]).outcome({}) is True
    assert joined(["TI&"]).text == "TI&"
    assert joined(["TI&", "D", "FG|"]).text == "TI&D&FG|&"


def test_one_expression_cannot_complete_another() -> None:
    with pytest.raises(InvalidExpression):
        joined(["T", "1|", "F"])


def test_strict_implies_lenient() -> None:
    assert values_of("T", Verdict.STRICT) == {"T": True, "t": True}
    assert values_of("T", Verdict.LENIENT) == {"T": False, "t": True}
    assert values_of("T", Verdict.FALSE) == {"T": False, "t": False}


def test_a_known_condition_leaves_one_branch_pending() -> None:
    expression = parse_expression("ETi?")
    assert expression.pending({}) == {"E", "T", "i"}
    assert expression.pending({"i": True}) == {"T"}
    assert expression.pending({"i": False}) == {"E"}


@pytest.mark.parametrize(
    ("text", "known", "blamed"),
    [
        ("TI&", {"T": False}, {("T", True)}),
        ("TI&", {"T": True}, {("I", True)}),
        ("TRO|&", {"T": True, "R": False, "O": False}, {("R", True), ("O", True)}),
        ("TP~&", {"T": True, "P": True}, {("P", False)}),
        ("ETi?", {"i": True, "T": False}, {("T", True)}),
        ("ETi?", {"E": True, "T": False}, {("i", False)}),
        ("TI&", {"T": True, "I": True}, set()),
        ("0", {}, set()),
    ],
)
def test_blame_names_what_decided(text: str, known: dict[str, bool], blamed: set[tuple[str, bool]]) -> None:
    assert set(parse_expression(text).blame(known)) == blamed


_expressions = st.recursive(
    st.sampled_from("01ABCDE"),
    lambda inner: st.one_of(
        inner.map(lambda a: a + "~"),
        st.tuples(inner, inner, st.sampled_from("&|")).map("".join),
        st.tuples(inner, inner, inner).map(lambda parts: "".join(parts) + "?"),
    ),
    max_leaves=12,
)
_knowledge = st.dictionaries(st.sampled_from("ABCDE"), st.booleans())


@given(_expressions, _knowledge)
def test_what_is_decided_holds_whatever_else_becomes_known(text: str, known: dict[str, bool]) -> None:
    expression = parse_expression(text)
    outcome = expression.outcome(known)
    open_letters = sorted(expression.letters - known.keys())
    completions = [
        known | dict(zip(open_letters, values, strict=True))
        for values in itertools.product((True, False), repeat=len(open_letters))
    ]
    outcomes = {expression.outcome(full) for full in completions}
    assert None not in outcomes
    if outcome is not None:
        assert outcomes == {outcome}
        assert expression.pending(known) == frozenset()
    else:
        assert expression.pending(known) <= set(open_letters)
        assert expression.pending(known)


@given(_expressions, _knowledge)
def test_letters_that_are_not_pending_do_not_matter(text: str, known: dict[str, bool]) -> None:
    expression = parse_expression(text)
    pending = expression.pending(known)
    for letter in expression.letters - known.keys() - pending:
        assert expression.outcome({**known, letter: True}) == expression.outcome({**known, letter: False})


@given(_expressions, _knowledge)
def test_someone_is_to_blame_unless_it_holds(text: str, known: dict[str, bool]) -> None:
    expression = parse_expression(text)
    blamed = expression.blame(known)
    if expression.outcome(known):
        assert not blamed
    for letter, wanted in blamed:
        assert known.get(letter) is not wanted


@given(st.text(alphabet="01&|~?ABab", max_size=30))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidExpression):
        parse_expression(text).outcome({})


def test_a_long_expression_needs_no_deep_stack() -> None:
    text = "A" + "B&" * 4_000
    assert parse_expression(text).outcome({"A": True, "B": True}) is True
