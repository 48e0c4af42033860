"""OpenPGP: two pools' clients know each other by keys that gpg made, and that are in the token now."""

from __future__ import annotations

import sys
from pathlib import Path

from demo.setting import TOKEN, Setting
from demo.stage import DOMAIN, DemoFailed, Stage, free_port

TITLE = "OpenPGP: no authority, only keys that gpg made"
SHOP, KATE, CERTIFIER = f"shop.{DOMAIN}", f"kate@{DOMAIN}", f"registrar@{DOMAIN}"


class _Keyring:
    """gpg with a home of its own, as a person at a terminal has it."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        home = stage.home / "gnupg"
        home.mkdir(mode=0o700)
        stage.environment["GNUPGHOME"] = str(home)

    def __call__(self, *arguments: str, quiet: bool = True) -> str:
        options = ("--batch", "--quiet", "--yes", "--pinentry-mode", "loopback", "--passphrase", "", "--allow-freeform-uid")
        if not quiet:
            self._stage.show(f"$ gpg {' '.join(arguments)}")
        return self._stage.command(["gpg", *options, *arguments], quiet=True)

    def make(self, user: str, algorithm: str) -> str:
        """Fingerprint of a new key."""
        self("--quick-gen-key", user, algorithm, "sign,cert", "1y", quiet=False)
        listing = self("--list-keys", "--with-colons", user)
        return next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr"))

    def export(self, fingerprint: str) -> Path:
        """File with the public key."""
        file = self._stage.home / f"{fingerprint}.asc"
        self("--armor", "--output", str(file), "--export", fingerprint)
        return file

    def into_token(self, fingerprint: str, number: str, pin: str) -> str:
        """URI of the private key, now in the token."""
        stage = self._stage
        secret = stage.home / "secret.pgp"
        self("--output", str(secret), "--export-secret-keys", fingerprint)
        pem = stage.home / "secret.pem"
        pem.touch(mode=0o600)
        pem.write_text(stage.tlspool("openpgp", "pkcs8", fingerprint, stdin=secret.read_bytes(), quiet=True))
        stage.command(
            ["softhsm2-util", "--import", str(pem), "--token", TOKEN, "--label", "gpg", "--id", number, "--pin", pin], quiet=True
        )
        secret.unlink()
        pem.unlink()
        return f"pkcs11:token={TOKEN};id=%{number};type=private"

    def close(self) -> None:
        """gpg leaves an agent behind."""
        self._stage.command(["gpgconf", "--kill", "all"], quiet=True)


def play(setting: Setting) -> None:
    """Play the scene."""
    stage = setting.stage
    keyring = _Keyring(stage)
    try:
        _prepare(stage, keyring)
    finally:
        keyring.close()
    port = free_port()
    stage.start("shop", [sys.executable, "-m", "demo.web", str(port), SHOP, "require"])
    stage.wait_port(port)
    arguments = ["connect", f"127.0.0.1:{port}", "--localid", KATE, "--remoteid", SHOP]
    answer = stage.tlspool(*arguments, stdin=f"GET / HTTP/1.0\r\nHost: {SHOP}\r\n\r\n".encode())
    stage.show(answer)
    if f"Hello, {KATE}." not in answer or "TLSv1.2" not in answer:
        raise DemoFailed(f"kate was not greeted:\n{answer}")
    stage.stop("shop")


def _prepare(stage: Stage, keyring: _Keyring) -> None:
    stage.say("A shop and kate have keys; a registrar, whom both sides trust, certifies them:")
    registrar = keyring.make(f"Registrar <{CERTIFIER}>", "rsa2048")
    shop, kate = keyring.make(f"<@{SHOP}>", "rsa2048"), keyring.make(f"Kate <{KATE}>", "ed25519")
    for key in (shop, kate):
        keyring("--local-user", registrar, "--quick-sign-key", key)
    stage.tlspool("trust", "add", "--type", "openpgp", str(keyring.export(registrar)))
    stage.say("The private halves move into the token, and from there they do not come back:")
    pin = (stage.home / "pin").read_text()
    for identity, fingerprint, role, number in ((SHOP, shop, "server", "51"), (KATE, kate, "client", "52")):
        uri = keyring.into_token(fingerprint, number, pin)
        file = keyring.export(fingerprint)
        stage.tlspool("localid", "add", identity, "--type", "openpgp", "--role", role, "--key", uri, str(file))
