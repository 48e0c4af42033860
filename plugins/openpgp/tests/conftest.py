"""Keys that gpg made, in a home directory of their own; and keys made by hand, for what gpg would never make."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from tlspool_openpgp.credential_type import OpenPgpType
from tlspool_openpgp.packets import keys_of
from tlspool_openpgp.reader import Reader

NEEDED = [name for name in ("gpg", "gpgconf") if not shutil.which(name)]


class Gpg:
    """A keyring."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(mode=0o700)
        self.environment = os.environ | {"GNUPGHOME": str(home)}

    def __call__(self, *arguments: str, stdin: bytes = b"") -> bytes:
        command = ["gpg", "--batch", "--quiet", "--no-tty", "--yes", "--pinentry-mode", "loopback", "--passphrase", "", *arguments]
        done = subprocess.run(command, env=self.environment, input=stdin, capture_output=True, check=False)
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout

    def make(self, user: str, algorithm: str = "ed25519", usage: str = "sign,cert", expires: str = "0") -> str:
        """Fingerprint of a new key."""
        before = set(self.fingerprints())
        self("--allow-freeform-uid", "--quick-gen-key", user, algorithm, usage, expires)
        (made,) = set(self.fingerprints()) - before
        return made

    def subkey(self, fingerprint: str, algorithm: str, usage: str, expires: str = "0") -> str:
        before = set(self.fingerprints())
        self("--quick-add-key", fingerprint, algorithm, usage, expires)
        (made,) = set(self.fingerprints()) - before
        return made

    def fingerprints(self) -> list[str]:
        listing = self("--list-keys", "--with-colons", "--with-subkey-fingerprint").decode()
        return [line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr")]

    def public(self, fingerprint: str) -> bytes:
        (key,) = keys_of(self("--export", fingerprint))
        return key

    def pkcs8(self, fingerprint: str) -> bytes:
        """As the documentation says it is done."""
        exported = self("--export-secret-keys", fingerprint)
        command = [sys.executable, "-c", "from tlspool_core.cli import main; main()", "openpgp", "pkcs8", fingerprint]
        done = subprocess.run(command, input=exported, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def private(self, fingerprint: str) -> Any:
        return load_pem_private_key(private_pem(self("--export-secret-keys", fingerprint), fingerprint), None)

    def close(self) -> None:
        subprocess.run(["gpgconf", "--kill", "all"], env=self.environment, check=False, capture_output=True)


def private_pem(exported: bytes, fingerprint: str) -> bytes:
    """In this process: pgpy's import warns of what it uses itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tlspool_openpgp.pgp import private_key

        return private_key(exported, bytes.fromhex(fingerprint))


@pytest.fixture(scope="session")
def gpg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpg]:
    """The keyring of all tests; gpg's sockets want a short path."""
    if NEEDED:
        pytest.skip(f"not installed: {', '.join(NEEDED)}")
    ring = Gpg(Path(tmp_path_factory.mktemp("g")) / "h")
    yield ring
    ring.close()


class Holder:
    """A key of gpg's, and its private half in memory."""

    def __init__(self, gpg: Gpg, fingerprint: str, signing: str = "") -> None:
        self.gpg, self.fingerprint, self.signing = gpg, fingerprint, signing or fingerprint
        self.private = gpg.private(self.signing)

    @property
    def public(self) -> bytes:
        return self.gpg.public(self.fingerprint)

    @property
    def digest(self) -> bytes:
        return bytes.fromhex(self.fingerprint)

    @property
    def key_id(self) -> bytes:
        return bytes.fromhex(self.signing)[-8:]


@pytest.fixture(scope="session")
def john(gpg: Gpg) -> Holder:
    """Ed25519, two user ids, an authentication subkey."""
    first = "John Doe (test) <john@example.org>"
    fingerprint = gpg.make(first)
    gpg("--quick-add-uid", fingerprint, "John <john@example.net>")
    gpg("--quick-set-primary-uid", fingerprint, first)  # else gpg puts the one first that was made in a later second
    return Holder(gpg, fingerprint, gpg.subkey(fingerprint, "ed25519", "auth"))


@pytest.fixture(scope="session")
def web(gpg: Gpg) -> Holder:
    """RSA, for a server."""
    return Holder(gpg, gpg.make("<@www.example.org>", "rsa2048", "sign,cert"))


@pytest.fixture(scope="session")
def mary(gpg: Gpg) -> Holder:
    """P-256, with a subkey that signs."""
    fingerprint = gpg.make("mary@example.org", "nistp256", "cert")
    return Holder(gpg, fingerprint, gpg.subkey(fingerprint, "nistp384/ecdsa", "sign"))


@pytest.fixture(scope="session")
def reader() -> Iterator[Reader]:
    one = Reader()
    yield one
    one.close()


@pytest.fixture
def kind(reader: Reader) -> OpenPgpType:
    return OpenPgpType(reader=reader)


@pytest.fixture
def now() -> float:
    return time.time()
