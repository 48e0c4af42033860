"""The section [keystore.pkcs11] of the configuration.

Theory of operation
-------------------
    [keystore.pkcs11]
    modules = [
        {path = "/usr/lib/softhsm/libsofthsm2.so", name = "softhsm", pin_credential = "softhsm-pin"},
        {name = "acme", tokens = {Web = {pin_file = "/etc/tlspool/web.pin"}}, timeout = 30},
    ]

Each module becomes one worker process.  What is not said here about a module comes from a vendor's package, if one describes a
module of that name or path (entry point group `tlspool.pkcs11.modules`, see `discovery`), and else from the defaults below.
Everything is checked before anything starts; a complaint names the key, and what was probably meant.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import PurePath
from typing import Any, Final

from tlspool_pkcs11.mechanisms import MECHANISMS
from tlspool_pkcs11.pins import PinSource

DEFAULT_TIMEOUT: Final = 10.0
DEFAULT_LOGIN_TIMEOUT: Final = 60.0
LOGINS: Final = ("auto", "always", "never")
_PIN_KEYS: Final = {"pin_file": "file", "pin_env": "environment", "pin_credential": "credential"}


@dataclass(frozen=True, slots=True)
class ModuleSettings:
    """All about one module. Attribute names are the configuration's keys.

    timeout, login_timeout: seconds that one call into the library may take; then the worker is killed and started anew.
    disable_mechanisms: mechanisms that are not used although the token lists them; extra_mechanisms: used although it does not.
    environment: environment variables of the worker beside the usual ones; None as value: as the daemon has it.
    init_string: handed to C_Initialize as NSS wants it.
    login: "auto" logs in if the token demands it, "always" in any case, "never" relies on keys that need none.
    remember_pin: keep a PIN that worked in memory, to log in again by itself after a worker was lost.
    exclusive: the token serves one process at a time, so the old worker has to end before a new one starts.
    errors_to_log: the library's own messages go to the daemon's standard error output.
    """

    path: str
    name: str
    pin: PinSource | None = None
    tokens: Mapping[str, PinSource] = field(default_factory=dict)
    timeout: float = DEFAULT_TIMEOUT
    login_timeout: float = DEFAULT_LOGIN_TIMEOUT
    disable_mechanisms: frozenset[int] = frozenset()
    extra_mechanisms: frozenset[int] = frozenset()
    environment: Mapping[str, str | None] = field(default_factory=dict)
    init_string: str = ""
    login: str = "auto"
    remember_pin: bool = True
    exclusive: bool = False
    errors_to_log: bool = False

    def pin_source(self, label: str) -> PinSource | None:
        """Where the PIN of the token with this label comes from."""
        return self.tokens.get(label, self.pin)

    def usable(self, mechanisms: Sequence[int]) -> frozenset[int]:
        """What is left of a token's mechanism list."""
        return (frozenset(mechanisms) | self.extra_mechanisms) - self.disable_mechanisms


_KEYS: Final = (*(part.name for part in fields(ModuleSettings) if part.name != "pin"), *_PIN_KEYS)


def module_settings(where: str, row: Mapping[str, Any]) -> ModuleSettings:
    """One row, complete with path. Raises ValueError; `where` is how the row is called in the message."""
    _known(where, row, _KEYS)
    path = _typed(where, row, "path", str, "")
    if not path.startswith("/"):
        raise ValueError(f"{where}.path: must be the absolute path of a PKCS #11 module, not {path!r}")
    return ModuleSettings(
        path=path,
        name=_typed(where, row, "name", str, "") or module_stem(path),
        pin=_pin(where, row),
        tokens=_tokens(where, row),
        timeout=_seconds(where, row, "timeout", DEFAULT_TIMEOUT),
        login_timeout=_seconds(where, row, "login_timeout", DEFAULT_LOGIN_TIMEOUT),
        disable_mechanisms=_mechanisms(where, row, "disable_mechanisms"),
        extra_mechanisms=_mechanisms(where, row, "extra_mechanisms"),
        environment=_environment(where, row),
        init_string=_typed(where, row, "init_string", str, ""),
        login=_choice(where, row, "login", LOGINS),
        remember_pin=_typed(where, row, "remember_pin", bool, True),
        exclusive=_typed(where, row, "exclusive", bool, False),
        errors_to_log=_typed(where, row, "errors_to_log", bool, False),
    )


def module_stem(path: str) -> str:
    """The name that RFC 7512 calls module-name: the file name without `lib` before it and the suffix behind."""
    return PurePath(path).name.removeprefix("lib").split(".")[0]


def rows(settings: Mapping[str, Any]) -> Sequence[Mapping[str, Any]] | None:
    """The rows of `modules` as they stand, None if the key is absent. Raises ValueError."""
    _known("", settings, ("modules",))
    found = settings.get("modules")
    if found is None:
        return None
    if not isinstance(found, list | tuple) or not all(isinstance(row, Mapping) for row in found):
        raise ValueError('modules: must be a list of tables, such as [{path = "/usr/lib/softhsm/libsofthsm2.so"}]')
    return found


def _known(where: str, row: Mapping[str, Any], keys: Sequence[str]) -> None:
    for key in row:
        if key not in keys:
            close = difflib.get_close_matches(key, keys, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(keys)}"
            raise ValueError(f"{where}{'.' if where else ''}{key}: unknown key; {hint}")


def _typed(where: str, row: Mapping[str, Any], key: str, kind: type, default: Any) -> Any:
    value = row.get(key, default)
    if not isinstance(value, kind):
        raise ValueError(f"{where}.{key}: must be of type {kind.__name__}, not {value!r}")
    return value


def _seconds(where: str, row: Mapping[str, Any], key: str, default: float) -> float:
    value = row.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.05 <= value <= 3600:
        raise ValueError(f"{where}.{key}: must be a number of seconds between 0.05 and 3600, not {value!r}")
    return float(value)


def _choice(where: str, row: Mapping[str, Any], key: str, choices: Sequence[str]) -> str:
    value = row.get(key, choices[0])
    if value not in choices:
        raise ValueError(f"{where}.{key}: must be one of {', '.join(choices)}, not {value!r}")
    return str(value)


def _environment(where: str, row: Mapping[str, Any]) -> Mapping[str, str | None]:
    """A list of names to inherit, or a table of names and values."""
    value = row.get("environment", ())
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return dict.fromkeys(value)
    if isinstance(value, Mapping) and all(isinstance(text, str) and "\0" not in text for text in value.values()):
        return dict(value)
    raise ValueError(f"{where}.environment: must be a list of names to inherit, or a table of names and texts")


def _mechanisms(where: str, row: Mapping[str, Any], key: str) -> frozenset[int]:
    """Names as in the standard, or numbers for those of a vendor."""
    value = row.get(key, ())
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where}.{key}: must be a list of mechanisms")
    return frozenset(_mechanism(f"{where}.{key}", entry) for entry in value)


def _mechanism(where: str, entry: object) -> int:
    if isinstance(entry, int) and not isinstance(entry, bool) and 0 <= entry < 2**32:
        return entry
    if isinstance(entry, str) and entry in MECHANISMS:
        return MECHANISMS[entry]
    close = difflib.get_close_matches(str(entry), MECHANISMS, 1)
    raise ValueError(f"{where}: {entry!r} is no signing mechanism" + (f"; did you mean {close[0]}?" if close else ""))


def _pin(where: str, row: Mapping[str, Any]) -> PinSource | None:
    given = [key for key in _PIN_KEYS if key in row]
    if len(given) > 1:
        raise ValueError(f"{where}.{given[1]}: only one of {', '.join(_PIN_KEYS)} may be given")
    return PinSource(_PIN_KEYS[given[0]], _pin_name(where, row, given[0])) if given else None


def _pin_name(where: str, row: Mapping[str, Any], key: str) -> str:
    name = str(_typed(where, row, key, str, ""))
    if key == "pin_file" and not name.startswith("/"):
        raise ValueError(f"{where}.{key}: must be an absolute path")
    if not name or (key == "pin_credential" and "/" in name):
        raise ValueError(f"{where}.{key}: must be the name of a {_PIN_KEYS[key]}")
    return name


def _tokens(where: str, row: Mapping[str, Any]) -> Mapping[str, PinSource]:
    tables = _typed(where, row, "tokens", dict, {})
    found = {}
    for label, table in tables.items():
        here = f"{where}.tokens.{label}"
        if not isinstance(table, Mapping):
            raise ValueError(f'{here}: must be a table, such as {{pin_file = "/etc/tlspool/web.pin"}}')
        _known(here, table, tuple(_PIN_KEYS))
        source = _pin(here, table)
        if source is None:
            raise ValueError(f"{here}: says nothing; one of {', '.join(_PIN_KEYS)} belongs here")
        found[str(label)] = source
    return found
