"""The section [aaa.radius] as frozen dataclasses.

Theory of operation
-------------------
Servers have sections of their own, [aaa.radius.server.NAME]; each of the three functions names those that it uses, so that one server can
serve several functions, and each function has a list of its own.  Nothing is ignored: an unknown key is an error.  Shared secrets
are never in the configuration, only the name of a file or of a credential of the service manager (systemd's LoadCredential=).  A file
with a secret or a key that others can read or change, as it is theirs or for anybody, is refused.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

STEPS: Final = ("authentication", "authorization")
RADSEC_SECRET: Final = b"radsec"  # RFC 6614 section 2.3: TLS protects, the secret is fixed
_MAX_SECRET: Final = 4096  # bytes
_MIN_SECRET: Final = 8  # bytes; RFC 2865 section 3 wants 16 at least, test set-ups often have less


@dataclass(frozen=True, slots=True)
class Server:
    """One RADIUS server. Times in seconds."""

    name: str
    address: str
    transport: str  # "udp" or "tls"
    port: int
    accounting_port: int
    secret: bytes = field(repr=False)
    priority: int = 0  # the lowest goes first
    dead_time: float = 30.0
    status_server: bool = False
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = field(default="", repr=False)
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class Function:
    """How one function asks: its servers, best first, seconds for each try, tries with each server, seconds in all."""

    servers: tuple[Server, ...] = ()
    timeout: float = 2.0
    tries: int = 2
    limit: float = 10.0
    permit_without_answer: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """All of [aaa.radius]."""

    nas_identifier: str
    anonymous: str  # User-Name for peers without identity; "": they are refused
    queue: Path
    queue_limit: int
    steps: Mapping[str, Function]
    accounting: Function


class _Section:
    """Takes keys out of a table, and complains about those that are left. All methods raise ValueError that names the key."""

    def __init__(self, name: str, table: object) -> None:
        if not isinstance(table, Mapping):
            raise ValueError(f"{name} must be a table")
        self._name = name
        self._rest = dict(table)

    def error(self, key: str, what: str) -> ValueError:
        return ValueError(f"{f'{self._name}.' if self._name else ''}{key} {what}")

    def text(self, key: str, default: str = "") -> str:
        value = self._rest.pop(key, default)
        if not isinstance(value, str):
            raise self.error(key, "must be a text")
        return value

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.text(key, choices[0])
        if value not in choices:
            raise self.error(key, f"must be one of {', '.join(choices)}")
        return value

    def number(self, key: str, default: float, least: float, most: float) -> float:
        value = self._rest.pop(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise self.error(key, f"must be a number from {least} to {most}")
        return value

    def boolean(self, key: str) -> bool:
        value = self._rest.pop(key, False)
        if not isinstance(value, bool):
            raise self.error(key, "must be true or false")
        return value

    def texts(self, key: str) -> list[str]:
        value = self._rest.pop(key, [])
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self.error(key, "must be a list of texts")
        return value

    def table(self, key: str) -> Mapping[str, Any]:
        value = self._rest.pop(key, {})
        if not isinstance(value, Mapping):
            raise self.error(key, "must be a table")
        return value

    def finish(self) -> None:
        for key in self._rest:
            raise self.error(key, "is not known here")


def parse(table: Mapping[str, Any]) -> Settings:
    """The section as it was configured. Raises ValueError that names the key."""
    section = _Section("", table)
    servers = {name: _server(name, one) for name, one in section.table("server").items()}
    made = Settings(
        nas_identifier=section.text("nas_identifier", socket.gethostname()),
        anonymous=section.text("anonymous"),
        queue=Path(section.text("queue") or _state() / "radius.sqlite"),
        queue_limit=int(section.number("queue_limit", 1_000_000, 1, 1_000_000_000)),
        steps={step: _function(step, section.table(step), servers) for step in STEPS},
        accounting=_function("accounting", section.table("accounting"), servers),
    )
    section.finish()
    if not made.nas_identifier:
        raise ValueError("nas_identifier must not be empty")
    return made


def _state() -> Path:
    """Where a service keeps its state: as the service manager says, or the user's own place (XDG base directories)."""
    if directory := os.environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(directory)
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "tlspool"


def _function(name: str, table: object, servers: Mapping[str, Server]) -> Function:
    section = _Section(name, table)
    names = section.texts("servers")
    for one in names:
        if one not in servers:
            raise section.error("servers", f"names {one!r}, and there is no section server.{one}")
    base = Function()
    made = Function(
        # sorted() keeps the order of the list among those of equal priority
        servers=tuple(sorted((servers[one] for one in dict.fromkeys(names)), key=lambda server: server.priority)),
        timeout=section.number("timeout", base.timeout, 0.05, 60),
        tries=int(section.number("tries", base.tries, 1, 10)),
        limit=section.number("limit", base.limit, 0.05, 600),
        permit_without_answer=name in STEPS and section.choice("without_answer", ("refuse", "permit")) == "permit",
    )
    section.finish()
    if len(made.servers) > 1 and made.limit <= made.timeout * made.tries:
        least = f"{made.timeout * made.tries:g} seconds (timeout, tries times)"
        raise section.error("limit", f"must be more than the {least} for the first server, or others are never asked")
    return made


def _server(name: str, table: object) -> Server:
    section = _Section(f"server.{name}", table)
    transport = section.choice("transport", ("udp", "tls"))
    usual = (1812, 1813) if transport == "udp" else (2083, 2083)
    port = int(section.number("port", usual[0], 1, 65535))
    made = Server(
        name=name,
        address=section.text("address"),
        transport=transport,
        port=port,
        accounting_port=int(section.number("accounting_port", usual[1] if transport == "udp" else port, 1, 65535)),
        secret=_secret(section) if transport == "udp" else RADSEC_SECRET,
        priority=int(section.number("priority", 0, -1000, 1000)),
        dead_time=section.number("dead_time", 30.0, 0, 86400),
        status_server=section.boolean("status_server"),
        **({key: section.text(key) for key in _TLS_KEYS} if transport == "tls" else {}),
    )
    section.finish()
    if not made.address:
        raise section.error("address", "is needed")
    if transport == "tls":
        if not (made.ca_file and made.certificate_file):
            raise section.error("ca_file", "and certificate_file are needed for transport tls")
        with _private(section, "key_file", made.key_file or made.certificate_file):
            pass
    return made


_TLS_KEYS: Final = ("ca_file", "certificate_file", "key_file", "server_name")


def _secret(section: _Section) -> bytes:
    """The shared secret, from where the section says. It is in no message."""
    path, credential = section.text("secret_file"), section.text("secret_credential")
    if bool(path) == bool(credential):
        raise section.error("secret_file", "or secret_credential is needed, and not both")
    if credential:
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if not directory or "/" in credential:
            raise section.error("secret_credential", "needs the service manager: LoadCredential= in the unit (a name, no path)")
        path = str(Path(directory) / credential)
    with _private(section, "secret_file", path) as file:
        secret = file.read(_MAX_SECRET + 1).rstrip(b"\r\n")
    if len(secret) > _MAX_SECRET:
        raise section.error("secret_file", f"{path} has more than {_MAX_SECRET} bytes")
    if len(secret) < _MIN_SECRET:
        raise section.error("secret_file", f"{path} has fewer than {_MIN_SECRET} bytes")
    return secret


def _private(section: _Section, key: str, path: str) -> IO[bytes]:
    """A file that is for us alone, opened. Raises ValueError that names the key."""
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - the caller's to close
    except OSError as error:
        raise section.error(key, f"{path} cannot be read: {error.strerror}") from None
    status = os.fstat(file.fileno())
    fault = ""
    if status.st_uid not in (0, os.geteuid()):
        fault = (
            f"{path} belongs to user {status.st_uid}, who can change it, and not to root or us: chown it, or run this as that user"
        )
    elif status.st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        fault = f"{path} can be read or changed by others; remove that with: chmod o=,g-w {path}"
    if fault:
        file.close()
        raise section.error(key, fault)
    return file
