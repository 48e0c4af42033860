"""Checks that import arrows point down only, and that the core knows no plugin.

The rooms of `tlspool_core` stand in layers; a module may import from its own room and from the rooms listed for it.  Plugins
import `tlspool_core.api` only, and never each other.  Run by `make check` and by the tests.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORE = "tlspool_core"

# room -> rooms it may import; "interfaces" stands for the contract modules at the top of the package
ALLOWED: dict[str, set[str]] = {
    "tls": set(),
    "secret": set(),
    "wire": {"secret"},
    "identity": set(),
    "fdpass": set(),
    "interfaces": {"identity", "secret", "tls"},
    "hookspecs": {"interfaces"},
    "api": {"hookspecs", "identity", "interfaces", "secret", "tls"},
    "policy": {"identity", "interfaces", "tls"},
    "registry": {"hookspecs", "identity", "interfaces", "tls"},
    "client": {"wire", "fdpass", "identity", "secret"},
    "tools": {"client", "wire", "fdpass", "identity"},
    "pool": {"wire", "fdpass", "identity", "interfaces", "secret", "tls", "policy", "registry", "hookspecs", "api"},
    "cli": {
        "wire",
        "fdpass",
        "identity",
        "interfaces",
        "secret",
        "tls",
        "policy",
        "registry",
        "hookspecs",
        "api",
        "pool",
        "client",
        "tools",
    },
    "testing": {
        "wire",
        "fdpass",
        "identity",
        "interfaces",
        "secret",
        "tls",
        "policy",
        "registry",
        "hookspecs",
        "api",
        "pool",
        "client",
    },
}
# `secret` alone for processes that a plugin starts for itself: the whole API takes them three times as long to import as all the rest
PLUGINS_MAY_IMPORT = {"api", "secret"}


def imported_modules(path: Path) -> Iterator[tuple[int, str]]:
    """Absolute names of the modules that a file imports, with line numbers."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module == CORE:
                yield from ((node.lineno, f"{CORE}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield node.lineno, "relative import"


def core_faults() -> Iterator[str]:
    """Arrows inside the core that point up."""
    for path in sorted((ROOT / CORE).rglob("*.py")):
        parts = path.relative_to(ROOT / CORE).with_suffix("").parts
        room = parts[0]
        if room == "__init__":
            continue
        if room not in ALLOWED:
            yield f"{path.relative_to(ROOT)}: room {room!r} has no row in {Path(__file__).name}"
            continue
        for line, module in imported_modules(path):
            if module == "relative import" or (module.startswith("tlspool_") and not module.startswith(CORE)):
                yield f"{path.relative_to(ROOT)}:{line}: {module} is not for the core"
            elif module.startswith(CORE + "."):
                target = module.split(".")[1]
                if target != room and target not in ALLOWED[room]:
                    yield f"{path.relative_to(ROOT)}:{line}: {room} may not import {module}"


def plugin_faults() -> Iterator[str]:
    """Imports of a plugin beyond the API."""
    for source in sorted((ROOT / "plugins").glob("*/src/*")):
        if not source.is_dir() or source.suffix:
            continue
        for path in sorted(source.rglob("*.py")):
            for line, module in imported_modules(path):
                where = f"{path.relative_to(ROOT)}:{line}"
                if module.startswith(CORE) and module.split(".")[1:2] not in ([name] for name in PLUGINS_MAY_IMPORT):
                    yield f"{where}: a plugin imports {CORE}.api only, not {module}"
                elif module.startswith("tlspool_") and not module.startswith((CORE, source.name)):
                    yield f"{where}: plugins do not import each other: {module}"


def main() -> int:
    """Print the faults; the exit status is 1 if there are any."""
    faults = [*core_faults(), *plugin_faults()]
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
