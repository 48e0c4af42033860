"""Does `tlspool radius check` ask every server and show its answer, and are mistakes in the section named?"""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, load_pem_private_key
from freeradius import SECRET, FreeRadius, free_port, write_private
from tlspool_radius.commands import RadiusCommands
from tlspool_radius.ledger import Ledger
from tlspool_radius.radsec import client_context
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


def test_the_queue_is_shown_or_that_there_is_none(section: dict[str, Any], tmp_path: Path) -> None:
    """A pool that the service manager started has its state elsewhere than a person who asks."""
    assert f"no accounting queue at {tmp_path / 'queue'}; if the pool has one elsewhere" in run(section).output

    async def fill() -> None:
        ledger = Ledger(tmp_path / "queue", 10)
        await ledger.open()
        await ledger.add("r", 0, [(1, b"x")])
        await ledger.close()

    asyncio.run(fill())
    assert f"accounting records that wait to be delivered: 1, the oldest for 0 s ({tmp_path / 'queue'})" in run(section).output
    assert json.loads(run(section, "--json").output)["queue"].items() >= {"path": str(tmp_path / "queue"), "records": 1}.items()


def test_a_queue_that_may_not_be_seen_is_an_error_in_words(
    section: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **more: object) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refuse)
    done = run(section)
    assert done.exit_code == 1 and "queue cannot be read: [Errno 13] Permission denied" in done.output


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
    "authorization.limit must be more than the 12 seconds (timeout, tries times) for the first server": {
        "server": {name: {"address": "::1", "secret_file": "SECRET"} for name in ("one", "two")},
        "authorization": {"servers": ["one", "two"], "timeout": 4, "tries": 3},
    },
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_named(message: str, tmp_path: Path) -> None:
    write_private(tmp_path / "secret", b"long enough")
    section = json.loads(json.dumps(MISTAKES[message]).replace("SECRET", str(tmp_path / "secret")))
    with pytest.raises(ValueError) as caught:
        parse(section)
    assert message in str(caught.value)


def test_the_command_says_where_a_mistake_is(section: dict[str, Any]) -> None:
    assert "[aaa.radius]: queue_limit must be a number" in run(section | {"queue_limit": 0}).output
    assert "an identity is user@domain or domain" in run(section, "--remoteid", "john@").output
    assert "queue" not in run(section | {"accounting": {}}).output


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


def test_secrets_that_belong_to_others_are_refused(server: FreeRadius, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their owner could change them at any time."""
    real = os.fstat
    theirs = lambda number: os.stat_result((*real(number)[:4], 4711, *real(number)[5:]))  # noqa: E731
    monkeypatch.setattr(os, "fstat", theirs)
    with pytest.raises(ValueError, match=r"server\.s\.secret_file .*secret belongs to user 4711, who can change it"):
        parse({"server": {"s": server.section()}})
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    parse({"server": {"s": server.section()}})


def test_a_key_that_is_encrypted_is_refused_and_nobody_asked(server: FreeRadius, tmp_path: Path) -> None:
    """OpenSSL asks at the terminal by itself, and a daemon would wait there."""
    key = load_pem_private_key((server.home / "client.pem").read_bytes(), None)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    write_private(tmp_path / "key", encrypted)
    settings = parse({"server": {"s": server.radsec_section(key_file=str(tmp_path / "key"))}, "accounting": {"servers": ["s"]}})
    with pytest.raises(ValueError, match=r"server\.s: the files for TLS cannot be used: the key is encrypted"):
        client_context(settings.accounting.servers[0])


@pytest.mark.parametrize("name", [".example.com", "radius..example.com", "x" * 64 + ".example.com"])
def test_a_name_that_no_certificate_can_have_is_refused_at_start(server: FreeRadius, name: str) -> None:
    settings = parse({"server": {"s": server.radsec_section(server_name=name)}, "accounting": {"servers": ["s"]}})
    with pytest.raises(ValueError, match=r"server\.s\.server_name: .* cannot be in a certificate"):
        client_context(settings.accounting.servers[0])
