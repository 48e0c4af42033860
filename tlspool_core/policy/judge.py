"""Judges a peer: establishes predicates until the outcome of all demands is known, and says who decided.

Theory of operation
-------------------
The demands are one expression (see `demands`); its letters become known one by one.  Cheap predicates go first: those of the session
itself at once, then plugins' in the order of their cost; those of equal cost run side by side.  After each finding the expression
says which letters can still matter, so that nothing is asked in vain, and the rest is called off once the outcome is known.  There
is one time limit for all.  A plugin that fails, is missing, or is too late establishes nothing; what is unknown counts as false.

What is demanded follows from the setting of a session and from the databases, so it is kept as long as these do not change.  What a
finding says is never kept.

A refusal is an exception (`PeerRefused`), never a value that someone might forget to look at.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import ConfigError, CredentialType, Denied, Finding, PeerContext, Predicate, Role, Verdict
from tlspool_core.policy.demands import DEFAULT_EXPRESSION, Demand, RemoteIdentity, Setting, collect, combined
from tlspool_core.policy.expression import Expression, InvalidExpression, values_of
from tlspool_core.policy.predicates import Established, PredicateTable, proven_identity

__all__ = ["Judge", "Judgement", "PeerRefused", "claimed_identity"]

log = logging.getLogger("tlspool.policy")

_MAX_KEPT = 1024  # settings; a peer chooses part of them
MAX_REASON = 110  # characters; the socket protocol has room for 127 with what stands before it


class Guard(Protocol):
    """How plugin code is called: `registry.Guard`, or a test's own."""

    def __call__(self, who: str, call: Callable[..., Any], /, *args: object, timeout: float | None = None) -> Awaitable[Any]: ...


class PeerRefused(Denied):
    """The peer is not acceptable. The text is for the application; `explanation` is for the log, with every finding."""

    def __init__(self, reason: str, explanation: str) -> None:
        super().__init__(reason if len(reason) <= MAX_REASON else reason[: MAX_REASON - 3] + "...")
        self.explanation = explanation


@dataclass(frozen=True, slots=True)
class Judgement:
    """The peer is acceptable: its identity (None if it proves none and need not), and how that was found."""

    identity: DoNAI | None
    explanation: str


def claimed_identity(context: PeerContext, mode: RemoteIdentity) -> DoNAI | None:
    """The identity that a judgement has if it accepts the peer: what the peer claims, and nobody has validated yet."""
    return None if mode is RemoteIdentity.IGNORED else proven_identity(context)[0]


class Judge:
    """Judges peers by one configuration; one for the process, made anew on reload."""

    def __init__(
        self,
        predicates: PredicateTable,
        guard: Guard,
        *,
        time_limit: float,
        default: str = DEFAULT_EXPRESSION,
        services: Mapping[str, str] | None = None,
    ) -> None:
        """`time_limit` in seconds for all predicates of one peer; `services` maps service names to their expressions."""
        self._predicates = predicates
        self._guard = guard
        self._time_limit = time_limit
        self._default = default
        self._services = services or {}
        self._generation: int | None = None
        self._kept: dict[Setting, tuple[Sequence[Demand], Expression]] = {}

    async def judge(self, context: PeerContext, mode: RemoteIdentity, kind: CredentialType | None = None) -> Judgement:
        """Judge the peer of one handshake; `kind` is the type of what it showed. Raises PeerRefused."""
        if context.peer is None and mode is RemoteIdentity.REQUIRED:
            raise PeerRefused("the remote showed no credential, and its identity is required", "no credential")
        if kind is not None:
            context = replace(context, credential_type=kind.name)
        identity, _ = proven_identity(context)
        try:
            demands, expression = self._policy(context, mode, kind, identity)
        except (ConfigError, InvalidExpression) as error:
            raise PeerRefused("the policy for this session cannot be read", str(error)) from error
        except Exception as error:
            log.exception("plugin %s failed to say which trust records concern a peer", context.credential_type)
            raise PeerRefused("the policy for this session cannot be found", f"{type(error).__name__} in a plugin") from error
        evaluation = _Evaluation(self._predicates, self._guard, context, expression)
        accepted = await evaluation.run(self._time_limit)
        explanation = evaluation.explanation(demands)
        if not accepted:
            raise PeerRefused(evaluation.reason(), explanation)
        if identity is None and mode is RemoteIdentity.REQUIRED:
            raise PeerRefused("the remote proves no identity, and one is required", explanation)
        await self._take_effect(evaluation.effects, explanation)
        return Judgement(claimed_identity(context, mode), explanation)

    async def _take_effect(self, effects: Sequence[tuple[str, Callable[[], None]]], explanation: str) -> None:
        """What findings want to be done once the peer is accepted (a pin on first use). A failure refuses after all."""
        for plugin, effect in effects:
            try:
                await self._guard(plugin, effect)
            except Exception as error:
                log.warning("plugin %s could not do what accepting the peer asks for: %s", plugin, error)
                raise PeerRefused(f"the plugin {plugin} could not take note of the peer", explanation) from error

    def _policy(
        self, context: PeerContext, mode: RemoteIdentity, kind: CredentialType | None, identity: DoNAI | None
    ) -> tuple[Sequence[Demand], Expression]:
        """All demands, apart and as one expression. Raises ConfigError, InvalidExpression, or what a plugin raises."""
        setting = Setting(
            local=context.local_identity,
            remote=context.wanted or identity,
            wanted=context.wanted,
            mode=mode,
            peer_role=Role.CLIENT if context.offered_role == "client" else Role.SERVER,
            credential_type=context.credential_type if context.peer is not None else "",
            trust_keys=tuple(kind.trust_keys(context.peer)) if kind is not None and context.peer is not None else (),
            service=context.service,
            service_expression=self._services.get(context.service, ""),
        )
        # before the databases are read: what is kept may be newer than its number, never older
        generation = context.config.generation()
        if generation != self._generation or len(self._kept) >= _MAX_KEPT:
            self._generation = generation
            self._kept.clear()
        found = self._kept.get(setting)
        if found is None:
            with context.config.read() as reader:
                demands = collect(reader, setting, self._default)
            found = self._kept[setting] = (demands, combined(demands))
        return found


@dataclass(frozen=True, slots=True)
class _Asked:
    """A plugin's predicate that may have to be started."""

    letter: str
    plugin: str
    predicate: Predicate
    cost: int


class _Evaluation:
    """One run: letters become known until the outcome is."""

    def __init__(self, predicates: PredicateTable, guard: Guard, context: PeerContext, expression: Expression) -> None:
        self._predicates = predicates
        self._guard = guard
        self._context = context
        self._expression = expression
        self._known: dict[str, bool] = {}
        self._reasons: dict[str, str] = {}  # by letter in upper case
        self._running: dict[asyncio.Task[Established], str] = {}
        self._alone = ""  # the letter that is waited for without a task of its own
        self._done: set[str] = set()
        self.effects: list[tuple[str, Callable[[], None]]] = []

    async def run(self, time_limit: float) -> bool:
        """Whether the demands hold, as far as can be known within `time_limit` seconds."""
        if not self._expression.letters:  # nothing is asked, so nothing is waited for
            return self._expression.outcome(self._known) is True
        try:
            async with asyncio.timeout(time_limit):
                await self._establish_all()
        except TimeoutError:
            for letter in {self._alone, *self._running.values()} - self._done:
                self._reasons[letter] = "was not established in time"
        finally:
            self._call_off()
        return self._expression.outcome(self._known) is True

    async def _establish_all(self) -> None:
        while pending := {letter.upper() for letter in self._expression.pending(self._known)} - self._done:
            started = set(self._running.values())
            if any(self._establish_own(letter) for letter in sorted(pending)):
                continue
            await self._start(pending - started)
            if not self._running:
                continue  # all of them were missing or quick
            finished, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            for task in finished:
                self._take(self._running.pop(task), task.result())

    def _take(self, letter: str, established: Established) -> None:
        self._done.add(letter)
        self._known.update(established.values)
        self._reasons[letter] = established.reason

    def _call_off(self) -> None:
        """Nobody waits for what is called off: a plugin may take its time, or not care."""
        for task in self._running:
            task.cancel()
        self._running.clear()

    # --- starting

    def _establish_own(self, letter: str) -> bool:
        own = self._predicates.own(letter)
        if own is None:
            return False
        try:
            established = own(self._context)
        except Exception:  # a credential type that fails when asked for the strength of a key
            log.exception("predicate %s failed", letter)
            established = Established({}, "could not be established")
        self._take(letter, established)
        return True

    async def _start(self, letters: set[str]) -> None:
        """Start the cheapest of these, unless cheaper ones are still running."""
        candidates = [asked for letter in sorted(letters) if (asked := self._find(letter)) is not None]
        if not candidates or self._running:
            return
        cheapest = min(asked.cost for asked in candidates)
        to_wait_for = []
        for asked in (asked for asked in candidates if asked.cost == cheapest):
            if cheapest > 0 or inspect.iscoroutinefunction(asked.predicate.establish):
                to_wait_for.append(asked)
                continue
            self._take(asked.letter, self._look(asked))
            if self._expression.outcome(self._known) is not None:
                return
        if len(to_wait_for) == 1:  # as nearly always; a task for it would cost more than the rest of this
            self._alone = to_wait_for[0].letter
            self._take(self._alone, await self._ask(to_wait_for[0]))
        else:
            self._running = {asyncio.create_task(self._ask(asked)): asked.letter for asked in to_wait_for}

    def _find(self, letter: str) -> _Asked | None:
        """The plugin's predicate for a letter; None, and the reason, if nobody can establish it."""
        context = self._context
        if context.peer is None:
            self._take(letter, Established(values_of(letter, Verdict.FALSE), "the remote showed no credential"))
            return None
        found = self._predicates.plugin(letter, context.credential_type)
        if found is None:
            self._take(letter, Established({}, f"no installed plugin establishes it for type {context.credential_type}"))
            return None
        plugin, predicate = found
        try:
            cost = int(predicate.cost())
        except Exception:
            log.exception("plugin %s failed to name the cost of predicate %s", plugin, letter)
            cost = 2
        return _Asked(letter, plugin, predicate, cost)

    def _look(self, asked: _Asked) -> Established:
        """A predicate of cost 0, which promises to look only at what is here."""
        try:
            return self._established(asked, asked.predicate.establish(self._context))
        except Denied as denied:
            return Established({}, str(denied))
        except Exception:
            log.exception("plugin %s failed to establish predicate %s", asked.plugin, asked.letter)
            return Established({}, f"the plugin {asked.plugin} failed")

    async def _ask(self, asked: _Asked) -> Established:
        try:
            return self._established(asked, await self._guard(asked.plugin, asked.predicate.establish, self._context))
        except Denied as denied:
            return Established({}, str(denied))
        except Exception as error:  # what a guard lets pass: errors of databases and key stores, alerts
            log.warning("plugin %s could not establish predicate %s: %s", asked.plugin, asked.letter, error)
            return Established({}, f"the plugin {asked.plugin} could not tell")

    def _established(self, asked: _Asked, finding: object) -> Established:
        if not isinstance(finding, Finding):
            log.error("plugin %s gave no finding for predicate %s, but %s", asked.plugin, asked.letter, type(finding).__name__)
            return Established({}, f"the plugin {asked.plugin} failed")
        if finding.on_accept is not None:
            self.effects.append((asked.plugin, finding.on_accept))
        return Established(values_of(asked.letter, finding.verdict), finding.reason)

    # --- telling

    def reason(self) -> str:
        """The first of those who decided against the peer, for the application."""
        for letter, wanted in self._expression.blame(self._known):
            text = self._reasons.get(letter.upper()) if wanted else "holds, which the policy forbids"
            return f"policy demands {self._expression_of(letter, wanted)}: {text or 'not fulfilled'}"
        return f"no peer can fulfil the policy {self._expression.text}"

    @staticmethod
    def _expression_of(letter: str, wanted: bool) -> str:
        return letter if wanted else f"not {letter}"

    def explanation(self, demands: Sequence[Demand]) -> str:
        """All demands with their origins, and all findings, for the log."""
        origins = ", ".join(f"{demand.expression} of {demand.origin}" for demand in demands) or "nothing"
        findings = []
        for letter in sorted(self._expression.letters, key=lambda letter: (letter.upper(), letter)):
            value = {True: "holds", False: "does not hold", None: "is unknown"}[self._known.get(letter)]
            reason = self._reasons.get(letter.upper(), "" if letter in self._known else "not asked")
            findings.append(f"{letter} {value}" + (f" ({reason})" if reason and not self._known.get(letter) else ""))
        return f"demanded: {origins}; found: {', '.join(findings) or 'nothing asked'}"
