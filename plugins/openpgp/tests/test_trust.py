"""Do the predicates hold exactly where the trust database says so: T by one certification, t by self-signatures, P and p by pins?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tlspool_openpgp.credential_type import OpenPgpType
from tlspool_openpgp.message import subkey_descriptor
from tlspool_openpgp.predicates import PinPredicate, TrustPredicate

from tlspool_core.api import (
    CertificateEntry,
    CertificateRevoked,
    CertificateUnknown,
    Denied,
    DoNAI,
    Role,
    TrustRecord,
    UnknownCA,
    Verdict,
)
from tlspool_core.testing.memory import MemoryBackend
from tlspool_core.testing.policy import peer_context

JOHN, OTHER = DoNAI.parse("john@example.org"), DoNAI.parse("john@example.net")


def examined(kind: OpenPgpType, holder: Any, config: MemoryBackend) -> Any:
    return kind.examine(1, (CertificateEntry(subkey_descriptor(holder.key_id, holder.public)),), config)


def found(kind: OpenPgpType, letter: str, config: MemoryBackend, peer: Any, **more: Any) -> Any:
    predicate = next(one for one in kind.predicates() if one.letter == letter)
    assert isinstance(predicate, TrustPredicate | PinPredicate)
    more = {"wanted": JOHN, "offered_role": "client"} | more
    context = peer_context(peer=peer, identities=kind.identities(peer), config=config, credential_type="openpgp", **more)
    return predicate.establish(context)


def database(*records: TrustRecord) -> MemoryBackend:
    config = MemoryBackend()
    with config.write() as databases:
        for record in records:
            databases.put_trust(record)
    return config


@pytest.fixture(scope="module")
def ca(gpg: Any) -> Any:
    """Fingerprint of a key that certifies one of Ann's two user ids, and Ann's fingerprint."""
    certifier = gpg.make("Certifier <ca@example.org>", "rsa2048", "cert")
    ann = gpg.make("Ann <ann@example.org>")
    gpg("--local-user", certifier, "--quick-sign-key", ann, "Ann <ann@example.org>")
    gpg("--quick-add-uid", ann, "Ann <ann@example.net>")
    return certifier, ann


class Keys:
    """Ann's, certified."""

    def __init__(self, gpg: Any, ann: str) -> None:
        self.public, self.key_id, self.digest = gpg.public(ann), bytes.fromhex(ann)[-8:], bytes.fromhex(ann)


ANN, ANN2 = DoNAI.parse("ann@example.org"), DoNAI.parse("ann@example.net")


def test_a_certification_of_a_trusted_key(kind: OpenPgpType, gpg: Any, ca: Any) -> None:
    certifier, ann = ca
    keys = Keys(gpg, ann)
    (record,) = kind.import_trust(gpg.public(certifier), pinned=False)
    assert record.key == bytes.fromhex(certifier)
    config = database(record)
    peer = examined(kind, keys, config)
    assert found(kind, "T", config, peer, wanted=ANN).verdict is Verdict.STRICT
    finding = found(kind, "T", config, peer, wanted=ANN2)
    assert finding.verdict is Verdict.LENIENT and "no trusted OpenPGP key certifies ann@example.net" in finding.reason
    assert found(kind, "T", config, peer, wanted=ANN, offered_role="server").verdict is Verdict.STRICT
    assert kind.trust_keys(peer) == (keys.digest, record.key)
    for other in (
        replace(record, roles=Role.SERVER),
        replace(record, revoked=True),
        replace(record, pinned=True),
        replace(record, blob=b""),
        replace(record, type="x509"),
        replace(record, blob=keys.public),
        replace(record, key=bytes(20)),
    ):
        config = database(other)
        assert found(kind, "T", config, examined(kind, keys, config), wanted=ANN).verdict is Verdict.LENIENT, other


def test_a_certifier_that_was_revoked_or_took_it_back(gpg: Any, kind: OpenPgpType) -> None:
    certifier = gpg.make("Fickle <fickle@example.org>")
    bob = gpg.make("Bob <bob@example.org>")
    gpg("--local-user", certifier, "--quick-sign-key", bob)
    wanted, keys = DoNAI.parse("bob@example.org"), Keys(gpg, bob)
    config = database(*kind.import_trust(gpg.public(certifier), pinned=False))
    assert found(kind, "T", config, examined(kind, keys, config), wanted=wanted).verdict is Verdict.STRICT
    revocation = (gpg.home / "openpgp-revocs.d" / f"{certifier}.rev").read_bytes().replace(b":-----", b"-----")
    gpg("--import", stdin=revocation)
    (record,) = config.read().__enter__().trust(bytes.fromhex(certifier))
    config = database(replace(record, blob=gpg.public(certifier)))
    assert found(kind, "T", config, examined(kind, keys, config), wanted=wanted).verdict is Verdict.LENIENT


def test_a_trusted_key_itself(kind: OpenPgpType, john: Any) -> None:
    (record,) = kind.import_trust(john.public, pinned=False)
    config = database(record)
    assert found(kind, "T", config, examined(kind, john, config)).verdict is Verdict.STRICT
    config = database(replace(record, roles=Role.SERVER))
    assert found(kind, "T", config, examined(kind, john, config)).verdict is Verdict.LENIENT
    assert found(kind, "P", config, examined(kind, john, config)).verdict is Verdict.LENIENT


def test_a_key_that_is_marked_as_revoked(kind: OpenPgpType, john: Any) -> None:
    (record,) = kind.import_trust(john.public, pinned=True)
    peer = examined(kind, john, database())
    config = database(replace(record, revoked=True))
    for letter in "TP":
        assert found(kind, letter, config, peer).verdict is Verdict.FALSE
    with pytest.raises(CertificateRevoked):
        examined(kind, john, config)


def test_a_key_that_expired_since(john: Any, kind: OpenPgpType, reader: Any, gpg: Any) -> None:
    """As in a session that is resumed long after: what was examined is judged again."""
    fingerprint = gpg.make("Brief <brief@example.org>", expires="20980101T000000")
    times = [1_900_000_000.0]
    kind = OpenPgpType(clock=lambda: times[0], reader=reader)
    config = database(*kind.import_trust(gpg.public(fingerprint), pinned=False))
    peer = examined(kind, Keys(gpg, fingerprint), config)
    wanted = DoNAI.parse("brief@example.org")
    assert found(kind, "T", config, peer, wanted=wanted).verdict is Verdict.STRICT
    times[0] = 4_300_000_000.0
    assert found(kind, "T", config, peer, wanted=wanted).verdict is Verdict.FALSE


def test_pins(kind: OpenPgpType, john: Any, mary: Any) -> None:
    (record,) = kind.import_trust(john.public, pinned=True)
    config = database(record)
    assert found(kind, "P", config, examined(kind, john, config)).verdict is Verdict.STRICT
    config = database(replace(record, roles=Role.SERVER))
    assert found(kind, "P", config, examined(kind, john, config)).verdict is Verdict.LENIENT


def test_pins_on_first_use(kind: OpenPgpType, gpg: Any, john: Any) -> None:
    config = database()
    peer = examined(kind, john, config)
    finding = found(kind, "P", config, peer)
    assert finding.verdict is Verdict.LENIENT and finding.on_accept is not None
    assert found(kind, "P", config, peer).verdict is Verdict.LENIENT  # not kept before it is accepted
    finding.on_accept()
    finding.on_accept()
    assert found(kind, "P", config, peer).verdict is Verdict.STRICT
    assert found(kind, "P", config, peer, offered_role="server").verdict is Verdict.LENIENT
    other = examined(kind, Keys(gpg, gpg.make("Impostor <john@example.org>")), config)
    refused = found(kind, "P", config, other)
    assert refused.verdict is Verdict.FALSE and "another OpenPGP key is pinned" in refused.reason
    assert found(kind, "P", config, other, wanted=OTHER).verdict is Verdict.LENIENT
    late = found(kind, "P", database(), other).on_accept
    assert late is not None
    late()
    race = found(kind, "P", race_config := database(), other).on_accept
    first = found(kind, "P", race_config, peer).on_accept
    assert race is not None and first is not None
    first()
    with pytest.raises(Denied):
        race()


def test_the_fingerprint_form(kind: OpenPgpType, john: Any, web: Any) -> None:
    entry = CertificateEntry(b"\x03\x08" + john.key_id + b"\x14" + john.digest)
    (record,) = kind.import_trust(john.public, pinned=False)
    peer = kind.examine(1, (entry,), database(record))
    assert JOHN in kind.identities(peer) and peer.signing.key_id == john.key_id
    with pytest.raises(UnknownCA):
        kind.examine(1, (entry,), database())
    with pytest.raises(UnknownCA):
        kind.examine(1, (entry,), database(replace(record, revoked=True)))
    with pytest.raises(CertificateUnknown):
        kind.examine(1, (entry,), database(replace(record, blob=web.public)))


def test_the_older_form_means_the_primary_key(kind: OpenPgpType, web: Any) -> None:
    entry = CertificateEntry(b"\x01" + len(web.public).to_bytes(3, "big") + web.public)
    assert kind.examine(1, (entry,), database()).signing.fingerprint == web.digest
