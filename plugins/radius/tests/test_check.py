"""Does `tlspool radius check` ask every server and show its answer, and are mistakes in the section named?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from freeradius import SECRET, FreeRadius, free_port, write_private
from tlspool_radius.commands import RadiusCommands
from tlspool_radius.settings import parse

from tlspool_core.api import ConfigBackend


class Context:
    """What `tlspool` hands to commands."""

    json = False

    def __init__(self, section: Mapping[str, Any]) -> None:
        self._section = section

    def settings(self, kind: str, name: str) -> Mapping[str, Any]:
        assert (kind, name) == ("aaa", "radius")
        return self._section

    def backend(self, *, readonly: bool = False) -> ConfigBackend:
        raise click.ClickException("not needed")


def run(section: Mapping[str, Any], *arguments: str) -> Result:
    return CliRunner().invoke(RadiusCommands().command(), ["check", *arguments], obj=Context(section))


@pytest.fixture
def section(server: FreeRadius, tmp_path: Path) -> dict[str, Any]:
    function = {"servers": ["near", "far"], "timeout": 1.0, "tries": 1}
    return {
        "queue": str(tmp_path / "queue"),
        "server": {"near": server.section(), "far": server.radsec_section()},
        "authorization": function,
        "accounting": function,
    }


def test_the_health_of_every_server_is_shown(section: dict[str, Any]) -> None:
    done = run(section)
    assert done.exit_code == 0, done.output
    assert [line.split()[:3] for line in done.output.splitlines()[:4]] == [
        ["ok", "authorization", "near"],
        ["ok", "authorization", "far"],
        ["ok", "accounting", "near"],
        ["ok", "accounting", "far"],
    ]
    assert "accounting records that wait to be delivered: 0" in done.output


def test_answers_for_a_peer_are_shown(section: dict[str, Any]) -> None:
    done = run(section, "--remoteid", "john@example.com", "--json")
    said = [server["said"] for server in json.loads(done.output)["servers"]]
    assert said == ["accepted, session limit 3600 s, idle limit 120 s"] * 2 + ["is well"] * 2
    refused = run(section, "--remoteid", "eve@example.com")
    assert refused.exit_code == 1
    assert refused.output.count("FAIL authorization") == 2 and "rejected: the library is closed to you" in refused.output


def test_a_server_that_is_silent_fails(section: dict[str, Any]) -> None:
    section["server"]["near"]["accounting_port"] = free_port()
    done = run(section)
    assert done.exit_code == 1
    assert "FAIL accounting     near" in done.output


def test_the_secret_is_in_no_message(section: dict[str, Any], server: FreeRadius) -> None:
    settings = parse(section)
    assert SECRET not in repr(settings) and "radsec'" not in repr(settings)


def test_a_secret_can_come_from_the_service_manager(
    section: dict[str, Any], server: FreeRadius, monkeypatch: pytest.MonkeyPatch
) -> None:
    del section["server"]["near"]["secret_file"]
    section["server"]["near"]["secret_credential"] = "secret"
    assert "LoadCredential" in run(section).output
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(server.home))
    assert run(section).exit_code == 0


MISTAKES = {
    "colour is not known here": {"colour": 1},
    "server must be a table": {"server": 1},
    "server.s.address is needed": {"server": {"s": {"secret_file": "SECRET"}}},
    "server.s.transport must be one of udp, tls": {"server": {"s": {"transport": "tcp"}}},
    "server.s.port must be a number": {"server": {"s": {"port": True}}},
    "server.s.secret_file or secret_credential is needed": {"server": {"s": {"address": "::1"}}},
    "server.s.secret_file /nowhere cannot be read": {"server": {"s": {"address": "::1", "secret_file": "/nowhere"}}},
    "server.s.ca_file and certificate_file are needed": {"server": {"s": {"address": "::1", "transport": "tls"}}},
    "server.s.ca_file is not known here": {"server": {"s": {"address": "::1", "secret_file": "SECRET", "ca_file": "x"}}},
    "authorization.servers names 'x', and there is no section server.x": {"authorization": {"servers": ["x"]}},
    "authorization.without_answer must be one of refuse, permit": {"authorization": {"without_answer": "ask"}},
    "accounting.without_answer is not known here": {"accounting": {"without_answer": "permit"}},
    "nas_identifier must not be empty": {"nas_identifier": ""},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_named(message: str, tmp_path: Path) -> None:
    write_private(tmp_path / "secret", b"long enough")
    section = json.loads(json.dumps(MISTAKES[message]).replace("SECRET", str(tmp_path / "secret")))
    with pytest.raises(ValueError) as caught:
        parse(section)
    assert message in str(caught.value)


def test_a_short_secret_is_refused(tmp_path: Path) -> None:
    write_private(tmp_path / "secret", b"1234567\n")
    with pytest.raises(ValueError, match="fewer than 8 bytes"):
        parse({"server": {"s": {"address": "::1", "secret_file": str(tmp_path / "secret")}}})


@pytest.mark.parametrize(("mode", "refused"), [(0o600, False), (0o640, False), (0o644, True), (0o660, True), (0o602, True)])
def test_secrets_and_keys_that_others_can_read_or_change_are_refused(
    server: FreeRadius, tmp_path: Path, mode: int, refused: bool
) -> None:
    (tmp_path / "file").write_bytes((server.home / "client.pem").read_bytes()[:1000])
    (tmp_path / "file").chmod(mode)
    for section in (server.section(secret_file=str(tmp_path / "file")), server.radsec_section(key_file=str(tmp_path / "file"))):
        if not refused:
            parse({"server": {"s": section}})
            continue
        with pytest.raises(
            ValueError, match=r"server\.s\.\w+_file .*file can be read or changed by others; remove that with: chmod"
        ):
            parse({"server": {"s": section}})
