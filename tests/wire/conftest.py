"""Hypothesis strategies for messages and packets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st

from tlspool_core.secret import Secret
from tlspool_core.wire.codec import LAYOUTS
from tlspool_core.wire.fields import Hidden, Number, Optional64, Raw, Text
from tlspool_core.wire.messages import MAX_INFO, MAX_PRNG, MAX_PRNG_INPUT, Info, Packet, Prng, PrngOutput

_BITS = {"I": 32, "H": 16, "B": 8}


def _value(entry: Number | Optional64 | Text | Raw | Hidden) -> st.SearchStrategy[Any]:
    match entry:
        case Number(letter="i"):
            return st.integers(-(2**31), 2**31 - 1)
        case Number(letter=letter, flags=flags):
            numbers = st.integers(0, 2 ** _BITS[letter] - 1)
            return numbers if flags is None else numbers.map(flags)
        case Optional64():
            return st.none() | st.integers(0, 2**64 - 2)
        case Raw(size=size):
            return st.binary(min_size=size, max_size=size)
        case Text(size=size, full=full):
            characters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
            return st.text(characters, max_size=size).filter(lambda text: len(text.encode()) <= size - (not full))
        case Hidden(size=size):
            characters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
            octets = st.text(characters, min_size=1, max_size=size).map(str.encode).filter(lambda raw: len(raw) < size)
            return st.none() | octets.map(Secret.of)


def _prng(ctlkey: bytes, inputs: bytes, cut: int | None, length: int) -> Prng:
    cut = None if cut is None else min(cut, len(inputs))
    return Prng(ctlkey, inputs[:cut], None if cut is None else inputs[cut:], length)


KEYS = st.binary(min_size=16, max_size=16)
PRNG = st.builds(
    _prng, KEYS, st.binary(max_size=MAX_PRNG_INPUT), st.none() | st.integers(0, MAX_PRNG_INPUT), st.integers(1, MAX_PRNG)
)
INFO = st.builds(Info, KEYS, st.integers(0, 2**32 - 1), st.none() | st.binary(max_size=MAX_INFO))
PLAIN = st.one_of([st.builds(kind, **{entry.name: _value(entry) for entry in fields}) for kind, fields in LAYOUTS.items()])
NUMBERS = st.integers(0, 0xFFFF)
REQUESTS = st.builds(Packet, NUMBERS, NUMBERS, PLAIN | PRNG | INFO)
ANSWERS = st.builds(Packet, NUMBERS, NUMBERS, PLAIN | st.builds(PrngOutput, st.binary(max_size=MAX_PRNG)) | INFO)


@pytest.fixture(scope="session")
def packets() -> tuple[st.SearchStrategy[Packet], st.SearchStrategy[Packet]]:
    """Strategies for packets to the pool, and from it."""
    return REQUESTS, ANSWERS
