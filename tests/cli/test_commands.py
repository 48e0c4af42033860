"""Is the program usable: help, plugins' commands, explain, completion and manual pages, and errors in one line?"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tlspool_core.cli.root import COMMANDS, tlspool
from tlspool_core.identity import DoNAI, Selector
from tlspool_core.interfaces import LocalIdentity, TrustRecord
from tlspool_core.policy.demands import remote_key
from tlspool_core.testing.memory import MemoryBackend

Run = Callable[..., Result]


def test_help_shows_how_to_begin_and_all_commands(run: Run) -> None:
    text = run("--help").stdout
    assert "tlspool trust add" in text
    for name in (*COMMANDS, "hello"):
        assert f"\n  {name} " in text


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(run: Run, name: str) -> None:
    assert "Usage: tlspool" in run(name, "--help").stdout


def test_the_commands_of_plugins_get_the_context(run: Run) -> None:
    result = run("--json", "hello")
    assert result.stdout == "json True, {}\n"
    assert "command broken of plugin tlspool_cli_test cannot be used: RuntimeError: not today" in result.stderr


def test_an_unknown_command_is_refused(run: Run) -> None:
    run("nonsense", fails="No such command 'nonsense'")


def test_plugins_lists_what_is_offered_and_what_fails(run: Run, tmp_path: Path) -> None:
    text = run("plugins").stdout
    assert "config backend memory" in text
    assert "predicate T for paper" in text
    config = tmp_path / "tlspool.toml"
    config.write_text(config.read_text().replace('"tlspool_cli_test"', '"tlspool_cli_test", "no_such_module"'))
    run("plugins", fails="it raised ModuleNotFoundError")
    assert (
        "Traceback" in CliRunner().invoke(tlspool, ["plugins", "--trace"]).stdout.partition("no_such_module (no_such_module):")[2]
    )
    states = {plugin["name"]: plugin["state"] for plugin in json.loads(CliRunner().invoke(tlspool, ["plugins", "--json"]).stdout)}
    assert states["tlspool_cli_test"] == "loaded"
    assert states["no_such_module"] == "failed"


def test_version(run: Run) -> None:
    assert "tlspool-core " in run("version").stdout
    assert json.loads(run("version", "--json").stdout)["plugin API"] == "1"


def test_a_wrong_configuration_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "tlspool.toml").write_text("[plugins]\nlaod = []\n")
    run("localid", "list", fails="tlspool.toml:2: plugins.laod: unknown key; did you mean 'load'?")
    assert "commands of plugins are not shown" in run("--help").stderr
    run("--config", str(tmp_path / "none.toml"), "localid", "list", fails="none.toml: No such file")


# --- explain ------------------------------------------------------------------------------------------------------------------

WWW = DoNAI.parse("www.example.com")


def test_explain_shows_the_default(run: Run) -> None:
    text = run("explain", "www.example.com", ".").stdout
    assert "we are      www.example.com, the server  (not in the databases!)" in text
    assert "demanded    TI&\n" in text
    assert "TI&         the default" in text
    assert "paper: plugin tlspool_cli_test" in text


def test_explain_shows_every_origin_and_who_answers(run: Run, databases: MemoryBackend) -> None:
    with databases.write() as writer:
        writer.put_localid(LocalIdentity(WWW, expression="TU&"))
        writer.put_trust(TrustRecord(remote_key(Selector.parse("@.")), "", expression="D"))
        writer.put_trust(TrustRecord(b"\x01", "paper", expression="R"))
    found = json.loads(run("explain", "www.example.com", "john@example.net", "--service", "smtp", "--json").stdout)
    assert found["expression"] == "TU&TF&&D&I&"
    assert [(demand["expression"], demand["origin"]) for demand in found["demands"]] == [
        ("TU&", "local identity www.example.com"),
        ("TF&", "service smtp"),
        ("D", "remote selector @."),
        ("I", "the application, which asked for john@example.net"),
    ]
    assert [demand["origin"] for demand in found["possible"]] == ["trust record 01 (paper)"]
    assert {line["letter"]: line["answers"] for line in found["predicates"]}["F"] == [["", "the pool"]]
    assert found["never"] == ["D", "R"]


def test_explain_shows_what_a_client_discloses(run: Run, databases: MemoryBackend) -> None:
    with databases.write() as writer:
        writer.put_disclose(".com", [DoNAI.parse("john@example.org")])
    text = run("explain", "john@example.org", "www.example.com").stdout
    assert "john@example.org, the client" in text
    assert "it may see  john@example.org  (by the disclosure to .com)" in text
    assert "nothing is disclosed to it otherwise" in run("explain", "john@example.org", "www.example.net").stdout


def test_explain_follows_the_application(run: Run) -> None:
    assert "demanded    1\n" in run("explain", "www.example.com", ".", "--remote-identity", "ignored").stdout


# --- completion and manual pages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(run: Run, shell: str) -> None:
    script = run("completion", shell).stdout
    assert "_TLSPOOL_COMPLETE" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script.encode(), check=True)


def test_completion_works() -> None:
    environment = {"_TLSPOOL_COMPLETE": "bash_complete", "COMP_WORDS": "tlspool loc", "COMP_CWORD": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", "from tlspool_core.cli import main; main()"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["plain,localid"]


def test_every_command_has_a_manual_page(run: Run, tmp_path: Path) -> None:
    run("man", "--output", str(tmp_path / "man"))
    pages = {path.name: path.read_text() for path in (tmp_path / "man").iterdir()}
    assert {f"tlspool-{name}.1" for name in (*COMMANDS, "hello", "localid-add")} <= pages.keys()
    for name, text in pages.items():
        assert ".SH NAME" in text, name
        assert ".SH OPTIONS" in text, name
        assert run("man", *name.removesuffix(".1").split("-")[1:]).stdout == text
    run("man", "nonsense", fails="there is no command 'nonsense'")


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff, which would complain of faults in the pages, is not installed")
def test_manual_pages_are_good_roff(run: Run) -> None:
    text = run("man", "localid", "add").stdout
    done = subprocess.run(["groff", "-man", "-Tascii", "-ww"], input=text.encode(), capture_output=True, check=True)
    assert done.stderr == b""


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc, the other program that shows manual pages, is not installed")
def test_mandoc_has_no_complaint(run: Run, tmp_path: Path) -> None:
    run("man", "--output", str(tmp_path / "man"))
    pages = sorted(str(path) for path in (tmp_path / "man").iterdir())
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", *pages], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""


def test_the_command_line_starts_without_loading_plugins() -> None:
    code = "import sys, tlspool_core.cli.root as r; from click.testing import CliRunner as C; C().invoke(r.tlspool, ['disclose', '--help']); "
    code += "print(any(name.startswith('tlspool_x509') for name in sys.modules), 'tlspool_core.pool.daemon' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
