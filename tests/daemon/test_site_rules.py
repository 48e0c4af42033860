"""Do site rules decide after policy, with their reason told, their limits kept, and every failure a refusal?"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import pytest
from conftest import DaemonProcess, both, eventually
from toyplugin import CLIENT, SERVER

from tlspool_core.client import ErrorCode, PoolError, Session, StartTlsFlags
from tlspool_core.interfaces import Aaa, AaaDecision, AaaRequest, Denied
from tlspool_core.pool.aaa import SiteRules, combine
from tlspool_core.testing.aaa import aaa_request

RULES = """
[limits]
plugin_timeout = 0.3
[aaa]
authentication = ["site"]
authorization = ["site"]
"""


@pytest.fixture(scope="module")
def daemon(module_daemons: Callable[..., DaemonProcess]) -> DaemonProcess:
    return module_daemons(RULES)


@pytest.mark.parametrize(
    ("service", "reason"),
    [
        ("closed", f"authentication by site: closed to {CLIENT} of type toy"),
        ("broken", "authentication by site: the plugin failed"),
        ("silent", "authentication by site: no answer in time"),
    ],
)
def test_refusals_reach_the_application_and_the_peer(daemon: DaemonProcess, service: str, reason: str) -> None:
    wishes = {"remoteid": SERVER, "flags": StartTlsFlags.NONE}
    server, client = both(daemon.pool, daemon.pool, {"localid": SERVER, "service": service}, wishes)
    assert isinstance(server, PoolError)
    assert (server.code, server.text) == (ErrorCode.SITE_REFUSED, reason)
    if isinstance(client, Session):
        with client:
            assert client.plaintext.recv(1) == b""
    eventually(lambda: reason in daemon.text)


def test_they_know_whom_a_client_is_to_be(daemon: DaemonProcess) -> None:
    """Though it shows itself only after the server was accepted."""
    outcomes = both(daemon.pool, daemon.pool, {"localid": SERVER}, {"remoteid": SERVER, "service": "named"})
    assert isinstance(outcomes[1], PoolError)
    assert outcomes[1].text == f"authentication by site: {CLIENT} goes to {SERVER}"


@pytest.mark.parametrize(("service", "cause"), [("short", "session timeout"), ("idle", "idle timeout")])
def test_limits_are_kept(daemon: DaemonProcess, service: str, cause: str) -> None:
    server, client = both(daemon.pool, daemon.pool, {"localid": SERVER, "service": service}, {"remoteid": SERVER})
    with server, client:
        assert client.plaintext.recv(1) == b""
    eventually(lambda: f'cause="{cause}"' in daemon.text)


def test_without_objection_a_session_goes_on(daemon: DaemonProcess) -> None:
    server, client = both(daemon.pool, daemon.pool, {"localid": SERVER}, {"remoteid": SERVER})
    with server, client:
        client.plaintext.sendall(b"hello")
        assert server.plaintext.recv(10) == b"hello"


def test_the_strictest_limit_holds() -> None:
    first, second = AaaDecision(10, None, (b"a",)), AaaDecision(20, 5, (b"b",))
    assert combine(first, second) == AaaDecision(10, 5, (b"a", b"b"))


# --- beside validation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, -1.0, math.nan, math.inf])
def test_a_limit_that_limits_nothing_is_a_refusal(limit: float, caplog: pytest.LogCaptureFixture) -> None:
    class Careless(Aaa):
        name = "careless"

        async def authorize(self, request: AaaRequest) -> AaaDecision:
            return AaaDecision(idle_timeout=limit)

    with pytest.raises(Denied, match="authorization by careless: the plugin failed"):
        asyncio.run(SiteRules({"careless": Careless()}, [("authorization", ["careless"])], 5.0).permit(CLAIM))
    assert "a limit is a number of seconds above 0" in caplog.text


class Slow(Aaa):
    """Answers when it is told to, and keeps what it was asked."""

    name = "slow"

    def __init__(self) -> None:
        self.asked: list[AaaRequest] = []
        self.called_off = 0
        self.may_answer = asyncio.Event()

    async def authorize(self, request: AaaRequest) -> AaaDecision:
        self.asked.append(request)
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.called_off += 1
            raise
        if request.remote_identity == STRANGE.remote_identity:
            raise Denied("nobody knows it")
        return AaaDecision(session_timeout=10)

    def said(self) -> list[tuple[str, bool]]:
        return [(request.step, request.proven) for request in self.asked]


CLAIM, STRANGE = aaa_request("john@example.com"), aaa_request("eve@example.com")


def rules(plugin: Aaa, *parallel: str) -> SiteRules:
    return SiteRules({"slow": plugin}, [("authentication", ["slow"]), ("authorization", ["slow"])], 5.0, parallel)


def test_a_claim_is_asked_about_while_it_is_validated_and_only_the_rest_afterwards() -> None:
    async def main() -> None:
        slow = Slow()
        with rules(slow, "authentication").asking(CLAIM) as early:
            await asyncio.sleep(0)
            assert slow.said() == [("authentication", False)]
            slow.may_answer.set()
            assert await rules(slow, "authentication").permit(CLAIM, early) == AaaDecision(session_timeout=10)
        assert slow.said() == [("authentication", False), ("authorization", True)]

    asyncio.run(main())


def test_what_was_asked_early_is_called_off_with_the_validation() -> None:
    async def main() -> None:
        slow = Slow()
        with pytest.raises(LookupError), rules(slow, "authorization").asking(CLAIM):
            await asyncio.sleep(0)
            raise LookupError
        await asyncio.sleep(0)
        assert (slow.said(), slow.called_off) == ([("authorization", False)], 1)

    asyncio.run(main())


def test_a_refusal_of_a_claim_waits_for_the_validation() -> None:
    async def main() -> None:
        slow = Slow()
        slow.may_answer.set()
        with rules(slow, "authorization").asking(STRANGE) as early:
            for _ in range(5):
                await asyncio.sleep(0)  # nothing is raised here, whatever was answered meanwhile
            assert slow.asked
            with pytest.raises(Denied, match="authorization by slow: nobody knows it"):
                await SiteRules({"slow": slow}, [("authorization", ["slow"])], 5.0, ["authorization"]).permit(STRANGE, early)

    asyncio.run(main())


def test_an_answer_about_another_identity_does_not_count() -> None:
    async def main() -> None:
        slow = Slow()
        slow.may_answer.set()
        with rules(slow, "authentication", "authorization").asking(CLAIM) as early:
            await asyncio.sleep(0)
            with pytest.raises(Denied, match="nobody knows it"):
                await rules(slow, "authentication", "authorization").permit(STRANGE, early)
        assert slow.asked[-1].proven

    asyncio.run(main())


@pytest.mark.parametrize(("parallel", "claim"), [((), CLAIM), (("authorization",), aaa_request(None))])
def test_without_parallel_or_a_claim_nobody_is_asked_early(parallel: tuple[str, ...], claim: AaaRequest) -> None:
    async def main() -> None:
        slow = Slow()
        slow.may_answer.set()
        with rules(slow, *parallel).asking(claim) as early:
            await asyncio.sleep(0)
            assert not slow.asked
            await rules(slow, *parallel).permit(claim, early)
        assert slow.said() == [("authentication", True), ("authorization", True)]

    asyncio.run(main())
