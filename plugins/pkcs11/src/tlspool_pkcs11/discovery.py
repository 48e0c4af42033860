"""Which modules there are: those of the configuration, completed by what vendors' packages say, or those found on this machine.

Theory of operation
-------------------
A vendor ships a package with an entry point in the group `tlspool.pkcs11.modules` that names a mapping with the keys of a row
of `modules`, where `path` may be a list of places in which the library is looked for:

    MODULE = {"name": "acme", "path": ["/usr/lib/libacme-pkcs11.so"], "disable_mechanisms": ["CKM_ECDSA_SHA256"], "timeout": 30}

It is data only: nothing of the vendor's runs in the daemon beyond the import.  A row of the configuration with the same name,
or the same path, is laid over it; the operator has the last word.  A package that cannot be read is reported in `status` and
left aside.

With no `modules` in the configuration, vendors' modules that are installed are used, and then p11-kit's proxy, which stands for
all modules that the machine has registered, or else SoftHSM.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final

from tlspool_pkcs11.settings import ModuleSettings, module_settings, rows

GROUP: Final = "tlspool.pkcs11.modules"

_LIBRARY_DIRECTORIES: Final = tuple(
    dict.fromkeys(
        ("/usr/lib", f"/usr/lib/{sysconfig.get_config_var('MULTIARCH') or ''}".rstrip("/"), "/usr/lib64", "/usr/local/lib")
    )
)
_DEFAULTS: Final = (("p11-kit", "p11-kit-proxy.so"), ("softhsm", "softhsm/libsofthsm2.so"), ("softhsm", "libsofthsm2.so"))


def default_rows(directories: Iterable[str] = _LIBRARY_DIRECTORIES) -> Sequence[Mapping[str, Any]]:
    """p11-kit's proxy, or else SoftHSM, if this machine has one."""
    places = list(directories)
    for name, file in _DEFAULTS:
        for directory in places:
            path = Path(directory, file)
            if path.is_file():
                return [{"name": name, "path": str(path)}]
    return []


def vendor_rows(found: Iterable[EntryPoint] | None = None) -> tuple[Sequence[Mapping[str, Any]], Sequence[str]]:
    """Rows that installed packages bring, and complaints about those that cannot be used."""
    given: list[Mapping[str, Any]] = []
    complaints: list[str] = []
    for entry in entry_points(group=GROUP) if found is None else found:
        try:
            given.append(_vendor_row(entry))
        except Exception as error:  # a vendor's mistake of any kind stays with that vendor's module
            complaints.append(f"{GROUP}: {entry.name}: {type(error).__name__}: {error}")
    return given, complaints


def _vendor_row(entry: EntryPoint) -> Mapping[str, Any]:
    value = entry.load()
    if not isinstance(value, Mapping):
        raise TypeError(f"{entry.value} must be a mapping")
    paths = value.get("path", ())
    paths = [paths] if isinstance(paths, str) else list(paths)
    row = {"name": entry.name, **value, "path": next((path for path in paths if Path(path).is_file()), paths[0] if paths else "")}
    module_settings(f"{GROUP}.{entry.name}", row)
    return row


def configured_modules(
    settings: Mapping[str, Any], vendors: Sequence[Mapping[str, Any]], defaults: Sequence[Mapping[str, Any]]
) -> Sequence[ModuleSettings]:
    """The modules to start. Raises ValueError naming the key that is wrong."""
    given = rows(settings)
    if given is None:
        given = [row for row in vendors if Path(row["path"]).is_file()] or defaults
    modules = []
    for index, row in enumerate(given, 1):
        where = f"modules[{index}]"
        modules.append(module_settings(where, {**_vendor_of(row, vendors), **row}))
    names = [module.name for module in modules]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"modules: two modules are called {name!r}; give one of them another name")
    return modules


def _vendor_of(row: Mapping[str, Any], vendors: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    for vendor in vendors:
        if ("name" in row and row["name"] == vendor["name"]) or ("path" in row and row["path"] == vendor["path"]):
            return vendor
    return {}
