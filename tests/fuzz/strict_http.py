"""HTTP/1.1 as RFC 9112 writes it and not a byte otherwise, by another hand than the proxy's: what holds its output against the grammar.

Theory of operation
-------------------
What is lenient in a recipient is where two of them differ.  So this takes no optional leniency (bare LF, folded lines, extensions of
chunks, trailers, a length said twice): the proxy writes each message anew, and none of these.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.1")
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9][0-9]) [\t \x21-\x7e\x80-\xff]*")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*((?:[\x21-\x7e\x80-\xff](?:[ \t\x21-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)[ \t]*")
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")


class Bad(Exception):
    """It is not what the grammar says."""


class Incomplete(Exception):
    """It is, as far as it goes."""


@dataclass(frozen=True)
class Message:
    """`start` holds method and target, or the status."""

    start: tuple[bytes, ...]
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        """Of all fields of that name, which is in lower case."""
        return [value for key, value in self.fields if key.lower() == name]


def request(data: bytes) -> tuple[Message, bytes]:
    """The first request, and what follows. Raises Bad or Incomplete."""
    start, fields, rest = _head(data, _REQUEST)
    coded, lengths = _lengths(fields)
    body, rest = _body(rest, coded, lengths or [b"0"])
    return Message(start, fields, body), rest


def response(data: bytes, method: bytes) -> tuple[Message, bytes]:
    """The first response, final or not, and what follows; a body without a length is all there is. Raises Bad or Incomplete."""
    start, fields, rest = _head(data, _STATUS)
    coded, lengths = _lengths(fields)
    status = int(start[0])
    if status < 200 or status == 204:
        if coded or lengths:
            raise Bad("a length where there is no body")
        return Message(start, fields, b""), rest
    if status == 304 or method == b"HEAD":
        return Message(start, fields, b""), rest
    if not coded and not lengths:
        return Message(start, fields, rest), b""
    body, rest = _body(rest, coded, lengths)
    return Message(start, fields, body), rest


def _head(data: bytes, form: re.Pattern[bytes]) -> tuple[tuple[bytes, ...], tuple[tuple[bytes, bytes], ...], bytes]:
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        raise Incomplete
    line, *lines = head.split(b"\r\n")
    start, found = form.fullmatch(line), [_FIELD.fullmatch(each) for each in lines]
    if start is None or None in found:
        raise Bad(head)
    return start.groups(), tuple((one[1], one[2]) for one in found if one is not None), rest


def _lengths(fields: tuple[tuple[bytes, bytes], ...]) -> tuple[bool, list[bytes]]:
    """Whether there are chunks, and the length if it is said."""
    coded = [value for name, value in fields if name.lower() == b"transfer-encoding"]
    lengths = [value for name, value in fields if name.lower() == b"content-length"]
    if len(coded) + len(lengths) > 1 or (coded and coded != [b"chunked"]) or not all(one.isdigit() for one in lengths):
        raise Bad("no length, or more than one")
    return bool(coded), lengths


def _body(data: bytes, coded: bool, lengths: list[bytes]) -> tuple[bytes, bytes]:
    if coded:
        return _chunks(data)
    size = int(lengths[0])
    if len(data) < size:
        raise Incomplete
    return data[:size], data[size:]


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            raise Incomplete
        if not _SIZE.fullmatch(line):
            raise Bad(line)
        size = int(line, 16)
        if len(data) < size + 2:
            raise Incomplete
        if data[size : size + 2] != b"\r\n":
            raise Bad("a chunk of another size")
        body, data = body + data[:size], data[size + 2 :]
        if not size:
            return body, data
