"""PKCS #11 URIs (RFC 7512): parse, build, and match.

Theory of operation
-------------------
    pkcs11:token=Web;serial=12ab;id=%01%02;object=tls;type=private?pin-source=file:/etc/tlspool/web.pin

The path describes what is wanted: every attribute in it must equal that of the token, slot, library or object (section 2.4),
and an attribute that is left out matches anything.  The query says how to get at it.  Whoever writes such a text into a
database decides which key is used, hence a URI is read strictly: an attribute that is unknown, repeated, or spelt with
characters that must be encoded, is refused rather than passed over, as passing over would match more than was meant.

`pin-value` is refused: databases are copied, printed and backed up.  `pin-source` may name a file, never a command.
`module-name` and `module-path` choose among the modules that are configured; a URI cannot make the pool load a library.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final
from urllib.parse import unquote_to_bytes

SCHEME: Final = "pkcs11:"
MAX_URI: Final = 4096

# RFC 7512 section 2.3: unreserved, pk11-res-avail, and per component
_PATH_VALUE = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=&]|%[0-9A-Fa-f]{2})*")
_QUERY_VALUE = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=/?|]|%[0-9A-Fa-f]{2})*")
_VERSION = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3})?")
_NUMBER = re.compile(r"[0-9]{1,20}")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

TYPES: Final = ("private", "public", "cert", "secret-key", "data")

_PATH: Final = {
    "token": "token",
    "manufacturer": "manufacturer",
    "serial": "serial",
    "model": "model",
    "library-manufacturer": "library_manufacturer",
    "library-version": "library_version",
    "library-description": "library_description",
    "object": "object",
    "type": "type",
    "id": "id",
    "slot-manufacturer": "slot_manufacturer",
    "slot-description": "slot_description",
    "slot-id": "slot_id",
}
_QUERY: Final = {"pin-source": "pin_source", "module-name": "module_name", "module-path": "module_path"}


class InvalidUri(ValueError):
    """The text is no PKCS #11 URI that the pool accepts; the reason says where."""


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """A parsed URI; None stands for an attribute that is left out."""

    token: str | None = None
    manufacturer: str | None = None
    serial: str | None = None
    model: str | None = None
    library_manufacturer: str | None = None
    library_version: str | None = None
    library_description: str | None = None
    slot_manufacturer: str | None = None
    slot_description: str | None = None
    slot_id: int | None = None
    object: str | None = None
    type: str | None = None
    id: bytes | None = None
    pin_source: str | None = field(default=None, repr=False)
    module_name: str | None = None
    module_path: str | None = None

    def __str__(self) -> str:
        return build_uri(self)

    def matches(self, found: Mapping[str, str | bytes | int]) -> bool:
        """True if every attribute of the path that `found` has a word on is equal; keys are this class's field names."""
        return all(wanted is None or wanted == found[name] for name, wanted in self._path() if name in found)

    def _path(self) -> list[tuple[str, str | bytes | int | None]]:
        return [(name, getattr(self, name)) for name in _PATH.values()]


def parse_uri(text: str) -> Pkcs11Uri:
    """Read a URI. Raises InvalidUri."""
    if len(text) > MAX_URI:
        raise InvalidUri(f"longer than {MAX_URI} characters")
    if text[: len(SCHEME)].lower() != SCHEME:
        raise InvalidUri("a PKCS #11 URI begins with pkcs11:")
    path, mark, query = text[len(SCHEME) :].partition("?")
    values = _attributes(path, ";", _PATH, _PATH_VALUE)
    if mark:
        values |= _attributes(query, "&", _QUERY, _QUERY_VALUE)
    decoded: dict[str, Any] = {name: _value(name, raw) for name, raw in values.items()}
    uri = Pkcs11Uri(**decoded)
    _check(uri)
    return uri


def _attributes(component: str, separator: str, known: Mapping[str, str], form: re.Pattern[str]) -> dict[str, bytes]:
    values: dict[str, bytes] = {}
    for part in component.split(separator) if component else ():
        name, equals, raw = part.partition("=")
        if name == "pin-value":
            raise InvalidUri("pin-value is refused: a PIN in a database is read by too many; use pin-source, or configure it")
        if name not in known or not equals:
            raise InvalidUri(f"attribute {name[:40]!r} is not known; known are {', '.join(known)}")
        if known[name] in values:
            raise InvalidUri(f"attribute {name} is there twice")
        if not form.fullmatch(raw):
            raise InvalidUri(f"the value of {name} holds a character that must be percent-encoded")
        values[known[name]] = unquote_to_bytes(raw)
    return values


def _value(name: str, raw: bytes) -> str | bytes | int:
    if name == "id":
        return raw
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise InvalidUri(f"the value of {name} is not UTF-8") from None
    if name == "slot_id":
        if not _NUMBER.fullmatch(text):
            raise InvalidUri("slot-id is a decimal number")
        return int(text)
    return text


def _check(uri: Pkcs11Uri) -> None:
    if uri.type is not None and uri.type not in TYPES:
        raise InvalidUri(f"type is one of {', '.join(TYPES)}")
    if uri.library_version is not None and not _VERSION.fullmatch(uri.library_version):
        raise InvalidUri("library-version is a number, or two with a full stop between them")
    if uri.pin_source is not None:
        pin_file(uri)
    for part in fields(uri):
        value = getattr(uri, part.name)
        if isinstance(value, str) and "\0" in value:
            raise InvalidUri(f"the value of {part.name.replace('_', '-')} holds a NUL character")


def pin_file(uri: Pkcs11Uri) -> str | None:
    """Path of the file that pin-source names, None without one. Raises InvalidUri if it names something else."""
    source = uri.pin_source
    if source is None:
        return None
    if source.startswith("|"):
        raise InvalidUri("pin-source may not be a command: a URI out of a database does not start programs")
    path = source[len("file:") :] if source[:5].lower() == "file:" else source
    # RFC 8089: file:///path and file:/path name the same
    if path.startswith("///"):
        path = path[2:]
    if not path.startswith("/") or path.startswith("//"):
        raise InvalidUri("pin-source is the absolute path of a file, or file: and such a path")
    return path


def build_uri(uri: Pkcs11Uri) -> str:
    """The text of a URI, in the order of RFC 7512's examples; `parse_uri` gives the same URI back."""
    path = ";".join(_spell(uri, _PATH))
    query = "&".join(_spell(uri, _QUERY))
    return SCHEME + path + ("?" + query if query else "")


def _spell(uri: Pkcs11Uri, known: Mapping[str, str]) -> list[str]:
    parts = []
    for spelling, name in known.items():
        value = getattr(uri, name)
        if value is not None:
            raw = value if isinstance(value, bytes) else str(value).encode()
            # RFC 7512 section 2.3 recommends to encode id as a whole, since it is not text
            parts.append(f"{spelling}={_encode(raw, everything=name == 'id')}")
    return parts


def _encode(raw: bytes, *, everything: bool) -> str:
    return "".join(chr(byte) if byte in _UNRESERVED and not everything else f"%{byte:02X}" for byte in raw)
