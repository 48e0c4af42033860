"""Kerberos: a ticket says who somebody is, and its key goes into the keys of TLS 1.3."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from demo.setting import WEB, Setting
from demo.stage import DOMAIN, DemoFailed, Stage, free_port

TITLE = "Kerberos: lisa has no certificate but a ticket, and its key goes into the keys of TLS 1.3"
REALM = DOMAIN.upper()
LISA = f"lisa@{DOMAIN}"
REALM_FILES = {
    "krb5.conf": """
[libdefaults]
 default_realm = {realm}
 dns_lookup_kdc = false
 dns_lookup_realm = false
 dns_canonicalize_hostname = false
[realms]
 {realm} = {{
  kdc = 127.0.0.1:{port}
 }}
""",
    "kdc.conf": """
[realms]
 {realm} = {{
  kdc_listen = 127.0.0.1:{port}
  kdc_tcp_listen = 127.0.0.1:{port}
  database_name = {home}/principal
  key_stash_file = {home}/stash
 }}
[logging]
 kdc = FILE:{home}/kdc.log
""",
}
POOL = """
[[socket]]
path = "{home}/sock"

[credential.kerberos.realms]
"{realm}" = "{domain}"
"""


def play(setting: Setting) -> None:
    """Play the scene."""
    stage = setting.stage
    home = stage.home / "realm"
    home.mkdir(mode=0o700)
    inside = start_realm(stage, home)
    for identity, role, account in (
        (WEB, "server", {"keytab": f"FILE:{home}/web.keytab"}),
        (LISA, "client", {"principal": f"lisa@{REALM}", "keytab": f"FILE:{home}/lisa.keytab"}),
    ):
        stage.tlspool("localid", "add", identity, "--type", "kerberos", "--role", role, "-", stdin=json.dumps(account).encode())
    stage.start("pool of the realm", [*inside, "tlspool", "serve"])
    stage.wait_for("the pool of the realm answers", lambda: (home / "sock").exists())
    check = stage.command([*inside, "tlspool", "kdh", "check", "--service", "http", "--remote", WEB])
    stage.show(check)

    port = free_port()
    stage.start("realm", [*inside, sys.executable, "-m", "demo.web", str(port), WEB, "require"])
    stage.wait_port(port)
    request = f"GET / HTTP/1.0\r\nHost: {WEB}\r\n\r\n".encode()
    connect = [*inside, "tlspool", "connect", f"127.0.0.1:{port}", "--service", "http", "--localid", LISA, "--remoteid", WEB]
    answer = stage.command(connect, stdin=request)
    stage.show(answer)
    if f"Hello, {LISA}." not in answer:
        raise DemoFailed(f"lisa was not greeted:\n{answer}")
    for name in ("realm", "pool of the realm", "kdc"):
        stage.stop(name)


def start_realm(stage: Stage, home: Path) -> list[str]:
    """A KDC with two principals; returns what to put before commands that are to know it and the pool of the realm."""
    port = free_port()
    for name, text in REALM_FILES.items():
        (home / name).write_text(text.format(realm=REALM, port=port, home=home))
    configuration = home / "tlspool.toml"
    configuration.write_text(stage.config.read_text() + POOL.format(home=home, realm=REALM, domain=DOMAIN))
    kerberos = ["env", f"KRB5_CONFIG={home}/krb5.conf", f"KRB5_KDC_PROFILE={home}/kdc.conf"]
    stage.say(f"A KDC of MIT Kerberos serves the realm {REALM}; it knows lisa and the web server.")
    stage.command([*kerberos, "kdb5_util", "create", "-s", "-r", REALM, "-P", "demonstration"], quiet=True)
    for query in (
        f"addprinc -randkey http/{WEB}",
        "addprinc -randkey lisa",
        f"ktadd -k {home}/web.keytab http/{WEB}",
        f"ktadd -k {home}/lisa.keytab lisa",
    ):
        stage.command([*kerberos, "kadmin.local", "-r", REALM, "-q", query], quiet=True)
    stage.start("kdc", [*kerberos, "krb5kdc", "-n", "-r", REALM])
    stage.wait_for("the KDC serves", lambda: (home / "kdc.log").exists() and "commencing" in (home / "kdc.log").read_text())
    return [*kerberos, f"TLSPOOL_CONFIG={configuration}", f"TLSPOOL_SOCKET={home}/sock"]
