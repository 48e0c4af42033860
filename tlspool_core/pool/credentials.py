"""Our own credentials, made ready by their plugins, and kept until the databases change.

Theory of operation
-------------------
Loading a credential parses its chain and asks a token for the key: too much for every handshake, and the outcome stays the same as
long as the databases do.  So what was loaded is kept under the generation of the databases.  Handshakes that need the same
credential at the same time wait for one load; a load that fails is not kept, since the token may be back for the next handshake.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import or_

from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import ConfigBackend, CredentialType, Denied, Key, KeyStoreError, LocalCredential, LocalIdentity, Role
from tlspool_core.pool.desks import pausing
from tlspool_core.pool.logs import say
from tlspool_core.tls.seams import Credential

log = logging.getLogger("tlspool.credentials")

_MAX_KEPT = 4096


@dataclass(frozen=True, slots=True)
class OwnCredential:
    """A credential that is ready, whose it is, and the plugin that made it."""

    local: LocalCredential
    type: CredentialType
    credential: Credential
    keys: tuple[str, ...] = ()  # URIs of the keys that it was made with
    # that it may be shown in: a plugin's `roles`, if it has any, can be fewer than those in the database
    roles: Role = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "roles", getattr(self.credential, "roles", self.local.roles) & self.local.roles)


def roles_to_show(local: LocalIdentity | None) -> Role | None:
    """For which roles the database gives the credentials that a client of this identity may show; None if there are none."""
    found = [credential.roles for credential in local.credentials if credential.roles & Role.CLIENT] if local is not None else []
    return reduce(or_, found, Role.CLIENT) if found else None


class Credentials:
    """Loads and keeps; one for the process."""

    def __init__(
        self,
        backend: ConfigBackend,
        types: Mapping[str, CredentialType],
        find_key: Callable[[str], Awaitable[Key]],
        time_limit: float,
    ) -> None:
        self._backend = backend
        self._types = types
        self._find_key = find_key
        self._time_limit = time_limit
        self._generation: int | None = None
        self._identities: dict[DoNAI, LocalIdentity | None] = {}
        self._ready: dict[LocalCredential, OwnCredential | None] = {}
        self._loading: dict[LocalCredential, asyncio.Task[OwnCredential | None]] = {}
        self._usable: dict[tuple[DoNAI, Role], list[OwnCredential]] = {}

    def forget(self) -> None:
        """Load everything anew: after a reload, or when tokens changed."""
        self._generation = None

    def _fresh(self) -> None:
        generation = self._backend.generation()
        if generation != self._generation or len(self._identities) > _MAX_KEPT:
            self._generation = generation
            self._identities.clear()
            self._ready.clear()
            self._usable.clear()
            self._loading = {}

    def identity(self, identity: DoNAI) -> LocalIdentity | None:
        """What the database holds for a local identity. Raises ConfigError."""
        self._fresh()
        try:
            return self._identities[identity]
        except KeyError:
            with self._backend.read() as databases:
                found = self._identities[identity] = databases.localid(identity)
            return found

    async def usable(self, local: LocalIdentity, role: Role) -> tuple[list[OwnCredential], list[str]]:
        """Credentials to show in `role`, best first, and why others cannot be had (for log and application).

        `local` is what `identity` has returned just now.
        """
        generation = self._generation
        kept = self._usable.get((local.identity, role))
        if kept is not None:
            return kept.copy(), []
        usable: list[OwnCredential] = []
        problems: list[str] = []
        for credential in self._wanted(local, role):
            try:
                ready = self._ready[credential] if credential in self._ready else await self._load(credential)
            except (Denied, KeyStoreError) as error:
                problems.append(f"{local.identity}: {error}")
                say(log, logging.WARNING, "credential cannot be used", identity=local.identity, type=credential.type, reason=error)
                continue
            if ready is not None and ready.roles & role:
                usable.append(ready)
        if not problems and generation == self._generation and self._identities.get(local.identity) is local:
            self._usable[local.identity, role] = usable.copy()
        return usable, problems

    def _wanted(self, local: LocalIdentity, role: Role) -> Iterable[LocalCredential]:
        return (credential for credential in local.credentials if credential.roles & role and credential.type in self._types)

    async def _load(self, credential: LocalCredential) -> OwnCredential | None:
        task = self._loading.get(credential)
        if task is None:
            task = asyncio.ensure_future(self._load_alone(credential))
            self._loading[credential] = task
            task.add_done_callback(lambda done: self._loaded(credential, done))
        # a session that gives up must not take the load away from the others
        return await asyncio.shield(task)

    def _loaded(self, credential: LocalCredential, task: asyncio.Task[OwnCredential | None]) -> None:
        if self._loading.get(credential) is not task:
            return  # the databases have changed meanwhile
        del self._loading[credential]
        if not task.cancelled() and task.exception() is None:
            self._ready[credential] = task.result()

    async def _load_alone(self, credential: LocalCredential) -> OwnCredential | None:
        kind = self._types[credential.type]
        try:
            async with asyncio.timeout(self._time_limit) as limit:
                pausing.set(limit)
                made = await kind.load(credential, self._find_key)
        except (Denied, KeyStoreError):
            raise
        except TimeoutError:
            raise Denied(f"loading the {kind.name} credential took longer than {self._time_limit:g} s") from None
        except Exception as error:
            log.exception("plugin %s failed to load a credential", kind.name)
            raise Denied(f"the plugin {kind.name} failed to load the credential") from error
        return None if made is None else OwnCredential(credential, kind, made, (credential.key_uri,) if credential.key_uri else ())

    async def issued(self, identity: DoNAI, service: str, role: Role) -> list[OwnCredential]:
        """Credentials made on the fly by every type that can. Raises Denied or KeyStoreError if none does."""
        made: list[OwnCredential] = []
        asked: list[str] = []

        async def find_key(uri: str) -> Key:
            asked.append(uri)
            return await self._find_key(uri)

        for kind in self._types.values():
            asked.clear()
            try:
                async with asyncio.timeout(self._time_limit) as limit:
                    pausing.set(limit)
                    credential = await kind.issue(identity, service, role, find_key)
            except TimeoutError:
                raise Denied(f"making a {kind.name} credential took longer than {self._time_limit:g} s") from None
            if credential is not None:
                made.append(OwnCredential(LocalCredential(identity, kind.name, role, "", b""), kind, credential, tuple(asked)))
        if not made:
            raise Denied("no issuing key is configured, so no credential can be made on the fly")
        return made
