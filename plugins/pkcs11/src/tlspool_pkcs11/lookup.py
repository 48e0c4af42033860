"""From a URI to objects in tokens: matching, login where it is needed, and reading what is there.

Theory of operation
-------------------
A URI is matched in steps: module, library, token, object.  Only tokens that match are logged in to.  A URI that says nothing
about the token might match in all of them, and asking a human for the PIN of every token in reach would be absurd: such a URI
looks into those tokens that need no human, unless there is only one.

What a token holds is read once for each worker and kept with it; if a URI then matches nothing, the token is read once more, as
objects may have been added.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from tlspool_core.api import KeyStoreError, Secret
from tlspool_pkcs11 import protocol as wire
from tlspool_pkcs11.client import TokenFault, WorkerClient, WorkerGone
from tlspool_pkcs11.library import CKO_CERTIFICATE, CKO_DATA, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY, CKO_SECRET_KEY
from tlspool_pkcs11.login import PinKeeper, PinUse, token_key
from tlspool_pkcs11.module import Module
from tlspool_pkcs11.pins import PinSource
from tlspool_pkcs11.publickeys import PublicKey, public_key
from tlspool_pkcs11.settings import module_stem
from tlspool_pkcs11.uri import Pkcs11Uri, pin_file

CKF_LOGIN_REQUIRED = 0x4

TYPES = {
    CKO_PRIVATE_KEY: "private",
    CKO_PUBLIC_KEY: "public",
    CKO_CERTIFICATE: "cert",
    CKO_SECRET_KEY: "secret-key",
    CKO_DATA: "data",
}
Place = tuple[Module, WorkerClient, wire.TokenRecord]

NOT_THERE = "no token that it describes is there"
_TOKEN_ATTRIBUTES = ("token", "manufacturer", "serial", "model", "slot_manufacturer", "slot_description", "slot_id")


@dataclass(frozen=True, slots=True)
class Found:
    """An object, the token that it is in, and the worker through which it was seen."""

    module: Module
    worker: WorkerClient
    token: wire.TokenRecord
    record: wire.ObjectRecord

    @property
    def uri(self) -> Pkcs11Uri:
        """A URI that names this object and, as far as its token allows, no other."""
        record = self.record
        return replace(token_uri(self.token), id=record.id or None, object=record.label or None, type=TYPES[record.object_class])

    def public(self) -> PublicKey | None:
        """The public half of this private key."""
        same = [other for other in self.worker.objects.get(self.token.slot, ()) if self.record.id and other.id == self.record.id]
        others = [other for other in same if other.object_class == CKO_PUBLIC_KEY]
        certificates = [other for other in same if other.object_class == CKO_CERTIFICATE]
        return public_key(self.record, others, certificates)


def token_uri(token: wire.TokenRecord) -> Pkcs11Uri:
    """The URI of a token; the slot is left out, since a token may show in another one next time."""
    return Pkcs11Uri(
        token=token.label or None,
        manufacturer=token.manufacturer or None,
        model=token.model or None,
        serial=token.serial or None,
    )


def fits_module(uri: Pkcs11Uri, module: Module) -> bool:
    """True if the query of the URI, if it says so at all, means this module (RFC 7512 section 2.4)."""
    settings = module.settings
    if uri.module_name is not None and uri.module_name not in (settings.name, module_stem(settings.path)):
        return False
    if uri.module_path is None:
        return True
    return uri.module_path == settings.path or settings.path.startswith(uri.module_path.rstrip("/") + "/")


def fits_token(uri: Pkcs11Uri, worker: WorkerClient, token: wire.TokenRecord) -> bool:
    """True if all that the URI says about library, slot and token holds."""
    info = worker.info
    version = {f"{info.version_major}.{info.version_minor}", str(info.version_major)} if info else set()
    if uri.library_version is not None and uri.library_version not in version:
        return False
    return uri.matches(
        {
            "token": token.label,
            "manufacturer": token.manufacturer,
            "model": token.model,
            "serial": token.serial,
            "slot_id": token.slot,
            "slot_description": token.slot_description,
            "slot_manufacturer": token.slot_manufacturer,
            "library_manufacturer": info.manufacturer if info else "",
            "library_description": info.description if info else "",
        }
    )


def fits_object(uri: Pkcs11Uri, record: wire.ObjectRecord) -> bool:
    """True if all that the URI says about the object holds."""
    return uri.matches({"id": record.id, "object": record.label, "type": TYPES[record.object_class]})


class Lookup:
    """Finds objects, logging in on the way."""

    def __init__(self, keeper: PinKeeper) -> None:
        self.keeper = keeper

    def pin_source(self, module: Module, token: wire.TokenRecord, uri: Pkcs11Uri) -> PinSource | None:
        """Where the PIN for a token comes from: the URI's pin-source, the token's configuration, or the module's."""
        path = pin_file(uri)
        return PinSource("file", path) if path else module.settings.pin_source(token.label)

    async def login(self, module: Module, worker: WorkerClient, token: wire.TokenRecord, uri: Pkcs11Uri, human: bool) -> bool:
        """Log in if the token demands it. False if that needs a human, and none may be asked. Raises KeyStoreError, TokenFault, WorkerGone."""
        mode = module.settings.login
        if token.slot in worker.logged_in or mode == "never" or (mode == "auto" and not token.flags & CKF_LOGIN_REQUIRED):
            return True
        source = self.pin_source(module, token, uri)
        if not human and not self.keeper.automatic(token, source):
            return False
        async with self.keeper.lock(token):
            if token.slot not in worker.logged_in:
                await self.keeper.use(token, self._login_use(module, worker, token, source, human))
                worker.logged_in.add(token.slot)
                # private objects show only now
                worker.objects.pop(token.slot, None)
        return True

    def _login_use(
        self, module: Module, worker: WorkerClient, token: wire.TokenRecord, source: PinSource | None, human: bool
    ) -> PinUse[wire.Done]:
        def attempt(pin: Secret | None) -> Awaitable[wire.Done]:
            return worker.begin(wire.Login(token.slot, pin is None, pin), wire.Done, module.settings.login_timeout)

        return PinUse(attempt, lambda: present_token(worker, token), source, module.settings.remember_pin, human)

    async def search(self, uri: Pkcs11Uri, modules: Sequence[Module], classes: Sequence[int]) -> tuple[list[Found], list[str]]:
        """All objects of these classes that a URI names, and what stood in the way of looking further.

        Modules that are up are looked at first, so that one which is down or slow to start keeps nobody waiting for a key elsewhere.
        If no token is the one described, all are asked to look again.
        """
        suitable = [module for module in modules if fits_module(uri, module)]
        up = [module for module in suitable if module.present]
        down = [module for module in suitable if not module.present]
        problems: list[str] = [] if suitable else ["no configured module is the one that it describes"]
        described = False
        for group, get in ((up, Module.glance), (down, Module.worker), (suitable, Module.look_again)):
            places = [] if described and get is Module.look_again else await _places(uri, group, get, problems)
            described = described or bool(places)
            found = await self._found(uri, places, classes, problems)
            if found:
                return found, problems
        if not described and not problems:
            problems.append(NOT_THERE)
        return [], list(dict.fromkeys(problems))

    async def there(self, uri: Pkcs11Uri, modules: Sequence[Module]) -> bool:
        """Whether a token that the URI describes is in a module now, as far as can be told without a fresh worker."""
        suitable = [module for module in modules if fits_module(uri, module)]
        return bool(await _places(uri, suitable, Module.glance, []))

    async def _found(self, uri: Pkcs11Uri, places: Sequence[Place], classes: Sequence[int], problems: list[str]) -> list[Found]:
        human = len(places) == 1 or any(getattr(uri, name) is not None for name in _TOKEN_ATTRIBUTES)
        found: list[Found] = []
        for module, worker, token in places:
            try:
                if await self.login(module, worker, token, uri, human):
                    found += await self._objects(module, worker, token, uri, classes)
                else:
                    problems.append(f"token {token.label!r} has no PIN configured, and the URI does not name it")
            except (KeyStoreError, TokenFault, WorkerGone) as error:
                problems.append(f"token {token.label!r}: {error}")
        return found

    async def _objects(
        self, module: Module, worker: WorkerClient, token: wire.TokenRecord, uri: Pkcs11Uri, classes: Sequence[int]
    ) -> list[Found]:
        for again in (False, True):
            records = await read_objects(worker, token, again)
            found = [record for record in records if record.object_class in classes and fits_object(uri, record)]
            if found:
                break
        return [Found(module, worker, token, record) for record in found]


async def _places(
    uri: Pkcs11Uri, modules: Sequence[Module], get: Callable[[Module], Awaitable[WorkerClient]], problems: list[str]
) -> list[Place]:
    """Tokens in these modules that the URI describes."""
    places: list[Place] = []
    workers = await asyncio.gather(*(get(module) for module in modules), return_exceptions=True)
    for module, worker in zip(modules, workers, strict=True):
        if isinstance(worker, WorkerClient):
            places += [(module, worker, token) for token in worker.tokens if fits_token(uri, worker, token)]
        elif isinstance(worker, KeyStoreError):
            problems.append(str(worker))
        else:
            raise worker
    return places


async def read_objects(worker: WorkerClient, token: wire.TokenRecord, again: bool = False) -> tuple[wire.ObjectRecord, ...]:
    """What a token holds, as far as it shows it now. Raises TokenFault and WorkerGone."""
    records = worker.objects.get(token.slot)
    if records is None or again:
        records = (await worker.call(wire.ListObjects(token.slot), wire.Objects)).objects
        worker.objects[token.slot] = records
    return records


async def present_token(worker: WorkerClient, token: wire.TokenRecord) -> wire.TokenRecord:
    """The same token with its flags as they are now. Raises KeyStoreError if it is gone, TokenFault and WorkerGone."""
    worker.tokens = (await worker.call(wire.ListTokens(), wire.Tokens)).tokens
    for candidate in worker.tokens:
        if candidate.slot == token.slot and token_key(candidate) == token_key(token):
            return candidate
    raise KeyStoreError(f"token {token.label!r} is not there any more")
