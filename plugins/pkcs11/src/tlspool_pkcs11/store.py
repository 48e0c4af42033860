"""The key store: modules, the keys in their tokens, and what there is to say about both.

Theory of operation
-------------------
`start` starts a worker for every configured module at once; one that does not start is reported and tried again when it is
needed. `find` answers with the one private key that a URI names - none, several, or a token that cannot be logged in to are
errors that say what to do.  Nothing here waits for a token on the event loop: workers are other processes, PIN files are read
in threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from tlspool_core.api import AskPin, Key, KeyInfo, KeyStore, KeyStoreError, Measurement
from tlspool_pkcs11 import protocol as wire
from tlspool_pkcs11.client import TokenFault, WorkerClient, WorkerGone
from tlspool_pkcs11.discovery import configured_modules, default_rows, vendor_rows
from tlspool_pkcs11.faults import Cure
from tlspool_pkcs11.inventory import token_inventory
from tlspool_pkcs11.key import Pkcs11Key
from tlspool_pkcs11.library import CKO_CERTIFICATE, CKO_DATA, CKO_PRIVATE_KEY, CKO_SECRET_KEY
from tlspool_pkcs11.login import PinKeeper
from tlspool_pkcs11.lookup import NOT_THERE, Found, Lookup, token_uri
from tlspool_pkcs11.module import Module, log
from tlspool_pkcs11.settings import ModuleSettings
from tlspool_pkcs11.uri import InvalidUri, Pkcs11Uri, parse_uri


class Pkcs11Store(KeyStore):
    """Implements `KeyStore` over PKCS #11 modules."""

    name = "pkcs11"
    uri_schemes = ("pkcs11",)

    def __init__(self) -> None:
        self._settings: Sequence[ModuleSettings] = ()
        self._modules: tuple[Module, ...] = ()
        self._complaints: Sequence[str] = ()
        self._lookup: Lookup | None = None
        self._leaving: dict[Module, asyncio.Task[None]] = {}

    async def start(self, settings: Mapping[str, Any], ask_pin: AskPin) -> None:
        """Start a worker for each module; one that takes long comes when it comes.

        Raises ValueError naming the key of the configuration that is wrong.
        """
        self.configure(settings)
        self._lookup = Lookup(PinKeeper(ask_pin))
        self._adopt_settings()
        await self._all(Module.first_worker)

    def configure(self, settings: Mapping[str, Any]) -> bool:
        """See which modules there shall be, from the next `rescan` on. Raises ValueError naming the key that is wrong."""
        vendors, complaints = vendor_rows()
        self._settings = configured_modules(settings, vendors, default_rows())
        self._complaints = complaints
        return True

    def _adopt_settings(self) -> Sequence[Module]:
        """Have the modules that there shall be; those that shall be no more. One that keeps its name goes on with its new settings."""
        before = {module.name: module for module in self._modules}
        modules = []
        for settings in self._settings:
            module = before.pop(settings.name, None) or Module(settings)
            module.settings = settings
            modules.append(module)
        self._modules = tuple(modules)
        return tuple(before.values())

    async def _all(self, do: Callable[[Module], Awaitable[object]]) -> None:
        """Do something with every module; what fails is logged, and left for later."""
        modules = self._modules  # there may be others by the time that it is done
        results = await asyncio.gather(*(do(module) for module in modules), return_exceptions=True)
        for module, result in zip(modules, results, strict=True):
            if isinstance(result, KeyStoreError):
                module.last_error = str(result)
                log.warning("%s", result)
            elif isinstance(result, BaseException):
                raise result

    @property
    def _ready(self) -> Lookup:
        if self._lookup is None:
            raise KeyStoreError("the key store pkcs11 is not started")
        return self._lookup

    async def find(self, uri: str) -> Key:
        """The one private key that the URI names. Raises KeyStoreError."""
        return await self._key(uri)

    async def agree(self, uri: str, peer_public: bytes) -> bytes:
        """ECDH inside the token: shared secret with a public key, DER SubjectPublicKeyInfo. Raises KeyStoreError."""
        return await (await self._key(uri)).agree(peer_public)

    async def reach(self, uri: str) -> None:
        """Make sure that what the URI names, a private key, secret or data object, can be used now. Raises KeyStoreError."""
        wanted = _parsed(uri)
        await self._some(self._ready, wanted, (CKO_PRIVATE_KEY, CKO_SECRET_KEY, CKO_DATA), "private key, secret or data object")

    async def departure(self, uris: Collection[str]) -> Collection[str]:
        """Wait until the tokens of some of these keys have been pulled, or their modules are lost; the URIs of these keys."""
        wanted = {uri: _parsed(uri) for uri in uris}
        while True:
            gone = {uri for uri, parsed in wanted.items() if not await self._ready.there(parsed, self._modules)}
            if gone:
                return gone
            await asyncio.sleep(Module.glance_interval)

    async def _key(self, uri: str) -> Pkcs11Key:
        lookup = self._ready
        wanted = _parsed(uri)
        if wanted.type not in (None, "private"):
            raise KeyStoreError(f"{uri}: type={wanted.type} names no private key")
        found = await self._one(lookup, wanted, (CKO_PRIVATE_KEY,), "private key")
        return Pkcs11Key(lookup, wanted, found)

    async def read_secret(self, uri: str) -> bytes:
        """Value of a secret or data object. Raises KeyStoreError."""
        lookup = self._ready
        wanted = _parsed(uri)
        if wanted.type not in (None, "secret-key", "data"):
            raise KeyStoreError(f"{uri}: type={wanted.type} names no secret or data object")
        try:
            return await self._read(lookup, wanted)
        except WorkerGone:
            pass
        except TokenFault as fault:
            if fault.cure is not Cure.FRESH_WORKER:
                raise KeyStoreError(f"{wanted}: {fault}; {fault.remedy}") from None
        try:
            return await self._read(lookup, wanted)
        except (TokenFault, WorkerGone) as error:
            raise KeyStoreError(f"{wanted}: {error}") from None

    async def _read(self, lookup: Lookup, wanted: Pkcs11Uri) -> bytes:
        found = await self._one(lookup, wanted, (CKO_SECRET_KEY, CKO_DATA), "secret or data object")
        try:
            return (await found.worker.call(wire.ReadValue(found.record.reference), wire.Value)).value
        except TokenFault as fault:
            if fault.cure is Cure.FRESH_WORKER:
                await found.module.replace(found.worker, str(fault))
            raise

    async def _one(self, lookup: Lookup, wanted: Pkcs11Uri, classes: Sequence[int], what: str) -> Found:
        found = await self._some(lookup, wanted, classes, what)
        if len(found) > 1:
            raise KeyStoreError(f"{wanted} names {len(found)} objects; say which: " + ", ".join(str(each.uri) for each in found))
        return found[0]

    async def _some(self, lookup: Lookup, wanted: Pkcs11Uri, classes: Sequence[int], what: str) -> Sequence[Found]:
        """At least one object. Raises KeyStoreError."""
        found, problems = await lookup.search(wanted, self._modules, classes)
        if found:
            return found
        if wanted.token is not None and problems == [NOT_THERE]:
            raise KeyStoreError(f"token {wanted.token!r} is not there, plug it in ({wanted})")
        raise KeyStoreError(f"{wanted} names no {what}: " + ("; ".join(problems) or "the token holds none that it describes"))

    async def list(self) -> Sequence[KeyInfo]:
        """What is usable, as far as it shows without asking a human for a PIN."""
        return await self.inventory(human=False)

    async def inventory(self, *, human: bool) -> Sequence[KeyInfo]:
        """What is usable; with `human`, PINs that are not configured are asked for."""
        lookup = self._ready
        listed: list[KeyInfo] = []
        for module in self._modules:
            try:
                worker = await module.worker()
            except KeyStoreError as error:
                listed.append(KeyInfo("", "module", "", module.name, note=str(error)))
                continue
            for token in worker.tokens:
                listed += await token_inventory(lookup, module, worker, token, human=human)
        return listed

    async def certificates(self) -> Sequence[tuple[str, bytes]]:
        """Label and DER of the certificates that the tokens show in their present state of login."""
        shown: list[tuple[str, bytes]] = []
        for worker in filter(None, (module.present for module in self._modules)):
            records = [record for records in worker.objects.values() for record in records]
            shown += [(each.label, each.material_first) for each in records if each.object_class == CKO_CERTIFICATE]
        return shown

    async def status(self) -> Mapping[str, Any]:
        """State of modules and tokens: plain values that JSON can carry."""
        lookup = self._ready
        modules = [{**module.status(), "tokens": _tokens(lookup.keeper, module.present)} for module in self._modules]
        return {"modules": modules, "complaints": [*self._complaints]}

    def measurements(self) -> Sequence[Measurement]:
        """State of modules in numbers."""
        return [each for module in self._modules for each in module.measurements()]

    async def rescan(self) -> None:
        """Start fresh workers beside the present ones and swap, with the settings of today; modules that are configured no more end.

        Permits one PIN that is new at tokens that had a wrong one.
        """
        keeper = self._ready.keeper
        leaving = self._adopt_settings()
        if not any(module.settings.remember_pin for module in self._modules):
            keeper.forget()
        keeper.permit()
        try:
            await self._all(Module.rescan)
        finally:  # also if nobody waits for that any longer
            tasks = [self._leave(module) for module in leaving]
        if tasks:
            await asyncio.wait(tasks)

    def _leave(self, module: Module) -> asyncio.Task[None]:
        """End a module beside all else."""
        task = self._leaving[module] = asyncio.get_running_loop().create_task(module.leave())
        task.add_done_callback(lambda _: self._leaving.pop(module, None))
        return task

    async def stop(self) -> None:
        """End all workers and wipe PINs."""
        leaving = tuple(self._leaving.items())
        for _, task in leaving:
            task.cancel()
        await asyncio.gather(*(module.stop() for module in (*self._modules, *(module for module, _ in leaving))))
        if self._lookup is not None:
            self._lookup.keeper.forget()


def _parsed(uri: str) -> Pkcs11Uri:
    try:
        return parse_uri(uri)
    except InvalidUri as error:
        # not the whole text: it may hold a PIN
        raise KeyStoreError(f"{uri.partition('?')[0]}: {error}") from None


def _tokens(keeper: PinKeeper, worker: WorkerClient | None) -> Sequence[Mapping[str, Any]]:
    if worker is None:
        return ()
    return [
        {
            "uri": str(token_uri(token)),
            "label": token.label,
            "slot": token.slot,
            "logged_in": token.slot in worker.logged_in,
            "pin": keeper.stopped(token),
        }
        for token in worker.tokens
    ]
