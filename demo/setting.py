"""What all scenes need: a token with a PIN, a demonstration authority, filled databases, and the pool at work."""

from __future__ import annotations

import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_public_key

from demo.authority import Authority
from demo.stage import DOMAIN, Stage

TOKEN = "demo"
WEB = f"www.{DOMAIN}"
JOHN = f"john@{DOMAIN}"

CONFIGURATION = """\
# A pool for a demonstration. Every setting that is not here has its default.
[keystore.pkcs11]
modules = [{{ path = "{module}", pin_file = "{pin_file}" }}]

[log]
format = "console"
"""


@dataclass
class Setting:
    """What the scenes may use."""

    stage: Stage
    authority: Authority
    authority_file: Path


def prepare(stage: Stage) -> Setting:
    """Make token, keys, certificates and databases, then start the pool."""
    pin_file = _make_token(stage)
    stage.config.write_text(CONFIGURATION.format(module=stage.module, pin_file=pin_file))
    authority = Authority("TLS Pool demonstration authority")
    authority_file = authority.write(stage.home / "authority.crt")
    stage.tlspool("trust", "add", "--type", "x509", str(authority_file))
    for identity, label, number, role in ((WEB, "web", "01", "server"), (JOHN, "john", "02", "client")):
        public = stage.command([sys.executable, "-m", "demo.token", stage.module, TOKEN, str(pin_file), label, number], quiet=True)
        certificate = stage.home / f"{label}.crt"
        certificate.write_bytes(authority.certify(identity, load_pem_public_key(public.encode()), role))  # type: ignore[arg-type]
        uri = f"pkcs11:token={TOKEN};id=%{number};type=private"
        stage.tlspool("localid", "add", identity, "--type", "x509", "--role", role, "--key", uri, str(certificate))
    stage.tlspool("disclose", "add", "@.", JOHN)
    stage.tlspool("disclose", "add", ".", JOHN)
    stage.show(stage.tlspool("localid", "list"))
    stage.start("pool", ["tlspool", "serve"])
    stage.wait_for("the pool answers", lambda: stage.socket.exists())
    stage.show(stage.tlspool("token", "list"))
    return Setting(stage, authority, authority_file)


def _make_token(stage: Stage) -> Path:
    tokens = stage.home / "tokens"
    tokens.mkdir(mode=0o700)
    Path(stage.environment["SOFTHSM2_CONF"]).write_text(
        f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    pin_file = stage.home / "pin"
    pin_file.touch(mode=0o600)
    pin = secrets.token_hex(8)
    pin_file.write_text(pin)
    stage.command(
        ["softhsm2-util", "--init-token", "--free", "--label", TOKEN, "--pin", pin, "--so-pin", secrets.token_hex(8)], quiet=True
    )
    stage.say(f"A token named {TOKEN!r} was made; its PIN is known to the pool alone.")
    return pin_file
