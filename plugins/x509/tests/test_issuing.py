"""Do certificates made on the fly hold, name what they should, last briefly, and cost the token one signature?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from tlspool_x509.credential_type import X509Type
from tlspool_x509.local import X509Credential

from tlspool_core.api import Denied, DoNAI, KeyStoreError, Role
from tlspool_core.testing.keys import SoftwareKeys

SHOP, JOHN = DoNAI.parse("shop.example.org"), DoNAI.parse("john@example.org")
MAKERS: dict[str, Callable[[], Any]] = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
}
BINDING = b"content to be signed"


class Workshop:
    """A type with an issuing key, and a clock that can be put forward."""

    def __init__(self, pki: Any, home: Path, maker: str = "p256", **settings: Any) -> None:
        self.now = pki.now
        self.root = pki.root(key=MAKERS[maker]())
        self.store = SoftwareKeys()
        self.uri = self.store.add("issuer", self.root.key)
        path = home / "issuer.pem"
        path.write_bytes(self.root.pem)
        self.kind = X509Type(lambda: self.now)
        self.kind.configure({"issuing_key": self.uri, "issuing_certificate": str(path), **settings})

    def make(self, identity: DoNAI = SHOP, service: str = "https", role: Role = Role.SERVER) -> X509Credential:
        made = asyncio.run(self.kind.issue(identity, service, role, self.store.find))
        assert made is not None
        return made


@pytest.mark.parametrize("maker", ["p256", "p384", "p521", "rsa2048", "ed25519", "ed448"])
def test_it_holds(pki: Any, tmp_path: Path, maker: str) -> None:
    workshop = Workshop(pki, tmp_path, maker)
    made = workshop.make()
    made.leaf.verify_directly_issued_by(workshop.root.certificate)
    peer = workshop.kind.examine(0, made.entries, pki.trusting(workshop.kind))
    assert workshop.kind.identities(peer) == (SHOP,)
    peer.verify(0x0403, BINDING, asyncio.run(workshop.kind.sign(made, 0x0403, BINDING)))


def test_what_it_says(pki: Any, tmp_path: Path) -> None:
    workshop = Workshop(pki, tmp_path, issued_lifetime=600)
    server, client = workshop.make().leaf, workshop.make(JOHN, "imap", Role.CLIENT).leaf
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["shop.example.org"]
    assert [name.value[2:] for name in names if isinstance(name, x509.OtherName)] == [b"_https.shop.example.org"]
    names = client.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.RFC822Name) == ["john@example.org"]
    usage = [one.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value for one in (server, client)]
    assert [list(one) for one in usage] == [[ExtendedKeyUsageOID.SERVER_AUTH], [ExtendedKeyUsageOID.CLIENT_AUTH]]
    assert server.not_valid_after_utc == workshop.now + timedelta(minutes=10)
    assert server.public_key() != client.public_key()


def test_it_is_kept_for_half_its_life(pki: Any, tmp_path: Path) -> None:
    workshop = Workshop(pki, tmp_path, issued_lifetime=600)
    first = workshop.make()
    assert workshop.make() is first
    assert workshop.make(service="imap") is not first
    assert workshop.make(JOHN, role=Role.CLIENT) is not first
    workshop.now += timedelta(minutes=4, seconds=59)
    assert workshop.make() is first
    workshop.now += timedelta(seconds=2)
    assert workshop.make() is not first
    assert asyncio.run(workshop.store.find(workshop.uri)).signatures == 4


def test_without_the_token_there_is_none(pki: Any, tmp_path: Path) -> None:
    workshop = Workshop(pki, tmp_path)
    workshop.make()
    workshop.store.missing.add(workshop.uri)
    with pytest.raises(KeyStoreError):
        workshop.make()


def test_another_key_than_the_certificates(pki: Any, tmp_path: Path) -> None:
    workshop = Workshop(pki, tmp_path)
    workshop.store.add("issuer", pki.root().key)
    with pytest.raises(Denied, match="not that of the issuing certificate"):
        workshop.make()


def test_without_configuration(pki: Any) -> None:
    assert asyncio.run(X509Type().issue(SHOP, "", Role.SERVER, SoftwareKeys().find)) is None


def test_configuration_that_cannot_work(pki: Any, tmp_path: Path) -> None:
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(pki.root().issue("example.com").pem)
    for section, reason in (
        ({"issuing_key": "software:x"}, "neither goes alone"),
        ({"issuing_certificate": str(leaf)}, "neither goes alone"),
        ({"issuing_key": "x", "issuing_certificate": str(leaf)}, "URI of a key"),
        ({"issuing_key": "software:x", "issuing_certificate": str(leaf)}, "not that of an authority"),
        ({"issuing_key": "software:x", "issuing_certificate": str(tmp_path / "none")}, "No such file"),
        ({"issued_lifetime": 5}, "60 to 604800"),
    ):
        with pytest.raises(ValueError, match=reason):
            X509Type().configure(section)
