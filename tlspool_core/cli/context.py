"""What commands work with: configuration, plugins and databases, each loaded when it is first needed.

Theory of operation
-------------------
A command line is one short-lived process, so everything is kept once it was made, and closed with click's context.  A plugin that is
required by configuration and missing stops the daemon, but not this program: it is what the operator repairs things with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from tlspool_core.cli.terminal import ask_in_thread, printable
from tlspool_core.identity import DoNAI, Selector
from tlspool_core.interfaces import ConfigBackend, ConfigError, CredentialType, Key, KeyStore, KeyStoreError, PinRequest
from tlspool_core.pool.config import PoolConfig, default_path, load_config
from tlspool_core.pool.tomlfile import suggestion
from tlspool_core.registry import Registry
from tlspool_core.secret import Secret

__all__ = ["Context", "pass_context"]

T = TypeVar("T")


class Context:
    """click's context object; implements `CliContext`, which is all that plugins may rely on."""

    def __init__(self, path: Path | None, *, json: bool = False) -> None:
        self._path = path
        self.json = json
        self._config: PoolConfig | None = None
        self._registry: Registry | None = None
        self._commands: dict[str, click.Command] | None = None
        self._opened: ConfigBackend | None = None

    @property
    def config(self) -> PoolConfig:
        """The configuration, as `tlspool serve` would read it. Raises ConfigurationError."""
        if self._config is None:
            self._config = load_config(self._path or default_path())
        return self._config

    @property
    def registry(self) -> Registry:
        """All plugins. Raises ConfigurationError."""
        if self._registry is None:
            from tlspool_core.cli.root import COMMANDS

            plugins = self.config.plugins
            self._registry = Registry.load(disabled=plugins.disabled, modules=plugins.load, reserved_commands=COMMANDS)
        return self._registry

    def plugin_commands(self) -> Mapping[str, click.Command]:
        """Commands of plugins by name; one whose making fails is left out, and named on standard error."""
        if self._commands is None:
            self._commands = {}
            for name, made in self.registry.cli_commands.items():
                try:
                    self._commands[name] = made.command()
                except Exception as error:  # the plugin's fault is not to take the other commands away
                    who = self.registry.owner(made)
                    click.echo(f"Warning: command {name} of plugin {who} cannot be used: {type(error).__name__}: {error}", err=True)
        return self._commands

    def settings(self, kind: str, name: str) -> Mapping[str, Any]:
        """The configuration section [kind.name]; empty if there is none."""
        sections: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
            "keystore": self.config.keystores,
            "credential": self.config.credentials,
            "aaa": self.config.aaa.settings,
        }
        return sections.get(kind, {}).get(name, {})

    # --- keys

    async def ask_pin(self, request: PinRequest) -> Secret | None:
        """See `CliContext`."""
        return await ask_in_thread(printable(request.prompt))

    def with_key(self, uri: str, use: Callable[[Key], Awaitable[T]]) -> T:
        """See `CliContext`. Raises KeyStoreError, ConfigError."""
        store = self._key_store(uri)
        if store is None:
            raise KeyStoreError(self.key_fault(uri))

        async def main() -> T:
            try:
                await store.start(self.settings("keystore", store.name), self.ask_pin)
            except ValueError as error:
                raise ConfigError(f"[keystore.{store.name}]: {error}") from None
            try:
                return await use(await store.find(uri))
            finally:
                await store.stop()

        return asyncio.run(main())

    def key_fault(self, uri: str) -> str:
        """Why no key can be at a URI, whether it is there now or not; empty if one can be."""
        if self._key_store(uri) is not None:
            return ""
        schemes = sorted(f"{scheme}:" for store in self.registry.key_stores.values() for scheme in store.uri_schemes)
        begin = f", as URIs of keys begin with {' or '.join(schemes)}" if schemes else ""
        return f"no key store that is installed finds {uri!r}{begin}"

    def _key_store(self, uri: str) -> KeyStore | None:
        scheme, colon, _ = uri.partition(":")
        return next((store for store in self.registry.key_stores.values() if colon and scheme in store.uri_schemes), None)

    # --- databases

    def backend(self, *, readonly: bool = False) -> ConfigBackend:
        """The configured databases, opened. Raises ConfigError."""
        chosen = self._backend()
        if self._opened is not chosen or not readonly:
            chosen.open(self.config.config.settings, readonly=readonly)
            if self._opened is None:
                click.get_current_context().find_root().call_on_close(chosen.close)
            self._opened = chosen
        return chosen

    def _backend(self) -> ConfigBackend:
        known = self.registry.config_backends
        name = self.config.config.backend
        if name:
            if name not in known:
                raise ConfigError(f"{self.config.name}: config.backend: {name!r} is not installed{suggestion(name, [*known])}")
            return known[name]
        if not known:
            raise ConfigError("no plugin with databases is installed; `tlspool plugins` shows what is")
        if len(known) > 1:
            raise ConfigError(f"{self.config.name}: config.backend: choose one of {', '.join(sorted(known))}")
        return next(iter(known.values()))

    # --- what arguments mean

    def identity(self, text: str) -> DoNAI:
        """Raises InvalidIdentity."""
        return DoNAI.parse(text, user_case_counts=self.config.policy.user_case_counts)

    def selector(self, text: str) -> Selector:
        """Raises InvalidIdentity."""
        return Selector.parse(text, user_case_counts=self.config.policy.user_case_counts)

    def credential_type(self, name: str | None) -> CredentialType:
        """The named type; without a name the only one that is installed. Raises click.UsageError."""
        types = self.registry.credential_types
        if name is None:
            if len(types) != 1:
                raise click.UsageError(f"say --type, one of: {', '.join(sorted(types)) or '(no plugin offers any)'}")
            return next(iter(types.values()))
        if name not in types:
            raise click.UsageError(f"--type: there is no credential type {name!r}{suggestion(name, [*types])}")
        return types[name]

    def summary(self, type_name: str, public: bytes) -> str:
        """One line on a public part, by the plugin of its type."""
        kind = self.registry.credential_types.get(type_name)
        if kind is None:
            return f"{len(public)} bytes of a type that is not installed"
        try:
            return kind.summarize(public)
        except Exception as error:  # a list is not to end at one entry
            return f"{len(public)} bytes (the plugin failed: {type(error).__name__})"


pass_context = click.make_pass_decorator(Context)
