"""What all sessions of one process share, and the count of them.

Theory of operation
-------------------
A `Pool` is made once from configuration and plugins.  A reload makes new what follows from the configuration (`configure`) and
leaves what lives: sessions, control keys, ticket keys.  Everything runs on one event loop; plugin code that may block runs in
worker threads under a time limit, and counts as refusing when that has passed.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from tlspool_core import fdpass
from tlspool_core.fdpass import Descriptor
from tlspool_core.identity import DoNAI, InvalidIdentity
from tlspool_core.interfaces import Aaa, ConfigBackend, CredentialType, Denied, Key, KeyStore, KeyStoreError
from tlspool_core.policy.disclosure import disclosed
from tlspool_core.policy.judge import Judge
from tlspool_core.policy.predicates import PredicateTable
from tlspool_core.pool.aaa import SiteRules
from tlspool_core.pool.accounting import AccountingDesk
from tlspool_core.pool.beginning import Beginning, address_of
from tlspool_core.pool.config import PoolConfig
from tlspool_core.pool.control import ControlKeys
from tlspool_core.pool.credentials import Credentials
from tlspool_core.pool.desks import Desks
from tlspool_core.pool.engine import Engine, blocking
from tlspool_core.pool.key_watch import KeyWatch
from tlspool_core.pool.linger import close_at_once
from tlspool_core.pool.relay_ends import enlarge_buffers
from tlspool_core.pool.room import Room, open_files
from tlspool_core.pool.session import Session
from tlspool_core.pool.status import Counters
from tlspool_core.pool.tickets import ClientSessions, Seed, TicketKeys
from tlspool_core.pool.wishes import role_of
from tlspool_core.registry import Registry
from tlspool_core.tls.alerts import InternalError
from tlspool_core.tls.seams import PeerCredential
from tlspool_core.wire.connection import Exchange
from tlspool_core.wire.errors import ErrorCode, WireError
from tlspool_core.wire.messages import NO_CTLKEY, StartTls

if TYPE_CHECKING:
    from tlspool_core.pool.client import Client
    from tlspool_core.pool.mesh import Mesh

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plugins:
    """The plugins that serve this pool, by name; started and configured."""

    backend: ConfigBackend
    registry: Registry
    credential_types: Mapping[str, CredentialType] = field(default_factory=dict)
    key_stores: Mapping[str, KeyStore] = field(default_factory=dict)
    aaa: Mapping[str, Aaa] = field(default_factory=dict)


class Pool:
    """See above."""

    def __init__(self, loop: asyncio.AbstractEventLoop, config: PoolConfig, plugins: Plugins, seed: Seed | None = None) -> None:
        """`seed` of the ticket keys, if other processes share them. Raises ConfigurationError or OSError."""
        self.loop = loop
        self.plugins = plugins
        self.backend = plugins.backend
        self.control: ControlKeys[Session] = ControlKeys()
        self.accounting = AccountingDesk()
        self.desks = Desks(self)
        self.sessions: set[Session] = set()
        self.room = Room()
        self.key_watch = KeyWatch(loop, self._store, lambda: self.credentials.forget())
        self.stopping = False
        self.counters = Counters()
        self.mesh: Mesh | None = None  # to the other workers, if there are any
        self.own_addresses: frozenset[str] = frozenset()  # of our listening sockets
        self.guard = plugins.registry.guard
        self.config: PoolConfig
        self.engine: Engine
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ids = (f"{os.urandom(4).hex()}-{number:x}" for number in itertools.count(1))
        self._certificate_types = {code: kind for kind in plugins.credential_types.values() for code in kind.certificate_types}
        self._key_stores = {scheme: store for store in plugins.key_stores.values() for scheme in store.uri_schemes}
        self._tickets = TicketKeys(config.tickets, seed) if config.tickets.enabled else None
        self.client_sessions = ClientSessions(config.tickets.client_cache if config.tickets.enabled else 0)
        self.configure(config)

    def configure(self, config: PoolConfig) -> None:
        """Take a configuration; the old one stays if the new one cannot be used. Raises ConfigurationError."""
        engine = Engine(self, config, self.plugins.credential_types.values())
        if hasattr(self, "engine"):
            self.engine.close()
        limit = config.limits.plugin_timeout
        self.config = config
        self.engine = engine
        self.credentials = Credentials(self.backend, self.plugins.credential_types, self.find_key, limit)
        self.read_secret_blocking: Callable[[str], bytes] = blocking(self.loop, self._read_secret, limit)
        self.agree_blocking: Callable[[str, bytes], bytes] = blocking(self.loop, self._agree, limit)
        self.ask_password_blocking: Callable[[str], str | None] = blocking(self.loop, self.desks.ask_password, limit)
        steps = (("authentication", config.aaa.authentication), ("authorization", config.aaa.authorization))
        self.site_rules = SiteRules(self.plugins.aaa, steps, limit, config.aaa.parallel)
        self.accounting.configure([self.plugins.aaa[name] for name in config.aaa.accounting], config.aaa.account_sessions, limit)
        self.judge = Judge(
            PredicateTable(
                self.plugins.registry.predicates,
                self.plugins.credential_types,
                strict=config.policy.strict,
                lenient=config.policy.lenient,
            ),
            self.guard,
            time_limit=limit,
            default=config.policy.default,
            services={name: service.expression for name, service in config.services.items() if service.expression},
        )
        self.client_sessions.forget()
        self.room.configure(config.limits, open_files())

    def close(self) -> None:
        """Release what is the process's."""
        for session in list(self.sessions):
            session.close("pool stopped")
        self.key_watch.close()
        self.engine.close()

    # --- sessions ------------------------------------------------------------------------------------------------------------

    def admit(self, maker: Client, exchange: Exchange, request: StartTls, descriptor: Descriptor) -> Beginning:
        """A session that can begin, if roles, protocol, limits and control key allow. Raises WireError."""
        if self.stopping:
            raise WireError(ErrorCode.POOL_STOPPING)
        if len(maker.sessions) >= self.config.limits.sessions_per_client:
            raise WireError(ErrorCode.LIMIT_REACHED, "This connection has reached its limit of sessions")
        role = role_of(request)
        if request.ctlkey == NO_CTLKEY:
            request = request.echo(ctlkey=os.urandom(16))
        if request.ctlkey in self.control:
            raise WireError(ErrorCode.CTLKEY_REGISTRATION_FAILED)
        self.room.take(maker.process.uid)
        try:
            cipher = self._adopt(descriptor)
        except BaseException:
            self.room.give_back(maker.process.uid)
            raise
        session = Session(self, maker, request, role, address_of(cipher))
        beginning = session.beginning = Beginning(session, exchange, cipher)
        self.control.register(request.ctlkey, session, maker)
        self.sessions.add(session)
        maker.sessions.add(session)
        return beginning

    def _adopt(self, descriptor: Descriptor) -> socket.socket:
        self.refuse_own(descriptor)
        return adopt(descriptor)

    def refuse_own(self, descriptor: Descriptor) -> None:
        """Raises WireError for an application's connection to us: if we held it, its end would never be seen."""
        if fdpass.leads_to(descriptor, self.own_addresses):
            raise WireError(ErrorCode.CONNECTION_DRIVER, "This socket is a connection to the TLS Pool itself")

    def ended(self, session: Session) -> None:
        """A session has released all it had."""
        if session not in self.sessions:
            return
        self.sessions.discard(session)
        self.room.give_back(session.process.uid)
        self.key_watch.discard(session, session.keys)
        controller = self.control.remove(session.request.ctlkey, session)
        self.accounting.session_ended(session.request.ctlkey, controller)
        if session.maker is not None:
            session.maker.sessions.discard(session)

    def release(self, controller: object) -> None:
        """An application has gone: what it controlled is detached, its seat is free, what it accounted alone is stopped."""
        self.control.release(controller)
        self.desks.release(controller)
        self.accounting.release(controller)

    def new_session_id(self) -> str:
        return next(self._ids)

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Hold a reference to a task until it is done."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- plugins -------------------------------------------------------------------------------------------------------------

    def identity(self, text: str) -> DoNAI | None:
        """An identity that an application or peer names; None for an empty text. Raises WireError."""
        if not text:
            return None
        try:
            return DoNAI.parse(text, user_case_counts=self.config.policy.user_case_counts)
        except InvalidIdentity as error:
            raise WireError(ErrorCode.LOCALID_NOT_FOUND, f"Not an identity: {error}") from None

    def disclosed(self, remote: DoNAI) -> tuple[DoNAI, ...]:
        """Local identities that may be shown to a remote, best first."""
        with self.backend.read() as databases:
            found = disclosed(databases, remote)
        return found[1] if found is not None else ()

    def type_of_certificate(self, code: int) -> CredentialType | None:
        return self._certificate_types.get(code)

    def type_of_peer(self, peer: PeerCredential | None) -> CredentialType | None:
        """The plugin that a peer's credential belongs to."""
        if peer is None:
            return None
        return next((kind for kind in self.plugins.credential_types.values() if kind.owns(peer)), None)

    def _store(self, uri: str) -> KeyStore:
        store = self._key_stores.get(uri.partition(":")[0])
        if store is None:
            raise KeyStoreError(f"no key store is installed for {uri.partition(':')[0]!r} URIs")
        return store

    async def find_key(self, uri: str) -> Key:
        """The key that a URI names, from the store that serves its scheme. Raises KeyStoreError."""
        return await self._store(uri).find(uri)

    async def reach(self, uri: str) -> None:
        """Raises KeyStoreError if what a URI names cannot be used now."""
        await self._store(uri).reach(uri)

    async def _read_secret(self, uri: str) -> bytes:
        return await self._store(uri).read_secret(uri)

    async def _agree(self, uri: str, peer_public: bytes) -> bytes:
        return await self._store(uri).agree(uri, peer_public)

    async def call(self, who: str, work: Callable[[], T]) -> T:
        """Run plugin code that may block. Raises the TlsError that it raises; InternalError for anything else."""
        try:
            return await self.guard(who, work)
        except Denied as fault:
            raise InternalError(str(fault)) from None

    # --- resumption ----------------------------------------------------------------------------------------------------------

    def seal_ticket(self, state: bytes, scope: bytes) -> bytes | None:
        return self._tickets.seal(state, scope) if self._tickets else None

    def open_ticket(self, ticket: bytes, scope: bytes) -> bytes | None:
        return self._tickets.open(ticket, scope) if self._tickets else None


def adopt(descriptor: Descriptor) -> socket.socket:
    """Become the owner of a connected stream socket. Raises WireError, and closes, if it is none."""
    try:
        owned = descriptor.socket()
    except OSError:
        raise WireError(ErrorCode.CONNECTION_DRIVER, "STARTTLS wants a connected stream socket") from None
    try:
        # the kernel's number costs less than the socket module's enumeration
        if owned.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) != socket.SOCK_STREAM:
            raise WireError(ErrorCode.CONNECTION_DRIVER, "STARTTLS wants a stream socket")
        peer = owned.getpeername()
        owned.setblocking(False)
        if isinstance(peer, tuple):  # which those of UNIX sockets are not
            # records are whole when they are sent; waiting for more would delay the last one of a burst
            owned.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            owned.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        else:
            enlarge_buffers(owned)
    except OSError:
        close_at_once(owned)
        raise WireError(ErrorCode.CONNECTION_DRIVER, "STARTTLS wants a connected stream socket") from None
    except WireError:
        close_at_once(owned)
        raise
    return owned
