"""Does the reference of the socket protocol say what the code does?"""

from __future__ import annotations

import re
from enum import IntEnum, IntFlag
from pathlib import Path

import pytest

from tlspool_core.wire.codec import LAYOUTS
from tlspool_core.wire.errors import BASE, ErrorCode, describe
from tlspool_core.wire.fields import Number, Optional64
from tlspool_core.wire.flags import Command, InfoKind, LidentryFlags, StartTlsFlags

PAGE = Path(__file__).parent.parent.parent / "docs/reference/socket-protocol.md"
SIZES = {"I": 4, "i": 4, "H": 2, "B": 1}


def rows(first_cell: str) -> list[list[str]]:
    """The rows of the table whose header begins with this cell."""
    text = PAGE.read_text(encoding="utf-8").split(f"\n| {first_cell} |", 1)[1]
    lines = text.split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_layouts() -> None:
    told: dict[str, list[tuple[str, int, int]]] = {}
    names: list[str] = []
    for packets, name, offset, size, _ in rows("packet"):
        names = re.findall(r"[A-Z_]{3,}", packets) or names
        for packet in names:
            told.setdefault(packet, []).append((name, int(offset), int(size)))
    done: dict[str, list[tuple[str, int, int]]] = {}
    for kind, fields in LAYOUTS.items():
        for entry in fields:
            size = SIZES[entry.letter] if isinstance(entry, Number) else 8 if isinstance(entry, Optional64) else entry.size
            done.setdefault(kind.command.name, []).append((entry.name, entry.offset, size))
    assert told == done


@pytest.mark.parametrize(("header", "codes"), [("name", Command), ("flag", StartTlsFlags), ("kind", InfoKind)])
def test_code_points(header: str, codes: type[IntEnum] | type[IntFlag]) -> None:
    told = {row[0]: int(row[1], 16) for row in rows(header)}
    assert told == {code.name: int(code) for code in codes}


def test_flags_of_the_identity_desk() -> None:
    text = PAGE.read_text(encoding="utf-8")
    told = {
        name: int(value, 16)
        for name, value in re.findall(r"^\| (\w+) \| (0x\w+) \| (?:registration|callback|answer) \|", text, re.M)
    }
    names = {name: int(flag) for name, flag in LidentryFlags.__members__.items()}
    assert told == {name: value for name, value in names.items() if name not in ("NONE", "REGISTRATION_MASK")}


def test_error_codes() -> None:
    told = [(int(number), name, text) for number, name, text in rows("base +")]
    assert told == [(code - BASE, code.name, describe(code)) for code in ErrorCode]
