"""The daemon: from configuration to a pool that listens, until a signal ends it.

Theory of operation
-------------------
Starting has an order: read the configuration; load plugins; open the listening sockets (which may need root); give up
privileges; open databases and key stores; serve; tell the service manager.  Stopping goes backwards, and first lets sessions
finish:

    SIGTERM, SIGINT   accept nothing more; end when the last session has, at the latest after limits.drain_timeout
    a second one      end at once
    SIGHUP            read the configuration anew; if it is wrong, say so and go on with the old one

A reload applies what can change in a running process: policy, limits, TLS settings, logs, plugins' own sections.  Sockets, user,
workers, databases and the list of plugins need a restart, and the log says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from tlspool_core.pool import listeners, logs, notify, privileges
from tlspool_core.pool.accept import Acceptor, PeerProcess
from tlspool_core.pool.client import Client
from tlspool_core.pool.config import ConfigurationError, PoolConfig, default_path, load_config
from tlspool_core.pool.core import Pool
from tlspool_core.pool.linger import close_lingering
from tlspool_core.pool.listeners import Listener
from tlspool_core.pool.logs import say
from tlspool_core.pool.mesh import Mesh
from tlspool_core.pool.monitor import MonitorServer
from tlspool_core.pool.plugins import PluginSet
from tlspool_core.pool.readiness import PoolLoop
from tlspool_core.pool.status import StatusServer
from tlspool_core.pool.supervisor import Supervisor
from tlspool_core.pool.tickets import Seed
from tlspool_core.secret import Secret

log = logging.getLogger("tlspool.daemon")

_RESTART_ONLY = ("sockets", "status", "metrics", "workers", "user", "group", "plugins", "config", "tickets")


@dataclass(frozen=True, slots=True)
class Place:
    """A worker's place among others: its number, its connection to the supervisor, and the seed of the ticket keys."""

    number: int
    link: socket.socket
    seed: Seed


class Daemon:
    """One serving process."""

    def __init__(
        self,
        path: Path | None,
        config: PoolConfig,
        opened: Opened,
        plugins: PluginSet,
        place: Place | None = None,
    ) -> None:
        """`place` is given to a worker among others."""
        self._place = place
        self._path = path
        self._config = config
        self._listeners = opened.pool
        self._opened = opened
        self._watched: list[StatusServer | MonitorServer] = []
        self._plugins = plugins
        self._clients: set[Client] = set()
        self._signals = 0
        self._stop = asyncio.Event()
        self._now = asyncio.Event()
        self._pool: Pool
        self._acceptor: Acceptor

    async def run(self) -> None:
        """Serve until told to stop. Raises ConfigurationError or ConfigError if it cannot start."""
        loop = asyncio.get_running_loop()
        started = await self._plugins.start(self._config)
        logs.attach(loop)
        try:
            self._pool = Pool(loop, self._config, started, self._place.seed if self._place else None)
            self._plugins.pin_desk = self._pool.desks.ask_pin
            self._pool.own_addresses = frozenset(str(listener.path) for listener in self._listeners)
            self._acceptor = Acceptor(loop, self._listeners, self._config.limits, self._serve)
            self._watch_signals(loop)
            self._acceptor.start()
            self._watched += [StatusServer(self._pool, listener) for listener in self._opened.status]
            self._watched += [MonitorServer(self._pool, listener) for listener in self._opened.metrics]
            watchdog = loop.create_task(_feed_watchdog())
            if self._place is not None:
                self._pool.mesh = Mesh(self._pool, self._place.link, self._place.number)
                self._pool.mesh.ready()
            _spare_the_collector()
            Secret().wipe()  # if memory cannot be locked, the log is to say so now, and not with the first PIN
            notify.ready()
            say(log, logging.INFO, "serving", sockets=",".join(str(listener.path) for listener in self._listeners))
            await self._stop.wait()
            await self._drain()
            for server in self._watched:
                server.close()
            watchdog.cancel()
            self._pool.close()
            await self._pool.accounting.flush()
        finally:
            logs.attach(None)
            await self._plugins.stop()

    def _serve(self, connected: socket.socket, process: PeerProcess) -> None:
        client = Client(self._pool, connected, process, self._gone)
        self._clients.add(client)
        client.start()

    def _gone(self, client: Client) -> None:
        self._clients.discard(client)
        self._acceptor.gone(client.process)

    # --- signals -------------------------------------------------------------------------------------------------------------

    def _watch_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._told_to_reload)

    def _told_to_stop(self) -> None:
        self._signals += 1
        (self._stop if self._signals == 1 else self._now).set()

    def _told_to_reload(self) -> None:
        notify.reloading()
        try:
            self._reload(load_config(self._path or default_path()))  # there may be a file by now where there was none
        except ConfigurationError as error:
            self._pool.counters.reload_fault = str(error)
            say(log, logging.ERROR, "configuration not changed", reason=error)
        else:
            self._pool.keep(asyncio.ensure_future(self._rescan()))
        notify.ready()

    async def _rescan(self) -> None:
        """Look for tokens anew; credentials that were made with the keys of before are made again."""
        await self._plugins.rescan()
        self._pool.credentials.forget()

    def _reload(self, config: PoolConfig) -> None:
        """Apply what can change. Raises ConfigurationError, and changes nothing then."""
        self._plugins.check(config)
        self._plugins.configure(config)
        try:
            fixed = self._plugins.configure_stores(config)
            self._pool.configure(config)
        except ConfigurationError:
            self._plugins.configure(self._config)
            self._plugins.configure_stores(self._config)
            raise
        self._acceptor.limits = config.limits
        logs.set_up(config.log)
        fixed += [key for key in _RESTART_ONLY if getattr(config, key) != getattr(self._config, key)]
        if config.aaa.settings != self._config.aaa.settings:
            fixed.append("aaa.NAME")
        if fixed:
            say(log, logging.WARNING, "some changes need a restart", sections=",".join(fixed))
        self._config = config
        self._pool.counters.reload()
        say(log, logging.INFO, "configuration read anew", file=config.name)

    # --- the end -------------------------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Take nothing new, and wait for sessions to end, up to the limit or the second signal."""
        notify.stopping()
        self._acceptor.stop()
        for listener in self._listeners:
            if self._place is None:
                listener.close()
            else:  # the path is the supervisor's to remove
                listener.release()
        self._pool.stopping = True
        limit = self._config.limits.drain_timeout
        say(log, logging.INFO, "stopping", sessions=len(self._pool.sessions), limit=limit)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while self._busy() and not self._now.is_set():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._now.wait(), 0.05)
        for client in list(self._clients):
            client.close()
        close_lingering()

    def _busy(self) -> bool:
        return bool(self._pool.sessions) or any(client.busy for client in self._clients)


def _spare_the_collector() -> None:
    """Modules, tables and plugins stay: cyclic garbage is looked for among what sessions leave, and less often than every 700 objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


async def _feed_watchdog() -> None:
    """Signs of life, as long as the event loop turns."""
    interval = notify.watchdog_interval()
    while interval is not None:
        notify.notify("WATCHDOG=1")
        await asyncio.sleep(interval)


@dataclass(frozen=True, slots=True)
class Opened:
    """Listening sockets: those for applications, and those (if any) for whoever asks for the status, and for monitors."""

    pool: list[Listener]
    status: list[Listener]
    metrics: list[Listener]

    @property
    def all(self) -> list[Listener]:
        return [*self.pool, *self.status, *self.metrics]

    def close(self) -> None:
        for listener in self.all:
            listener.close()


def open_listeners(config: PoolConfig) -> Opened:
    """Inherited sockets if there are any, else the configured ones. Raises ListenError or PrivilegeError."""
    try:
        inherited = notify.inherited_sockets()
    except OSError as error:
        raise listeners.ListenError(str(error)) from error
    opened = Opened([listeners.adopt(one) for one in inherited], [], [])
    try:
        if not inherited:
            opened.pool.extend(listeners.listen(one) for one in config.sockets)
        if config.status is not None:
            opened.status.append(listeners.listen(config.status))
        if config.metrics.socket is not None:
            opened.metrics.append(listeners.listen(config.metrics.socket))
        if config.metrics.address is not None:
            opened.metrics.append(listeners.listen_at(*config.metrics.address))
    except BaseException:
        opened.close()
        raise
    return opened


def serve(path: Path | None) -> int:
    """Run the daemon in the foreground; the exit status.

    Raises ConfigurationError, ListenError, PrivilegeError, RequiredPluginMissing or ConfigError if it cannot start.
    """
    config = load_config(path)
    logs.set_up(config.log)
    privileges.raise_file_limit()
    if config.workers > 1:
        return _supervise(path, config)
    plugins = PluginSet(config)
    opened = open_listeners(config)
    try:
        privileges.drop(config.user, config.group)
        privileges.harden()
        _run(Daemon(path, config, opened, plugins))
    finally:
        opened.close()
    return 0


def _run(daemon: Daemon) -> None:
    """Raises what `Daemon.run` raises."""
    with asyncio.Runner(loop_factory=PoolLoop) as runner:
        runner.run(daemon.run())


def _supervise(path: Path | None, config: PoolConfig) -> int:
    """Several workers: plugins are loaded in each, after privileges were given up."""
    opened = open_listeners(config)
    try:
        privileges.drop(config.user, config.group)
        privileges.harden()
        seed = Seed.fresh(config.tickets.rotation, time.time())

        def work(number: int, link: socket.socket) -> None:
            place = Place(number, link, seed)
            _run(Daemon(path, config, opened, PluginSet(config), place))

        return Supervisor(config.workers, opened.all, work).run()
    finally:
        opened.close()
