"""Do two ends with a shared key find each other by name, and can neither be made to talk with itself?"""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from tlspool_core.testing.peers import Answers, Pair
from tlspool_core.tls import TlsConnection, alerts
from tlspool_core.tls.questions import ExternalPsk, OpenTicket
from tlspool_core.tls.settings import OfferedPsk
from tlspool_core.tls.tls13.external_psk import ImportedIdentity, PskNames

KEY = bytes(range(32))
ALICE, BOB = b"alice.example", b"bob.example"
NAMES = PskNames(ALICE, BOB)
SUITES = {"sha256": 0x1301, "sha384": 0x1302}


def offering(make: Any, names: PskNames | None = NAMES, key: bytes = KEY, **more: Any) -> Any:
    return make.client(psk=OfferedPsk(b"shared", key, names, **more))


def met(make: Any, client: Any, psk_name: bytes, **server: Any) -> Pair:
    """A server by this name, which has the key and no certificate."""
    theirs = make.answers(psks={b"shared": KEY}, credentials=())
    pair: Pair = make.pair(client=client, server=make.server(psk_name=psk_name, **server), server_answers=theirs)
    pair.run()
    return pair


@pytest.mark.parametrize("hash_name", SUITES)
@pytest.mark.parametrize("groups", [(), (0x18,)], ids=["at once", "after a retry"])
def test_two_ends_that_know_each_other(make: Any, hash_name: str, groups: tuple[int, ...]) -> None:
    pair = met(make, offering(make), BOB, cipher_suites=(SUITES[hash_name],), groups=groups)
    assert pair.complete, (pair.client.failed, pair.server.failed)
    for side in (pair.client, pair.server):
        assert side.facts.key_exchange == "PSK+ECDHE" and not side.facts.resumed
    assert [question for question in pair.server_answers.asked if isinstance(question, ExternalPsk)] == [
        ExternalPsk(b"shared", NAMES)
    ]
    assert not [question for question in pair.server_answers.asked if isinstance(question, OpenTicket)], (
        "it has the form of no ticket"
    )


def test_our_own_hello_sent_back(make: Any) -> None:
    """Selfie: Alice is client of Bob and server for Bob, and somebody connects her to herself."""
    pair = met(make, offering(make), ALICE)
    assert type(pair.server.failed) is alerts.ReflectedHello
    assert pair.server.failed.alert is not None and pair.server.failed.alert.name == "ILLEGAL_PARAMETER"
    assert pair.client.failed is not None and not pair.client.handshake_complete


def test_a_hello_for_somebody_else(make: Any) -> None:
    pair = met(make, offering(make, PskNames(ALICE, b"carol.example")), BOB)
    assert type(pair.server.failed) is alerts.NoCredential, "no key of ours, and there is no certificate"
    assert not [question for question in pair.server_answers.asked if isinstance(question, ExternalPsk)]


@pytest.mark.parametrize("changes", [{"key": b"x" * 32}, {"names": PskNames(b"mallory", BOB)}])
def test_names_and_key_go_into_the_binder(make: Any, changes: dict[str, Any]) -> None:
    """A client that goes by another name has another key, although the server would answer to it."""
    honest = OfferedPsk(b"shared", KEY, NAMES)
    pretended = OfferedPsk(b"shared", **({"key": KEY, "names": NAMES} | changes))
    imported = ImportedIdentity(b"shared", pretended.names or NAMES, "sha256")
    assert imported.key(pretended.key) != ImportedIdentity(b"shared", NAMES, "sha256").key(honest.key)
    if "key" in changes:
        assert type(met(make, offering(make, **changes), BOB).server.failed) is alerts.BadBinder


def test_a_server_that_has_no_name_takes_none(make: Any) -> None:
    pair = met(make, offering(make), b"")
    assert type(pair.server.failed) is alerts.NoCredential
    assert not [question for question in pair.server_answers.asked if isinstance(question, ExternalPsk)]


@pytest.mark.parametrize("hash_name", SUITES)
def test_raw_keys_only_where_they_are_allowed(make: Any, hash_name: str) -> None:
    client = offering(make, None, hash_name=hash_name)
    suites = (SUITES[hash_name],)
    assert type(met(make, client, BOB, cipher_suites=suites).server.failed) is alerts.NoCredential
    pair = met(make, client, BOB, cipher_suites=suites, takes_raw_psks=True)
    assert pair.complete and pair.server.facts.key_exchange == "PSK+ECDHE"
    wrong = met(make, offering(make, None, b"x" * 32, hash_name=hash_name), BOB, cipher_suites=suites, takes_raw_psks=True)
    assert type(wrong.server.failed) is alerts.BadBinder


@pytest.mark.parametrize(("hash_name", "kdf", "length"), [("sha256", b"\0\1", 32), ("sha384", b"\0\2", 48)])
def test_derivation_by_another_hand(hash_name: str, kdf: bytes, length: int) -> None:
    """RFC 9258 section 5.1, with the primitives of `cryptography`."""
    context = bytes((len(ALICE),)) + ALICE + bytes((len(BOB),)) + BOB
    identity = b"\0\6shared" + len(context).to_bytes(2, "big") + context + b"\3\4" + kdf
    imported = ImportedIdentity(b"shared", NAMES, hash_name)
    assert imported.build() == identity
    extract = hmac.HMAC(bytes(32), hashes.SHA256())
    extract.update(KEY)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(identity)
    info = length.to_bytes(2, "big") + b"\x11tls13 derived psk" + b"\x20" + digest.finalize()
    assert imported.key(KEY) == HKDFExpand(hashes.SHA256(), length, info).derive(extract.finalize())


@given(st.binary(max_size=60))
def test_other_identities_are_no_imported_ones(noise: bytes) -> None:
    found = ImportedIdentity.parse(noise)
    assert found is None or found.build() == noise


def test_only_the_exact_form_is_taken() -> None:
    whole = ImportedIdentity(b"shared", NAMES, "sha256").build()
    assert ImportedIdentity.parse(whole) == ImportedIdentity(b"shared", NAMES, "sha256")
    for wrong in (whole[:-1], whole + b"\0", whole[:-3] + b"\3" + whole[-2:], whole[:-1] + b"\3", whole.replace(BOB, b"")):
        assert ImportedIdentity.parse(wrong) is None
    same = whole.replace(b"\x0b" + BOB, b"\x0d" + ALICE).replace(b"\x00\x1a", b"\x00\x1c")
    assert len(same) == len(whole) + 2 and ImportedIdentity.parse(same) is None, "both ends by one name"


@pytest.mark.parametrize("names", [(ALICE, ALICE), (b"", BOB), (ALICE, b""), (b"x" * 256, BOB)])
def test_names_that_tell_nobody_apart(names: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="two different names"):
        PskNames(*names)


def test_openssl_serves_a_raw_key(make: Any, programs: Any, link: Any) -> None:
    port = programs.free_port()
    options = ["-nocert", "-psk_identity", "shared", "-psk", KEY.hex(), "-tls1_3", "-rev"]
    program = programs.start("openssl", "s_server", "-accept", f"127.0.0.1:{port}", *options)
    ours = link(programs.connect(port, program), TlsConnection(offering(make, None)), Answers())
    ours.handshake()
    assert ours.connection.facts.key_exchange == "PSK+ECDHE"
    ours.send(b"hello\n")
    ours.read_until(b"olleh\n")
