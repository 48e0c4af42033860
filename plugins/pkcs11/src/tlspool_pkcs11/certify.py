"""The certification kit: what a token library has to do for the TLS Pool, tried on one that is there; a report to publish.

Theory of operation
-------------------
`certify` goes through a list of trials, each a coroutine that returns what it found or raises `Failed`.  They are what a pool lives
through with the library: signatures with every scheme, many at a time, refusals in good order, tokens looked for anew, the process of
the library killed, and, if somebody is there to do it, the token pulled and put back.  Nothing in the token is changed.  A trial that
fails does not keep others from being tried, unless no key is left to try them with.  The report names the library, models of tokens and
kinds of keys; no PIN, and of keys that are good no name.
"""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from tlspool_core.api import KeyInfo, KeyStoreError
from tlspool_pkcs11.check import CONTENT, check_key, verifies
from tlspool_pkcs11.key import Pkcs11Key
from tlspool_pkcs11.mechanisms import scheme_name
from tlspool_pkcs11.store import Pkcs11Store
from tlspool_pkcs11.uri import parse_uri

FORMAT = 1
AT_A_TIME = 40
_NO_SCHEME = 0x0000  # reserved: no key can make it
_PATIENCE = 120.0  # seconds for a person to pull a token, or to put it back

Say = Callable[[str], None]


class Failed(Exception):
    """A trial found a fault; the text says which."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One line of the report."""

    name: str
    passed: bool
    found: str


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast one kind of key signs with one scheme; times in milliseconds, as the pool sees them with `AT_A_TIME` at a time."""

    key: str
    scheme: str
    at_a_time: int
    per_second: float
    median_ms: float
    slowest_ms: float


@dataclass(slots=True)
class Report:
    """What was tried, with what, and what came of it."""

    made: str
    versions: Mapping[str, str]
    modules: Sequence[Mapping[str, Any]] = ()
    keys: Sequence[Mapping[str, Any]] = ()
    trials: list[Trial] = field(default_factory=list)
    rates: list[Rate] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return bool(self.trials) and all(trial.passed for trial in self.trials)

    def as_object(self) -> Mapping[str, Any]:
        """For JSON."""
        return {"format": FORMAT, "passed": self.passed, **asdict(self)}


@dataclass(slots=True)
class _Kit:
    """What the trials work with."""

    store: Pkcs11Store
    report: Report
    signatures: int
    infos: Sequence[KeyInfo] = ()
    keys: list[Pkcs11Key] = field(default_factory=list)


async def certify(store: Pkcs11Store, *, signatures: int, pull: bool, human: bool, say: Say) -> Report:
    """Try everything, for all private keys that the store shows. `human`: ask for PINs. `say` tells a person what goes on."""
    versions = {"tlspool": version("tlspool-core"), "plugin": version("tlspool-pkcs11"), "python": platform.python_version()}
    kit = _Kit(store, Report(datetime.now(UTC).isoformat(timespec="seconds"), versions), signatures)
    for name, trial in (*_TRIALS, *(_PULLED if pull else ())):
        say(f"{name} ...")
        kit.report.trials.append(await _tried(name, trial(kit, human, say)))
        say(f"{'passed' if kit.report.trials[-1].passed else 'FAILED'}  {name}: {kit.report.trials[-1].found}")
        if not kit.keys and name != _TRIALS[0][0]:
            break  # nothing can be tried without keys
    return kit.report


async def _tried(name: str, trial: Awaitable[str]) -> Trial:
    try:
        return Trial(name, True, await trial)
    except (Failed, KeyStoreError) as error:
        return Trial(name, False, str(error))


# --- the trials ---------------------------------------------------------------------------------------------------------------


async def _loads(kit: _Kit, human: bool, say: Say) -> str:
    kit.infos = await kit.store.inventory(human=human)
    modules = (await kit.store.status())["modules"]
    kit.report.modules = [
        {"library": module.get("library", ""), "tokens": [_model(token["uri"]) for token in module["tokens"]]} for module in modules
    ]
    down = [f"module {module['name']}: {module['last_error']}" for module in modules if module["state"] != "up"]
    if down:
        raise Failed("; ".join(down))
    return ", ".join(f"{module['library']} with {len(module['tokens'])} tokens" for module in modules)


def _model(uri: str) -> str:
    token = parse_uri(uri)
    return f"{token.manufacturer or ''} {token.model or ''}".strip()


async def _signs(kit: _Kit, human: bool, say: Say) -> str:
    """Every scheme of every key, verified by other code."""
    faults: list[str] = []
    described = []
    for info in kit.infos:
        if info.kind != "private-key" or not info.signature_schemes:
            continue
        key = await kit.store.find(info.uri)
        assert isinstance(key, Pkcs11Key)
        result = await check_key(key, ())
        faults += [result.fault] * bool(result.fault)
        faults += [f"{result.algorithm} {scheme.name}: {scheme.fault}" for scheme in result.schemes if scheme.fault]
        described.append({"algorithm": result.algorithm, "schemes": [one.name for one in result.schemes if not one.fault]})
        if result.good:
            kit.keys.append(key)
    kit.report.keys = described
    if faults:
        raise Failed("; ".join(faults))
    if not kit.keys:
        raise Failed("no private key that can sign for TLS is there; make test keys, and log in")
    return ", ".join(f"{key['algorithm']} by {len(key['schemes'])} schemes" for key in described)


async def _keeps(kit: _Kit, human: bool, say: Say) -> str:
    """A key that may be extracted is no key of a token."""
    loose = [info.label for info in kit.infos if info.kind == "private-key" and "EXTRACTABLE" in info.note]
    if loose:
        raise Failed(f"keys can leave the token (CKA_EXTRACTABLE): {', '.join(map(repr, loose))}")
    return f"{len(kit.keys)} keys are not extractable"


async def _refuses(kit: _Kit, human: bool, say: Say) -> str:
    """What cannot be done is refused, and does no harm to what comes after it."""
    for key in kit.keys:
        await _must_refuse(key.sign(_NO_SCHEME, CONTENT), "a scheme that does not exist")
        await _must_refuse(
            kit.store.find(f"{key.uri.partition('?')[0]};object=there%20is%20no%20such%20key"), "a key that is not there"
        )
        await _sign_once(key)
    return "what cannot be done is refused, and what can be done works afterwards"


async def _must_refuse(attempt: Awaitable[object], what: str) -> None:
    try:
        await attempt
    except KeyStoreError:
        return
    raise Failed(f"{what} was not refused")


async def _many(kit: _Kit, human: bool, say: Say) -> str:
    """As in a busy pool: more signatures at a time than a library with one session can make."""
    for key in kit.keys:
        kit.report.rates.append(await _rate(key, kit.signatures))
    return ", ".join(f"{rate.key} {rate.per_second:.0f} a second" for rate in kit.report.rates)


async def _rate(key: Pkcs11Key, count: int) -> Rate:
    times: list[float] = []
    turns = iter(range(count))

    async def sign() -> None:
        for _ in turns:
            begun = time.perf_counter()
            await _sign_once(key)
            times.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*(sign() for _ in range(min(AT_A_TIME, count))))
    took = time.perf_counter() - begun
    times.sort()
    kind = key.kind.algorithm if key.kind else ""
    median, slowest = times[len(times) // 2] * 1000, times[-1] * 1000
    return Rate(kind, scheme_name(key.signature_schemes[0]), AT_A_TIME, round(count / took, 1), round(median, 2), round(slowest, 2))


async def _sign_once(key: Pkcs11Key) -> None:
    scheme = key.signature_schemes[0]
    signature = await key.sign(scheme, CONTENT)
    assert key.public_key is not None
    if not verifies(key.public_key, scheme, CONTENT, signature):
        raise Failed(f"{key.kind.algorithm if key.kind else 'a key'} made a signature that does not verify")


async def _rescans(kit: _Kit, human: bool, say: Say) -> str:
    """A second process beside the first, then in its place; handles and URIs stay good."""
    working = [asyncio.ensure_future(_rate(key, kit.signatures)) for key in kit.keys]
    await kit.store.rescan()
    await asyncio.gather(*working)
    await _all_there(kit)
    return "signatures go on while tokens are looked for anew"


async def _killed(kit: _Kit, human: bool, say: Say) -> str:
    """As if the library had crashed."""
    for module in (await kit.store.status())["modules"]:
        if module.get("pid"):
            os.kill(module["pid"], signal.SIGKILL)
    for key in kit.keys:
        # what is under way at that moment may be lost, where a PIN would have to be sent again
        with suppress(KeyStoreError):
            await key.sign(key.signature_schemes[0], CONTENT)
    await _all_there(kit)
    return "keys are found again after the library's process was killed"


async def _pulled(kit: _Kit, human: bool, say: Say) -> str:
    """A person does what the trials cannot."""
    say("   now pull the token")
    try:
        async with asyncio.timeout(_PATIENCE):
            await kit.store.departure([key.uri for key in kit.keys])
    except TimeoutError:
        raise Failed(f"that a token was pulled was not seen within {_PATIENCE:.0f} seconds") from None
    say("   it is gone; now put it back")
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            await _all_there(kit)
        except KeyStoreError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.5)
        else:
            return "its absence was seen, and its keys sign again"


async def _all_there(kit: _Kit) -> None:
    for key in kit.keys:
        await _sign_once(key)
        found = await kit.store.find(key.uri)
        if found.public_key != key.public_key:
            raise Failed(f"{key.uri} names another key now")


_Body = Callable[[_Kit, bool, Say], Awaitable[str]]
_TRIALS: Sequence[tuple[str, _Body]] = (
    ("loads and shows its tokens", _loads),
    ("signs with every scheme", _signs),
    ("keeps its keys", _keeps),
    ("refuses in good order", _refuses),
    (f"signs {AT_A_TIME} at a time", _many),
    ("is looked through anew", _rescans),
    ("comes back after a crash", _killed),
)
_PULLED: Sequence[tuple[str, _Body]] = (("is pulled and put back", _pulled),)
