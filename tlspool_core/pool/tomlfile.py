"""A TOML file read strictly: every complaint names the file, the line, the key, and what was probably meant.

Theory of operation
-------------------
`tomllib` says what a file means but not where.  A small scan of the text remembers on which line each table header and each key
stands; it needs to understand headers and the left sides of assignments only, since `tomllib` has accepted the file by then.
`Table` hands out values by key and type, and remembers which keys were asked for: `finish()` refuses what is left over, so that a
misspelt key is never silently without effect.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

KeyPath = tuple[str | int, ...]

_HEADER = re.compile(r"^\s*(\[\[?)\s*(.+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"^\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'))*)\s*=")
_PART = re.compile(r"[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'")
_MAX_FILE = 1 << 20


class ConfigurationError(ValueError):
    """The configuration cannot be used; the text is for the operator, one problem a line."""


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(dotted))


def locate(text: str) -> dict[KeyPath, int]:
    """Line numbers (from 1) of tables and keys; elements of an array of tables carry their index in the path."""
    lines: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = _parts(header[2])
            if header[1] == "[[":
                index = counts.get(table, 0)
                counts[table] = index + 1
                table = (*table, index)
            lines.setdefault(table, number)
        elif assignment := _KEY.match(line):
            lines.setdefault((*table, *_parts(assignment[1])), number)
    return lines


class TomlFile:
    """A parsed file and where its keys stand; `root` is the outermost table."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        try:
            self.data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{name}: {error}") from error
        self._lines = locate(text)

    @classmethod
    def read(cls, path: Path) -> TomlFile:
        """Read from disk. Raises ConfigurationError."""
        try:
            with path.open("rb") as file:
                raw = file.read(_MAX_FILE + 1)
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}") from error
        if len(raw) > _MAX_FILE:
            raise ConfigurationError(f"{path}: larger than {_MAX_FILE} bytes; is this the configuration file?")
        try:
            return cls(raw.decode(), str(path))
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{path}: not UTF-8 at byte {error.start}") from error

    @property
    def root(self) -> Table:
        return Table(self, (), self.data)

    def error(self, path: KeyPath, problem: str) -> ConfigurationError:
        """An error about one key, placed at its line or at that of the nearest table around it."""
        at = path
        while at and at not in self._lines:
            at = at[:-1]
        place = f"{self.name}:{self._lines[at]}" if at in self._lines else self.name
        return ConfigurationError(f"{place}: {spell(path)}: {problem}" if path else f"{place}: {problem}")


def spell(path: KeyPath) -> str:
    """A key as the operator writes it: `limits.clients`, `socket[1].mode`."""
    text = ""
    for part in path:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def suggestion(word: str, known: Sequence[str]) -> str:
    """What was probably meant, as the end of a sentence."""
    close = difflib.get_close_matches(word, known, 1, 0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known are: {', '.join(sorted(known))}" if known else ""


class Table:
    """One table of the file; each method takes a key's value if it is there, and checks its type and range."""

    def __init__(self, file: TomlFile, path: KeyPath, data: Mapping[str, Any]) -> None:
        self.file = file
        self.path = path
        self.data = data
        self._asked: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self.data

    def error(self, key: str, problem: str) -> ConfigurationError:
        return self.file.error((*self.path, key), problem)

    def _take(self, key: str, kind: type | tuple[type, ...], word: str) -> Any:
        self._asked.add(key)
        value = self.data.get(key)
        # bool is an int to Python, and never meant where a number is asked for
        if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            raise self.error(key, f"must be {word}, not {value!r}")
        return value

    def text(self, key: str, default: str = "", *, choices: Sequence[str] = ()) -> str:
        value = self._take(key, str, "a text in quotes")
        if value is None:
            return default
        if choices and value not in choices:
            raise self.error(key, f"{value!r} is not possible{suggestion(value, choices)}")
        return str(value)

    def integer(self, key: str, default: int, minimum: int = 0, maximum: int = 2**31 - 1) -> int:
        return int(self._ranged(key, self._take(key, int, "a whole number"), default, minimum, maximum))

    def integers(self, key: str, default: Sequence[int] = (), minimum: int = 0, maximum: int = 2**31 - 1) -> tuple[int, ...]:
        value = self._take(key, list, "a list of whole numbers")
        if value is None:
            return tuple(default)
        for element in value:
            if not isinstance(element, int) or isinstance(element, bool) or not minimum <= element <= maximum:
                raise self.error(key, f"must be a list of whole numbers between {minimum} and {maximum}, not {value!r}")
        return tuple(value)

    def number_or_word(self, key: str, default: int, maximum: int, words: Mapping[str, int]) -> int:
        """A whole number, or what one of a few words stands for."""
        value = self._take(key, (str, int), f"a whole number or one of {', '.join(words)}")
        if isinstance(value, str):
            if value not in words:
                raise self.error(key, f"{value!r} is neither a number nor one of {', '.join(words)}")
            return words[value]
        return int(self._ranged(key, value, default, 0, maximum))

    def seconds(self, key: str, default: float, minimum: float = 0.0, maximum: float = 86400.0 * 31) -> float:
        return float(self._ranged(key, self._take(key, (int, float), "a number of seconds"), default, minimum, maximum))

    def _ranged(self, key: str, value: float | None, default: float, minimum: float, maximum: float) -> float:
        if value is None:
            return default
        if not minimum <= value <= maximum:
            raise self.error(key, f"must lie between {minimum} and {maximum}, not {value}")
        return value

    def boolean(self, key: str, default: bool) -> bool:
        value = self._take(key, bool, "true or false")
        return default if value is None else bool(value)

    def mode(self, key: str, default: int) -> int:
        """Permission bits, as "0660" or 0o660."""
        value = self._take(key, (str, int), 'permission bits such as "0660"')
        if value is None:
            return default
        if isinstance(value, str) and not re.fullmatch(r"0?[0-7]{3}", value):
            raise self.error(key, f'must be permission bits such as "0660", not {value!r}')
        bits = int(value, 8) if isinstance(value, str) else value
        if not 0 <= bits <= 0o777:
            raise self.error(key, f'must be permission bits such as "0660", not {value!r}; write decimal-looking bits in quotes')
        return bits

    def texts(self, key: str, default: Sequence[str] = (), *, choices: Sequence[str] = ()) -> tuple[str, ...]:
        value = self._take(key, list, "a list of texts")
        if value is None:
            return tuple(default)
        for element in value:
            if not isinstance(element, str):
                raise self.error(key, f"must be a list of texts, not {value!r}")
            if choices and element not in choices:
                raise self.error(key, f"{element!r} is not possible{suggestion(element, choices)}")
        if len(set(value)) != len(value):
            raise self.error(key, "names something twice")
        return tuple(value)

    def table(self, key: str) -> Table:
        """A table inside, empty if it is absent."""
        value = self._take(key, dict, f"a table, [{spell((*self.path, key))}]")
        return Table(self.file, (*self.path, key), value or {})

    def tables(self, key: str) -> tuple[Table, ...]:
        """An array of tables."""
        value = self._take(key, list, f"an array of tables, [[{key}]]")
        if value is not None and not all(isinstance(element, dict) for element in value):
            raise self.error(key, f"must be an array of tables, [[{key}]]")
        return tuple(Table(self.file, (*self.path, key, index), element) for index, element in enumerate(value or ()))

    def named(self) -> dict[str, Table]:
        """All keys that were not asked for, which must be tables: sections that plugins or services name."""
        return {key: self.table(key) for key in self.data if key not in self._asked}

    def rest(self) -> dict[str, Any]:
        """All that was not asked for, as it stands; its meaning is a plugin's."""
        left = {key: value for key, value in self.data.items() if key not in self._asked}
        self._asked.update(left)
        return left

    def finish(self) -> None:
        """Refuse keys that nobody asked for."""
        for key in self.data:
            if key not in self._asked:
                raise self.error(key, f"unknown key{suggestion(key, sorted(self._asked))}")
