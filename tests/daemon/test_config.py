"""Does the configuration say exactly what is wrong and where, and take everything else at its word?"""

from __future__ import annotations

from pathlib import Path

import pytest

from tlspool_core.pool.config import ConfigurationError, default_path, load_config, parse_config
from tlspool_core.tls.padding import POWERS, Padding

FULL = """
workers = 2
user = "tlspool"

[[socket]]
path = "/run/tlspool/a.sock"
group = "www-data"
mode = "0666"

[[socket]]
path = "/run/tlspool/b.sock"
mode = 0o600

[limits]
clients = 10
handshake_timeout = 2.5

[log]
format = "json"
level = "debug"

[plugins]
required = ["x509", "lmdb"]
disabled = ["srp"]
load = ["mymodule"]

[config]
backend = "lmdb"
path = "/var/lib/tlspool"

[keystore.pkcs11]
modules = ["/usr/lib/softhsm.so"]

[credential.x509]
system_store = true

[aaa]
authorization = ["radius"]

[aaa.radius]
servers = ["127.0.0.1"]

[tls]
versions = ["1.3"]
handshake_padding = 1024
record_padding = "powers"

[policy]
default = "TI&"

[service.http]
alpn = ["h2", "http/1.1"]

[tickets]
lifetime = 600

[symmetric]
wait = 0.5
extension = 0xff60
"""


def test_everything_arrives() -> None:
    config = parse_config(FULL, "full.toml")
    assert [(str(s.path), s.group, oct(s.mode)) for s in config.sockets] == [
        ("/run/tlspool/a.sock", "www-data", "0o666"),
        ("/run/tlspool/b.sock", "", "0o600"),
    ]
    assert (config.workers, config.user, config.limits.clients, config.limits.handshake_timeout) == (2, "tlspool", 10, 2.5)
    assert config.plugins.required == ("x509", "lmdb")
    assert config.config.backend == "lmdb"
    assert config.config.settings == {"path": "/var/lib/tlspool"}
    assert config.keystores == {"pkcs11": {"modules": ["/usr/lib/softhsm.so"]}}
    assert config.credentials == {"x509": {"system_store": True}}
    assert config.aaa.authorization == ("radius",)
    assert config.aaa.settings == {"radius": {"servers": ["127.0.0.1"]}}
    assert config.alpn("http") == ("h2", "http/1.1")
    assert config.alpn("imap") == ("imap",)
    assert config.alpn("ldap") == ()
    assert config.tickets.lifetime == 600
    assert (config.symmetric.wait, config.symmetric.extension) == (0.5, 0xFF60)
    assert config.tls.padding == Padding(1024, POWERS)
    assert parse_config("", "empty.toml").tls.padding == Padding(512, 0)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[limits]\n\nclient = 3\n", "x.toml:3: limits.client: unknown key; did you mean 'clients'?"),
        ("[limit]\n", "x.toml:1: limit: unknown key; did you mean 'limits'?"),
        ("[limits]\nclients = 0\n", "x.toml:2: limits.clients: must lie between 1"),
        ("[limits]\nclients = true\n", "x.toml:2: limits.clients: must be a whole number"),
        ("[limits]\nclients = '3'\n", "x.toml:2: limits.clients: must be a whole number"),
        ("[limits]\nhandshake_timeout = 601\n", "x.toml:2: limits.handshake_timeout: is larger than"),
        ("[log]\nformat = 'jsn'\n", "x.toml:2: log.format: 'jsn' is not possible; did you mean 'json'?"),
        ("[[socket]]\nowner = 'x'\n", "x.toml:1: socket[1].path: is missing"),
        ("[[socket]]\npath = 'here'\n", "x.toml:2: socket[1].path: must begin with /"),
        ("[[socket]]\npath='/a'\n[[socket]]\npath='/b'\nmode = 660\n", "x.toml:5: socket[2].mode: must be permission bits"),
        ("[[socket]]\npath='/a'\nmode = '0o660'\n", "x.toml:3: socket[1].mode: must be permission bits"),
        ("[[socket]]\npath='/a'\n[[socket]]\npath='/a'\n", "two sockets have the same path"),
        ("[socket]\npath = '/a'\n", "x.toml:1: socket: must be an array of tables, [[socket]]"),
        ("limits = 3\n", "x.toml:1: limits: must be a table, [limits]"),
        ("[plugins]\nrequired = ['a']\ndisabled = ['a']\n", "x.toml:3: plugins.disabled: 'a' is required, too"),
        ("[plugins]\nrequired = ['a', 'a']\n", "x.toml:2: plugins.required: names something twice"),
        ("[tls]\nversions = ['1.1']\n", "x.toml:2: tls.versions: '1.1' is not possible"),
        ("[tls]\nrecord_padding = 'power'\n", "x.toml:2: tls.record_padding: 'power' is neither a number nor one of powers"),
        ("[tls]\nrecord_padding = 16385\n", "x.toml:2: tls.record_padding: must lie between 0 and 16384"),
        ("[tls]\nversions = []\n", "x.toml:2: tls.versions: must name at least one"),
        ("[service.http]\nalpn = ['']\n", "x.toml:2: service.http.alpn: '' is no ALPN name"),
        ("[symmetric]\nwait = 11\n", "x.toml:2: symmetric.wait: must lie between 0.0 and 10.0"),
        ("[symmetric]\nextension = 43\n", "x.toml:2: symmetric.extension: must lie between 65280 and 65535"),
        ("[symmetric]\nextension = 0xff01\n", "x.toml:2: symmetric.extension: 0xff01 is renegotiation_info"),
        ("[tickets]\nlifetime = 604801\n", "x.toml:2: tickets.lifetime: must lie between 1 and 604800"),
        ("[aaa]\nauthorisation = []\n", "x.toml:2: aaa.authorisation: must be a table"),
        ("[onthefly]\nusers = [0]\n", "x.toml:2: onthefly.users: must be a list of texts"),
        ("[onthefly]\nusers = ['no-such-user']\n", "x.toml:2: onthefly.users: there is no user 'no-such-user'"),
        ("[onthefly]\ngroups = ['root', 'no-such']\n", "x.toml:2: onthefly.groups: there is no group 'no-such'"),
        ("[onthefly]\nusers = ['4294967295']\n", "x.toml:2: onthefly.users: 4294967295 is no user's number"),
        ("[onthefly]\nuids = []\n", "x.toml:2: onthefly.uids: unknown key"),
        ("[pin_desk]\nusers = ['no-such-user']\n", "x.toml:2: pin_desk.users: there is no user 'no-such-user'"),
        ("[limits\n", "x.toml: Expected"),
    ],
)
def test_a_mistake_is_named_with_line_and_key(text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_config(text, "x.toml")
    assert str(caught.value).startswith(complaint) or complaint in str(caught.value)


def test_without_a_file_the_pool_is_the_persons_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert default_path() is None
    config = load_config(None)
    assert [(s.path, s.mode) for s in config.sockets] == [(tmp_path / "run" / "tlspool" / "tlspool.sock", 0o600)]
    own = tmp_path / "config" / "tlspool" / "tlspool.toml"
    own.parent.mkdir(parents=True)
    own.write_text("[limits]\nclients = 7\n")
    assert default_path() == own
    assert load_config(own).limits.clients == 7


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        load_config(tmp_path / "binary.toml")


def test_credentials_on_the_fly_are_for_root_and_the_pools_user_and_whom_the_file_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 999)
    nobody_named = parse_config("").onthefly
    assert [uid for uid in (0, 1, 999, 1000, 65534) if nobody_named.permits(uid, {0, 999})] == [0, 999]
    named = parse_config("[onthefly]\nusers = ['daemon', '1000']\ngroups = ['4242']\n").onthefly
    assert [uid for uid in (0, 1, 999, 1000, 65534) if named.permits(uid, {uid})] == [0, 1, 999, 1000]
    assert named.permits(65534, {65534, 4242})


def test_sections_of_plugins_do_not_show_in_a_repr() -> None:
    config = parse_config("[aaa.radius]\nsecret = 'hush'\n[keystore.pkcs11]\npin = '1234'\n[config]\npassword = 'pst'\n")
    assert not {word for word in ("hush", "1234", "pst") if word in repr(config)}
