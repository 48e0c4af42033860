"""Symmetric TLS: two relays that do not care who of them is client and who is server."""

from __future__ import annotations

import sys

from cryptography.hazmat.primitives.serialization import load_pem_public_key

from demo.setting import TOKEN, Setting
from demo.stage import DOMAIN, DemoFailed, free_port

TITLE = "Peers: neither is the client by birth, and both prove who they are"
NORTH, SOUTH = f"north.{DOMAIN}", f"south.{DOMAIN}"


def play(setting: Setting) -> None:
    """Play the scene."""
    stage = setting.stage
    for identity, label, number in ((NORTH, "north", "21"), (SOUTH, "south", "22")):
        _equip(setting, identity, label, number)
    port = free_port()
    relay = f"tlspool connect 127.0.0.1:{port} --peer"
    stage.say("One waits for a connection, the other makes one; who begins with TLS is left to the pool.")
    log = stage.start("south", ["sh", "-c", _saying("from the south", f"{relay} --listen --localid {SOUTH} --remoteid {NORTH}")])
    stage.wait_port(port)
    answer = stage.command(["sh", "-c", _saying("from the north", f"{relay} --localid {NORTH} --remoteid {SOUTH}")])
    stage.show(answer)
    stage.wait_for("the north was heard in the south", lambda: "from the north" in log.read_text())
    stage.show(stage.tail("south"))
    stage.stop("south")
    roles = {line.split()[-1] for line in (answer + log.read_text()).splitlines() if line.startswith("role:")}
    if roles != {"client", "server"} or "from the south" not in answer:
        raise DemoFailed(f"the two relays did not find together:\n{answer}")


def _saying(words: str, command: str) -> str:
    """A shell's line that says something and then listens for a while, as a person does."""
    return f"(echo greetings {words}; sleep 2) | {command}"


def _equip(setting: Setting, identity: str, label: str, number: str) -> None:
    """A key in the token, and a certificate for either role."""
    stage = setting.stage
    make = [sys.executable, "-m", "demo.token", stage.module, TOKEN, str(stage.home / "pin"), label, number]
    public = load_pem_public_key(stage.command(make, quiet=True).encode())
    certificate = stage.home / f"{label}.crt"
    certificate.write_bytes(setting.authority.certify(identity, public, "both"))  # type: ignore[arg-type]
    uri = f"pkcs11:token={TOKEN};id=%{number};type=private"
    stage.tlspool("localid", "add", identity, "--type", "x509", "--role", "both", "--key", uri, str(certificate))
