"""X.509: curl speaks TLS to a plain HTTP program; a client is known by its certificate; two impostors are refused."""

from __future__ import annotations

import sys
from pathlib import Path

from demo.authority import Authority
from demo.setting import JOHN, WEB, Setting
from demo.stage import DOMAIN, Stage, free_port

TITLE = "X.509 certificates: keys in a token, curl, and a program that holds no key"


def play(setting: Setting) -> None:
    """Play the scene."""
    stage = setting.stage
    open_port, members_port = free_port(), free_port()
    stage.start("web", [sys.executable, "-m", "demo.web", str(open_port), WEB, "request"])
    stage.start("members", [sys.executable, "-m", "demo.web", str(members_port), WEB, "require"])
    for port in (open_port, members_port):
        stage.wait_port(port)

    stage.say("curl visits; the program is told who it is itself, and that the visitor did not say:")
    stage.show(stage.command(_curl(setting.authority_file, open_port)))
    stage.say("The same, with a client certificate:")
    certificate, key = setting.authority.software_identity(stage.home, "john-curl", JOHN, "client")
    page = stage.command([*_curl(setting.authority_file, open_port), "--cert", str(certificate), "--key", str(key)])
    stage.show(page)
    _expect(f"Hello, {JOHN}." in page, page)
    stage.say(f"A client whose key is in the token too ({JOHN}), through the pool on both sides:")
    arguments = ["connect", f"127.0.0.1:{members_port}", "--localid", JOHN, "--remoteid", WEB]
    request = f"GET / HTTP/1.0\r\nHost: {WEB}\r\n\r\n".encode()
    answer = stage.tlspool(*arguments, stdin=request)
    stage.show(answer)
    _expect(f"Hello, {JOHN}." in answer, answer)

    stage.say("A certificate of an authority that nobody trusts is refused where an identity is required:")
    _refuse_untrusted(setting, members_port)
    stage.say("A server that is not who it should be is refused by the pool as a client:")
    _refuse_wrong_name(setting)
    if "KEEP" in stage.environment:
        stage.say(f"Try: curl --cacert {setting.authority_file} --resolve {WEB}:{open_port}:127.0.0.1 https://{WEB}:{open_port}/")


def _curl(authority: Path, port: int) -> list[str]:
    return [
        "curl", "--silent", "--show-error", "--max-time", "10", "--cacert", str(authority),
        "--resolve", f"{WEB}:{port}:127.0.0.1", f"https://{WEB}:{port}/",
    ]  # fmt: skip


def _refuse_untrusted(setting: Setting, port: int) -> None:
    stage = setting.stage
    certificate, key = Authority("Nobody's authority").software_identity(stage.home, "impostor", JOHN, "client")
    stage.show(stage.command([*_curl(setting.authority_file, port), "--cert", str(certificate), "--key", str(key)], ok=False))
    stage.wait_for("the refusal is in the program's log", lambda: "refused" in stage.tail("members"))
    stage.show(stage.tail("members", 1))


def _refuse_wrong_name(setting: Setting) -> None:
    stage = setting.stage
    port = free_port()
    certificate, key = setting.authority.software_identity(stage.home, "other", f"other.{DOMAIN}", "server")
    _openssl_server(stage, port, certificate, key)
    refusal = stage.tlspool("connect", f"127.0.0.1:{port}", "--remoteid", WEB, ok=False)
    stage.show(refusal)
    stage.say("Asked for by its own name, the same server is reached:")
    reached = stage.tlspool("connect", f"127.0.0.1:{port}", "--remoteid", f"other.{DOMAIN}", stdin=b"Q\n")
    stage.show("\n".join(reached.splitlines()[:4]))
    stage.stop("openssl")


def _openssl_server(stage: Stage, port: int, certificate: Path, key: Path) -> None:
    stage.start(
        "openssl", ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", str(certificate), "-key", str(key), "-www"]
    )
    stage.wait_port(port)


def _expect(condition: bool, output: str) -> None:
    if not condition:
        raise RuntimeError(f"this was not the expected page:\n{output}")
