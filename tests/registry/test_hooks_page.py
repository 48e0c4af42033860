"""Does the reference of hooks say of every hook what it must, with the signature that the code has, and name a plugin that uses it?"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from tlspool_core import hookspecs
from tlspool_core.interfaces import API_VERSION
from tlspool_core.policy.predicates import MEANINGS, PredicateTable
from tlspool_core.registry.catalogue import OWN_LETTERS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/reference/hooks.md").read_text()
HOOKS = sorted(name for name in dir(hookspecs) if name.startswith("tlspool_"))


def section(hook: str) -> str:
    found = re.search(rf"^## {hook}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, f"the page has no section on {hook}"
    return found[1]


def test_the_page_has_exactly_the_hooks_that_there_are() -> None:
    assert sorted(re.findall(r"^## (tlspool_\w+)$", PAGE, re.MULTILINE)) == HOOKS


@pytest.mark.parametrize("hook", HOOKS)
def test_the_signature_is_that_of_the_code(hook: str) -> None:
    signature = f"def {hook}{inspect.signature(getattr(hookspecs, hook))}".replace("'", "")  # annotations are texts there
    assert f"```python\n{signature}\n```" in section(hook)


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("word", ["Object", "Called", "Exceptions", "Example", "Real plugin", "Since"])
def test_every_section_says_what_authors_need(hook: str, word: str) -> None:
    assert f"- **{word}**:" in section(hook)


@pytest.mark.parametrize("hook", HOOKS)
def test_the_plugin_that_is_named_uses_the_hook(hook: str) -> None:
    users = {path.parents[2].name for path in ROOT.glob("plugins/*/src/*/plugin.py") if f"def {hook}(" in path.read_text()}
    named = re.search(r"\*\*Real plugin\*\*: (?:`plugins/(\w+)`|none here)", section(hook))
    assert named is not None
    assert named[1] in users if named[1] else not users


def test_every_hook_has_a_docstring_with_its_age() -> None:
    for hook in HOOKS:
        assert "Since API" in (inspect.getdoc(getattr(hookspecs, hook)) or "")
    assert f"TLSPOOL_API = {API_VERSION}" in PAGE


def test_the_letters_that_are_the_pools_own_are_the_same_everywhere() -> None:
    table = PredicateTable({}, {})
    assert {letter for letter in MEANINGS if table.own(letter) is not None} == OWN_LETTERS
    assert "The letters L I F A S C U Q are the pool's own." in PAGE
