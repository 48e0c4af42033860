"""Site rules: every AAA plugin that configuration names must permit a session, each within a time limit.

Theory of operation
-------------------
Authentication and authorisation are two independent steps with a list of plugins each.  A plugin permits by returning a
decision and refuses by raising Denied; whatever else it does, exceptions and silence included, is a refusal too.  Limits that
several plugins set are combined to the strictest.

A step is asked when the peer has been validated.  One that `[aaa] parallel` names is asked as soon as it is known whom the peer
claims to be, while validation goes on; both must permit.  The peer may be lying then, so what is said of a claim stays behind
validation: it is not looked at before that has succeeded, it is called off when that fails, and neither the time nor the words
of a refusal tell a stranger whether the site knows an identity.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from tlspool_core.interfaces import Aaa, AaaDecision, AaaRequest, Denied
from tlspool_core.pool.logs import say

log = logging.getLogger("tlspool.aaa")

Question = tuple[str, Aaa]  # a step, and a plugin that it asks


def _least(first: float | None, second: float | None) -> float | None:
    return min((limit for limit in (first, second) if limit is not None), default=None)


def combine(first: AaaDecision, second: AaaDecision) -> AaaDecision:
    """Both hold: the shorter limits, all classes."""
    return AaaDecision(
        _least(first.session_timeout, second.session_timeout),
        _least(first.idle_timeout, second.idle_timeout),
        (*first.classes, *second.classes),
    )


class _Refused(Denied):
    """A plugin does not permit; the text names step, plugin and reason."""

    def __init__(self, step: str, plugin: str, reason: str) -> None:
        super().__init__(f"{step} by {plugin}: {reason}")
        self.step, self.plugin, self.reason = step, plugin, reason


Outcome = AaaDecision | _Refused


class Early:
    """What is asked beside validation; does nothing if nobody is to be asked early."""

    def __init__(self, request: AaaRequest | None = None, asked: asyncio.Task[Outcome] | None = None) -> None:
        self._request = request
        self._asked = asked

    def answers(self, request: AaaRequest) -> bool:
        """Whether this is the very session that was asked about, apart from the proof."""
        return self._request is not None and self._request == replace(request, proven=False)

    async def outcome(self) -> Outcome:
        """Of those that were asked."""
        assert self._asked is not None
        return await self._asked

    def call_off(self) -> None:
        """Nobody waits for the answer any more."""
        if self._asked is not None:
            self._asked.cancel()


class SiteRules:
    """The configured steps, ready to be asked."""

    def __init__(
        self,
        plugins: Mapping[str, Aaa],
        steps: Sequence[tuple[str, Sequence[str]]],
        time_limit: float,
        parallel: Collection[str] = (),
    ) -> None:
        """`steps` are pairs of the step's name and the names of its plugins, all of which exist; `parallel` names steps."""
        self._asked: list[Question] = [(step, plugins[name]) for step, names in steps for name in names]
        self._early = [question for question in self._asked if question[0] in parallel]
        self._late = [question for question in self._asked if question[0] not in parallel]
        self._time_limit = time_limit

    def __bool__(self) -> bool:
        return bool(self._asked)

    @contextlib.contextmanager
    def asking(self, claimed: AaaRequest) -> Iterator[Early]:
        """Have those that may be asked early say what they think of a claim, for as long as the context lasts."""
        if not self._early or claimed.remote_identity is None:
            yield Early()
            return
        request = replace(claimed, proven=False)
        early = Early(request, asyncio.get_running_loop().create_task(self._ask_all(self._early, request, AaaDecision())))
        try:
            yield early
        finally:
            early.call_off()

    async def permit(self, request: AaaRequest, early: Early | None = None) -> AaaDecision:
        """Ask one after the other about a peer that was validated. Raises Denied with the step, the plugin and its reason.

        What was asked early is not asked again, unless it was about something else.
        """
        if early is not None and early.answers(request):
            outcome, left = await early.outcome(), self._late
        else:
            outcome, left = AaaDecision(), self._asked
        if isinstance(outcome, AaaDecision):
            outcome = await self._ask_all(left, request, outcome)
        if isinstance(outcome, _Refused):
            say(log, logging.INFO, "refused by site rules", step=outcome.step, plugin=outcome.plugin, reason=outcome.reason)
            raise outcome
        return outcome

    async def _ask_all(self, questions: Sequence[Question], request: AaaRequest, decision: AaaDecision) -> Outcome:
        """`decision` and all others in one; or the first refusal."""
        for step, plugin in questions:
            outcome = await self._ask(step, plugin, request)
            if isinstance(outcome, _Refused):
                return outcome
            decision = combine(decision, outcome)
        return decision

    async def _ask(self, step: str, plugin: Aaa, request: AaaRequest) -> Outcome:
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
        return _Refused(step, plugin.name, reason)
