"""Loads one plugin, apart from all others, and says why if that fails.

Theory of operation
-------------------
A candidate is an entry point of the group `tlspool`, or a module that configuration names.  Each is loaded in a thread that is
watched: an import, or a hook, that does not return in time is left behind (it cannot be killed) and the candidate is quarantined.
Each has a PluginManager of its own, so that an exception in one hook concerns nobody else, and so that a misspelt hook is blamed on
the module that has it.  What the hooks return is checked against the interfaces here, once; later code may rely on it.
"""

from __future__ import annotations

import difflib
import importlib
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from tlspool_core import hookspecs
from tlspool_core.interfaces import API_VERSION, Aaa, ConfigBackend, CredentialType, KeyStore, Predicate

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_HOOKS = tuple(name for name in dir(hookspecs) if name.startswith("tlspool_register_"))
OLDEST_API = 1


class PluginState(Enum):
    """What became of a plugin."""

    LOADED = "loaded"
    FAILED = "failed"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class PluginStatus:
    """One line of `tlspool plugins`."""

    name: str
    module: str
    distribution: str  # "" for a module that configuration names
    version: str
    state: PluginState
    offers: tuple[str, ...] = ()  # "credential type NAME", "predicate T for NAME"
    reason: str = ""  # why it failed, in a sentence
    trace: str = ""  # where it failed, for its author


class Unusable(Exception):
    """A plugin cannot be used; the text says why, `trace` shows its author where."""

    def __init__(self, reason: str, trace: str = "") -> None:
        super().__init__(reason)
        self.trace = trace


@dataclass(slots=True)
class Offer:
    """What one plugin's hooks returned, checked."""

    credential_types: list[CredentialType] = field(default_factory=list)
    key_stores: list[KeyStore] = field(default_factory=list)
    config_backends: list[ConfigBackend] = field(default_factory=list)
    aaa: list[Aaa] = field(default_factory=list)
    predicates: list[Predicate] = field(default_factory=list)
    cli_commands: list[Any] = field(default_factory=list)
    # what the credential types bring: letter for the types of peers that it is for
    type_predicates: list[tuple[str, Predicate]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that may be a plugin."""

    name: str
    module: str
    distribution: str
    version: str
    load: Callable[[], object]

    def status(self, state: PluginState, reason: str = "", trace: str = "", offers: Sequence[str] = ()) -> PluginStatus:
        return PluginStatus(self.name, self.module, self.distribution, self.version, state, tuple(offers), reason, trace)


def find_candidates(modules: Iterable[str] = ()) -> list[Candidate]:
    """Installed entry points sorted by name, then those `modules` that configuration names. Nothing is imported."""
    installed = sorted(entry_points(group=hookspecs.GROUP), key=_order)
    return [_candidate(point) for point in installed] + [
        Candidate(module, module, "", "", lambda module=module: importlib.import_module(module))  # type: ignore[misc]
        for module in modules
    ]


def _order(point: EntryPoint) -> tuple[str, str, str]:
    return point.name, point.dist.name if point.dist else "", point.value


def _candidate(point: EntryPoint) -> Candidate:
    distribution, version = (point.dist.name, point.dist.version) if point.dist else ("", "")
    return Candidate(point.name, point.value, distribution, version, point.load)


# --- loading one --------------------------------------------------------------------------------------------------------------


def load(candidate: Candidate, time_limit: float) -> Offer:
    """Import the candidate and call its hooks, within `time_limit` seconds. Raises Unusable."""
    outcome: list[Offer | BaseException] = []
    thread = threading.Thread(target=_attempt, args=(candidate, outcome), name=f"load-{candidate.name}", daemon=True)
    thread.start()
    thread.join(time_limit)
    if not outcome:
        raise Unusable(f"did not load within {time_limit:g} s", _stack(thread))
    result = outcome[0]
    if isinstance(result, Offer):
        return result
    if isinstance(result, Unusable):
        raise result
    raise Unusable(f"raised {type(result).__name__}: {result}", "".join(traceback.format_exception(result)))


def _stack(thread: threading.Thread) -> str:
    """Where a thread is right now."""
    frame = sys._current_frames().get(thread.ident or 0)
    return "".join(traceback.format_stack(frame)) if frame is not None else ""


def _attempt(candidate: Candidate, outcome: list[Offer | BaseException]) -> None:
    try:
        offer = _ask(candidate.load())
    except BaseException as error:  # a plugin that calls sys.exit() is as unusable as any other
        outcome.append(error)
    else:
        outcome.append(offer)


def _ask(plugin: object) -> Offer:
    """Call every hook of an imported plugin."""
    _check_api(plugin)
    _check_markers(plugin)
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin)
    _check_spelling(manager)
    callers = manager.get_hookcallers(plugin) or []
    if not callers:
        raise Unusable("has no hook, so it offers nothing")
    offer = Offer()
    for caller in callers:
        getattr(offer, caller.name.removeprefix("tlspool_register_")).extend(_objects(caller.name, caller()))
    for kind in offer.credential_types:
        offer.type_predicates.extend((kind.name, predicate) for predicate in _checked(f"{kind.name}.predicates", kind.predicates()))
    return offer


def _check_api(plugin: object) -> None:
    version = getattr(plugin, "TLSPOOL_API", OLDEST_API)
    if not isinstance(version, int) or not OLDEST_API <= version <= API_VERSION:
        supported = f"{OLDEST_API} to {API_VERSION}" if OLDEST_API < API_VERSION else f"{API_VERSION}"
        raise Unusable(f"is written for version {version!r} of the plugin API; this pool speaks {supported}")


def _check_markers(plugin: object) -> None:
    """A function that is named as a hook, but not marked as one, would never be called."""
    for name in dir(plugin):
        value = getattr(plugin, name, None)
        unmarked = (
            callable(value) and not hasattr(value, f"{hookspecs.GROUP}_impl") and not hasattr(value, f"{hookspecs.GROUP}_spec")
        )
        if name.startswith("tlspool_register_") and unmarked:
            raise Unusable(f"has a function {name} that is not marked with @hookimpl")


def _check_spelling(manager: pluggy.PluginManager) -> None:
    """pluggy accepts any name at first, and would never call a misspelt one."""
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        unknown = sorted(name for name in vars(manager.hook) if not name.startswith("_") and name not in _HOOKS)
        close = difflib.get_close_matches(unknown[0], _HOOKS, 1) if unknown else []
        hint = f"; did you mean {close[0]}?" if close else ""
        raise Unusable(f"has an unknown hook {', '.join(unknown)}{hint}") from error


# --- checking what it offers --------------------------------------------------------------------------------------------------


_KINDS: Mapping[str, type] = {
    "tlspool_register_credential_types": CredentialType,
    "tlspool_register_key_stores": KeyStore,
    "tlspool_register_config_backends": ConfigBackend,
    "tlspool_register_aaa": Aaa,
    "tlspool_register_predicates": Predicate,
}


def _objects(hook: str, results: Iterable[Any]) -> list[Any]:
    """All that one hook registered."""
    found: list[Any] = []
    for result in results:
        if isinstance(result, str | bytes) or not isinstance(result, Iterable):
            raise Unusable(f"{hook} must return a list, not {type(result).__name__}")
        found.extend(result)
    if hook == "tlspool_register_predicates":
        return _checked(hook, found)
    for made in found:
        _check_object(hook, made)
    return found


def _check_object(hook: str, made: Any) -> None:
    kind = _KINDS.get(hook)
    if kind is not None and not isinstance(made, kind):
        raise Unusable(f"{hook} must return objects of {kind.__name__}, not {type(made).__name__}")
    if kind is None and not callable(getattr(made, "command", None)):
        raise Unusable(f"{hook} must return objects with a method command(), not {type(made).__name__}")
    name = getattr(made, "name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Unusable(f"{hook}: {type(made).__name__} needs a name of a-z, 0-9, - and _, not {name!r}")


def _checked(where: str, predicates: Iterable[Any]) -> list[Predicate]:
    found = list(predicates)
    for predicate in found:
        if not isinstance(predicate, Predicate):
            raise Unusable(f"{where} must return objects of Predicate, not {type(predicate).__name__}")
        letter = getattr(predicate, "letter", None)
        if not isinstance(letter, str) or not re.fullmatch("[A-Z]", letter):
            raise Unusable(f"{where}: {type(predicate).__name__} needs a letter from A to Z, not {letter!r}")
    return found
