"""Does the credential type `rawkey` do what every type has to, and is a key trusted only as the trust database says?"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tlspool_rawkey.plugin import RawKeyType, RawPeer, parse_key, pin, tlspool_register_credential_types

from tlspool_core.api import BadCertificate, CertificateEntry, DoNAI, LocalCredential, Role, TrustRecord, Verdict
from tlspool_core.testing.credential_type import CredentialTypeConformance, TypeUnderTest
from tlspool_core.testing.keys import SoftwareKeys, public_der
from tlspool_core.testing.memory import MemoryBackend
from tlspool_core.testing.policy import peer_context

JOHN = DoNAI.parse("john@example.org")


def under_test(key: Any) -> TypeUnderTest:
    keys = SoftwareKeys()
    public = public_der(key)
    record = TrustRecord(pin(public), "rawkey", pinned=True, blob=str(JOHN).encode())
    config = MemoryBackend()
    return TypeUnderTest(
        RawKeyType(), LocalCredential(JOHN, "rawkey", Role.BOTH, keys.add("k", key), public), keys.find, [record], config
    )


class RawKeyConformance(CredentialTypeConformance):
    """The identity of a raw key is that of its pin, so the pin has to be there for the peer to have a name."""

    key: Any = None

    def under_test(self) -> TypeUnderTest:
        tested = under_test(self.key)
        with tested.config.write() as databases:
            databases.put_trust(tested.trust[0])
        return tested

    def test_trust_comes_from_the_database(self) -> None:
        """As in the base, which begins with empty databases."""
        tested = under_test(self.key)
        type(self).under_test, kept = lambda _: tested, type(self).under_test  # type: ignore[method-assign,assignment]
        try:
            super().test_trust_comes_from_the_database()
        finally:
            type(self).under_test = kept  # type: ignore[method-assign]


class TestEcdsa(RawKeyConformance):
    key = ec.generate_private_key(ec.SECP256R1())


class TestEd25519(RawKeyConformance):
    key = ed25519.Ed25519PrivateKey.generate()


class TestRsa(RawKeyConformance):
    key = rsa.generate_private_key(65537, 2048)


PUBLIC = public_der(TestEcdsa.key)


def examined(config: MemoryBackend) -> Any:
    return RawKeyType().examine(2, (CertificateEntry(PUBLIC),), config)


def with_records(*records: TrustRecord) -> MemoryBackend:
    config = MemoryBackend()
    with config.write() as databases:
        for record in records:
            databases.put_trust(record)
    return config


RECORD = TrustRecord(pin(PUBLIC), "rawkey", pinned=True, blob=b"john@example.org")


@pytest.mark.parametrize(
    ("records", "role", "identities", "verdict"),
    [
        ((), "client", (), Verdict.FALSE),
        ((RECORD,), "client", (JOHN,), Verdict.STRICT),
        ((RECORD,), "server", (JOHN,), Verdict.STRICT),
        ((replace(RECORD, roles=Role.SERVER),), "client", (JOHN,), Verdict.FALSE),
        ((replace(RECORD, roles=Role.SERVER),), "server", (JOHN,), Verdict.STRICT),
        ((replace(RECORD, revoked=True),), "client", (), Verdict.FALSE),
        ((replace(RECORD, type="other"),), "client", (), Verdict.FALSE),
    ],
)
def test_what_a_pin_says(records: tuple[TrustRecord, ...], role: str, identities: tuple[DoNAI, ...], verdict: Verdict) -> None:
    config = with_records(*records)
    peer = examined(config)
    assert RawKeyType().identities(peer) == identities
    (trust,) = RawKeyType().predicates()
    context = peer_context(peer=peer, identities=identities, config=config, offered_role=role)
    assert trust.establish(context).verdict is verdict  # type: ignore[union-attr]


def test_an_identity_that_came_from_elsewhere_does_not_count() -> None:
    """T vouches for the names that the pin gives, not for one that somebody added."""
    config = with_records(RECORD)
    (trust,) = RawKeyType().predicates()
    for identities in ((DoNAI.parse("mary@example.org"),), (JOHN, DoNAI.parse("mary@example.org")), ()):
        context = peer_context(peer=examined(config), identities=identities, config=config, offered_role="client")
        assert trust.establish(context).verdict is Verdict.FALSE  # type: ignore[union-attr]


def test_keys_have_one_form() -> None:
    """What parses but is not the DER of that key, or is no key to sign with, is refused."""
    agreement = x25519.X25519PrivateKey.generate().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    compressed = TestEcdsa.key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    head = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")
    for data in (agreement, PUBLIC + b"\0", head + compressed):
        with pytest.raises(ValueError, match="SubjectPublicKeyInfo"):
            parse_key(data)
        with pytest.raises(BadCertificate):
            RawKeyType().examine(2, (CertificateEntry(data),), MemoryBackend())


def test_importing() -> None:
    kind = RawKeyType()
    pem = TestEcdsa.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert kind.import_local(pem) == kind.import_local(PUBLIC) == PUBLIC
    assert kind.import_trust(b"John@Example.ORG\n" + pem, pinned=True) in ([RECORD], [replace(RECORD, blob=b"John@example.org")])
    for nonsense in (pem, b"john@example.org\n", b"\xff\n" + pem):
        with pytest.raises(ValueError, match=r"."):
            kind.import_trust(nonsense, pinned=True)
    assert kind.summarize(PUBLIC) == f"key {pin(PUBLIC).hex()}" and kind.summarize(RECORD.blob) == "john@example.org"


def test_registration_and_signing() -> None:
    (kind,) = tlspool_register_credential_types()
    tested = under_test(TestEd25519.key)
    credential = tested.load()
    peer = kind.examine(2, credential.entries, with_records())
    assert isinstance(peer, RawPeer)

    async def sign() -> bytes:
        return await kind.sign(credential, 0x0807, b" " * 64 + b"content")

    peer.verify(0x0807, b" " * 64 + b"content", asyncio.run(sign()))
