"""The plugins of the daemon: which of them serve, started with their sections of the configuration, and stopped.

Theory of operation
-------------------
The registry says what is installed; the configuration, which of it is used.  A section for something that is not installed is an
error, as it would be without effect.  Key stores and credential types are used as soon as they are installed; one database
backend is chosen; site rules are used only if a step names them.  Failing to start is fatal for the databases and for
site rules that a step names; a key store that cannot start yet may get its token later, so the pool serves and says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, cast

from tlspool_core.interfaces import Aaa, ConfigBackend, Denied, KeyStoreError, PinRequest
from tlspool_core.pool.config import ConfigurationError, PoolConfig
from tlspool_core.pool.core import Plugins
from tlspool_core.pool.logs import say
from tlspool_core.pool.tomlfile import suggestion
from tlspool_core.registry import Guard, Registry
from tlspool_core.secret import Secret

log = logging.getLogger("tlspool.plugins")


async def no_pin(request: PinRequest) -> Secret | None:
    """There is no one to ask for a PIN."""
    say(log, logging.WARNING, "a PIN is needed, and there is no one to ask", token=request.label, serial=request.serial)
    return None


class PluginSet:
    """Loaded when made, which is before privileges are given up; started and stopped on the event loop."""

    def __init__(self, config: PoolConfig) -> None:
        """Raises RequiredPluginMissing or ConfigurationError."""
        self.registry = Registry.load(
            required=config.plugins.required,
            disabled=config.plugins.disabled,
            modules=config.plugins.load,
            guard=Guard(config.limits.plugin_timeout),
        )
        self.pin_desk: Callable[[PinRequest], Awaitable[Secret | None]] = no_pin  # until there is a pool
        self._sections: dict[str, Mapping[str, Any]] = {}
        self._backend: ConfigBackend | None = None
        self._started_aaa: list[Aaa] = []
        self._started_stores: list[str] = []
        self._store_sections: dict[str, Mapping[str, Any]] = {}  # those in force, or that a start failed with
        self.check(config)

    def check(self, config: PoolConfig) -> None:
        """Every section must belong to something that is installed. Raises ConfigurationError."""
        registry = self.registry
        _known(config, "keystore", config.keystores, registry.key_stores)
        _known(config, "credential", config.credentials, registry.credential_types)
        _known(config, "aaa", config.aaa.settings, registry.aaa)
        for step in ("authentication", "authorization", "accounting"):
            _known(config, f"aaa.{step}", getattr(config.aaa, step), registry.aaa)
        self._choose_backend(config)

    def _choose_backend(self, config: PoolConfig) -> ConfigBackend:
        backends = self.registry.config_backends
        name = config.config.backend
        if name:
            _known(config, "config.backend", [name], backends)
            return backends[name]
        if len(backends) == 1:
            return next(iter(backends.values()))
        if not backends:
            raise ConfigurationError(f"{config.name}: no plugin with databases is installed; try `tlspool plugins`")
        raise ConfigurationError(f"{config.name}: config.backend: choose one of {', '.join(sorted(backends))}")

    def configure(self, config: PoolConfig) -> None:
        """Hand credential types their sections. Raises ConfigurationError, and leaves the old sections in force then."""
        old = self._sections
        try:
            self._hand_out({name: config.credentials.get(name, {}) for name in self.registry.credential_types})
            self._check_extensions(config)
        except ConfigurationError:
            self._hand_out(old)
            raise

    def _check_extensions(self, config: PoolConfig) -> None:
        """No session could have two extensions of one code point. Raises ConfigurationError."""
        owners = {config.symmetric.extension: "[symmetric] extension"}
        for name, kind in self.registry.credential_types.items():
            for code in kind.extension_codes():
                owner = owners.setdefault(code, f"[credential.{name}]")
                if owner != f"[credential.{name}]":
                    raise ConfigurationError(
                        f"{config.name}: [credential.{name}] has TLS extension {code:#06x}, and so has {owner}: change one of them"
                    )

    def _hand_out(self, sections: Mapping[str, Mapping[str, Any]]) -> None:
        for name, section in sections.items():
            try:
                self.registry.credential_types[name].configure(section)
            except ValueError as error:
                raise ConfigurationError(f"[credential.{name}]: {error}") from error
        self._sections = dict(sections)

    def configure_stores(self, config: PoolConfig) -> list[str]:
        """Hand key stores their sections that have changed, for the rescan that follows; the sections that need a restart.

        Raises ConfigurationError; what was handed out by then is taken back by handing out the old configuration.
        """
        restart = []
        for name in self.registry.key_stores:
            section = config.keystores.get(name, {})
            if section == self._store_sections.get(name, {}):
                continue
            try:
                taken = name in self._started_stores and self.registry.key_stores[name].configure(section)
            except ValueError as error:
                raise ConfigurationError(f"[keystore.{name}]: {error}") from error
            if taken:
                self._store_sections[name] = section
            else:
                restart.append(f"keystore.{name}")
        return restart

    # --- start and stop ------------------------------------------------------------------------------------------------------

    async def start(self, config: PoolConfig) -> Plugins:
        """Open databases, start key stores and site rules. Raises ConfigurationError or ConfigError."""
        backend = self._choose_backend(config)
        backend.open(config.config.settings)
        self._backend = backend
        self.configure(config)
        await asyncio.gather(*(self._start_store(name, config) for name in self.registry.key_stores))
        aaa = config.aaa
        for name in dict.fromkeys((*aaa.authentication, *aaa.authorization, *aaa.accounting)):
            await self._start_aaa(name, config)
        registry = self.registry
        return Plugins(backend, registry, registry.credential_types, registry.key_stores, registry.aaa)

    async def _start_store(self, name: str, config: PoolConfig) -> None:
        store, section = self.registry.key_stores[name], config.keystores.get(name, {})
        self._store_sections[name] = section
        try:
            await store.start(section, self._ask_pin)
        except ValueError as error:
            raise ConfigurationError(f"[keystore.{name}]: {error}") from error
        except KeyStoreError as error:
            say(log, logging.ERROR, "key store cannot be used", store=name, reason=error)
            return
        self._started_stores.append(name)

    async def _ask_pin(self, request: PinRequest) -> Secret | None:
        """What key stores call; by then there may be a desk to ask."""
        return await self.pin_desk(request)

    async def _start_aaa(self, name: str, config: PoolConfig) -> None:
        plugin = self.registry.aaa[name]
        try:
            await plugin.start(config.aaa.settings.get(name, {}))
        except (ValueError, Denied) as error:
            raise ConfigurationError(f"[aaa.{name}]: {error}") from error
        self._started_aaa.append(plugin)

    async def rescan(self) -> None:
        """Look for tokens anew."""
        for name in self._started_stores:
            await self._have(name, self.registry.key_stores[name].rescan, "key store cannot be scanned")

    async def _have(self, name: str, step: Callable[[], Awaitable[object]], complaint: str, timeout: float | None = None) -> None:
        """Have a plugin do something; if it cannot, the log has the complaint, and others go on."""
        try:
            await self.registry.guard(name, cast("Callable[..., object]", step), timeout=timeout)
        except (Denied, KeyStoreError) as error:
            say(log, logging.ERROR, complaint, plugin=name, reason=error)

    async def stop(self) -> None:
        """Stop what was started."""
        aaa, stores = self._started_aaa, self._started_stores
        self._started_aaa, self._started_stores = [], []
        for plugin in aaa:
            await self._have(plugin.name, plugin.stop, "plugin does not stop", 5.0)
        for name in stores:
            await self._have(name, self.registry.key_stores[name].stop, "key store does not stop", 5.0)
        if self._backend is not None:
            self._backend.close()
            self._backend = None
        self.registry.close()


def _known(config: PoolConfig, where: str, names: Iterable[str], installed: Mapping[str, object]) -> None:
    for name in names:
        if name not in installed:
            raise ConfigurationError(f"{config.name}: {where}: {name!r} is not installed{suggestion(name, list(installed))}")
