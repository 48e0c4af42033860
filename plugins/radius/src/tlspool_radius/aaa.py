"""RADIUS as the pool sees it: one object that permits sessions and takes accounting records.

Theory of operation
-------------------
`[aaa]` of the configuration names this plugin in any of its three steps; the plugin's own section says which servers each has.
A step that is asked for and has no servers refuses.  Everything is done on the plugin's own event loop (see `runner`); what is
here crosses over to it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Final

from tlspool_core.api import Aaa, AaaDecision, AaaRequest, AccountingRecord, Denied
from tlspool_radius.access import decision, question
from tlspool_radius.accounting import Courier, describe
from tlspool_radius.ledger import Ledger, LedgerError
from tlspool_radius.packets import ACCESS_REQUEST
from tlspool_radius.runner import Runner
from tlspool_radius.servers import NoAnswer, Servers
from tlspool_radius.settings import Settings, parse

log = logging.getLogger("tlspool.radius")

_SESSIONS: Final = "session"  # kind of the pool's own records, which applications cannot use


class _Engine:
    """What lives on the plugin's own event loop."""

    def __init__(self, settings: Settings) -> None:
        """Raises ValueError if files of a server cannot be used."""
        self.settings = settings
        self.steps = {name: Servers(function) for name, function in settings.steps.items()}
        self.accounting = Servers(settings.accounting, accounting=True)
        self.ledger: Ledger | None = None
        self._courier: Courier | None = None

    async def open(self) -> None:
        """Open the queue, if there is accounting. Raises ValueError."""
        if not self.accounting.peers:
            return
        ledger = Ledger(self.settings.queue, self.settings.queue_limit)
        try:
            await ledger.open()
        except LedgerError as error:
            raise ValueError(str(error)) from None
        self.ledger = ledger
        self._courier = Courier(ledger, self.accounting)

    async def close(self) -> None:
        if self._courier is not None:
            await self._courier.stop()
        if self.ledger is not None:
            await self.ledger.close()
        for servers in (*self.steps.values(), self.accounting):
            await servers.close()

    async def authorize(self, request: AaaRequest) -> AaaDecision:
        servers = self.steps[request.step]
        if not servers.peers:
            raise Denied(
                f"no RADIUS servers are configured for {request.step}: name them in [aaa.radius.{request.step}]", final=True
            )
        asked = question(request, self.settings.nas_identifier, self.settings.anonymous)
        try:
            return decision(await servers.ask(ACCESS_REQUEST, asked), request.step)
        except NoAnswer as error:
            if not servers.function.permit_without_answer or not error.silent:
                raise Denied(str(error)) from None
            log.warning("session %s is permitted without an answer: %s", request.session_id, error)
            return AaaDecision()

    async def account(self, record: AccountingRecord) -> None:
        if self.ledger is None:
            raise Denied("no RADIUS servers are configured for accounting: name them in [aaa.radius.accounting]", final=True)
        described = describe(record, self.settings.nas_identifier, self.settings.anonymous, time.time())
        try:
            kind = {"final": record.event == "stop", "ours": record.kind == _SESSIONS}
            await self.ledger.add(record.record_id, record.sequence, described, **kind)
        except LedgerError as error:
            raise Denied(str(error)) from None


class RadiusAaa(Aaa):
    """Implements `Aaa`."""

    name = "radius"

    def __init__(self) -> None:
        self._runner: Runner | None = None
        self._engine: _Engine | None = None

    async def start(self, settings: Mapping[str, Any]) -> None:
        """Read secrets, open the queue. Raises ValueError naming the key or the file."""
        await self.stop()
        parsed = parse(settings)
        self._runner = Runner()
        try:
            self._engine = await self._runner.run(_opened(parsed))
        except BaseException:
            await self.stop()
            raise

    def _started(self) -> tuple[Runner, _Engine]:
        if self._runner is None or self._engine is None:
            raise Denied("RADIUS is not running; a step that is new in the configuration needs a restart")
        return self._runner, self._engine

    async def authorize(self, request: AaaRequest) -> AaaDecision:
        """Ask the servers of the step. Raises Denied."""
        runner, engine = self._started()
        return await runner.run(engine.authorize(request))

    async def account(self, record: AccountingRecord) -> None:
        """Write the record to disk. Raises Denied if that fails."""
        runner, engine = self._started()
        await runner.run(engine.account(record))

    async def stop(self) -> None:
        """Close the queue and all connections; what waits in the queue is delivered after the next start."""
        runner, engine = self._runner, self._engine
        self._runner = self._engine = None
        if runner is not None and engine is not None:
            await runner.run(engine.close())
        if runner is not None:
            await runner.stop()


async def _opened(settings: Settings) -> _Engine:
    engine = _Engine(settings)
    try:
        await engine.open()
    except BaseException:
        await engine.close()
        raise
    return engine
