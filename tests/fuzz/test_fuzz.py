"""Does every parser, whatever it is given, come to a value or to the error that it declares, and to nothing else?

A fixed number of variants for each target, without a fuzzer; `make fuzz` looks further, guided by coverage.
"""

from __future__ import annotations

import warnings

import pytest
from cryptography.utils import CryptographyDeprecationWarning

from tests.fuzz import dialogues, engine, files, kerberos, parsers, plugins, proxy
from tests.fuzz.target import CORPUS, Target

VARIANTS = 5000  # of the cheapest targets; a costly one has fewer
TARGETS: tuple[Target, ...] = tuple(
    target for module in (parsers, plugins, kerberos, files, dialogues, proxy, engine) for target in module.TARGETS
)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_value_or_the_declared_error(target: Target) -> None:
    with warnings.catch_warnings():
        # what other libraries will refuse one day is not what is asked here, and a warning is no outcome of a parser
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        for data in target.variants(VARIANTS // target.cost):
            try:
                target.run(data)
            except Exception as fault:
                fault.add_note(f"input: {data.hex()}")
                raise


def test_the_corpus_belongs_to_targets() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= {target.name for target in TARGETS}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_seeds_are_there_and_small(target: Target) -> None:
    inputs = target.inputs()
    assert inputs and all(len(data) < 16384 for data in inputs)
