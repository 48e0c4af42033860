"""Do guesses count for the user and the peer that make them, however the one is spelled and whatever port the other comes from?"""

from __future__ import annotations

from typing import Any

import pytest
from tlspool_srp.attempts import Attempts
from tlspool_srp.exchange import ServerSrp, UserExtension
from tlspool_srp.plugin import SrpType

from tlspool_core.api import AccessDenied, DoNAI, KeyExchangeContext, LocalCredential, Role, SessionContext
from tlspool_core.testing.memory import MemoryBackend

SERVER = DoNAI.parse("imap.example.com")
UNUSED: Any = None
GUESSES = 3


def guess(server: ServerSrp, user: str) -> bool:
    """Whether the server goes on with an attempt, which then fails."""
    server.extension.user = user
    context: KeyExchangeContext = UNUSED
    try:
        server.start("server", context).peer_parameters(b"\0\1\5")
    except AccessDenied:
        return False
    return True


@pytest.mark.parametrize("spelling", ["john", "john@EXAMPLE.com", "JOHN@example.com", "john@Example.Com"])
def test_all_spellings_are_one_user(spelling: str) -> None:
    """They lead to one verifier, and a client need not compute with the one that it sends."""
    attempts = Attempts(limit_user=GUESSES)
    server = ServerSrp(UserExtension(), MemoryBackend(), attempts, lambda: DoNAI.parse("example.com"), simulated_bits=1024)
    assert all(guess(server, "john@example.com") for _ in range(GUESSES))
    assert not guess(server, spelling)
    assert guess(server, "mary@example.com")


@pytest.mark.parametrize(
    ("addresses", "another"),
    [
        (["192.0.2.1:1", "192.0.2.1:2", "192.0.2.1:3"], "192.0.2.2:1"),
        (["[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::2]:2"], "[2001:db8:0:1::1]:1"),
        (["192.0.2.1:1", "[::ffff:192.0.2.1]:1", "192.0.2.1:1"], "[::ffff:192.0.2.2]:1"),
        (["[fe80::1%eth0]:1", "[fe80::1%eth0]:2", "[fe80::1%eth0]:3"], "192.0.2.2:1"),
    ],
)
def test_all_ports_are_one_peer(addresses: list[str], another: str) -> None:
    """And so are the addresses that one host of IPv6 can take."""
    kind = SrpType()
    kind.configure({"attempts_per_address": GUESSES, "simulated_bits": 1024})

    def guesses(number: int, address: str) -> bool:
        local = (LocalCredential(SERVER, "srp", Role.SERVER, "", b""),)
        context = SessionContext("server", "", SERVER, None, local, MemoryBackend(), UNUSED, UNUSED, address)
        (server,) = kind.begin(context).key_exchanges
        assert isinstance(server, ServerSrp)
        return guess(server, f"user{number}@example.com")

    outcomes = [guesses(number, address) for number, address in enumerate([*addresses, addresses[0], another])]
    assert outcomes == [True, True, True, False, True]


def test_peers_without_an_address_are_counted_by_user_alone() -> None:
    """As the processes of one host are, whose sockets have none."""
    attempts = Attempts(limit_user=2, limit_address=1)
    assert all(attempts.begin("john", "") and attempts.guess("john", "") for _ in range(2))
    assert not attempts.begin("john", "") and attempts.begin("mary", "")


def test_who_sends_nothing_guesses_nothing() -> None:
    """Or a client whose token is not plugged in would keep its user out."""
    attempts = Attempts(limit_user=1, limit_address=3)
    assert [attempts.begin("john", "192.0.2.1") for _ in range(4)] == [True, True, True, False]
    assert attempts.begin("john", "192.0.2.2") and attempts.guess("john", "192.0.2.2")


def test_many_that_have_begun_guess_no_more_often_than_one_after_another() -> None:
    attempts = Attempts(limit_user=2)
    assert all(attempts.begin("john", "") for _ in range(9))
    assert [attempts.guess("john", "") for _ in range(4)] == [True, True, False, False]


def test_success_is_no_failure() -> None:
    attempts = Attempts(limit_user=1, limit_address=1)
    for _ in range(3):
        assert attempts.begin("john", "192.0.2.1") and attempts.guess("john", "192.0.2.1")
        attempts.succeeded("john", "192.0.2.1")


def test_memory_is_bounded() -> None:
    attempts = Attempts()
    for number in range(11_000):
        attempts.begin(f"user{number}", f"address{number}")
    assert len(attempts._failures) <= 10_000


def test_names_that_one_address_makes_up_have_no_failures_forgotten() -> None:
    """Or whoever has more addresses could guess on, after a crowd of names that were never even guessed at."""
    attempts = Attempts(limit_user=2)
    assert all(attempts.begin("john", "192.0.2.1") and attempts.guess("john", "192.0.2.1") for _ in range(2))
    for number in range(11_000):
        attempts.begin(f"user{number}", "192.0.2.2")
    assert not attempts.begin("john", "192.0.2.3")


def test_a_reload_forgets_no_failures() -> None:
    kind = SrpType()
    for _ in range(2):
        kind.configure({"attempts_per_user": 1})
        assert kind._attempts.limit_user == 1
        outcome = kind._attempts.guess("john", "")
    assert not outcome
