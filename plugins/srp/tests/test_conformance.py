"""Does SRP do what every key exchange, and every hostile peer, is owed?"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from tlspool_srp.attempts import Attempts
from tlspool_srp.exchange import ClientRun, ClientSrp, ServerSrp, UserExtension
from tlspool_srp.groups import GROUPS
from tlspool_srp.messages import build_client_public, number, server_parameters
from tlspool_srp.plugin import SrpType
from tlspool_srp.verifiers import context_for, make_verifier, record_for

from tlspool_core.api import AlertDescription, DoNAI, IllegalParameter, InsufficientSecurity, SessionParts, TlsError
from tlspool_core.testing.key_exchange import ExchangeUnderTest, KeyExchangeConformance
from tlspool_core.testing.memory import MemoryBackend
from tlspool_core.testing.peers import Pair

JOHN = DoNAI.parse("john@example.com")
SERVER = DoNAI.parse("imap.example.com")
VERIFIER = make_verifier("john@example.com", "secret", 1536)


def sides(user: str = "john@example.com", password: str = "secret") -> ExchangeUnderTest:
    databases = MemoryBackend()
    with databases.write() as writer:
        writer.put_trust(record_for(JOHN, VERIFIER))
    extension = UserExtension()
    server = ServerSrp(extension, databases, Attempts(limit_user=1000, limit_address=1000), lambda: SERVER, simulated_bits=1536)
    return ExchangeUnderTest(
        SrpType.engine_parts,
        client=SessionParts((ClientSrp(user, SERVER, lambda: password),), (UserExtension(user),)),
        server=SessionParts((server,), (extension,)),
    )


class TestKeyExchange(KeyExchangeConformance):
    def exchange(self) -> ExchangeUnderTest:
        return sides()

    def hostile(self) -> ExchangeUnderTest:
        return sides(password="wrong")


def fresh_run(minimum_bits: int = 1536) -> ClientRun:
    return ClientRun(ClientSrp("john", SERVER, lambda: "secret", minimum_bits))


@pytest.mark.parametrize("multiple", [0, 1, 2])
def test_a_server_value_that_is_a_multiple_of_the_prime_is_refused(multiple: int) -> None:
    group = GROUPS[1536]
    with pytest.raises(IllegalParameter, match="B is not within"):
        fresh_run().peer_parameters(server_parameters(group, b"salt", multiple * group.prime).build())


@pytest.mark.parametrize("multiple", [0, 1, 2])
def test_a_client_value_that_is_a_multiple_of_the_prime_is_refused(multiple: int) -> None:
    """Such a client would know the premaster secret, zero, without the password."""
    pair = sides().pair()

    def hostile_value(body: bytes) -> bytes:
        return build_client_public(multiple * GROUPS[1536].prime)

    from tlspool_core.testing.flights import edit_message

    pair.to_server = edit_message(16, hostile_value)
    pair.run()
    assert pair.server.failed is not None
    assert pair.server.failed.alert is AlertDescription.ILLEGAL_PARAMETER


def test_a_group_of_the_servers_own_making_is_refused() -> None:
    weak = type(GROUPS[1536])(1536, GROUPS[1536].prime + 2, 2)
    with pytest.raises(InsufficientSecurity, match="none of RFC 5054"):
        fresh_run().peer_parameters(server_parameters(weak, b"salt", 5).build())


def test_small_groups_are_a_matter_of_policy() -> None:
    group = GROUPS[1024]
    public = context_for(group, "john").get_server_public(password_verifier=5, server_private=7)
    parameters = server_parameters(group, b"salt", public).build()
    with pytest.raises(InsufficientSecurity, match="1024 bits"):
        fresh_run().peer_parameters(parameters)
    lenient = fresh_run(minimum_bits=1024)
    lenient.peer_parameters(parameters)
    assert len(lenient.premaster()) > 100


def flights(pair: Pair) -> tuple[int, ...]:
    """Sizes of what the server sends, flight by flight."""
    sizes: list[int] = []

    def note(data: bytes) -> bytes:
        sizes.append(len(data))
        return data

    pair.to_client = note
    pair.run()
    assert pair.server.failed is not None
    assert pair.server.failed.alert is AlertDescription.BAD_RECORD_MAC
    return tuple(sizes)


def test_known_and_unknown_users_get_messages_of_the_same_sizes_in_the_same_order() -> None:
    """B is shorter by an octet once in 256 times for either, so the commonest sizes are compared, and how often they occur."""
    rounds = 40
    known = Counter(flights(sides(password="wrong").pair()) for _ in range(rounds))
    unknown = Counter(flights(sides(user="jane@example.com", password="wrong").pair()) for _ in range(rounds))
    assert known.most_common(1)[0][0] == unknown.most_common(1)[0][0]
    for counts in (known, unknown):
        assert counts.most_common(1)[0][1] >= rounds * 0.9


def test_an_unknown_user_gets_the_same_salt_each_time() -> None:
    under_test = sides(user="jane@example.com")
    server: Any = under_test.server.key_exchanges[0]
    server.extension.user = "jane@example.com"
    first, second = (server.start("server", None).own_parameters() for _ in range(2))
    assert first is not None
    assert first[: -len(number(GROUPS[1536].prime)) - 2] == second[: -len(number(GROUPS[1536].prime)) - 2]
    assert first != second  # B is fresh


def test_a_client_that_names_nobody_is_told_so() -> None:
    under_test = sides()
    server: Any = under_test.server.key_exchanges[0]
    assert not server.usable({})
    with pytest.raises(TlsError) as refusal:
        server.start("server", None)
    assert refusal.value.alert is AlertDescription.UNKNOWN_PSK_IDENTITY
