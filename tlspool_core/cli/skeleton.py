"""A plugin to start from: the one of the quick start for plugin authors, under a name of its author's.

It is complete: `pip install` puts it into the pool's environment, and its tests pass.  What its author replaces first is `parse`, then
`examine` and the predicate.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

FILES: Final = Path(__file__).with_name("plugin_to_start_from")
_OURS: Final = "namedkey"
_NAME: Final = re.compile(r"[a-z][a-z0-9]{1,30}").fullmatch


def make_skeleton(name: str, directory: Path) -> list[Path]:
    """Write a distribution for a credential type of this name into a directory that is not there yet; the files.

    Raises ValueError for a name that cannot be one, or has a distribution already, which pip would remove for this one; OSError if the
    directory cannot be made.
    """
    if not _NAME(name):
        raise ValueError(f"{name!r} is no name for a plugin: a letter, and up to thirty letters and digits, all small")
    if _is_installed(f"tlspool-{name}"):
        raise ValueError(f"tlspool-{name} is installed already, and pip would put the new one in its place: take another name")
    texts = {source.name.removesuffix(".txt"): source.read_text() for source in sorted(FILES.glob("*.txt"))}
    if any(re.search(rf"\b{name.capitalize()}\b", text) for text in texts.values()):
        raise ValueError(f"{name.capitalize()} is a name that the plugin needs for something else: take another name")
    directory.mkdir(parents=True)
    made = []
    for file, text in texts.items():
        for ours, theirs in ((_OURS, name), ("NamedKey", name.capitalize()), ("named key", f"{name} credential")):
            text = text.replace(ours, theirs)
        target = directory / file.replace(_OURS, name)
        target.write_text(text)
        made.append(target)
    return made


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
