"""Do the units say what the program understands, and does a pool that is started their way serve?"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.tools.conftest import ROOT
from tlspool_core.cli.root import tlspool
from tlspool_core.client import Pool
from tlspool_core.pool.config import parse_config

PACKAGING = ROOT / "packaging"
UNITS = sorted((PACKAGING / "systemd").iterdir())
SERVE = (
    "import os, sys; os.dup2(int(sys.argv.pop(1)), 3); os.environ['LISTEN_PID'] = str(os.getpid());"
    "from tlspool_core.cli import main; main()"
)


def settings(unit: Path) -> dict[str, str]:
    """The keys of a unit, whose names are in one section each."""
    pairs = re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.M)
    return dict(pairs)


@pytest.mark.parametrize("unit", [unit for unit in UNITS if unit.suffix == ".service"], ids=lambda unit: unit.name)
def test_what_is_started_is_a_command_with_these_options(unit: Path) -> None:
    program, *words = settings(unit)["ExecStart"].split()
    assert Path(program).name == "tlspool"
    shown = CliRunner().invoke(tlspool, [words[0], "--help"])
    assert shown.exit_code == 0
    assert all(word in shown.stdout for word in words if word.startswith("--") and word != "--config")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd, which knows its keys, is not installed")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    for unit in UNITS:
        text = re.sub(r"^(Exec\w+=)\S+", rf"\1{sys.executable}", unit.read_text(), flags=re.M)
        (tmp_path / unit.name.replace("@.", "@x.")).write_text(text)
    paths = [str(path) for path in tmp_path.iterdir() if "user" not in path.name]
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *paths], capture_output=True, text=True, check=False)
    assert "tlspool" not in done.stderr


@contextmanager
def activated(tmp_path: Path, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The pool as tlspool.service starts it, in directories of the test's."""
    unit = settings(PACKAGING / "systemd" / "tlspool.service")
    made = {f"/etc/{unit['ConfigurationDirectory']}": tmp_path / "etc", f"/run/{unit['RuntimeDirectory']}": tmp_path / "run"}
    made[f"/var/lib/{unit['StateDirectory']}"] = tmp_path / "state"
    for directory in made.values():
        directory.mkdir()

    def here(text: str) -> str:
        for theirs, ours in made.items():
            text = text.replace(theirs, str(ours))
        return text

    text = (PACKAGING / "tlspool.toml").read_text()
    mine = here(re.sub(r"^group = .*\n", "", text, flags=re.M))  # the account may not be there
    (tmp_path / "etc" / "tlspool.toml").write_text(mine)
    notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notified.bind(str(tmp_path / "notify"))
    notified.settimeout(30)
    environment = {"LISTEN_FDS": "1", "NOTIFY_SOCKET": str(tmp_path / "notify"), "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"}
    environment["PATH"] = os.environ["PATH"]
    words = here(unit["ExecStart"]).split()[1:]
    with notified, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        command = [sys.executable, "-c", SERVE, str(listening.fileno()), *words]
        process = subprocess.Popen(command, pass_fds=[listening.fileno()], env=environment)
        try:
            assert b"READY=1" in notified.recv(1000)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0


def test_a_pool_started_by_its_unit_serves(tmp_path: Path) -> None:
    path = tmp_path / "tlspool.sock"
    with activated(tmp_path, path), Pool(path) as pool:
        pool.ping()
        shown = subprocess.run(
            [
                sys.executable,
                "-c",
                "from tlspool_core.cli import main; main()",
                "--config",
                str(tmp_path / "etc/tlspool.toml"),
                "status",
            ],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert "sessions" in shown.stdout
        assert (tmp_path / "state" / "db").exists()


def test_the_sample_configuration_is_good_with_its_suggestions(tmp_path: Path) -> None:
    text = (PACKAGING / "tlspool.toml").read_text()
    suggested = re.sub(r"^# (?=\[\[|path|name)", "", text, flags=re.M)
    assert parse_config(suggested).keystores["pkcs11"]["modules"][0]["name"] == "soft"


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_shells_complete(tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "tlspool").write_text(f'#!/bin/sh\nexec {sys.executable} -c "from tlspool_core.cli import main; main()" "$@"\n')
    (tmp_path / "tlspool").chmod(0o755)
    script = {
        "bash": 'eval "$(tlspool completion bash)"; COMP_WORDS=(tlspool tunnel --starttls im); COMP_CWORD=3;'
        '_tlspool_completion tlspool; echo "${COMPREPLY[@]}"',
        "fish": 'tlspool completion fish | source; complete -C "tlspool tunnel --starttls im"',
    }[shell]
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    done = subprocess.run([shell, "-c", script], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["imap"]
