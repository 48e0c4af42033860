"""Do client and server of every combination agree on keys, facts and data?"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tlspool_core.testing.peers import KEY_KINDS, Answers, software_credential
from tlspool_core.tls.groups import DEFAULT_GROUPS
from tlspool_core.tls.padding import POWERS, Padding
from tlspool_core.tls.questions import ClientAuth
from tlspool_core.tls.settings import TLS13
from tlspool_core.tls.signatures import CORE_SCHEMES
from tlspool_core.tls.suites import CORE_SUITES

SUITES = [code for code, suite in CORE_SUITES.items() if suite.version == TLS13]
SCHEMES = [code for code, row in CORE_SCHEMES.items() if TLS13 in row.versions]


@pytest.mark.parametrize("group", DEFAULT_GROUPS, ids=hex)
@pytest.mark.parametrize("suite", SUITES, ids=hex)
def test_every_suite_with_every_group(make: Any, suite: int, group: int) -> None:
    pair = make.established(server=make.server(cipher_suites=(suite,), groups=(group,)), client=make.client(groups=DEFAULT_GROUPS))
    for facts in (pair.client.facts, pair.server.facts):
        assert (facts.cipher_suite, facts.group) == (suite, group)
        assert facts.quantum_safe_exchange is (group > 0x1000)
    assert pair.client.export(b"label", b"context", 48) == pair.server.export(b"label", b"context", 48)


@pytest.mark.parametrize("scheme", SCHEMES, ids=hex)
def test_every_scheme_in_both_directions(make: Any, scheme: int) -> None:
    """All but RSASSA-PSS keys, which `cryptography` cannot make: their schemes are tested with OpenSSL."""
    if 0x0809 <= scheme <= 0x080B:
        kinds: list[str] = []
    else:
        kinds = [kind for kind in KEY_KINDS if scheme in software_credential(kind).signature_schemes]
        assert kinds
    for kind in kinds:
        client, server = make.client(signature_schemes=(scheme,)), make.server(signature_schemes=(scheme,))
        ours = Answers(credentials=(software_credential(kind, "client"),))
        pair = make.established(
            client=client, server=server, client_answers=ours, server_answers=make.answers(kind, client_auth=ClientAuth.REQUIRE)
        )
        for facts in (pair.client.facts, pair.server.facts):
            assert facts.own_signature_scheme == facts.peer_signature_scheme == scheme
            assert facts.quantum_safe_authentication is (scheme >> 8 == 9)


PADDINGS = st.none() | st.builds(Padding, st.sampled_from((0, 512, POWERS)), st.sampled_from((0, 100, POWERS)))
subsets = st.lists(st.sampled_from(DEFAULT_GROUPS), min_size=1, unique=True)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_settings_agree_or_fail_for_a_reason(make: Any, data: st.DataObject) -> None:
    """Whatever two sides allow: they come to an agreement that both allow, or there is none."""
    groups = (data.draw(subsets), data.draw(subsets))
    suites = tuple(data.draw(st.lists(st.sampled_from(SUITES), min_size=1, unique=True)) for _ in range(2))
    kind = data.draw(st.sampled_from(["ecdsa-p256", "ed25519", "rsa-2048"]))
    mode = data.draw(st.sampled_from(list(ClientAuth)))
    client = make.client(
        groups=groups[0],
        cipher_suites=suites[0],
        alpn=data.draw(st.sampled_from([(), (b"a",), (b"b", b"a")])),
        middlebox_compatibility=data.draw(st.booleans()),
        certificate_compression=data.draw(st.booleans()),
        record_size_limit=data.draw(st.integers(64, 16385)),
        padding=data.draw(PADDINGS),
        want_ocsp=data.draw(st.booleans()),
        post_handshake_auth=data.draw(st.booleans()),
    )
    server = make.server(
        groups=groups[1],
        cipher_suites=suites[1],
        certificate_compression=data.draw(st.booleans()),
        middlebox_compatibility=data.draw(st.booleans()),
        record_size_limit=data.draw(st.integers(64, 16385)),
        padding=data.draw(PADDINGS),
        prefer_own_suites=data.draw(st.booleans()),
    )
    ours = Answers(credentials=(software_credential("ed25519", "client"),))
    pair = make.pair(client, server, ours, make.answers(kind, client_auth=mode, alpn=data.draw(st.sampled_from([(), (b"a",)]))))
    pair.step = data.draw(st.sampled_from([0, 1, 100]))
    pair.run()
    common = set(suites[0]) & set(suites[1]) and set(groups[0]) & set(groups[1])
    assert pair.complete is bool(common), (pair.client.failed, pair.server.failed)
    if not common:
        assert pair.server.failed is not None and pair.server.failed.alert is not None
        assert pair.server.failed.alert.name == "HANDSHAKE_FAILURE"
        return
    facts = pair.client.facts
    assert facts.group in groups[0] and facts.group in groups[1]
    assert facts.cipher_suite in suites[0] and facts.cipher_suite in suites[1]
    assert (facts.group, facts.cipher_suite, facts.alpn, facts.retried) == (
        pair.server.facts.group,
        pair.server.facts.cipher_suite,
        pair.server.facts.alpn,
        pair.server.facts.retried,
    )
    text = data.draw(st.binary(max_size=3000))
    pair.client.send(text)
    pair.server.send(text)
    pair.run()
    assert pair.client.take_plaintext() == pair.server.take_plaintext() == text
