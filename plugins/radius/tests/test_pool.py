"""Does a real pool do what a real FreeRADIUS says: who may have a session, for how long, and why not?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forgeries import BAD, SECRET, answer, liar
from freeradius import FreeRadius, free_port, write_private
from radius_pools import Meeting, PoolProcess, Pools, eventually, works

from tlspool_core.client import ErrorCode, PoolError, Session


def section(*servers: dict[str, Any], **step: Any) -> dict[str, Any]:
    """[aaa.radius] with these servers for authorisation."""
    names = [f"s{number}" for number in range(len(servers))]
    # the time-out is long: a busy machine must not look like a dead server
    return {
        "server": dict(zip(names, servers, strict=True)),
        "authorization": {"servers": names, "timeout": 3.0, "limit": 12} | step,
    }


@pytest.fixture(scope="module")
def asking(server: FreeRadius, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PoolProcess]:
    """A pool that asks FreeRADIUS over UDP."""
    made = PoolProcess(tmp_path_factory.mktemp("asking") / "pool", section(server.section()), authorization=["radius"])
    yield made
    made.stop()
    print(made.text)


def refusal(asking: PoolProcess, clients: PoolProcess, user: str, service: str = "http") -> str:
    """The error of the server's application, which the log has as well."""
    with Meeting(asking.pool, clients.pool, user, service) as met:
        error = met.server
        assert isinstance(error, PoolError) and error.code == ErrorCode.SITE_REFUSED, error
        if isinstance(met.client, Session):  # a client may have finished before it was refused
            assert met.client.plaintext.recv(1) == b""
    eventually(lambda: error.text in asking.text)
    return str(error.text)


def test_who_is_accepted_has_a_session_and_the_server_learnt_all_of_it(
    asking: PoolProcess, clients: PoolProcess, server: FreeRadius
) -> None:
    with Meeting(asking.pool, clients.pool, "john") as met:
        assert isinstance(met.server, Session)
    name, service_type, called, calling, service, connection, session = server.lines("requests")[-1].split("|")
    assert (name, service_type, called, service) == ("john@example.com", "Authorize-Only", "www.example.com", "http")
    assert connection.split()[:2] == ["toy", "server"] and "unproven" not in connection
    assert calling == met.client_address
    eventually(lambda: f"[{session}] established" in asking.text)


def test_who_is_rejected_is_refused_with_the_words_of_the_server(asking: PoolProcess, clients: PoolProcess) -> None:
    assert refusal(asking, clients, "eve") == "authorization by radius: rejected: the library is closed to you"


def test_a_challenge_is_a_refusal_with_its_reason(asking: PoolProcess, clients: PoolProcess) -> None:
    said = refusal(asking, clients, "ann")
    assert said.startswith("authorization by radius: the RADIUS server wants more than the identity")


@pytest.mark.parametrize(("user", "reason"), [("mute", "no answer to 2 tries"), ("naked", "no Message-Authenticator")])
def test_without_an_answer_to_believe_the_session_is_refused(
    pools: Pools, clients: PoolProcess, server: FreeRadius, user: str, reason: str
) -> None:
    asking = pools(section(server.section(dead_time=0), timeout=0.2))
    assert reason in refusal(asking, clients, user)


def test_without_an_answer_the_session_goes_on_where_configuration_says_so(
    pools: Pools, clients: PoolProcess, server: FreeRadius
) -> None:
    asking = pools(section(server.section(dead_time=0), timeout=0.2, without_answer="permit"))
    works(asking, clients, "mute")
    assert "is permitted without an answer: no RADIUS server answers" in asking.text


def test_a_refusal_stays_one_where_silence_permits(pools: Pools, clients: PoolProcess, server: FreeRadius) -> None:
    asking = pools(section(server.section(), without_answer="permit"))
    assert "the library is closed to you" in refusal(asking, clients, "eve")


@pytest.mark.parametrize("user", ["short", "idle"])
def test_limits_of_the_accept_end_the_session(asking: PoolProcess, clients: PoolProcess, user: str) -> None:
    with Meeting(asking.pool, clients.pool, user) as met:
        assert met.client.plaintext.recv(1) == b""
    cause = {"short": "session timeout", "idle": "idle timeout"}[user]
    eventually(lambda: f'cause="{cause}"' in asking.text)


def test_two_steps_are_asked_and_either_may_refuse(pools: Pools, clients: PoolProcess, server: FreeRadius) -> None:
    rules = section(server.section())
    asking = pools(rules | {"authentication": rules["authorization"]}, authentication=["radius"])
    before = len(server.lines("requests"))
    works(asking, clients)
    assert [line.split("|")[1] for line in server.lines("requests")[before:]] == ["Authenticate-Only", "Authorize-Only"]
    assert refusal(asking, clients, "eve").startswith("authentication by radius: rejected")


def test_over_tls(pools: Pools, clients: PoolProcess, server: FreeRadius) -> None:
    asking = pools(section(server.radsec_section()))
    works(asking, clients)
    assert "the library is closed to you" in refusal(asking, clients, "eve")


def test_the_next_server_is_asked_if_one_is_silent(pools: Pools, clients: PoolProcess, server: FreeRadius) -> None:
    asking = pools(section(server.section(port=free_port()), server.section(), timeout=0.3))
    works(asking, clients)
    assert "RADIUS server s0 does not answer" in asking.text


def test_a_server_that_dies_under_load_costs_no_session(pools: Pools, clients: PoolProcess, own_servers: list[FreeRadius]) -> None:
    first, second = own_servers
    first.start()
    second.start()
    asking = pools(section(first.section(), second.section(), timeout=1.0))
    works(asking, clients)
    before = asking.descriptors
    meetings = [Meeting(asking.pool, clients.pool, "john") for _ in range(40)]
    eventually(lambda: len(first.lines("requests")) > 5)
    first.stop(kill=True)
    meetings += [Meeting(asking.pool, clients.pool, "john") for _ in range(10)]
    for met in meetings:
        assert isinstance(met.done().server, Session), met.server
        met.close()
    assert second.lines("requests")
    eventually(lambda: asking.descriptors <= before)


def test_what_is_forged_or_malformed_neither_permits_nor_hangs(pools: Pools, clients: PoolProcess, tmp_path: Path) -> None:
    write_private(tmp_path / "secret", SECRET)
    with liar(lambda raw: [make(raw) for make in BAD.values()]) as port:
        false = {"address": "127.0.0.1", "port": port, "secret_file": str(tmp_path / "secret"), "dead_time": 0}
        asking = pools(section(false, timeout=0.3))
        for _ in range(3):
            assert "no RADIUS server answers" in refusal(asking, clients, "john")
        asking.pool.ping()
    with liar(lambda raw: [*(make(raw) for make in BAD.values()), answer(raw)]) as port:
        works(pools(section(false | {"port": port})), clients)


# --- beside validation --------------------------------------------------------------------------------------------------------


@pytest.fixture
def early(pools: Pools, server: FreeRadius) -> PoolProcess:
    return pools(section(server.section()), parallel=["authorization"])


def asked_about(server: FreeRadius, before: int) -> list[str]:
    """User-Name, and the last word of Connect-Info."""
    return [line.split("|")[0] + " " + line.split("|")[5].split()[-1] for line in server.lines("requests")[before:]]


def test_asked_beside_validation_both_must_permit(early: PoolProcess, clients: PoolProcess, server: FreeRadius) -> None:
    before = len(server.lines("requests"))
    met = Meeting(early.pool, clients.pool, "john", "slow")
    eventually(lambda: asked_about(server, before))  # while the revocation is still being looked at
    assert asked_about(server, before) == ["john@example.com unproven"]
    assert met.server is None
    early.outcome.write_text("clean")
    with met:
        assert isinstance(met.server, Session) and str(met.server.remoteid) == "john@example.com"
    assert len(asked_about(server, before)) == 1


@pytest.mark.parametrize("user", ["john", "eve"])
def test_a_failed_validation_refuses_whatever_the_server_said(
    early: PoolProcess, clients: PoolProcess, server: FreeRadius, user: str
) -> None:
    before = len(server.lines("requests"))
    met = Meeting(early.pool, clients.pool, user, "slow")
    eventually(lambda: asked_about(server, before))
    early.outcome.write_text("revoked")
    with met:
        assert isinstance(met.server, PoolError) and met.server.code == ErrorCode.REMOTEID_REFUSED, met.server
        assert "the credential is revoked" in met.server.text
    eventually(lambda: "the credential is revoked" in early.text)
    assert "closed to you" not in early.text and "site rules" not in early.text


def test_a_failed_validation_does_not_wait_for_the_server(early: PoolProcess, clients: PoolProcess, server: FreeRadius) -> None:
    before = len(server.lines("requests"))
    met = Meeting(early.pool, clients.pool, "mute", "slow")
    eventually(lambda: asked_about(server, before))
    early.outcome.write_text("revoked")
    with met:
        assert isinstance(met.server, PoolError) and met.server.code == ErrorCode.REMOTEID_REFUSED, met.server


def test_a_reject_is_told_after_validation_only(early: PoolProcess, clients: PoolProcess, server: FreeRadius) -> None:
    before = len(server.lines("requests"))
    met = Meeting(early.pool, clients.pool, "eve", "slow")
    eventually(lambda: asked_about(server, before))
    assert met.server is None and "closed to you" not in early.text
    early.outcome.write_text("clean")
    with met:
        assert isinstance(met.server, PoolError) and met.server.code == ErrorCode.SITE_REFUSED, met.server
        assert met.server.text.endswith("rejected: the library is closed to you")


def test_one_after_the_other_is_the_default(asking: PoolProcess, clients: PoolProcess, server: FreeRadius) -> None:
    before = len(server.lines("requests"))
    with Meeting(asking.pool, clients.pool, "mallory") as met:
        assert isinstance(met.server, PoolError) and met.server.code == ErrorCode.REMOTEID_REFUSED, met.server
    assert asked_about(server, before) == []


# --- an identity that is proved again -----------------------------------------------------------------------------------------


@pytest.fixture
def changing(own_servers: list[FreeRadius], pools: Pools) -> tuple[FreeRadius, PoolProcess]:
    """A server that may change its mind, and a pool that asks it."""
    own_servers[0].start()
    return own_servers[0], pools(section(own_servers[0].section(dead_time=0)))


def test_who_proves_itself_again_is_asked_about_again_and_the_new_limits_hold(
    changing: tuple[FreeRadius, PoolProcess], clients: PoolProcess
) -> None:
    server, asking = changing
    with Meeting(asking.pool, clients.pool, "john") as met:
        server.change("Session-Timeout := 3600", "Session-Timeout := 1")
        met.server.renegotiate()
        assert str(met.server.remoteid) == "john@example.com"
        assert met.client.plaintext.recv(1) == b""
    eventually(lambda: 'cause="session timeout"' in asking.text)
    assert len(server.lines("requests")) == 2


def test_who_is_rejected_when_it_proves_itself_again_loses_the_session(
    changing: tuple[FreeRadius, PoolProcess], clients: PoolProcess
) -> None:
    server, asking = changing
    with Meeting(asking.pool, clients.pool, "john") as met:
        server.change("/^eve@/", "/^john@/")
        with pytest.raises(PoolError, match="authorization by radius: rejected: the library is closed to you"):
            met.server.renegotiate()
        assert met.client.plaintext.recv(1) == b""
