"""Does whoever makes a mistake at a command learn what it was, and what to do about it?"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.tools.conftest import DaemonProcess
from tlspool_core.cli.root import tlspool
from tlspool_core.cli.status import lines


def said(*arguments: str, home: Path) -> tuple[int, str]:
    """Status and all that a command prints, of a person who has nothing yet."""
    environment = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "XDG_CONFIG_HOME": "", "TLSPOOL_SOCKET": str(home / "no.sock")}
    done = CliRunner().invoke(tlspool, arguments, env=environment)
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ping",), "Start it with `tlspool serve`"),
        (("status",), "Start one with `tlspool serve`"),
        (("proxy",), 'A first one is two lines: [[destination]] and match = ["www.example.com"]'),
        (("run", "--lisen", "127.0.0.1:7777", "cat"), "--lisen"),
        (("run", "--listen", "127.0.0.1:0", "no-such-program"), "there is no program 'no-such-program'"),
        (("run", "--connect", "nohost.invalid:7", "cat"), "nohost.invalid: "),
        (("tunnel", "--client", "--listen", "127.0.0.1:0", "--connect", "127.0.0.1:7"), "--remoteid is needed"),
        (
            ("tunnel", "--peer", "--starttls", "imap", "--listen", "127.0.0.1:0", "--connect", "127.0.0.1:7"),
            "--peer does not go with",
        ),
        (("connect", "www.example.com"), "is not HOST:PORT"),
    ],
)
def test_a_mistake_is_explained(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    status, text = said(*arguments, home=tmp_path)
    assert status and words in text, text
    assert "Traceback" not in text and "Errno" not in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[config]\nbackend = "lmbd"\n', "config.backend: 'lmbd' is not installed; did you mean 'lmdb'?"),
        ('[plugins]\nrequired = ["nothing"]\n', "nothing is not installed"),
        ("[credential.x509]\nisuing_key = 'x'\n", "isuing_key"),
        ("[keystore.pkcs12]\nx = 1\n", "keystore: 'pkcs12' is not installed"),
        ('[tls]\ngroups = ["X25518"]\n', "tls.groups: 'X25518' is not known"),
    ],
)
def test_a_check_finds_what_would_keep_the_pool_from_starting(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "tlspool.toml"
    file.write_text(text)
    status, said_text = said("serve", "--check", "--config", str(file), home=tmp_path)
    assert status and words in said_text, said_text
    file.write_text("")
    assert said("serve", "--check", "--config", str(file), home=tmp_path) == (0, f"{file}: the configuration is good\n")


def test_advice_is_given_once(tmp_path: Path) -> None:
    assert said("ping", home=tmp_path)[1].count("\n") == 1


def test_nobody_listens_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    status, text = said("run", "--connect", f"127.0.0.1:{port}", "cat", home=tmp_path)
    assert (status, text) == (1, f"Error: 127.0.0.1:{port}: Connection refused\n")


def test_for_programs(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path)
    try:
        daemon.pool.ping()
        done = [
            subprocess.run(
                [sys.executable, "-c", "from tlspool_core.cli import main; main()", *arguments],
                env=os.environ | {"TLSPOOL_SOCKET": str(daemon.path)}, capture_output=True, text=True, check=True, timeout=30,
            )
            for arguments in (("ping", "--json"), ("--json", "ping"))
        ]  # fmt: skip
    finally:
        daemon.stop()
    assert done[0].stdout == done[1].stdout
    assert json.loads(done[0].stdout)["facilities"] & 1


def test_what_a_key_store_tells_is_for_persons() -> None:
    told = {
        "modules": [
            {"name": "soft", "state": "up", "last_error": "", "restarts": 0, "tokens": ["pool", "machine"]},
            {"name": "card", "state": "down", "last_error": "no reader", "restarts": 3, "tokens": []},
        ],
        "complaints": [],
        "next_try_in": 2.5,
    }
    assert list(lines(told)) == [
        "modules: name soft; state up; tokens pool, machine",
        "modules: name card; state down; last error no reader; restarts 3",
        "next try in: 2.5",
    ]
