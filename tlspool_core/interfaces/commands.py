"""Commands that a plugin adds to `tlspool`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tlspool_core.interfaces.config import (
    ConfigBackend,
)
from tlspool_core.interfaces.keys import Key, PinRequest
from tlspool_core.secret import Secret

if TYPE_CHECKING:
    import click

_T = TypeVar("_T")


class CliContext(Protocol):
    """What `tlspool` hands to every command as click's context object (`@click.pass_obj`)."""

    @property
    def json(self) -> bool:
        """Whether the output is for programs."""

    def backend(self, *, readonly: bool = False) -> ConfigBackend:
        """The configured databases, opened. Raises ConfigError."""

    def settings(self, kind: str, name: str) -> Mapping[str, Any]:
        """The configuration section [kind.name], for example ("keystore", "pkcs11"); empty if there is none."""

    async def ask_pin(self, request: PinRequest) -> Secret | None:
        """The PIN that the person at the terminal types, for `KeyStore.start`; None for an empty line. The store wipes it."""

    def with_key(self, uri: str, use: Callable[[Key], Awaitable[_T]]) -> _T:
        """What `use` makes of the private key that a URI names, in the key store that is configured for it.

        PINs that are not configured are asked for at the terminal. Raises KeyStoreError, ConfigError, and what `use` raises.
        """


class CliCommand(Protocol):
    """A command, or group of commands, under `tlspool`; its click context object is a `CliContext`."""

    @property
    def name(self) -> str: ...

    def command(self) -> click.Command: ...
