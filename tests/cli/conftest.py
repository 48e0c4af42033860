"""The command line with databases in memory and one credential type of a test's own, without any installed plugin."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tlspool_core.cli.root import tlspool
from tlspool_core.testing.memory import MemoryBackend

PLUGIN = '''
import click
from tlspool_core.api import CredentialType, Finding, Predicate, TrustRecord, Verdict, hookimpl
from tlspool_core.testing.memory import MemoryBackend

BACKEND = MemoryBackend()

class Chain(Predicate):
    letter = "T"
    def establish(self, context):
        return Finding(Verdict.STRICT)

class Paper(CredentialType):
    """Public parts are texts that begin with "paper "; those that begin with "bad" make the plugin fail."""
    name = "paper"
    async def load(self, local, find_key):
        return None
    def predicates(self):
        return [Chain()]
    def import_local(self, data):
        if not data.startswith(b"paper "):
            raise ValueError("this is no paper")
        return data.strip()
    def import_trust(self, data, *, pinned):
        paper = self.import_local(data)
        return [TrustRecord(line, self.name, pinned=pinned, blob=paper) for line in paper.split()[1:]]
    def summarize(self, public):
        if b"bad" in public:
            raise RuntimeError("cannot read")
        return "paper \\x1b[31m" + public.decode()[6:]

class Wordless(CredentialType):
    """A type without public parts."""
    name = "wordless"
    async def load(self, local, find_key):
        return None

class Hello:
    name = "hello"
    def command(self):
        @click.command("hello")
        @click.pass_obj
        def hello(context):
            """Say hello."""
            click.echo(f"json {context.json}, {context.settings('keystore', 'none')}")
        return hello

class Broken:
    name = "broken"
    def command(self):
        raise RuntimeError("not today")

@hookimpl
def tlspool_register_config_backends():
    return [BACKEND]

@hookimpl
def tlspool_register_credential_types():
    return [Paper(), Wordless()]

@hookimpl
def tlspool_register_cli_commands():
    return [Hello(), Broken()]
'''

Run = Callable[..., Result]


@pytest.fixture
def databases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryBackend]:
    """The databases that the commands use."""
    (tmp_path / "tlspool_cli_test.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    installed = sorted({point.name for point in entry_points(group="tlspool")})
    (tmp_path / "tlspool.toml").write_text(
        f'[plugins]\nload = ["tlspool_cli_test"]\ndisabled = {json.dumps(installed)}\n[service.smtp]\nexpression = "TF&"\n'
    )
    monkeypatch.setenv("TLSPOOL_CONFIG", str(tmp_path / "tlspool.toml"))
    import tlspool_cli_test  # type: ignore[import-not-found]

    yield tlspool_cli_test.BACKEND
    del sys.modules["tlspool_cli_test"]


@pytest.fixture
def run(databases: MemoryBackend) -> Run:
    """`run("localid", "list")` must succeed; `run(..., fails="words")` must fail with these words."""

    def run(*arguments: str, fails: str = "", stdin: Any = None) -> Result:
        result = CliRunner().invoke(tlspool, list(arguments), input=stdin, prog_name="tlspool")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        if fails:
            assert result.exit_code != 0
            assert fails in result.output
            assert "Traceback" not in result.output
        else:
            assert result.exit_code == 0, result.output
        return result

    return run
