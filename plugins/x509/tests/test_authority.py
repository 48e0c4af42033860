"""Is the authority that `tlspool x509 authority` makes believed for the names that it is for, and for no others?"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from tlspool_x509.authority import X509Commands
from tlspool_x509.credential_type import X509Type

from tlspool_core.api import DoNAI, Key, Role
from tlspool_core.testing.keys import SoftwareKeys

KEYS: dict[str, Callable[[], Any]] = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
}


class Context:
    """What the command line would hand to the command."""

    def __init__(self) -> None:
        self.store = SoftwareKeys()

    def with_key(self, uri: str, use: Callable[[Key], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            return await use(await self.store.find(uri))

        return asyncio.run(main())


def run(context: Context, file: Path, *arguments: str) -> Result:
    command = X509Commands().command()
    return CliRunner().invoke(command, ["authority", "--key", "software:issuing", *arguments, str(file)], obj=context)


def openssl_verifies(file: Path, leaf: x509.Certificate) -> bool:
    leaf_file = file.with_name("leaf.pem")
    leaf_file.write_bytes(leaf.public_bytes(Encoding.PEM))
    done = subprocess.run(["openssl", "verify", "-purpose", "sslserver", "-CAfile", str(file), str(leaf_file)], capture_output=True)
    return done.returncode == 0


@pytest.mark.parametrize("kind", KEYS)
def test_it_is_for_its_names_only(tmp_path: Path, kind: str) -> None:
    context, file = Context(), tmp_path / "authority.pem"
    context.store.add("issuing", KEYS[kind]())
    done = run(context, file, "--domain", "Example.com", "--domain", "shop.example.org", "--name", "My proxy", "--days", "30")
    assert done.exit_code == 0, done.output
    made = x509.load_pem_x509_certificate(file.read_bytes())
    assert made.subject.rfc4514_string() == "CN=My proxy"
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(True, 0)
    issuer = X509Type()
    issuer.configure({"issuing_key": "software:issuing", "issuing_certificate": str(file)})
    for name, believed in (("www.example.com", True), ("example.com", True), ("shop.example.org", True), ("example.org", False)):
        issued = asyncio.run(issuer.issue(DoNAI.parse(name), "https", Role.SERVER, context.store.find))
        assert issued is not None
        assert openssl_verifies(file, issued.leaf) is believed, name  # type: ignore[attr-defined]


def test_what_does_not_work_is_explained(tmp_path: Path) -> None:
    context, file = Context(), tmp_path / "authority.pem"
    context.store.add("issuing", KEYS["p256"]())
    assert "Missing option '--domain'" in run(context, file).output
    assert "a domain has no user" in run(context, file, "--domain", "john@example.com").output
    assert "--domain" in run(context, file, "--domain", "exa mple").output
    file.write_text("already here")
    done = run(context, file, "--domain", "example.com")
    assert (done.exit_code, "File exists" in done.output) == (1, True)
    context.store.add("issuing", ec.generate_private_key(ec.SECP256K1()))
    with pytest.raises(Exception, match="does not issue certificates"):
        raise run(context, tmp_path / "other.pem", "--domain", "example.com").exception or AssertionError
