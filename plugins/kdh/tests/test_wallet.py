"""Are tickets kept, renewed before they end, and is a KDC that is slow or down no burden to those that do not need it?"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import krb5
import pytest
from kdh_helpers import MAIL, WEB, soon, source
from tlspool_kdh import gate as gate_module
from tlspool_kdh import mit
from tlspool_kdh.exchange import TicketCredential
from tlspool_kdh.gate import KDC_UNREACHABLE, Gate, KerberosError
from tlspool_kdh.mit import Source
from tlspool_kdh.tickets import Principal, Service
from tlspool_kdh.wallet import SPARE, Tickets

from tlspool_core.api import DecryptError

AT_WEB, AT_MAIL = (Principal.parse(WEB),), (Principal.parse(MAIL),)


@pytest.fixture
def john(realm: Any) -> Source:
    return source("john@KDH.EXAMPLE", keytab=realm.users)


def test_what_is_good_is_kept(john: Source) -> None:
    tickets = Tickets()
    assert tickets.held(john, AT_WEB) is None
    first = tickets.get(john, AT_WEB)
    assert tickets.get(john, AT_WEB) is first and tickets.held(john, AT_WEB) is first
    assert tickets.get(john, AT_MAIL) is not first


def test_what_ends_soon_is_used_while_another_is_fetched(john: Source) -> None:
    clock = [time.time()]
    tickets = Tickets(margin=300, now=lambda: clock[0])
    first, granting = tickets.get(john, AT_WEB), tickets.granting(john)
    clock[0] = first.ends - 299
    assert tickets.held(john, AT_WEB) is None
    assert tickets.get(john, AT_WEB) is first
    soon(lambda: tickets.get(john, AT_WEB) is not first)
    assert tickets.granting(john).ticket != granting.ticket


def test_what_has_ended_is_fetched_first(john: Source) -> None:
    clock = [time.time()]
    tickets = Tickets(margin=300, now=lambda: clock[0])
    first = tickets.get(john, AT_WEB)
    clock[0] = first.ends - SPARE + 1
    assert tickets.get(john, AT_WEB) is not first


def test_a_kdc_that_is_down_does_not_take_what_is_good(john: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [time.time()]
    tickets = Tickets(margin=300, now=lambda: clock[0])
    first, tried = tickets.get(john, AT_WEB), threading.Event()

    def down(*_: object) -> Any:
        tried.set()
        raise KerberosError("Cannot contact any KDC", KDC_UNREACHABLE)

    for name in ("renewed", "initial", "service_ticket"):
        monkeypatch.setattr(mit, name, down)
    clock[0] = first.ends - 200
    assert tickets.get(john, AT_WEB) is first
    assert tried.wait(60)
    assert tickets.get(john, AT_WEB) is first
    clock[0] = first.ends - SPARE + 1
    with pytest.raises(KerberosError, match="Cannot contact any KDC"):
        tickets.get(john, AT_WEB)


def test_the_keeper_renews_a_cache_that_nobody_uses(realm: Any, tmp_path: Path) -> None:
    """Only what is still good can be renewed; the owner's file stays as it is."""
    file = tmp_path / "cache"
    realm.kinit(f"FILE:{file}", "mary", "sesame", "-r", "1d", "-l", "10m")
    clock, before = [time.time()], file.read_bytes()
    tickets, whose = Tickets(margin=300, now=lambda: clock[0]), source("mary@KDH.EXAMPLE", ccache=f"FILE:{file}")
    first = tickets.granting(whose)
    tickets.renew_due()
    assert tickets.granting(whose) is first
    clock[0] = first.ends - 299
    tickets.renew_due()
    renewed = tickets.granting(whose)
    assert renewed.ticket != first.ticket and renewed.client == first.client
    assert file.read_bytes() == before


def test_a_cache_is_copied_by_one_at_a_time(realm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    realm.kinit(f"FILE:{tmp_path}/cache", "mary", "sesame")
    tickets, whose, copied = Tickets(), source("mary@KDH.EXAMPLE", ccache=f"FILE:{tmp_path}/cache"), []
    copy, second = mit.copied, threading.Event()

    def slow(source: Source) -> Any:
        copied.append(source)
        second.wait(1 if len(copied) == 1 else 0)  # whoever comes meanwhile must wait, and find it done
        return copy(source)

    monkeypatch.setattr(mit, "copied", slow)
    askers = [threading.Thread(target=tickets.granting, args=(whose,)) for _ in range(3)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(60)
    assert len(copied) == 1


@pytest.mark.parametrize("does", ["kinit", "kdestroy"])
def test_what_the_owner_does_while_the_old_ticket_is_renewed_counts(
    realm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str
) -> None:
    """What comes of the renewal is dropped then: the cache may be somebody else's, or nobody's."""
    file, clock = tmp_path / "cache", [time.time()]
    tickets, whose, renew = Tickets(margin=300, now=lambda: clock[0]), Source(ccache=f"FILE:{file}"), mit.renewed
    realm.kinit(f"FILE:{file}", "mary", "sesame", "-r", "1d", "-l", "10m")
    clock[0] = tickets.granting(whose).ends - 200

    def meanwhile(purse: mit.Purse) -> mit.Purse:
        if does == "kinit":
            realm.kinit(f"FILE:{file}", "john", "", "-k", "-t", realm.users)
        else:
            file.unlink()
        clock[0] += 6
        with nullcontext() if does == "kinit" else pytest.raises(KerberosError):
            tickets._look_into_cache(tickets._wallet(whose))
        return renew(purse)

    monkeypatch.setattr(mit, "renewed", meanwhile)
    tickets.renew_due()
    if does == "kinit":
        assert str(tickets.granting(whose).client) == "john@KDH.EXAMPLE"
    else:
        assert tickets._wallet(whose).purse is None


def test_a_ticket_that_comes_after_its_owner_has_left_is_not_kept(
    realm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, clock = tmp_path / "cache", [time.time()]
    tickets, whose, ask = Tickets(now=lambda: clock[0]), Source(ccache=f"FILE:{file}"), mit.service_ticket
    realm.kinit(f"FILE:{file}", "mary", "sesame")

    def meanwhile(*arguments: Any) -> Any:
        realm.kinit(f"FILE:{file}", "john", "", "-k", "-t", realm.users)
        clock[0] += 6
        tickets.granting(whose)
        return ask(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(mit, "service_ticket", meanwhile)
        assert str(tickets.get(whose, AT_WEB).client) == "mary@KDH.EXAMPLE"  # who asked for it was Mary
    assert tickets.held(whose, AT_WEB) is None
    assert str(tickets.get(whose, AT_WEB).client) == "john@KDH.EXAMPLE"


def test_a_cache_that_cannot_be_used_leaves_nothing_in_memory(realm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one whose ticket has a weak session key: its owner could fill the memory of the pool."""

    made: list[bytes] = []

    def unique(context: krb5.Context, kind: bytes) -> krb5.CCache:
        cache = new(context, kind)
        made.append(kind + b":" + (cache.name or b""))
        return cache

    def weak(*_: object) -> Any:
        raise ValueError("encryption type 23 is not one of AES")

    realm.kinit(f"FILE:{tmp_path}/cache", "mary", "sesame")
    new = krb5.cc_new_unique
    monkeypatch.setattr(mit.krb5, "cc_new_unique", unique)
    monkeypatch.setattr(mit, "_ticket", weak)
    with pytest.raises(KerberosError, match="encryption type 23"):
        mit.copied(source("mary@KDH.EXAMPLE", ccache=f"FILE:{tmp_path}/cache"))
    context = krb5.init_context()
    for name in made:
        with pytest.raises(krb5.Krb5Error):
            _ = krb5.cc_resolve(context, name).principal
    assert made


def test_a_cache_that_has_ended_says_so(realm: Any, tmp_path: Path) -> None:
    realm.kinit(f"FILE:{tmp_path}/cache", "mary", "sesame")
    whose = source("mary@KDH.EXAMPLE", ccache=f"FILE:{tmp_path}/cache")
    with pytest.raises(KerberosError, match=r"has ended, or will soon: run kinit"):
        Tickets(now=lambda: time.time() + 3600).granting(whose)


def test_a_clock_that_is_wrong_is_corrected_by_the_kdc(realm: Any, john: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """libkrb5 learns from the KDC's answers how wrong it is; Authenticators say what the time is there."""
    right = Tickets().get(john, AT_WEB)
    assert abs(right.clock_offset) < 5
    monkeypatch.setattr(mit.krb5, "get_time_offsets", lambda context: (1000, 500_000))
    held = Tickets().get(john, AT_WEB)
    there = Service(mit.keytab_keys(realm.services), now=lambda: time.time() + 1000)
    proof = TicketCredential(held).sign(0x04E0, b"messages")
    there.accept(there.open(held.ticket), 0x04E0, b"messages", proof)
    with pytest.raises(DecryptError, match="clocks differ"):
        there.accept(there.open(right.ticket), 0x04E0, b"messages", TicketCredential(right).sign(0x04E0, b"messages"))


# --- the gate -----------------------------------------------------------------------------------------------------------------


def unreachable() -> None:
    raise KerberosError("Cannot contact any KDC", KDC_UNREACHABLE)


def test_an_unreachable_kdc_is_left_alone_for_a_while() -> None:
    clock, asked = [0.0], []
    gate = Gate(lambda: clock[0])
    for number in range(3):
        with pytest.raises(KerberosError, match="Cannot contact any KDC") as caught:
            gate.ask("DEAD.EXAMPLE", lambda number=number: asked.append(number) or unreachable())
        assert caught.value.code == KDC_UNREACHABLE
    assert asked == [0]
    assert gate.ask("KDH.EXAMPLE", lambda: "another realm") == "another realm"
    clock[0] = 11
    assert gate.ask("DEAD.EXAMPLE", lambda: "later") == "later"


def test_few_at_a_time_wait_for_one_realm() -> None:
    gate, release, inside = Gate(), threading.Event(), threading.Semaphore(0)

    def slow() -> None:
        inside.release()
        release.wait(60)

    askers = [threading.Thread(target=gate.ask, args=("SLOW.EXAMPLE", slow)) for _ in range(3)]
    for asker in askers:
        asker.start()
    for _ in askers:
        assert inside.acquire(timeout=60)
    with pytest.raises(KerberosError, match=r"the KDC of SLOW.EXAMPLE is slow"):
        gate.ask("SLOW.EXAMPLE", lambda: "a fourth")
    assert gate.ask("KDH.EXAMPLE", lambda: "another realm") == "another realm"
    release.set()
    for asker in askers:
        asker.join(60)


def test_nobody_waits_for_a_kdc_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has been asked goes on in a thread of its own; its answer, if it comes, says that the KDC is back."""
    monkeypatch.setattr(gate_module, "_ANSWER", 0.01)
    gate, release, done = Gate(), threading.Event(), threading.Event()
    with pytest.raises(KerberosError, match=r"the KDC of SLOW.EXAMPLE has not answered within"):
        gate.ask("SLOW.EXAMPLE", lambda: release.wait(60) and done.set())
    with pytest.raises(KerberosError, match=r"the KDC of SLOW.EXAMPLE does not answer \(found"):
        gate.check("SLOW.EXAMPLE")
    release.set()
    assert done.wait(60)

    def answers() -> bool:
        try:
            gate.check("SLOW.EXAMPLE")
        except KerberosError:
            return False
        return True

    soon(answers)


def test_a_fault_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        Gate().ask("KDH.EXAMPLE", lambda: 1 // 0)


def test_a_kdc_that_is_down(realm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        config = tmp_path / "krb5.conf"
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config.write_text(
            f"[libdefaults]\n dns_lookup_kdc = false\n udp_preference_limit = 1\n[realms]\n KDH.EXAMPLE = {{\n kdc = {address}\n }}\n"
        )
        monkeypatch.setenv("KRB5_CONFIG", str(config))
        tickets, mary = Tickets(), source("mary@KDH.EXAMPLE", password=lambda: b"sesame")
        with pytest.raises(KerberosError, match="Cannot contact any KDC"):
            tickets.granting(mary)
        with pytest.raises(KerberosError, match=r"Cannot contact any KDC .*\(found \d+ s ago\)"):
            tickets.granting(source("john@KDH.EXAMPLE", keytab=realm.users))
