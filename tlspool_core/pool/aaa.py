"""Site rules: every AAA plugin that configuration names must permit a session, each within a time limit.

Theory of operation
-------------------
Authentication and authorisation are two independent steps with a list of plugins each.  A plugin permits by returning a
decision and refuses by raising Denied; whatever else it does, exceptions and silence included, is a refusal too.  Limits that
several plugins set are combined to the strictest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tlspool_core.interfaces import Aaa, AaaDecision, AaaRequest, Denied
from tlspool_core.pool.logs import say

log = logging.getLogger("tlspool.aaa")


def _least(first: float | None, second: float | None) -> float | None:
    return min((limit for limit in (first, second) if limit is not None), default=None)


def combine(first: AaaDecision, second: AaaDecision) -> AaaDecision:
    """Both hold: the shorter limits, all classes."""
    return AaaDecision(
        _least(first.session_timeout, second.session_timeout),
        _least(first.idle_timeout, second.idle_timeout),
        (*first.classes, *second.classes),
    )


class SiteRules:
    """The configured steps, ready to be asked."""

    def __init__(self, plugins: Mapping[str, Aaa], steps: Sequence[tuple[str, Sequence[str]]], time_limit: float) -> None:
        """`steps` are pairs of the step's name and the names of its plugins, all of which exist."""
        self._asked = [(step, plugins[name]) for step, names in steps for name in names]
        self._time_limit = time_limit

    def __bool__(self) -> bool:
        return bool(self._asked)

    async def permit(self, request: AaaRequest) -> AaaDecision:
        """Ask one after the other. Raises Denied with the step, the plugin and its reason."""
        decision = AaaDecision()
        for step, plugin in self._asked:
            decision = combine(decision, await self._ask(step, plugin, request))
        return decision

    async def _ask(self, step: str, plugin: Aaa, request: AaaRequest) -> AaaDecision:
        try:
            async with asyncio.timeout(self._time_limit):
                decision = await plugin.authorize(replace(request, step=step))
        except Denied as denied:
            reason = str(denied)
        except TimeoutError:
            reason = "no answer in time"
        except Exception:
            log.exception("plugin %s failed", plugin.name)
            reason = "the plugin failed"
        else:
            if isinstance(decision, AaaDecision):
                return decision
            reason = "the plugin gave no decision"
        say(log, logging.INFO, "refused by site rules", step=step, plugin=plugin.name, reason=reason)
        raise Denied(f"{step} by {plugin.name}: {reason}")
