"""RADIUS: the site's own rules on top of what the pool proved, and accounting."""

from __future__ import annotations

import secrets
import sys

from demo.scenes.passwords import MARY
from demo.setting import JOHN, WEB, Setting
from demo.stage import DOMAIN, DemoFailed, Stage, free_port

TITLE = "RADIUS: the club admits john for an hour, mary not at all, and writes down who was there"

SERVER = """
prefix = /usr
libdir = /usr/lib/freeradius
name = demo
logdir = {home}
run_dir = {home}
pidfile = {home}/pid
log {{ destination = stdout }}
security {{ status_server = yes
 reject_delay = 0 }}
client pool {{ ipaddr = 127.0.0.1
 secret = "{secret}"
 require_message_authenticator = yes }}
modules {{
 linelog register {{ filename = {home}/register
  format = "%{{Acct-Status-Type}} %{{User-Name}} at %{{Called-Station-Id}} for %{{%{{Acct-Session-Time}}:-0}} s, \
in %{{%{{Acct-Input-Octets}}:-0}}, out %{{%{{Acct-Output-Octets}}:-0}} octets" }}
}}
server default {{
 listen {{ type = auth
  ipaddr = 127.0.0.1
  port = {port} }}
 listen {{ type = acct
  ipaddr = 127.0.0.1
  port = {accounting_port} }}
 authorize {{
  update control {{ Auth-Type := Reject }}
  update reply {{ Message-Authenticator := 0x00 }}
  if (&User-Name == "{john}") {{
   update control {{ Auth-Type := Accept }}
   update reply {{ Session-Timeout := 3600 }}
  }}
  else {{
   update reply {{ Reply-Message := "members only" }}
  }}
 }}
 accounting {{
  register
 }}
}}
"""

POOL = """
[[socket]]
path = "{socket}"

[aaa]
authorization = ["radius"]
accounting = ["radius"]
account_sessions = true

[aaa.radius]
queue = "{home}/queue"
authorization = {{ servers = ["club"] }}
accounting = {{ servers = ["club"] }}

[aaa.radius.server.club]
address = "127.0.0.1"
port = {port}
accounting_port = {accounting_port}
secret_file = "{home}/secret"
"""


def play(setting: Setting) -> None:
    """Play the scene."""
    stage = setting.stage
    start_server_and_pool(stage)
    with_config = ["env", f"TLSPOOL_CONFIG={stage.home}/club.toml"]
    stage.show(stage.command([*with_config, "tlspool", "radius", "check", "--remoteid", JOHN]))

    port = free_port()
    stage.start(
        "club", ["env", f"TLSPOOL_SOCKET={stage.home}/club/sock", sys.executable, "-m", "demo.web", str(port), WEB, "require"]
    )
    stage.wait_port(port)
    request = f"GET / HTTP/1.0\r\nHost: {WEB}\r\n\r\n".encode()
    answer = stage.tlspool("connect", f"127.0.0.1:{port}", "--localid", JOHN, "--remoteid", WEB, stdin=request)
    stage.show(answer)
    if f"Hello, {JOHN}." not in answer:
        raise DemoFailed(f"john was not greeted:\n{answer}")
    (stage.home / "mary.password").write_text("correct horse battery staple\n")
    stage.say("Mary knows her password, so the pool knows that it is her; the club has rules of its own:")
    stage.tlspool("connect", f"127.0.0.1:{port}", "--localid", MARY, "--remoteid", WEB, stdin=request, ok=False)
    stage.wait_for("the refusal is told", lambda: "members only" in stage.tail("club"))
    stage.show(next(line for line in stage.tail("club").splitlines() if "members only" in line))

    register = stage.home / "club" / "register"
    stage.wait_for("the visit is written down", lambda: register.exists() and "Stop" in register.read_text())
    stage.say("What FreeRADIUS was told of the visit:")
    stage.show(register.read_text())
    for name in ("club", "pool of the club", "freeradius"):
        stage.stop(name)


def start_server_and_pool(stage: Stage) -> None:
    """FreeRADIUS, and a second pool over the same databases whose configuration asks it."""
    home = stage.home / "club"
    home.mkdir(mode=0o700)
    secret = secrets.token_hex(16)
    (home / "secret").touch(mode=0o600)
    (home / "secret").write_text(secret)
    ports = {"port": free_port(), "accounting_port": free_port()}
    (home / "radiusd.conf").write_text(SERVER.format(home=home, secret=secret, john=JOHN, **ports))
    (home / "dictionary").touch()
    log = stage.start("freeradius", ["/usr/sbin/freeradius", "-f", "-s", "-l", "stdout", "-d", str(home)])
    stage.wait_for("FreeRADIUS serves", lambda: "Ready to process" in log.read_text())
    configuration = stage.home / "club.toml"
    configuration.write_text(stage.config.read_text() + POOL.format(socket=home / "sock", home=home, **ports))
    stage.say(f"FreeRADIUS runs with rules for {DOMAIN}, and a second pool with the same databases asks it.")
    stage.start("pool of the club", ["env", f"TLSPOOL_CONFIG={configuration}", "tlspool", "serve"])
    stage.wait_for("the pool of the club answers", lambda: (home / "sock").exists())
