"""SRP: a password that authenticates both sides and never crosses the wire."""

from __future__ import annotations

import json
import sys

from demo.setting import WEB, Setting
from demo.stage import DOMAIN, DemoFailed, free_port

TITLE = "SRP: mary has no certificate, only a password"
MARY = f"mary@{DOMAIN}"


def play(setting: Setting) -> None:
    """Play the scene."""
    stage = setting.stage
    secret = stage.home / "mary.password"
    secret.touch(mode=0o600)
    secret.write_text("correct horse battery staple\n")
    account = stage.home / "mary.json"
    account.write_text(json.dumps({"user": MARY, "server": WEB, "password_file": str(secret)}))

    stage.say("The server's side keeps a verifier, which is not the password; it is asked for, never an argument:")
    stage.show(stage.tlspool("srp", "add", MARY, stdin=secret.read_bytes()))
    stage.tlspool("localid", "add", WEB, "--type", "srp", "--role", "server")
    stage.say("The client's side says where the password is had:")
    stage.tlspool("localid", "add", MARY, "--type", "srp", "--role", "client", str(account))

    port = free_port()
    stage.start("lounge", [sys.executable, "-m", "demo.web", str(port), WEB, "require"])
    stage.wait_port(port)
    arguments = ["connect", f"127.0.0.1:{port}", "--localid", MARY, "--remoteid", WEB]
    request = f"GET / HTTP/1.0\r\nHost: {WEB}\r\n\r\n".encode()
    answer = stage.tlspool(*arguments, stdin=request)
    stage.show(answer)
    if f"Hello, {MARY}." not in answer:
        raise DemoFailed(f"mary was not greeted:\n{answer}")
    stage.say("With another password nothing is told but that it failed:")
    secret.write_text("incorrect\n")
    stage.show(stage.tlspool(*arguments, stdin=request, ok=False))
    stage.stop("lounge")
