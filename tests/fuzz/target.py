"""What a fuzz target is, and how its inputs are kept and made without a fuzzer.

Theory of operation
-------------------
A target is a function of some bytes that returns, or raises: then it has found a fault.  Its seeds are made by code, as many hold
fresh keys; inputs that once found something, or that reach far, are kept in `corpus/<name>/`, one file each.  `variants` makes more
out of them with a generator of fixed seed, so that a run within the tests is the same each time but for the keys.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
INTERESTING = (b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0", b"\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\1", b"\x40\1")


@dataclass(frozen=True)
class Target:
    """`run` takes at least one byte. `cost` is how many times slower than a parser of messages it is, about."""

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    cost: int = 1

    def inputs(self) -> list[bytes]:
        """Seeds and what was kept."""
        kept = [path.read_bytes() for path in sorted((CORPUS / self.name).glob("*"))]
        return [one for one in (*self.seeds(), *kept) if one]

    def variants(self, count: int) -> Iterator[bytes]:
        """The inputs as they are, and `count` more that are made of them."""
        source = random.Random(self.name)
        inputs = self.inputs()
        yield from inputs
        for _ in range(count):
            yield mutated(source, inputs)


def mutated(source: random.Random, inputs: list[bytes]) -> bytes:
    """One input with one to four changes of the kinds that break parsers."""
    data = bytearray(source.choice(inputs))
    for _ in range(source.choice((1, 1, 2, 4))):
        at = source.randrange(len(data) + 1)
        match source.randrange(7):
            case 0 if at < len(data):
                data[at] ^= 1 << source.randrange(8)
            case 1:
                del data[at : at + source.choice((1, 1, 2, 4, 16))]
            case 2:
                data[at:at] = source.randbytes(source.choice((1, 1, 2, 4, 16)))
            case 3:
                piece = source.choice(INTERESTING)
                data[at : at + len(piece)] = piece
            case 4:
                del data[at:]
            case 5:
                other = source.choice(inputs)
                data[at:] = other[source.randrange(len(other)) :]
            case 6 if at < len(data):
                data[at] = (data[at] + source.choice((-1, 1, 2, -2))) & 0xFF
    return bytes(data) or b"\0"


def pieces(data: bytes) -> Iterator[bytes]:
    """Data cut at lengths of two bytes that stand in it; what is short of its length is taken as far as it goes. No piece is empty."""
    at = 0
    while at + 2 < len(data):
        end = at + 2 + (data[at] << 8 | data[at + 1])
        if end > at + 2:
            yield data[at + 2 : end]
        at = end


def joined(parts: Iterable[bytes]) -> bytes:
    """What `pieces` takes apart."""
    return b"".join(struct.pack(">H", len(part)) + part for part in parts)
