"""Kerberos: a ticket says who somebody is, and its key goes into the keys of TLS 1.3."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from demo.setting import WEB, Setting
from demo.stage import DOMAIN, DemoFailed, Stage, free_port

TITLE = "Kerberos: lisa has no certificate but a ticket, and its key goes into the keys of TLS 1.3"
REALM = DOMAIN.upper()
LISA, BART = f"lisa@{DOMAIN}", f"bart@{DOMAIN}"
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
        (LISA, "client", {"keytab": f"FILE:{home}/users.keytab"}),
        (BART, "server", {"keytab": f"FILE:{home}/users.keytab"}),
    ):
        stage.tlspool("localid", "add", identity, "--type", "kerberos", "--role", role, "-", stdin=json.dumps(account).encode())
    stage.start("pool of the realm", [*inside, "tlspool", "serve"])
    stage.wait_for("the pool of the realm answers", lambda: (home / "sock").exists())
    check = stage.command([*inside, "tlspool", "kdh", "check", "--service", "http", "--remote", WEB])
    stage.show(check)

    greet(stage, inside, "realm", WEB)
    stage.say("bart serves as well, and has no key that lasts: the KDC makes a ticket that his own ticket opens.")
    greet(stage, inside, "bart", BART)
    for name in ("realm", "bart", "pool of the realm", "kdc"):
        stage.stop(name)


def greet(stage: Stage, inside: list[str], name: str, server: str) -> None:
    """A server, and lisa who asks it for a page."""
    port = free_port()
    stage.start(name, [*inside, sys.executable, "-m", "demo.web", str(port), server, "require"])
    stage.wait_port(port)
    request = f"GET / HTTP/1.0\r\nHost: {DOMAIN}\r\n\r\n".encode()
    connect = [*inside, "tlspool", "connect", f"127.0.0.1:{port}", "--service", "http", "--localid", LISA, "--remoteid", server]
    answer = stage.command(connect, stdin=request)
    stage.show(answer)
    if f"Hello, {LISA}." not in answer:
        raise DemoFailed(f"lisa was not greeted by {server}:\n{answer}")


def start_realm(stage: Stage, home: Path) -> list[str]:
    """A KDC with three principals; returns what to put before commands that are to know it and the pool of the realm."""
    port = free_port()
    for name, text in REALM_FILES.items():
        (home / name).write_text(text.format(realm=REALM, port=port, home=home))
    configuration = home / "tlspool.toml"
    configuration.write_text(stage.config.read_text() + POOL.format(home=home, realm=REALM, domain=DOMAIN))
    kerberos = ["env", f"KRB5_CONFIG={home}/krb5.conf", f"KRB5_KDC_PROFILE={home}/kdc.conf"]
    stage.say(f"A KDC of MIT Kerberos serves the realm {REALM}; it knows lisa, bart and the web server.")
    stage.command([*kerberos, "kdb5_util", "create", "-s", "-r", REALM, "-P", "demonstration"], quiet=True)
    for query in (
        f"addprinc -randkey http/{WEB}",
        "addprinc -randkey lisa",
        "addprinc -randkey bart",
        f"ktadd -k {home}/web.keytab http/{WEB}",
        f"ktadd -k {home}/users.keytab lisa bart",
    ):
        stage.command([*kerberos, "kadmin.local", "-r", REALM, "-q", query], quiet=True)
    stage.start("kdc", [*kerberos, "krb5kdc", "-n", "-r", REALM])
    stage.wait_for("the KDC serves", lambda: (home / "kdc.log").exists() and "commencing" in (home / "kdc.log").read_text())
    return [*kerberos, f"TLSPOOL_CONFIG={configuration}", f"TLSPOOL_SOCKET={home}/sock"]
