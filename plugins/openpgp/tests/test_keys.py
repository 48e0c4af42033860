"""Is a key refused, with the reason, that is revoked, expired, weak, damaged, or not for signing?"""

from __future__ import annotations

import time
from typing import Any

import pytest
from tlspool_openpgp import standing
from tlspool_openpgp.facts import KeyFacts, PublicKeyFacts, SignatureFacts, SubkeyFacts, UserFacts
from tlspool_openpgp.message import subkey_descriptor
from tlspool_openpgp.names import identities_of, identity_of
from tlspool_openpgp.packets import MAX_KEY, Malformed, Packet, dearmored, framed, keys_of, packets, walk
from tlspool_openpgp.reader import NoAnswer, Reader

from tlspool_core.api import (
    BadCertificate,
    CertificateEntry,
    CertificateExpired,
    CertificateRevoked,
    CertificateUnknown,
    InsufficientSecurity,
    TlsError,
    UnsupportedCertificate,
)
from tlspool_core.testing.memory import MemoryBackend

NOW = 1_800_000_000.0


# --- judged on facts ----------------------------------------------------------------------------------------------------------------

PRIMARY = PublicKeyFacts(bytes(20), int(NOW) - 1000, "ed25519", 256, b"spki")
SUB = PublicKeyFacts(bytes(19) + b"\1", int(NOW) - 1000, "rsa", 2048, b"spki")
SELF = SignatureFacts(0x13, int(NOW) - 900, flags=3)
BOUND = SignatureFacts(0x18, int(NOW) - 900, flags=2, back=True)


def facts(
    *signatures: SignatureFacts, direct: tuple[SignatureFacts, ...] = (), sub: tuple[SignatureFacts, ...] = (), **more: Any
) -> KeyFacts:
    user = UserFacts("John <john@example.org>", signatures, ())
    return KeyFacts(more.pop("primary", PRIMARY), direct, (user,), (SubkeyFacts(SUB, sub),), **more)


def at(kind: int, ago: int, **more: Any) -> SignatureFacts:
    return SignatureFacts(kind, int(NOW) - ago, **more)


@pytest.mark.parametrize(
    ("key", "key_id", "refusal"),
    [
        (facts(SELF), b"", None),
        (facts(SELF), PRIMARY.key_id, None),
        (facts(SELF, sub=(BOUND,)), SUB.key_id, None),
        (facts(SELF, sub=(at(0x18, 900, flags=0x20),)), SUB.key_id, None),
        (facts(SELF, sub=(at(0x18, 900, flags=0x02),)), SUB.key_id, BadCertificate),
        (facts(SELF, sub=(at(0x18, 900),)), SUB.key_id, BadCertificate),
        (facts(SELF, sub=(at(0x18, 900, flags=0x0C),)), SUB.key_id, UnsupportedCertificate),
        (facts(SELF, sub=(BOUND, at(0x28, 800))), SUB.key_id, CertificateRevoked),
        (facts(SELF, sub=(BOUND, at(0x28, 950))), SUB.key_id, CertificateRevoked),
        (facts(SELF, sub=()), SUB.key_id, BadCertificate),
        (facts(SELF, sub=(at(0x18, 900, flags=2, back=True, key_expires=500),)), SUB.key_id, CertificateExpired),
        (facts(SELF, sub=(at(0x18, 900, flags=2, back=True, expires=500),)), SUB.key_id, CertificateExpired),
        (facts(SELF, sub=(at(0x18, -5000, flags=2, back=True),)), SUB.key_id, BadCertificate),
        (facts(SELF), b"nobody's", BadCertificate),
        (facts(), b"", BadCertificate),
        (facts(weak="SHA-1"), b"", InsufficientSecurity),
        (facts(SELF, direct=(at(0x20, 10),)), b"", CertificateRevoked),
        (facts(SELF, direct=(at(0x20, 990),)), b"", CertificateRevoked),
        (facts(at(0x13, 900, flags=1)), b"", UnsupportedCertificate),
        (facts(at(0x13, 900, flags=0x21)), b"", None),
        (facts(at(0x13, 900)), b"", None),
        (facts(at(0x13, 900, key_expires=999)), b"", CertificateExpired),
        (facts(at(0x13, 900, key_expires=2000)), b"", None),
        (facts(at(0x13, 900, key_expires=999), at(0x13, 100)), b"", None),
        (facts(at(0x13, 900, key_expires=5000), at(0x13, 100, key_expires=999)), b"", CertificateExpired),
        (facts(SELF, direct=(at(0x1F, 100, key_expires=999),)), b"", CertificateExpired),
        (facts(at(0x13, 900, expires=800)), b"", BadCertificate),
        (facts(SELF, at(0x30, 900)), b"", BadCertificate),
        (facts(SELF, at(0x30, 800)), b"", BadCertificate),
        (facts(at(0x30, 950), SELF), b"", None),
        (facts(at(0x13, -5000)), b"", BadCertificate),
        (facts(SELF, primary=PublicKeyFacts(bytes(20), int(NOW) + 5000, "rsa", 2048, b"")), b"", BadCertificate),
        (facts(SELF, primary=PublicKeyFacts(bytes(20), int(NOW) - 1000, "dsa", 2048, b"")), b"", UnsupportedCertificate),
    ],
)
def test_what_a_key_is_good_for(key: KeyFacts, key_id: bytes, refusal: type[TlsError] | None) -> None:
    if refusal is None:
        assert standing.signing_key(key, key_id, NOW).key_id in (PRIMARY.key_id, SUB.key_id)
        return
    with pytest.raises(refusal) as caught:
        standing.signing_key(key, key_id, NOW)
    assert type(caught.value) is refusal


def test_strength() -> None:
    assert standing.strength(PRIMARY) == 128 and standing.strength(PRIMARY, SUB) == 112
    assert standing.strength(PublicKeyFacts(b"", 0, "ecdsa", 521, b"")) == 256


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        ("John Doe <john@example.org>", "john@example.org"),
        ("John Doe (work) <John@Example.ORG>", "john@example.org"),
        ("<@example.org>", "example.org"),
        ("The server <@www.example.org>", "www.example.org"),
        ("<john@example.org>", "john@example.org"),
        ("john@example.org", "john@example.org"),
        ("@example.org", "example.org"),
        ("John Doe", None),
        ("john@example.org <mary@example.org>", "mary@example.org"),
        ("<john@example.org> or not", None),
        ("<<john@example.org>>", None),
        ("<john@example.org", None),
        ("<@>", None),
        ("<john@>", None),
        ("<john@a@example.org>", None),
        ("<*@example.org>", None),
        ("<@.example.org>", None),
        ("<@127.0.0.1>", None),
        ("John <john@example.org>\n", None),
        ("a" * 2000 + " <john@example.org>", "john@example.org"),
        ("", None),
        ("a<john@example.org>", None),
    ],
)
def test_identities(text: str, identity: str | None) -> None:
    found = identity_of(text)
    assert (None if found is None else str(found)) == identity


def test_users_go_before_domains_and_count_once() -> None:
    texts = ["<@example.org>", "J <john@example.org>", "nobody", "John <john@example.org>"]
    assert list(map(str, identities_of(texts))) == ["john@example.org", "example.org"]


# --- as gpg makes them ----------------------------------------------------------------------------------------------------------------


def examined(kind: Any, key: bytes, key_id: bytes) -> Any:
    return kind.examine(1, (CertificateEntry(subkey_descriptor(key_id, key)),), MemoryBackend())


def test_a_good_key(kind: Any, john: Any, mary: Any, web: Any) -> None:
    peer = examined(kind, john.public, john.key_id)
    assert sorted(map(str, kind.identities(peer))) == ["john@example.net", "john@example.org"]
    assert kind.describe(peer, "subject") == john.fingerprint
    assert set(kind.describe(peer, "subjectaltname").split(",")) == {"john@example.org", "john@example.net"}
    assert kind.describe(peer, "issuer") is None and kind.strength(peer) == 128
    assert list(map(str, kind.identities(examined(kind, web.public, web.key_id)))) == ["www.example.org"]
    assert kind.strength(examined(kind, mary.public, mary.key_id)) == 128
    assert john.key_id != john.digest[-8:] and peer.signing.key_id == john.key_id


def test_the_primary_key_of_one_who_only_certifies_cannot_sign(kind: Any, mary: Any) -> None:
    with pytest.raises(UnsupportedCertificate, match="flags"):
        examined(kind, mary.public, mary.digest[-8:])


def test_revoked_and_expired_keys_of_gpg(kind: Any, gpg: Any, reader: Reader) -> None:
    expired = gpg.make("Old <old@example.org>", expires="20990101T000000")
    key = gpg.public(expired)
    assert standing.primary_fault(reader.read(key), time.time()) is None
    assert isinstance(standing.primary_fault(reader.read(key), 5_000_000_000), CertificateExpired)
    revocation = (gpg.home / "openpgp-revocs.d" / f"{expired}.rev").read_bytes().replace(b":-----", b"-----")
    gpg("--import", stdin=revocation)
    with pytest.raises(CertificateRevoked, match="owner"):
        examined(kind, gpg.public(expired), bytes.fromhex(expired)[-8:])
    with pytest.raises(ValueError, match="revoked"):
        kind.import_trust(gpg.public(expired), pinned=False)


def test_a_revoked_user_id_names_nobody(kind: Any, gpg: Any) -> None:
    fingerprint = gpg.make("Ann <ann@example.org>")
    gpg("--quick-add-uid", fingerprint, "Ann <ann@example.net>")
    gpg("--quick-revoke-uid", fingerprint, "Ann <ann@example.net>")
    assert list(map(str, kind.identities(examined(kind, gpg.public(fingerprint), b"" or bytes.fromhex(fingerprint)[-8:])))) == [
        "ann@example.org"
    ]


def test_a_user_id_that_somebody_added_names_nobody(kind: Any, john: Any) -> None:
    parts = packets(john.public)
    forged = [*parts[:1], Packet(13, b"Boss <boss@example.org>"), *parts[2:]]
    stuffed = [*parts, Packet(13, b"Boss <boss@example.org>")]
    for some in (forged, stuffed):
        peer = examined(kind, b"".join(framed(part.tag, part.body) for part in some), john.key_id)
        assert "boss@example.org" not in map(str, kind.identities(peer))


def test_another_ones_subkey_is_not_taken(kind: Any, john: Any, mary: Any) -> None:
    """Neither as it is, nor with a binding by the wrong primary key."""
    key = john.public + b"".join(framed(part.tag, part.body) for part in packets(mary.public)[-2:])
    with pytest.raises(BadCertificate, match="not bound"):
        examined(kind, key, mary.key_id)


def test_every_octet_counts(kind: Any, john: Any) -> None:
    """A key in which any one octet is changed names nobody else, and is either refused or says the same."""
    whole = john.public
    for position in range(0, len(whole), 7):
        changed = whole[:position] + bytes((whole[position] ^ 0x41,)) + whole[position + 1 :]
        try:
            names = set(map(str, kind.identities(examined(kind, changed, john.key_id))))
        except TlsError:
            continue
        assert names <= {"john@example.org", "john@example.net"}


def test_weak_keys(kind: Any, gpg: Any, web: Any) -> None:
    weak = gpg.make("Weak <weak@example.org>", "rsa1024")
    with pytest.raises(InsufficientSecurity, match="1024"):
        examined(kind, gpg.public(weak), bytes.fromhex(weak)[-8:])
    with pytest.raises(ValueError, match="1024"):
        kind.import_local(gpg.public(weak))
    body = packets(web.public)[0].body
    for version, refusal in (
        (2, InsufficientSecurity),
        (3, InsufficientSecurity),
        (5, UnsupportedCertificate),
        (6, UnsupportedCertificate),
    ):
        with pytest.raises(refusal, match=f"version {version}"):
            examined(kind, framed(6, bytes((version,)) + body[1:]), web.key_id)


def test_sha1_signatures_do_not_count(kind: Any, gpg: Any) -> None:
    gpg.home.joinpath("gpg.conf").write_text("cert-digest-algo SHA1\nallow-weak-key-signatures\n")
    try:
        old = gpg.make("Sha <sha1@example.org>", "rsa2048")
    finally:
        gpg.home.joinpath("gpg.conf").unlink()
    with pytest.raises(InsufficientSecurity, match="SHA-1 is 2"):
        examined(kind, gpg.public(old), bytes.fromhex(old)[-8:])


def test_a_dsa_key_certifies_but_does_not_sign_in_tls(kind: Any, gpg: Any) -> None:
    dsa = gpg.make("Dsa <dsa@example.org>", "dsa2048")
    subkey = gpg.subkey(dsa, "rsa2048", "sign")
    with pytest.raises(UnsupportedCertificate, match="dsa"):
        examined(kind, gpg.public(dsa), bytes.fromhex(dsa)[-8:])
    assert examined(kind, gpg.public(dsa), bytes.fromhex(subkey)[-8:]).signing.algorithm == "rsa"


# --- octets ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0", b"nonsense", bytes(MAX_KEY + 1), b"\xc6", b"\xc6\xff", b"\xc6\xff\xff\xff\xff\xff", b"\xc6\xe1ab", b"\x9b" + bytes(9),
        framed(13, b"x") * 513, framed(13, bytes(1025)), framed(6, bytes(5000)), framed(6, b""), framed(6, b"\4"), framed(6, b"\4" + bytes(5)),
        framed(2, b""), framed(13, b"a"), framed(5, b"\4" + bytes(9)), framed(6, b"\4" + bytes(4) + b"\x16\x01"),
        framed(6, b"\4" + bytes(4) + b"\x13\xff" + bytes(20)), framed(6, b"\4" + bytes(4) + b"\x01\xff\xff" + bytes(20)),
    ],
)  # fmt: skip
def test_what_is_no_key(kind: Any, data: bytes) -> None:
    if data:
        with pytest.raises((BadCertificate, UnsupportedCertificate, InsufficientSecurity)):
            examined(kind, data, bytes(8))
    with pytest.raises(ValueError, match=r"."):
        kind.import_trust(data, pinned=True)


def test_truncated_anywhere(kind: Any, web: Any) -> None:
    whole = web.public
    for length in range(1, len(whole) - 1, 23):
        with pytest.raises(TlsError):
            examined(kind, whole[:length], web.key_id)


def test_two_keys_are_not_one(kind: Any, web: Any, john: Any) -> None:
    with pytest.raises(BadCertificate):
        examined(kind, web.public + john.public, web.key_id)
    with pytest.raises(ValueError, match="2 OpenPGP keys"):
        kind.import_local(web.public + john.public)
    assert len(kind.import_trust(web.public + john.public, pinned=False)) == 2


def test_files(kind: Any, gpg: Any, web: Any, john: Any) -> None:
    armored = gpg("--armor", "--export", web.fingerprint)
    assert kind.import_local(armored) == kind.import_local(web.public) == web.public
    both = armored + b"\n" + gpg("--armor", "--export", john.fingerprint)
    assert [record.key for record in kind.import_trust(both, pinned=True)] == [web.digest, john.digest]
    with pytest.raises(ValueError, match="private key block"):
        kind.import_local(gpg("--armor", "--export-secret-keys", web.fingerprint))
    with pytest.raises(ValueError, match="private key"):
        kind.import_local(gpg("--export-secret-keys", web.fingerprint))
    for damaged in (
        armored.replace(b"-----END", b"-----XND"),
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n=\n-----END PGP PUBLIC KEY BLOCK-----",
    ):
        with pytest.raises(Malformed):
            keys_of(damaged)
    assert kind.summarize(web.public) == f"{web.fingerprint} <@www.example.org>"
    assert kind.summarize(web.digest) == f"pin {web.fingerprint}" and kind.summarize(b"") == ""
    assert dearmored(b"raw") == b"raw" and [packet.tag for packet in walk(web.public)] == [6, 13, 2]


# --- bounded time ------------------------------------------------------------------------------------------------------------------------


def _worker(behaviour: str) -> tuple[str, ...]:
    import sys

    return (sys.executable, "-c", behaviour)


@pytest.mark.parametrize(
    "behaviour",
    [
        "import time; time.sleep(60)",
        "import sys; sys.exit(3)",
        "print('ready', flush=True); import time; time.sleep(60)",
        "print('ready', flush=True); import sys; sys.stdin.readline(); sys.exit(3)",
        "print('ready\\nno JSON', flush=True); import time; time.sleep(60)",
        "print('ready', flush=True)\nimport sys\nwhile True: sys.stdout.write('x' * 65536)",
        "print('ready\\n[1, 2]', flush=True); import time; time.sleep(60)",
        'print(\'{"facts": {"primary": 1}}\', flush=True); import time; time.sleep(60)',
    ],
)
def test_a_worker_that_hangs_or_lies_is_no_answer(web: Any, monkeypatch: pytest.MonkeyPatch, behaviour: str) -> None:
    monkeypatch.setattr("tlspool_openpgp.reader.START_LIMIT", 1)
    reader = Reader(0.1, _worker(behaviour))
    started = time.monotonic()
    with pytest.raises(NoAnswer):
        reader.read(web.public)
    assert time.monotonic() - started < 10  # of the 60 that it would take
    from tlspool_openpgp.credential_type import OpenPgpType

    with pytest.raises(CertificateUnknown):
        examined(OpenPgpType(reader=reader), web.public, web.key_id)
    reader.close()


def test_after_one_that_was_killed_the_next_answers(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlspool_openpgp.reader.START_LIMIT", 1)
    reader = Reader(0.1, _worker("import time; time.sleep(60)"))
    with pytest.raises(NoAnswer):
        reader.read(web.public)
    monkeypatch.undo()
    from tlspool_openpgp.reader import COMMAND

    reader._command, reader.time_limit = COMMAND, 3
    assert reader.read(web.public).primary.fingerprint == web.digest
    reader.close()


def test_many_signatures_are_not_verified_for_ever(reader: Reader, web: Any) -> None:
    parts = packets(web.public)
    crowded = b"".join(framed(part.tag, part.body) for part in [*parts[:2], *parts[2:3] * 130])
    with pytest.raises(Malformed, match="128"):
        reader.read(crowded)


def test_the_daemon_does_not_load_pgpy() -> None:
    import subprocess
    import sys

    code = "import sys, tlspool_openpgp.plugin; sys.exit('pgpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_busy_pool_has_high_descriptors(web: Any) -> None:
    import os
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < 1200:
        pytest.skip("this process may not have so many descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 1200), limits[1]))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    reader = Reader()
    try:
        assert reader.read(web.public).primary.fingerprint == web.digest
    finally:
        reader.close()
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
