"""Do a client and a server of ours agree in TLS 1.2: every suite, group, scheme, resumed or not, however the bytes are cut?"""

from __future__ import annotations

from typing import Any

import pytest

from tlspool_core.testing.peers import Answers, software_credential
from tlspool_core.tls.alerts import UnofferedChoice
from tlspool_core.tls.enums import NamedGroup
from tlspool_core.tls.groups import GROUPS
from tlspool_core.tls.questions import ChooseClientCredential, ChooseServerCredential, ClientAuth, JudgePeer
from tlspool_core.tls.seams import CertificateEntry
from tlspool_core.tls.settings import TLS12, TLS13
from tlspool_core.tls.suites import CORE_SUITES

SUITES = {suite.name: suite for suite in CORE_SUITES.values() if suite.version == TLS12}
GROUPS12 = {group.name: code for code, group in GROUPS.items() if TLS12 in group.versions}
KEY_OF = {"ecdsa": "ecdsa-p256", "rsa": "rsa-2048"}
SCHEMES = {
    "ecdsa-p256": [0x0403],
    "ecdsa-p384": [0x0503],
    "ecdsa-p521": [0x0603],
    "ed25519": [0x0807],
    "ed448": [0x0808],
    "rsa-2048": [0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601],
}


def check_talk(pair: Any) -> None:
    """Both directions carry data, and both sides derive the same from the session."""
    for sender, receiver in ((pair.client, pair.server), (pair.server, pair.client)):
        sender.send(b"hello" * 5000)
        pair.run()
        assert receiver.take_plaintext() == b"hello" * 5000
    assert pair.client.export(b"EXPORTER-t", b"c", 50) == pair.server.export(b"EXPORTER-t", b"c", 50)
    for kind in ("tls-unique", "tls-exporter"):
        binding = pair.client.channel_binding(kind)
        assert binding and binding == pair.server.channel_binding(kind)
    assert pair.client.facts.version == TLS12


@pytest.mark.parametrize("name", SUITES)
@pytest.mark.parametrize("group", GROUPS12)
def test_every_suite_with_every_group(make: Any, name: str, group: str) -> None:
    suite, code = SUITES[name], GROUPS12[group]
    pair = make.established(
        # the group of the exchange first, then the one that the certificate's key is on (RFC 8422 section 5.1.1)
        client=make.client(cipher_suites=(suite.code,), groups=(code, NamedGroup.SECP256R1)),
        server=make.server(groups=(code,)),
        server_answers=make.answers(KEY_OF[suite.authentication]),
    )
    for facts in (pair.client.facts, pair.server.facts):
        assert (facts.cipher_suite_name, facts.group, facts.key_exchange, facts.extended_master_secret) == (
            name,
            code,
            "ECDHE",
            True,
        )
    check_talk(pair)


def test_a_key_on_a_curve_that_was_not_offered_is_refused(make: Any) -> None:
    pair = make.pair(client=make.client(groups=(NamedGroup.X25519,)), server_answers=make.answers("ecdsa-p256"))
    pair.run()
    assert isinstance(pair.client.failed, UnofferedChoice)


@pytest.mark.parametrize(("kind", "scheme"), [(kind, scheme) for kind, schemes in SCHEMES.items() for scheme in schemes])
def test_every_scheme_on_both_sides(make: Any, kind: str, scheme: int) -> None:
    credential = software_credential(kind)
    pair = make.established(
        client=make.client(signature_schemes=(scheme,)),
        server=make.server(signature_schemes=(scheme,)),
        client_answers=Answers(credentials=(credential,)),
        server_answers=make.answers(kind, client_auth=ClientAuth.REQUIRE),
    )
    for facts in (pair.client.facts, pair.server.facts):
        assert (facts.own_signature_scheme, facts.peer_signature_scheme) == (scheme, scheme)
    check_talk(pair)


def test_a_curve_is_not_bound_to_a_hash(make: Any) -> None:
    """RFC 5246 section 7.4.1.4.1: in TLS 1.2, ecdsa_secp256r1_sha256 is just ECDSA with SHA-256."""
    wide = software_credential("ecdsa-p384")
    credential = type(wide)(wide.key, wide.entries, (0x0403,))
    pair = make.established(server_answers=make.answers(credentials=(credential,)))
    assert pair.client.facts.peer_signature_scheme == 0x0403


@pytest.mark.parametrize("step", [1, 7])
@pytest.mark.parametrize("auth", list(ClientAuth))
def test_bytes_cut_anywhere(make: Any, step: int, auth: ClientAuth) -> None:
    pair = make.pair(
        client_answers=Answers(credentials=(software_credential(),)), server_answers=make.answers("rsa-2048", client_auth=auth)
    )
    pair.step = step
    pair.run()
    assert pair.complete
    assert (pair.server.peer is None) is (auth is ClientAuth.NONE)


@pytest.mark.parametrize("both_versions", ["client", "server"])
def test_negotiated_down_by_one_side(make: Any, both_versions: str) -> None:
    versions = {"versions": (TLS13, TLS12)}
    pair = make.established(
        client=make.client(**versions if both_versions == "client" else {}),
        server=make.server(**versions if both_versions == "server" else {}),
    )
    check_talk(pair)


def test_what_is_asked_and_told(make: Any) -> None:
    """Names, protocols, staples and authorities reach the questions and the facts."""
    plain = software_credential()
    scts = b"\x00\x05\x00\x03abc"
    entry = CertificateEntry(plain.entries[0].data, {18: scts})
    credential = type(plain)(plain.key, (entry,), plain.signature_schemes)
    answers = make.answers(
        credentials=(credential,), alpn=(b"h2", b"http/1.1"), client_auth=ClientAuth.REQUEST, certificate_authorities=(b"0\0",)
    )
    client_answers = Answers()
    pair = make.established(
        client=make.client(alpn=(b"http/1.1", b"h2"), want_scts=True),
        server=make.server(ocsp_response=lambda shown: b"response" if shown is credential else None),
        client_answers=client_answers,
        server_answers=answers,
    )
    offer = next(question.offer for question in answers.asked if isinstance(question, ChooseServerCredential))
    assert (offer.server_name, offer.alpn, offer.wants_ocsp, offer.wants_scts) == ("testserver", (b"http/1.1", b"h2"), True, True)
    request = next(question for question in client_answers.asked if isinstance(question, ChooseClientCredential))
    assert request.version == TLS12 and request.offer.certificate_authorities == (b"0\0",)
    facts = pair.client.facts
    assert (facts.alpn, facts.server_name, facts.peer_ocsp, facts.peer_scts) == (b"h2", "testserver", b"response", scts)
    assert pair.server.facts.alpn == b"h2"
    assert pair.client.peer.entries[0].extensions == {18: scts, 5: b"\x01\x00\x00\x08response"}
    assert pair.server.peer is None  # the client had nothing to show


def test_each_side_judges_exactly_once(make: Any) -> None:
    client_answers, server_answers = Answers(credentials=(software_credential(),)), make.answers(client_auth=ClientAuth.REQUIRE)
    make.established(client_answers=client_answers, server_answers=server_answers)
    for answers in (client_answers, server_answers):
        assert len([question for question in answers.asked if isinstance(question, JudgePeer)]) == 1


def test_preference_is_the_servers_or_the_clients(make: Any) -> None:
    client = make.client(cipher_suites=(0xCCA9, 0xC02B))
    assert make.established(client=client).client.facts.cipher_suite == 0xC02B
    pair = make.established(client=client, server=make.server(prefer_own_suites=False))
    assert pair.client.facts.cipher_suite == 0xCCA9


def test_the_suite_follows_from_the_credential(make: Any) -> None:
    both = (software_credential("rsa-2048"), software_credential("ecdsa-p256"))
    pair = make.established(server_answers=make.answers(credentials=both), client=make.client(cipher_suites=(0xC030, 0xC02C)))
    assert pair.client.facts.cipher_suite == 0xC02C  # ours is the order of suites
    pair = make.established(server_answers=make.answers(credentials=both[:1]))
    assert pair.client.facts.cipher_suite == 0xC02F


@pytest.mark.parametrize("limit", [64, 700, 16384])
def test_record_size_limit(make: Any, limit: int) -> None:
    pair = make.established(client=make.client(record_size_limit=limit), server=make.server(record_size_limit=2 * limit))
    pair.server.send(b"x" * 5000)
    records = pair.server.data_to_send()
    assert int.from_bytes(records[3:5]) == min(limit, 5000) + 24  # explicit nonce and tag
    pair.client.receive(records)
    assert pair.client.take_plaintext() == b"x" * 5000


def test_key_log_has_the_master_secret(make: Any) -> None:
    lines: list[str] = []
    server_lines: list[str] = []
    make.established(client=make.client(key_log=lines.append), server=make.server(key_log=server_lines.append))
    assert lines == server_lines and len(lines) == 1
    label, random, secret = lines[0].split()
    assert (label, len(random), len(secret)) == ("CLIENT_RANDOM", 64, 96)
