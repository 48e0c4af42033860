"""The kinds of field that a packet has: what `struct` calls them, and what their values are.

Theory of operation
-------------------
A field stands at an offset and knows its `form`, in `struct`'s letters.  Where `struct`'s value is not the message's, `parse` makes
one of the other and `build` the reverse: `parse` raises Fault, as packets come from a peer, `build` ValueError, as values come from
callers.  A `Hidden` field is none of `struct`'s, which makes copies that cannot be wiped.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import Final

from tlspool_core.secret import Secret

_ABSENT_U64: Final = 0xFFFFFFFFFFFFFFFF


class Fault(Exception):
    """What is wrong with a field, in words."""


@dataclass(frozen=True, slots=True)
class Number:
    """An integer field, in `struct`'s letters; `flags` turns it into that enumeration."""

    name: str
    offset: int
    letter: str
    flags: type[IntFlag] | None = None

    @property
    def form(self) -> str:
        return self.letter


@dataclass(frozen=True, slots=True)
class Optional64:
    """A 64-bit count or time; all ones means absent."""

    name: str
    offset: int
    form = "Q"

    def parse(self, value: int) -> int | None:
        return None if value == _ABSENT_U64 else value

    def build(self, value: int | None) -> int:
        return _ABSENT_U64 if value is None else value


@dataclass(frozen=True, slots=True)
class Text:
    """A text field; `full` ones may fill all bytes and then have no NUL."""

    name: str
    offset: int
    size: int
    full: bool = False

    @property
    def form(self) -> str:
        return f"{self.size}s"

    def parse(self, raw: bytes) -> str:
        text, end, _ = raw.partition(b"\0")
        if not end and not self.full:
            raise Fault(f"{self.name} is not terminated")
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError:
            raise Fault(f"{self.name} is not UTF-8") from None

    def build(self, value: str) -> bytes:
        raw = value.encode("utf-8")
        if len(raw) > self.size - (not self.full) or b"\0" in raw:
            raise ValueError(f"{self.name} does not fit its {self.size} bytes")
        return raw


@dataclass(frozen=True, slots=True)
class Raw:
    """A field of bytes, all of them significant."""

    name: str
    offset: int
    size: int

    @property
    def form(self) -> str:
        return f"{self.size}s"

    def build(self, value: bytes) -> bytes:
        if len(value) != self.size:
            raise ValueError(f"{self.name} has {len(value)} bytes, not {self.size}")
        return value


@dataclass(frozen=True, slots=True)
class Hidden:
    """A text field that is kept in a `Secret`; for `struct` it is a gap. Absent if it is empty."""

    name: str
    offset: int
    size: int

    @property
    def form(self) -> str:
        return f"{self.size}x"

    def parse(self, packet: bytes | memoryview) -> Secret | None:
        field = memoryview(packet)[self.offset : self.offset + self.size]
        end = next((at for at, octet in enumerate(field) if not octet), None)
        if end is None:
            raise Fault(f"{self.name} is not terminated")
        if not end:
            return None
        secret = Secret.of(field[:end])
        if not secret.is_utf8:
            secret.wipe()
            raise Fault(f"{self.name} is not UTF-8")
        return secret

    def build(self, packet: memoryview, value: Secret) -> None:
        if not 0 < len(value) < self.size or 0 in value.used:
            raise ValueError(f"{self.name} does not fit its {self.size} bytes")
        packet[self.offset : self.offset + len(value)] = value.used


Field = Number | Optional64 | Text | Raw | Hidden
