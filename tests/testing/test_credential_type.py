"""Does the toy credential type pass what every type has to pass, and does a broken type fail it?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import ConfigBackend, LocalCredential, Role, TrustRecord
from tlspool_core.testing.credential_type import CredentialTypeConformance, TypeUnderTest
from tlspool_core.testing.keys import SoftwareKeys, public_der
from tlspool_core.testing.toy import ToyPeer, ToyType, toy_entry, toy_trust_key
from tlspool_core.tls.seams import CertificateEntry, PeerCredential
from tlspool_core.tls.settings import TLS12

IDENTITY = DoNAI.parse("john@example.org")


def toy_under_test(kind: ToyType) -> TypeUnderTest:
    keys = SoftwareKeys()
    key = ed25519.Ed25519PrivateKey.generate()
    entry = toy_entry(IDENTITY, public_der(key))
    local = LocalCredential(IDENTITY, "toy", Role.BOTH, keys.add("toy", key), entry)
    return TypeUnderTest(kind, local, keys.find, [TrustRecord(toy_trust_key(entry), "toy")])


class TestToy(CredentialTypeConformance):
    def under_test(self) -> TypeUnderTest:
        return toy_under_test(ToyType())


class Gullible(ToyType):
    """Takes any signature, and stumbles over nonsense."""

    def examine(self, certificate_type: int, entries: Sequence[CertificateEntry], config: ConfigBackend) -> PeerCredential:
        class Believer(ToyPeer):
            def verify(self, scheme: int, content: bytes, signature: bytes) -> None:
                return

        identity, _, key = entries[0].data.partition(b"\0")
        return Believer(tuple(entries), DoNAI.parse(identity.decode()), key)


class Broken(CredentialTypeConformance):
    """Not collected: run by hand below."""

    def under_test(self) -> TypeUnderTest:
        return toy_under_test(Gullible())


def test_a_type_that_verifies_nothing_is_found_out() -> None:
    with pytest.raises(AssertionError):
        Broken().test_a_wrong_proof_is_refused(TLS12, "client")


def test_a_type_that_stumbles_is_found_out() -> None:
    with pytest.raises(Exception, match=r".") as stumble:
        Broken().test_examining_nonsense()
    caught: Any = stumble.value
    assert isinstance(caught, ValueError | IndexError)
