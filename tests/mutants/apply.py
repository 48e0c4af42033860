"""Runs tests against the project with one known bug put in: `python -m tests.mutants.apply` reads the names of bugs, one a line.

Theory of operation
-------------------
A mutant replaces a piece of one module's source by another while that module is imported; nothing is written to disk.  The exit
status is that of pytest, so 1 says that the tests noticed.  A piece that is no longer in the module, or is there twice, raises
while the tests are collected, which has another status: the code has moved on, and the mutant has to follow.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from typing import Any

# plugins of pytest that were imported before it could rewrite their asserts: there are none in them that matter
EARLY = ("-W", "ignore::pytest.PytestAssertRewriteWarning")


@dataclass(frozen=True)
class Mutant:
    """A known bug: in which module, what becomes what, and the tests that must notice."""

    name: str
    module: str
    old: str
    new: str
    tests: tuple[str, ...]


def changed(mutant: Mutant, source: str) -> str:
    """The module's source with the bug. Raises ValueError if the piece is not there exactly once."""
    if source.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: {mutant.module} has the piece {source.count(mutant.old)} times")
    return source.replace(mutant.old, mutant.new)


def put_in(mutant: Mutant) -> None:
    """From here on, imports of the module get the bug. The module must not have been imported before."""
    assert mutant.module not in sys.modules
    original = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, fullname: str) -> Any:
        if fullname != mutant.module:
            return original(loader, fullname)
        source = loader.get_source(fullname)
        assert source is not None
        return compile(changed(mutant, source), loader.path, "exec", dont_inherit=True)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign]


def run(mutant: Mutant) -> int:
    """Run the mutant's tests with it; their exit status."""
    import pytest

    put_in(mutant)
    return int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "--no-header", *EARLY, *mutant.tests]))


def serve() -> None:
    """Run mutants by the names that come in, each in a child of its own: what is imported here is imported once for all."""
    import anyio.pytest_plugin
    import cryptography.hazmat.primitives.serialization.pkcs12
    import cryptography.x509
    import hypothesis.strategies
    import pytest

    from tests.mutants.known import CONTROLS, MUTANTS

    assert anyio.pytest_plugin and cryptography.x509 and hypothesis.strategies and pytest
    by_name = {mutant.name: mutant for mutant in (*CONTROLS, *MUTANTS)}
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os.dup2(2, 1)
            os._exit(run(by_name[line.strip()]))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
