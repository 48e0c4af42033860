"""Do `tlspool token list` and `tlspool token check` tell what an operator needs to know?"""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cryptography.x509.oid import NameOID
from tlspool_pkcs11.plugin import tlspool_register_cli_commands, tlspool_register_key_stores

from tlspool_core.api import DoNAI, LocalCredential, LocalIdentity, PinRequest, Role, Secret

P256 = "pkcs11:token=Web;object=p256"


@dataclass
class Backend:
    identities: dict[DoNAI, LocalIdentity]

    @contextlib.contextmanager
    def read(self) -> Any:
        yield self

    def localid(self, identity: DoNAI) -> LocalIdentity | None:
        return self.identities.get(identity)

    def close(self) -> None:
        pass


@dataclass
class Context:
    """What `tlspool` hands to its commands."""

    section: Mapping[str, Any]
    identities: dict[DoNAI, LocalIdentity] = field(default_factory=dict)
    json: bool = False
    typed: str = ""  # what the person at the terminal answers

    async def ask_pin(self, request: PinRequest) -> Secret | None:
        return Secret.of(self.typed.encode()) if self.typed else None

    def settings(self, kind: str, name: str) -> Mapping[str, Any]:
        return self.section if (kind, name) == ("keystore", "pkcs11") else {}

    def backend(self, *, readonly: bool = False) -> Backend:
        return Backend(self.identities)


def run(context: Context, *arguments: str) -> Result:
    (command,) = tlspool_register_cli_commands()
    assert command.name == "token"
    return CliRunner().invoke(command.command(), arguments, obj=context)


@pytest.fixture
def context(hsm: Any) -> Context:
    return Context({"modules": [hsm.module()]})


def certificate(spki: bytes) -> bytes:
    """PEM of a certificate for a public key, signed by somebody."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "web.example.com")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, load_der_public_key(spki), 0x4711, now, now + datetime.timedelta(days=9))  # type: ignore[arg-type]
    from cryptography.hazmat.primitives.hashes import SHA256

    return builder.sign(ec.generate_private_key(ec.SECP256R1()), SHA256()).public_bytes(Encoding.PEM)


def spki_of(hsm: Any, uri: str) -> bytes:
    found: list[bytes] = []

    async def work(store: Any) -> None:
        found.append((await store.find(uri)).public_key)

    hsm.use(work)
    return found[0]


def test_the_plugin_registers_store_and_command() -> None:
    (store,) = tlspool_register_key_stores()
    assert (store.name, store.uri_schemes) == ("pkcs11", ("pkcs11",))


def test_list_shows_each_key_with_its_uri_and_schemes(context: Context) -> None:
    result = run(context, "list")
    assert result.exit_code == 0
    assert "private-key EC secp256r1 'p256'" in result.output
    assert "signs ecdsa_secp256r1_sha256" in result.output
    assert "object=p256;type=private;id=%01" in result.output
    assert "wants the PIN for each signature" in result.output
    assert "EXTRACTABLE: it can leave the token" in result.output
    assert "may not sign" in result.output
    assert "secret data 'password'" in result.output
    assert "123456" not in result.output
    assert "Joshua" not in result.output


def test_list_for_programs(context: Context) -> None:
    listed = json.loads(run(context, "list", "--json").output)
    by_label = {entry["label"]: entry for entry in listed}
    assert by_label["rsa"]["algorithm"] == "RSA-2048"
    assert by_label["rsa"]["signature_schemes"][0] == "rsa_pss_rsae_sha256"
    context.json = True
    assert json.loads(run(context, "list").output) == listed


def test_list_without_a_pin_says_so_and_asks_if_told_to(hsm: Any) -> None:
    context = Context({"modules": [hsm.module(pin_file=None)]})
    result = run(context, "list")
    assert result.exit_code == 0
    assert "its private keys show after login" in result.output
    assert "p256" not in result.output
    context.typed = "123456"
    result = run(context, "list", "--login")
    assert "object=p256" in result.output
    context.typed = ""
    result = run(context, "list", "--login")
    assert "no login to token 'Web'" in result.output


def test_list_of_nothing_is_an_error_that_says_what_to_do() -> None:
    result = run(Context({"modules": []}), "list")
    assert result.exit_code == 1
    assert "--module" in result.output


def test_a_configuration_that_is_wrong_is_named() -> None:
    result = run(Context({"modules": [{"path": "/lib.so", "timeuot": 3}]}), "list")
    assert result.exit_code == 1
    assert "[keystore.pkcs11]: modules[1].timeuot" in result.output


def test_check_of_one_key_is_good(context: Context) -> None:
    result = run(context, "check", P256)
    assert result.exit_code == 0, result.output
    assert "good  EC secp256r1" in result.output
    assert "ok   ecdsa_secp256r1_sha256" in result.output
    assert "no certificate holds this public key" in result.output


def test_check_of_all_keys_finds_the_one_that_cannot_sign(context: Context) -> None:
    result = run(context, "check", "--json")
    assert result.exit_code == 1
    good = {entry["uri"].split("object=")[1].split(";")[0]: entry["good"] for entry in json.loads(result.output)}
    assert good == {**dict.fromkeys(good, True), "mute": False}
    assert len(good) == 9


def test_check_says_which_scheme_the_token_has_no_mechanism_for(hsm: Any) -> None:
    disabled = ["CKM_SHA512_RSA_PKCS", "CKM_RSA_PKCS", "CKM_RSA_X_509"]
    context = Context({"modules": [hsm.module(disable_mechanisms=disabled)]})
    result = run(context, "check", "pkcs11:object=rsa")
    assert result.exit_code == 0
    assert "--   rsa_pkcs1_sha512: the token has no mechanism for it" in result.output
    assert "ok   rsa_pkcs1_sha384" in result.output


def test_check_names_the_mechanism_that_fails(hsm: Any) -> None:
    disabled = ["CKM_ECDSA"]
    context = Context({"modules": [hsm.module(disable_mechanisms=disabled, extra_mechanisms=["CKM_ECDSA_SHA256"])]})
    result = run(context, "check", P256)
    assert result.exit_code == 1
    assert "FAIL ecdsa_secp256r1_sha256" in result.output
    assert "CKR_MECHANISM_INVALID" in result.output
    assert "disable_mechanisms" in result.output


def test_check_says_which_certificate_matches(context: Context, hsm: Any, tmp_path: Path) -> None:
    chain = tmp_path / "chain.pem"
    chain.write_bytes(certificate(spki_of(hsm, P256)))
    result = run(context, "check", P256, "--chain", str(chain))
    assert result.exit_code == 0
    assert "certificate chain.pem: CN=web.example.com, serial 4711" in result.output
    result = run(context, "check", "pkcs11:object=p384", "--chain", str(chain))
    assert result.exit_code == 1
    assert "no certificate that was given holds this public key" in result.output
    chain.write_text("nothing")
    result = run(context, "check", P256, "--chain", str(chain))
    assert "holds no certificate" in result.output


def test_check_finds_the_certificate_in_the_token(context: Context, hsm: Any, tmp_path: Path) -> None:
    pem = certificate(spki_of(hsm, P256))
    file = tmp_path / "certificate.der"
    file.write_bytes(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER))
    tool = ("pkcs11-tool", "--module", hsm.module()["path"], "--token-label", "Web", "--login", "--pin", "123456")
    hsm.run(*tool, "--write-object", str(file), "--type", "cert", "--id", "01", "--label", "shown")
    result = run(context, "check", P256)
    assert "certificate in the token, shown: CN=web.example.com" in result.output
    assert "certificate X.509 'shown'" in run(context, "list").output


@pytest.mark.parametrize("armour", [True, False])
def test_check_of_a_local_identity(context: Context, hsm: Any, armour: bool) -> None:
    pem = certificate(spki_of(hsm, P256))
    public = pem if armour else x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    identity = DoNAI.parse("example.com")
    credential = LocalCredential(identity, "x509", Role.SERVER, P256, public)
    context.identities[identity] = LocalIdentity(identity, (credential,))
    result = run(context, "check", "--localid", "example.com")
    assert result.exit_code == 0, result.output
    assert "certificate localid example.com, x509" in result.output
    wrong = LocalCredential(identity, "x509", Role.SERVER, "pkcs11:object=p384", public)
    context.identities[identity] = LocalIdentity(identity, (wrong,))
    assert run(context, "check", "--localid", "example.com").exit_code == 1
    result = run(context, "check", "--localid", "example.org")
    assert "has no credential with a key in a token" in result.output
    assert run(context, "check", "--localid", "not an identity").exit_code == 1


def test_check_of_a_key_that_is_not_there(context: Context) -> None:
    result = run(context, "check", "pkcs11:token=Web;object=none")
    assert result.exit_code == 1
    assert "names no private key" in result.output
    result = run(context, "check", "pkcs11:object=none?pin-value=123456")
    assert result.exit_code == 1
    assert "pin-value is refused" in result.output


def test_a_public_key_in_spki_form_is_what_the_token_holds(hsm: Any) -> None:
    key = load_der_public_key(spki_of(hsm, P256))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == spki_of(hsm, P256)
