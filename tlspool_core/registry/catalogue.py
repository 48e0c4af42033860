"""The plugins of a running program, by what they are asked for.

Theory of operation
-------------------
Plugins are taken in sorted order; each is loaded apart (see `loading`) and then accepted as a whole or not at all: if any of its
names is taken, or a predicate of it would answer for a letter and type of credential that another answers for, the plugin is
quarantined and the first one stays.  So for every question there is exactly one object that answers it, and its plugin is known
by name.  Letters of the pool's own are not for plugins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from tlspool_core.interfaces import Aaa, CliCommand, ConfigBackend, CredentialType, EngineParts, KeyStore, Predicate
from tlspool_core.registry.guard import Guard
from tlspool_core.registry.loading import Candidate, Offer, PluginState, PluginStatus, Unusable, find_candidates, load

log = logging.getLogger("tlspool.plugins")

# predicates about the session itself, which the policy answers without a plugin
OWN_LETTERS = frozenset("LIFASCUQ")


class RequiredPluginMissing(Exception):
    """Configuration requires plugins that cannot be had; the text says which and why."""


class Registry:
    """See above. `plugins` is what `tlspool plugins` shows; the mappings are by the objects' own names."""

    def __init__(self, guard: Guard | None = None, *, reserved_commands: Collection[str] = ()) -> None:
        """Empty; `load` fills one."""
        self.guard = guard or Guard()
        self.plugins: tuple[PluginStatus, ...] = ()
        self.credential_types: dict[str, CredentialType] = {}
        self.key_stores: dict[str, KeyStore] = {}
        self.config_backends: dict[str, ConfigBackend] = {}
        self.aaa: dict[str, Aaa] = {}
        self.cli_commands: dict[str, CliCommand] = {}
        # (letter, name of the credential type or None for any) -> plugin's name and predicate
        self.predicates: dict[tuple[str, str | None], tuple[str, Predicate]] = {}
        self._owners: dict[int, str] = {}  # by identity of the object, which the shelves keep alive
        self._accepted: dict[str, str] = {}
        self._reserved_commands = frozenset(reserved_commands)

    @classmethod
    def load(
        cls,
        *,
        required: Sequence[str] = (),
        disabled: Sequence[str] = (),
        modules: Sequence[str] = (),
        load_timeout: float = 10.0,
        guard: Guard | None = None,
        reserved_commands: Collection[str] = (),
    ) -> Registry:
        """Find and load all plugins, each within `load_timeout` seconds. Called once, before the program listens.

        `modules` are loaded beside the installed ones; `reserved_commands` are names of the program's own commands.
        Raises RequiredPluginMissing if one of `required` did not load.
        """
        registry = cls(guard, reserved_commands=reserved_commands)
        registry.plugins = tuple(registry._take(found, disabled, load_timeout) for found in find_candidates(modules))
        for plugin in registry.plugins:
            if plugin.state is PluginState.FAILED:
                log.warning("plugin %s (%s) cannot be used: it %s", plugin.name, plugin.module, plugin.reason)
        registry._require(required)
        return registry

    def _take(self, candidate: Candidate, disabled: Collection[str], time_limit: float) -> PluginStatus:
        if candidate.name in disabled:
            return candidate.status(PluginState.DISABLED, "is disabled by configuration")
        try:
            return candidate.status(PluginState.LOADED, offers=self.accept(candidate, load(candidate, time_limit)))
        except Unusable as error:
            return candidate.status(PluginState.FAILED, str(error), error.trace)

    def _require(self, required: Sequence[str]) -> None:
        states = {plugin.name: plugin for plugin in reversed(self.plugins)}
        problems = []
        for name in required:
            if name not in states:
                problems.append(f"{name} is not installed")
            elif name not in self._accepted:
                problems.append(f"{name} {states[name].reason}")
        if problems:
            raise RequiredPluginMissing("required plugins are missing: " + "; ".join(problems))

    @property
    def failed(self) -> dict[str, str]:
        """Installed plugins that cannot be used, and why."""
        return {plugin.name: plugin.reason for plugin in self.plugins if plugin.state is PluginState.FAILED}

    def owner(self, thing: object) -> str:
        """Name of the plugin that registered an object; "tlspool" for what is the core's own."""
        return self._owners.get(id(thing), "tlspool")

    @property
    def engine_parts(self) -> EngineParts:
        """What all credential types together add to the engine's tables."""
        parts = [kind.engine_parts for kind in self.credential_types.values()]
        return EngineParts(
            tuple(form for part in parts for form in part.certificate_forms),
            tuple(suite for part in parts for suite in part.cipher_suites),
            tuple(scheme for part in parts for scheme in part.signature_schemes),
        )

    def close(self) -> None:
        """Let the threads go; called when the program ends."""
        self.guard.close()

    # --- taking what a plugin offers

    def accept(self, candidate: Candidate, offer: Offer) -> list[str]:
        """Take all that a plugin offers, and name it. Raises Unusable if anything of it clashes; nothing is taken then."""
        if candidate.name in self._accepted:
            raise Unusable(f"has the name of another plugin, {self._accepted[candidate.name]}, which was first")
        shelves: list[tuple[str, dict[str, Any], Iterable[Any]]] = [
            ("credential type", self.credential_types, offer.credential_types),
            ("key store", self.key_stores, offer.key_stores),
            ("config backend", self.config_backends, offer.config_backends),
            ("aaa", self.aaa, offer.aaa),
            ("command", self.cli_commands, offer.cli_commands),
        ]
        named = [_new_names(word, shelf, things, self.owner) for word, shelf, things in shelves]
        predicates = self._new_predicates(offer)
        self._check_code_points(offer)
        if clash := sorted(self._reserved_commands & named[-1].keys()):
            raise Unusable(f"offers the command {clash[0]}, which is the program's own")
        names: list[str] = []
        for (word, shelf, _), things in zip(shelves, named, strict=True):
            shelf.update(things)
            self._owners.update((id(thing), candidate.name) for thing in things.values())
            names += [f"{word} {name}" for name in things]
        for (letter, kind), predicate in predicates.items():
            self.predicates[letter, kind] = (candidate.name, predicate)
            self._owners[id(predicate)] = candidate.name
            names.append(f"predicate {letter}" + (f" for {kind}" if kind else ""))
        self._accepted[candidate.name] = candidate.distribution or candidate.module
        return names

    def _new_predicates(self, offer: Offer) -> dict[tuple[str, str | None], Predicate]:
        found: dict[tuple[str, str | None], Predicate] = {}
        brought = [(kind, predicate) for kind, predicate in offer.type_predicates]
        for kinds, predicate in [*((_kinds(p), p) for p in offer.predicates), *(((kind,), p) for kind, p in brought)]:
            if predicate.letter in OWN_LETTERS:
                raise Unusable(f"would answer for the predicate {predicate.letter}, which the pool answers itself")
            for kind in kinds:
                key = (predicate.letter, kind)
                if key in found or key in self.predicates:
                    other = self.predicates[key][0] if key in self.predicates else "itself"
                    raise Unusable(
                        f"would answer for the predicate {predicate.letter}, which {other} does for {kind or 'all types'}"
                    )
                found[key] = predicate
        return found

    def _check_code_points(self, offer: Offer) -> None:
        """Two types may not claim one certificate type: what a peer shows must be examined by exactly one."""
        taken = {code: kind.name for kind in self.credential_types.values() for code in kind.certificate_types}
        for kind in offer.credential_types:
            for code in kind.certificate_types:
                if taken.setdefault(code, kind.name) != kind.name:
                    raise Unusable(f"credential type {kind.name} claims certificate type {code}, which is that of {taken[code]}")


def _kinds(predicate: Predicate) -> Sequence[str | None]:
    return (None,) if predicate.types is None else sorted(predicate.types)


def _new_names(word: str, shelf: Mapping[str, Any], things: Iterable[Any], owner: Callable[[object], str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for thing in things:
        if thing.name in shelf:
            raise Unusable(f"offers the {word} {thing.name}, which {owner(shelf[thing.name])} offers already")
        if thing.name in found:
            raise Unusable(f"offers the {word} {thing.name} twice")
        found[thing.name] = thing
    return found
