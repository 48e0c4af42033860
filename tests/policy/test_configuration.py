"""Does the configuration's [policy] arrive, and is a policy refused that would be weaker than it looks?"""

from __future__ import annotations

import pytest

from tlspool_core.policy.levels import LENIENT, STRICT, SecurityLevel
from tlspool_core.pool.config import ConfigurationError, parse_config


def test_without_a_word_the_defaults_apply() -> None:
    policy = parse_config("").policy
    assert (policy.default, policy.strict, policy.lenient, policy.user_case_counts) == ("TI&", STRICT, LENIENT, False)


def test_levels_are_configured() -> None:
    policy = parse_config(
        '[policy.strict]\nbits = 192\ncipher_suites = ["TLS_AES_256_GCM_SHA384"]\n[policy.lenient]\nbits = 128\n'
    ).policy
    assert policy.strict == SecurityLevel(192, aead=True, suites=frozenset({"TLS_AES_256_GCM_SHA384"}))
    assert policy.lenient == SecurityLevel(128, aead=False)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[policy]\ndefault = ""', "policy.default: is empty"),
        ('[policy]\ndefault = "T&"', "policy.default: 'T&'"),
        ("[policy.strict]\nbits = 100", "policy.strict: demands 100 bits, less than the 112 of lenient"),
        ("[policy.strict]\nbits = 1000", "policy.strict.bits: must lie between 80 and 256"),
        ("[policy.strict]\nbit = 128", "policy.strict.bit: unknown key; did you mean 'bits'?"),
        ('[service.http]\nexpression = "X Y"', "service.http.expression"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_config(text)
    assert problem in str(caught.value)
