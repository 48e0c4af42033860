"""Does FreeRADIUS decide over sessions: accept with limits, reject and challenge with reason, and nothing else permits?"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from freeradius import FreeRadius, free_port, write_private
from radius_helpers import plugin, request
from tlspool_radius.aaa import RadiusAaa

from tlspool_core.api import AaaDecision, Denied


def section(*servers: dict[str, Any], **step: Any) -> dict[str, Any]:
    """Both steps with the same servers."""
    names = [f"s{number}" for number in range(len(servers))]
    function = {"servers": names, "timeout": 0.3, "tries": 2} | step
    return {
        "nas_identifier": "pool.example.com",
        "server": dict(zip(names, servers, strict=True)),
        "authentication": function,
        "authorization": function,
    }


def ask(configured: dict[str, Any], *users: str, step: str = "authorization") -> list[AaaDecision | str]:
    """The decision for each user, or why there is none; asked one after the other."""

    async def one(started: RadiusAaa, user: str) -> AaaDecision | str:
        try:
            return await started.authorize(request(user, step))
        except Denied as denied:
            return str(denied)

    async def main() -> list[AaaDecision | str]:
        async with plugin(configured) as started:
            return [await one(started, user) for user in users]

    return asyncio.run(main())


ACCEPTED = AaaDecision(3600, 120, (b"gold", b"night"))


def radsec_or_udp(server: FreeRadius, transport: str) -> dict[str, object]:
    return server.section() if transport == "udp" else server.radsec_section()


@pytest.mark.parametrize("transport", ["udp", "tls"])
@pytest.mark.parametrize("step", ["authentication", "authorization"])
def test_accept_reject_and_challenge(server: FreeRadius, transport: str, step: str) -> None:
    configured = section(radsec_or_udp(server, transport))
    assert ask(configured, "john", "eve", "ann", step=step) == [
        ACCEPTED,
        "rejected: the library is closed to you",
        "the RADIUS server wants more than the identity, which is all there is: what is your mother's name?",
    ]


def test_the_server_learns_who_wants_what(server: FreeRadius) -> None:
    configured = section(server.section())
    assert ask(configured, "bob", step="authentication") == [ACCEPTED]
    assert ask(configured, "") == [ACCEPTED]
    tail = "|www.example.com|192.0.2.7:4711|http|x509 server 192.0.2.1:443|s-1"
    assert server.lines("requests")[-2:] == [
        f"bob@example.com|Authenticate-Only{tail}",
        f"@example.com|Authorize-Only{tail}",
    ]


def test_an_accept_for_another_service_is_none(server: FreeRadius) -> None:
    assert ask(section(server.section()), "guest") == ["accepted for another Service-Type only"]


SILENT = "no RADIUS server answers (s0: no answer to 2 tries)"
UNSIGNED = "no RADIUS server answers (s0: its answer is not believed: no Message-Authenticator)"


@pytest.mark.parametrize(("user", "reason"), [("mute", SILENT), ("naked", UNSIGNED)])
def test_without_a_signed_answer_the_session_is_refused(server: FreeRadius, user: str, reason: str) -> None:
    assert ask(section(server.section(dead_time=0)), user) == [reason]


@pytest.mark.parametrize("transport", ["udp", "tls"])
def test_an_answer_that_is_not_believed_is_no_silence(server: FreeRadius, transport: str) -> None:
    """Or a server that does not sign would permit those whom it rejects."""
    assert ask(section(radsec_or_udp(server, transport), without_answer="permit"), "naked") == [UNSIGNED]


def test_configuration_may_permit_without_answer(server: FreeRadius) -> None:
    assert ask(section(server.section(dead_time=0), without_answer="permit"), "mute", "eve") == [
        AaaDecision(),
        "rejected: the library is closed to you",
    ]


def test_another_secret_is_not_believed(server: FreeRadius, tmp_path: Any) -> None:
    write_private(tmp_path / "other", b"another secret of the tests")
    said = ask(section(server.section(secret_file=str(tmp_path / "other"))), "john")
    assert said == [SILENT]  # the server does not believe us either


def test_a_server_of_another_name_is_not_asked_over_tls(server: FreeRadius) -> None:
    (said,) = ask(section(server.radsec_section(server_name="other.example.com")), "john")
    assert isinstance(said, str) and "other.example.com" in said


def test_a_peer_without_identity_is_refused_or_anonymous(server: FreeRadius) -> None:
    async def main(configured: dict[str, Any]) -> AaaDecision:
        async with plugin(configured) as started:
            return await started.authorize(request(remote_identity=None))

    with pytest.raises(Denied, match="no identity"):
        asyncio.run(main(section(server.section())))
    asyncio.run(main(section(server.section()) | {"anonymous": "anonymous@example.com"}))
    assert server.lines("requests")[-1].startswith("anonymous@example.com|")


def test_the_next_server_is_asked_and_the_dead_one_is_passed_over(own_servers: list[FreeRadius]) -> None:
    first, second = own_servers
    second.start()
    silent = first.section(port=free_port())
    assert ask(section(silent, second.section()), "john", "eve") == [ACCEPTED, "rejected: the library is closed to you"]


def test_priority_goes_before_the_order_of_the_list(own_servers: list[FreeRadius]) -> None:
    for one in own_servers:
        one.start()
    first, second = own_servers
    ask(section(first.section(priority=2), second.section(priority=1)), "john")
    assert (len(first.lines("requests")), len(second.lines("requests"))) == (0, 1)


@pytest.mark.parametrize("health", [False, True])
def test_a_server_that_dies_under_load_is_replaced_and_comes_back(own_servers: list[FreeRadius], health: bool) -> None:
    first, second = own_servers
    first.start()
    second.start()
    configured = section(first.section(dead_time=2 if health else 0.5, status_server=health), second.section(), limit=20)

    async def main() -> None:
        async with plugin(configured) as started:
            load = [asyncio.create_task(started.authorize(request())) for _ in range(300)]
            await asyncio.wait(load[:50], return_when=asyncio.ALL_COMPLETED)
            await asyncio.to_thread(first.stop, kill=True)
            late = [started.authorize(request()) for _ in range(10)]  # the load may have been answered before the kill
            assert set(await asyncio.gather(*load, *late)) == {ACCEPTED}
            await asyncio.to_thread(first.start)
            before = len(first.lines("requests"))
            async with asyncio.timeout(10):
                while len(first.lines("requests")) == before:
                    assert await started.authorize(request()) == ACCEPTED
                    await asyncio.sleep(0.1)

    asyncio.run(main())
    assert second.lines("requests")


def test_a_step_without_servers_refuses() -> None:
    assert ask({}, "john") == ["no RADIUS servers are configured for authorization: name them in [aaa.radius.authorization]"]


def test_what_was_not_started_refuses() -> None:
    with pytest.raises(Denied, match="not running"):
        asyncio.run(RadiusAaa().authorize(request()))
