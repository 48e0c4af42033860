"""Whether bytes are in DER, and little enough of it, before an ASN.1 library makes objects of them.

Theory of operation
-------------------
Anybody can send a ticket, and that before it is known who it is.  An element of two bytes costs some fifty microseconds to make an object
of, so sixty thousand bytes could cost a second and more, during which a process does nothing else.  And BER has many encodings of one
value, of which DER allows one (X.690 section 10): lengths and integers in their shortest form, strings in one piece.  Here the elements
are walked over, which costs a microsecond for each, and counted.

Kerberos has no integers of more than 32 bits (RFC 4120 section 5.2.4), no tags beyond 30, and of universal types constructs SEQUENCE alone; all
its tags are explicit, and stand around one element (section 5.2).
"""

from __future__ import annotations

from typing import Final, NamedTuple

MOST_ELEMENTS: Final = 500  # a ticket has some thirty, five more for each address and each piece of authorization data in it
_DEEPEST: Final = 16
_INTEGER: Final = 0x02
_SEQUENCE: Final = 0x30
_CONSTRUCTED: Final = 0x20
_CLASS: Final = 0xC0


class _Around(NamedTuple):
    """What is open around the place: a SEQUENCE of many, or a tag around one `alone`."""

    end: int
    alone: bool


def check(data: bytes) -> None:
    """Raises ValueError unless it is one element of DER."""
    around, at, elements = [_Around(len(data), alone=True)], 0, 0
    while around:
        elements += 1
        if elements > MOST_ELEMENTS:
            raise ValueError(f"more than {MOST_ELEMENTS} elements")
        tag, start, end = _head(data, at, around[-1].end)
        if around[-1].alone and end != around[-1].end:
            raise ValueError("bytes behind the end, of the whole or within a tag")
        if tag & _CONSTRUCTED:
            at = start
            around.append(_Around(end, alone=bool(tag & _CLASS)))
            if len(around) > _DEEPEST or (start == end and tag & _CLASS):
                raise ValueError("elements within elements beyond measure, or a tag around nothing")
        else:
            if tag == _INTEGER:
                _check_integer(data[start:end])
            at = end
        while around and at == around[-1].end:
            around.pop()


def _head(data: bytes, at: int, limit: int) -> tuple[int, int, int]:
    """Tag of the element at a place, where its content starts, and where it ends."""
    if limit - at < 2:
        raise ValueError("an element is cut off")
    tag, length, start = data[at], data[at + 1], at + 2
    if tag & 0x1F == 0x1F:
        raise ValueError("a tag of more than one byte")
    if not tag & _CLASS and (tag & _CONSTRUCTED) and tag != _SEQUENCE:
        raise ValueError("a string in pieces, or some other construct")
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(data[start : start + size], "big")
        start += size
        if not size or length < 0x80 or length >> 8 * (size - 1) == 0:
            raise ValueError("a length that is not in its shortest form")
    if start + length > limit:
        raise ValueError("an element is cut off")
    return tag, start, start + length


def _check_integer(content: bytes) -> None:
    if not 1 <= len(content) <= 5 or (len(content) > 1 and int.from_bytes(content[:2], "big") >> 7 in (0, 0x1FF)):
        raise ValueError("an integer that is too large, or not in its shortest form")
    if len(content) == 5 and content[0]:
        raise ValueError("an integer of more than 32 bits")
