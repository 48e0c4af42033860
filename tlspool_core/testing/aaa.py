"""What every AAA plugin has to do, as tests to inherit.

Theory of operation
-------------------
The tests of an AAA plugin inherit `AaaConformance` and say in `opened` how a plugin with rules comes about, and whom it permits:

    class TestMyRules(AaaConformance):
        @asynccontextmanager
        async def opened(self):
            rules = MyRules()
            await rules.start({...})
            try:
                yield AaaUnderTest(rules, permitted=aaa_request("john@example.com"), refused=aaa_request("eve@example.com"))
            finally:
                await rules.stop()

The pool's own code asks, so that a refusal is what the pool takes for one.  The tests need no plugin of pytest: each runs its own
event loop.
"""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Final

import pytest

from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import Aaa, AaaDecision, AaaRequest, AccountingRecord, Denied
from tlspool_core.pool.aaa import SiteRules

_PATIENCE: Final = 15.0  # seconds, as the pool has by default
_STEPS: Final = ("authentication", "authorization")


def aaa_request(remote: str | None, *, local: str | None = "www.example.com", step: str = "authorization") -> AaaRequest:
    """A session that a plugin can be asked about; None: no identity was established."""
    return AaaRequest(
        session_id="a1b2c3-1",
        role="server",
        service="http",
        local_identity=DoNAI.parse(local) if local else None,
        remote_identity=DoNAI.parse(remote) if remote else None,
        credential_type="x509",
        peer_address="192.0.2.7:4711",
        local_address="192.0.2.1:443",
        step=step,
    )


def accounting_record(event: str = "start", *, sequence: int = 0, record_id: str = "conformance") -> AccountingRecord:
    """A record that a plugin can be given."""
    ended = 1_800_000_060.0 if event == "stop" else None
    identities = (DoNAI.parse("www.example.com"), DoNAI.parse("john@example.com"))
    attributes = {"session": "a1b2c3-1", "service": "http", "role": "server", "classes": (b"\x00\xff",)}
    count = None if event == "start" else 7
    return AccountingRecord(
        event, record_id, "pages", "job 1", *identities, 1_800_000_000.0, ended, count, attributes, sequence=sequence
    )


@dataclass(frozen=True)
class AaaUnderTest:
    """A started plugin, and whom it permits and refuses in one of the steps that are `asked`."""

    plugin: Aaa
    permitted: AaaRequest
    refused: AaaRequest
    asked: tuple[str, ...] = _STEPS
    accounts: bool = False  # whether it takes accounting records


class AaaConformance:
    """Inherit, implement `opened`, and pytest does the rest."""

    @abstractmethod
    def opened(self) -> AbstractAsyncContextManager[AaaUnderTest]:
        """A started plugin; stopped at the end. Called once for each test."""

    def _run(self, work: Callable[[AaaUnderTest], Awaitable[None]]) -> None:
        async def main() -> None:
            async with self.opened() as under_test:
                await work(under_test)

        asyncio.run(main())

    def _rules(self, it: AaaUnderTest) -> SiteRules:
        return SiteRules({it.plugin.name: it.plugin}, [(step, [it.plugin.name]) for step in it.asked], _PATIENCE)

    def test_a_name_is_declared(self) -> None:
        async def work(it: AaaUnderTest) -> None:
            assert it.plugin.name and it.plugin.name == it.plugin.name.lower() and " " not in it.plugin.name

        self._run(work)

    def test_who_is_permitted_is_permitted_with_limits_that_can_be_kept(self) -> None:
        async def work(it: AaaUnderTest) -> None:
            decision = await self._rules(it).permit(it.permitted)
            for limit in (decision.session_timeout, decision.idle_timeout):
                assert limit is None or (limit > 0 and math.isfinite(limit))
            assert all(isinstance(value, bytes) for value in decision.classes)

        self._run(work)

    def test_who_is_refused_is_refused_with_a_reason(self) -> None:
        async def work(it: AaaUnderTest) -> None:
            for step in it.asked:
                with pytest.raises(Denied) as caught:
                    await it.plugin.authorize(replace(it.refused, step=step))
                assert str(caught.value).isprintable() and str(caught.value)

        self._run(work)

    def test_a_claim_is_permitted_to_nobody_who_is_refused(self) -> None:
        """Asked beside validation, when the identity is not proven yet: the answer may be a refusal, but not for more people."""

        async def work(it: AaaUnderTest) -> None:
            for step in it.asked:
                with pytest.raises(Denied):
                    await it.plugin.authorize(replace(it.refused, step=step, proven=False))
            assert isinstance(await self._rules(it).permit(it.permitted), AaaDecision)

        self._run(work)

    def test_a_refusal_does_not_stick(self) -> None:
        async def work(it: AaaUnderTest) -> None:
            for _ in range(2):
                with pytest.raises(Denied):
                    await self._rules(it).permit(it.refused)
                assert isinstance(await self._rules(it).permit(it.permitted), AaaDecision)

        self._run(work)

    def test_requests_at_once_do_not_mix(self) -> None:
        async def work(it: AaaUnderTest) -> None:
            async def one(number: int) -> bool:
                request = it.refused if number % 3 else it.permitted
                try:
                    await self._rules(it).permit(replace(request, session_id=f"a1b2c3-{number:x}"))
                except Denied:
                    return False
                return True

            assert await asyncio.gather(*map(one, range(60))) == [number % 3 == 0 for number in range(60)]

        self._run(work)

    def test_a_peer_without_identity_gets_a_decision(self) -> None:
        async def work(it: AaaUnderTest) -> None:
            try:
                decision = await it.plugin.authorize(replace(it.permitted, remote_identity=None, local_identity=None))
            except Denied:
                return
            assert isinstance(decision, AaaDecision)

        self._run(work)

    def test_waiting_can_be_given_up(self) -> None:
        async def work(it: AaaUnderTest) -> None:
            asked = asyncio.ensure_future(it.plugin.authorize(it.permitted))
            await asyncio.sleep(0)
            asked.cancel()
            await asyncio.wait([asked])
            assert isinstance(await self._rules(it).permit(it.permitted), AaaDecision)

        self._run(work)

    def test_accounting_is_taken_over_or_denied(self) -> None:
        async def work(it: AaaUnderTest) -> None:
            if not it.accounts:
                with pytest.raises(Denied):
                    await it.plugin.account(accounting_record())
                return
            for sequence, event in enumerate(("start", "interim", "stop")):
                record = accounting_record(event, sequence=sequence)
                await it.plugin.account(record)
                await it.plugin.account(record)  # handed over again: taken, and known

        self._run(work)

    def test_stop_twice_does_no_harm(self) -> None:
        async def work(it: AaaUnderTest) -> None:
            await it.plugin.stop()
            await it.plugin.stop()

        self._run(work)
