"""Does the plugin of the quick start work as the page says: installed by pip from outside the tree, listed, tested, used?"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tlspool_core.cli.skeleton import FILES, make_skeleton
from tlspool_core.testing.keys import public_der

PAGE = Path(__file__).resolve().parents[2] / "docs" / "quickstart-plugin-author.md"


def code_of(name: str) -> str:
    """The code block that follows the first mention of a file."""
    found = re.search(rf"`{re.escape(name)}`.*?```\w+\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None, f"the page has no {name}"
    return found[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin, installed by pip into a directory of its own."""
    source, target = tmp_path_factory.mktemp("namedkey"), tmp_path_factory.mktemp("site")
    for name in ("pyproject.toml", "tlspool_namedkey.py", "test_namedkey.py"):
        (source / name).write_text(code_of(name))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, timeout=100)
    (target / "test_namedkey.py").write_text(code_of("test_namedkey.py"))
    return target


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program, in an environment that has the plugin, with databases of the test's own."""
    installed = sorted({point.name for point in entry_points(group="tlspool")} - {"lmdb"})
    (site / "tlspool.toml").write_text(f'[plugins]\ndisabled = {json.dumps(installed)}\n[config]\npath = "{site}/db"\n')
    environment = {**os.environ, "PYTHONPATH": str(site), "TLSPOOL_CONFIG": str(site / "tlspool.toml")}
    program = [sys.executable, "-c", "from tlspool_core.cli import main; main()"]
    return subprocess.run([*program, *arguments], env=environment, capture_output=True, text=True, check=False)


def test_the_module_keeps_its_promise_of_length() -> None:
    code = [line for line in code_of("tlspool_namedkey.py").splitlines() if line.strip()]
    assert len(code) <= 70


def test_it_is_listed_as_the_page_shows(site: Path) -> None:
    listed = run(site, "plugins").stdout
    assert re.search(r"namedkey +1\.0 +loaded +credential type namedkey, predicate T for namedkey\n", listed), listed
    assert re.search(r"namedkey +1\.0 +loaded +credential type namedkey, predicate T for namedkey\n", PAGE.read_text())


def test_it_passes_the_tests_of_every_credential_type(site: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "test_namedkey.py"],
        cwd=site,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_it_is_used_by_the_commands_on_the_page(site: Path) -> None:
    if "lmdb" not in {point.name for point in entry_points(group="tlspool")}:
        pytest.skip("needs a config backend that keeps its content: plugins/lmdb is not installed")
    for name in ("john", "mary"):
        public = public_der(ec.generate_private_key(ec.SECP256R1()))
        (site / f"{name}.key").write_bytes(f"{name}@example.com".encode() + b"\0" + public)
    add = ("localid", "add", "john@example.com", "--type", "namedkey", "--key", "pkcs11:object=john", str(site / "john.key"))
    assert run(site, *add).returncode == 0
    assert run(site, "trust", "add", "--type", "namedkey", "--pin", str(site / "mary.key")).returncode == 0
    explained = json.loads(run(site, "explain", "john@example.com", "mary@example.com", "--json").stdout)
    assert explained["expression"] == "TI&I&"
    assert {line["letter"]: line["answers"] for line in explained["predicates"]}["T"] == [["namedkey", "plugin namedkey"]]
    wrong = run(site, "trust", "add", "--type", "namedkey", str(site / "tlspool.toml"))
    assert wrong.returncode != 0
    assert "Traceback" not in wrong.stderr


# --- the same to start from -----------------------------------------------------------------------------------------------------------


def test_what_the_program_writes_is_what_the_page_has() -> None:
    files = list(FILES.iterdir())
    assert len(files) == 3
    for file in files:
        assert file.read_text() == code_of(file.name.removesuffix(".txt"))


def test_a_plugin_of_another_name_works(site: Path, tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-c", "from tlspool_core.cli import main; main()", "plugins", "--new", "acmecard"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PAGE.parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stdout.split() == [
        f"tlspool-acmecard/{name}" for name in ("pyproject.toml", "test_acmecard.py", "tlspool_acmecard.py")
    ]
    source, target = tmp_path / "tlspool-acmecard", tmp_path / "target"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, timeout=100)
    assert "credential type acmecard, predicate T for acmecard" in run(target, "plugins").stdout
    (target / "test_acmecard.py").write_text((source / "test_acmecard.py").read_text())
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "test_acmecard.py"]
    done = subprocess.run(tests, cwd=target, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["", "Acme", "acme-card", "../acme", "1acme", "a" * 32])
def test_names_that_are_none(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no name for a plugin"):
        make_skeleton(name, tmp_path / "made")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["core", "x509"])
def test_names_of_what_is_installed_are_taken(name: str, tmp_path: Path) -> None:
    """To install the new plugin would remove the pool itself."""
    with pytest.raises(ValueError, match="is installed already"):
        make_skeleton(name, tmp_path / "made")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["pinned", "verdict"])
def test_names_of_what_the_plugin_uses_are_taken(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="for something else"):
        make_skeleton(name, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    with pytest.raises(FileExistsError):
        make_skeleton("acme", tmp_path / "made")
