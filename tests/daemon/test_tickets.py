"""Do ticket keys rotate, are they shared, is the past forgotten, and is a used ticket used?"""

from __future__ import annotations

from pathlib import Path

import pytest

from tlspool_core.pool.settings import TicketConfig
from tlspool_core.pool.tickets import ClientSessions, Seed, TicketKeys, step
from tlspool_core.tls.settings import StoredSession

CONFIG = TicketConfig(lifetime=100, rotation=60)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_a_ticket_opens_until_it_is_too_old() -> None:
    clock = Clock()
    keys = TicketKeys(CONFIG, clock=clock)
    ticket = keys.seal(b"state", b"http")
    assert ticket is not None and b"state" not in ticket
    clock.now += 99
    assert keys.open(ticket, b"http") == b"state"
    clock.now += 2
    assert keys.open(ticket, b"http") is None


def test_what_is_too_large_for_a_client_hello_is_not_sealed() -> None:
    keys = TicketKeys(CONFIG, clock=Clock())
    assert keys.seal(bytes(16384), b"http") is not None
    assert keys.seal(bytes(16385), b"http") is None


def test_another_scope_another_process_and_every_changed_byte_are_refused() -> None:
    clock = Clock()
    keys = TicketKeys(CONFIG, clock=clock)
    ticket = keys.seal(b"state", b"http")
    assert ticket is not None
    assert keys.open(ticket, b"imap") is None
    assert TicketKeys(CONFIG, clock=clock).open(ticket, b"http") is None
    for position in range(len(ticket)):
        assert keys.open(ticket[:position] + bytes([ticket[position] ^ 1]) + ticket[position + 1 :], b"http") is None
        assert keys.open(ticket[:position], b"http") is None


def test_processes_from_one_seed_agree_through_rotations() -> None:
    clock = Clock()
    seed = Seed.fresh(CONFIG.rotation, clock.now)
    one, two = TicketKeys(CONFIG, seed, clock), TicketKeys(CONFIG, seed, clock)
    for _ in range(5):
        ticket = one.seal(b"state", b"")
        clock.now += 61
        assert ticket is not None
        assert two.open(ticket, b"") == b"state"


def test_a_file_is_shared_private_and_forgets_the_past(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "tickets"
    config = TicketConfig(lifetime=100, rotation=60, key_file=str(path))
    one, two = TicketKeys(config, clock=clock), TicketKeys(config, clock=clock)
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    ticket = one.seal(b"state", b"")
    assert ticket is not None
    assert two.open(ticket, b"") == b"state"
    clock.now += 1000
    assert one.seal(b"state", b"") is not None
    assert path.read_bytes() != before
    assert before[-32:] not in path.read_bytes()
    assert TicketKeys(config, clock=clock).open(ticket, b"") is None


def test_a_file_of_another_kind_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("something dear to someone")
    with pytest.raises(OSError, match="no ticket key file"):
        TicketKeys(TicketConfig(key_file=str(path)))
    assert path.read_text() == "something dear to someone"


def test_the_chain_goes_one_way() -> None:
    seed = Seed(0, bytes(32))
    assert step(step(seed, 3), 7) == step(seed, 7)
    assert step(seed, 7).chain != step(seed, 6).chain
    assert "00" * 8 not in repr(seed)


def test_single_use_is_single() -> None:
    clock = Clock()
    keys = TicketKeys(TicketConfig(lifetime=100, rotation=60, single_use=True), clock=clock)
    ticket = keys.seal(b"state", b"")
    assert ticket is not None
    assert keys.open(ticket, b"") == b"state"
    assert keys.open(ticket, b"") is None


def session(number: int, obtained: float) -> StoredSession:
    return StoredSession(bytes([number]), b"", obtained)


def test_a_client_uses_a_session_once_newest_first_and_keeps_few() -> None:
    clock = Clock()
    cache = ClientSessions(2, per_key=2, lifetime=100, clock=clock)
    cache.store("a", [session(n, clock.now) for n in range(3)], "john@example.com")
    taken = [cache.take("a") for _ in range(3)]
    assert [one.session.ticket if one else None for one in taken] == [b"\2", b"\1", None]
    assert taken[0] is not None and taken[0].local == "john@example.com"
    for key in "xyz":
        cache.store(key, [session(1, clock.now)], "")
    assert cache.take("x") is None
    assert cache.take("z") is not None
    clock.now += 101
    assert cache.take("y") is None
