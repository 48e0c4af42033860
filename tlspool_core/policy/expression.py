"""Validation expressions: postfix logic over predicates that become known one by one.

Theory of operation
-------------------
An expression is parsed once into a row of nodes in postfix order, in which every node's operands stand before it.  Three-valued logic
(true, false, not yet known) then needs no recursion: one pass from left to right gives the value of each node, one from right to
left says which nodes can still change the outcome.  So predicates are started only while they matter, and evaluation stops as soon as
the outcome is known.  If it is not known in the end, it counts as false: what cannot be established is not believed.

The value of a letter is given for exactly that letter: that a strict (upper-case) finding implies the lenient one is known to whoever
establishes it, see `values_of`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from tlspool_core.interfaces import Verdict

__all__ = ["Expression", "InvalidExpression", "joined", "parse_expression", "values_of"]

MAX_LENGTH = 500  # characters of one expression; those that people write have ten
MAX_JOINED = 20 * MAX_LENGTH
_OPERANDS = {"0": 0, "1": 0, "~": 1, "&": 2, "|": 2, "?": 3}

Known = Mapping[str, bool]


class InvalidExpression(ValueError):
    """The text is no validation expression; says where and why."""


@dataclass(frozen=True, slots=True)
class _Node:
    """A letter, a constant or an operator, with the indices of its operands."""

    symbol: str
    operands: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression. Made by `parse_expression`; immutable, so that sessions share it."""

    text: str
    nodes: tuple[_Node, ...]
    letters: frozenset[str]  # all predicates that are mentioned

    def outcome(self, known: Known) -> bool | None:
        """What follows from the values of the letters that are known; None: not decided."""
        return self._values(known)[-1]

    def pending(self, known: Known) -> frozenset[str]:
        """The unknown letters on which the outcome may still depend; none once it is decided."""
        values = self._values(known)
        live = [False] * len(self.nodes)
        live[-1] = values[-1] is None
        for index in reversed(range(len(self.nodes))):
            if live[index]:
                for operand in self._relevant(self.nodes[index], values):
                    live[operand] = values[operand] is None
        return frozenset(node.symbol for node, alive in zip(self.nodes, live, strict=True) if alive and node.symbol.isalpha())

    def blame(self, known: Known) -> tuple[tuple[str, bool], ...]:
        """The letters because of which the outcome is not true, each with the value that it should have had."""
        values = self._values(known)
        wanted: dict[int, bool] = {} if values[-1] else {len(self.nodes) - 1: True}
        found: dict[tuple[str, bool], None] = {}
        for index in reversed(range(len(self.nodes))):
            if index not in wanted:
                continue
            node = self.nodes[index]
            if node.symbol.isalpha():
                found[node.symbol, wanted[index]] = None
            wanted.update(self._blamed(node, wanted[index], values))
        return tuple(reversed(found))

    # --- one node

    def _values(self, known: Known) -> list[bool | None]:
        values: list[bool | None] = []
        for node in self.nodes:
            values.append(
                known.get(node.symbol) if node.symbol.isalpha() else _apply(node.symbol, [values[i] for i in node.operands])
            )
        return values

    def _relevant(self, node: _Node, values: list[bool | None]) -> Iterable[int]:
        """Operands that an undecided node depends on."""
        if node.symbol != "?":
            return node.operands
        other, then, condition = node.operands
        # a constant condition is a slip of the pen: both branches are looked at, as the original does
        if values[condition] is None or self.nodes[condition].symbol in "01":
            return node.operands
        return (then,) if values[condition] else (other,)

    def _blamed(self, node: _Node, wanted: bool, values: list[bool | None]) -> dict[int, bool]:
        """Operands that keep a node from having the wanted value, each with the value that it should have had."""
        if node.symbol == "~":
            return {node.operands[0]: not wanted}
        if node.symbol in "&|":
            missing = [operand for operand in node.operands if values[operand] is not wanted]
            certain = [operand for operand in missing if values[operand] is not None]
            return dict.fromkeys(certain or missing, wanted)
        if node.symbol == "?":
            other, then, condition = node.operands
            if values[condition] is None:
                return {condition: values[then] is wanted or values[other] is not wanted}
            return {then if values[condition] else other: wanted}
        return {}


def _apply(symbol: str, operands: list[bool | None]) -> bool | None:
    """Kleene's logic: an operator has a value as soon as no unknown operand could change it."""
    if symbol in "01":
        return symbol == "1"
    if symbol == "~":
        return None if operands[0] is None else not operands[0]
    if symbol == "?":
        other, then, condition = operands
        if condition is None:
            return then if then is other else None
        return then if condition else other
    deciding = symbol == "|"
    if deciding in operands:
        return deciding
    return None if None in operands else not deciding


@lru_cache(maxsize=1024)
def parse_expression(text: str) -> Expression:
    """Parse, strictly. Raises InvalidExpression. Letters are not compared with what is installed: that changes."""
    if not 1 <= len(text) <= MAX_JOINED:
        raise InvalidExpression(f"an expression has 1 to {MAX_LENGTH} characters, not {len(text)}")
    nodes: list[_Node] = []
    stack: list[int] = []
    for position, symbol in enumerate(text, 1):
        if not (symbol.isascii() and symbol.isalpha()) and symbol not in _OPERANDS:
            raise InvalidExpression(f"{text!r}: {symbol!r} at {position} is neither a letter, 0 or 1, nor one of & | ~ ?")
        count = _OPERANDS.get(symbol, 0)
        if len(stack) < count:
            raise InvalidExpression(f"{text!r}: {symbol!r} at {position} needs {count} operands before it, there are {len(stack)}")
        operands = tuple(stack[len(stack) - count :])
        del stack[len(stack) - count :]
        stack.append(len(nodes))
        nodes.append(_Node(symbol, operands))
    if len(stack) != 1:
        raise InvalidExpression(f"{text!r}: {len(stack)} expressions stand side by side; join them with & or |")
    return Expression(text, tuple(nodes), frozenset(node.symbol for node in nodes if node.symbol.isalpha()))


def check_expression(text: str) -> str:
    """The text, if it is an expression that may be stored ("" for none). Raises InvalidExpression."""
    if len(text) > MAX_LENGTH:
        raise InvalidExpression(f"an expression has up to {MAX_LENGTH} characters, not {len(text)}")
    if text:
        parse_expression(text)
    return text


def joined(expressions: Iterable[str]) -> Expression:
    """All of the expressions must hold; without any, nothing is demanded. Raises InvalidExpression."""
    text = ""
    for expression in expressions:
        parse_expression(expression)  # apart, so that one cannot complete the other
        text = f"{text}{expression}&" if text else expression
    return parse_expression(text or "1")


def values_of(letter: str, verdict: Verdict) -> dict[str, bool]:
    """What a finding says of both forms of a predicate: strict implies lenient."""
    return {letter.upper(): verdict is Verdict.STRICT, letter.lower(): verdict is not Verdict.FALSE}
