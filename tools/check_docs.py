"""Checks the documentation: links lead somewhere, modules explain themselves, named tests exist.

Run by `make check` and by the tests.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
TEST_NAME = re.compile(r"`((?:tests|plugins)/[\w/.-]+\.py)(?:::(\w+(?:::\w+)?))?`")


def markdown_files() -> list[Path]:
    """The project's own pages."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("plugins/*/*.md"), *ROOT.glob("bench/*.md")]
    return sorted(pages)


def dead_links(page: Path) -> Iterator[str]:
    """Relative links that lead nowhere, and tests that a page names but that are not there."""
    text = page.read_text(encoding="utf-8")
    for target in LINK.findall(text):
        if "://" not in target and not target.startswith("mailto:") and not (page.parent / target).exists():
            yield f"{page.relative_to(ROOT)}: link to {target} leads nowhere"
    for file, name in TEST_NAME.findall(text):
        path = ROOT / file
        if not path.exists():
            yield f"{page.relative_to(ROOT)}: there is no {file}"
        elif name and not _defines(path.read_text(encoding="utf-8"), name):
            yield f"{page.relative_to(ROOT)}: {file} has no {name}"


def _defines(source: str, name: str) -> bool:
    """Whether a module has a test of this name, `test_it` or `TestClass::test_it`."""
    return all(re.search(rf"^\s*(?:async )?(?:def|class) {part}\b", source, re.MULTILINE) for part in name.split("::"))


def undocumented(path: Path) -> Iterator[str]:
    """Modules without a docstring, and public classes and functions without one that are longer than a line or two."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if tree.body and not ast.get_docstring(tree):
        yield f"{path.relative_to(ROOT)}: the module does not say what it is for"
    for node in tree.body:
        public = isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
        if public and not ast.get_docstring(node) and (node.end_lineno or 0) - node.lineno > 3:
            yield f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has no docstring"


def main() -> int:
    """Print the faults; the exit status is 1 if there are any."""
    faults = [fault for page in markdown_files() for fault in dead_links(page)]
    sources = [*(ROOT / "tlspool_core").rglob("*.py"), *ROOT.glob("plugins/*/src/**/*.py")]
    faults += [fault for path in sorted(sources) for fault in undocumented(path)]
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
