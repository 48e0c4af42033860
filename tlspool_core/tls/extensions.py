"""The extension table: where each extension may stand, and how its content parses there.

Theory of operation
-------------------
One row per extension; a row lists the places where the extension is allowed (the columns of the table in RFC 8446 section 4.2,
and the hellos of TLS 1.2), each with the parser of its content.  `ExtensionTable.parse` is the one place where a block
is judged: known but misplaced, answered without having been offered, or malformed.  Duplicates were refused when the block
was read.  Whoever asked then finds parsed values by code point.

A plugin's `HandshakeExtension` becomes a row whose content is opaque; it may not take the place of one of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, auto
from typing import Any

from tlspool_core.tls import extension_contents as contents
from tlspool_core.tls.alerts import (
    DecodeError,
    InternalError,
    MalformedExtension,
    MisplacedExtension,
    UnsolicitedExtension,
)
from tlspool_core.tls.enums import ExtensionType as Ext
from tlspool_core.tls.seams import HandshakeExtension, is_encrypted
from tlspool_core.tls.settings import TLS12, TLS13

Parser = Callable[[bytes], Any]


class Place(IntEnum):
    """A message in which extensions stand, per version of TLS."""

    CLIENT_HELLO = auto()
    SERVER_HELLO = auto()
    HELLO_RETRY_REQUEST = auto()
    ENCRYPTED_EXTENSIONS = auto()
    CERTIFICATE = auto()
    CERTIFICATE_REQUEST = auto()
    NEW_SESSION_TICKET = auto()
    CLIENT_HELLO_12 = auto()
    SERVER_HELLO_12 = auto()


# places where an unknown extension is passed over; elsewhere nothing may come that was not offered
_OPEN = frozenset((Place.CLIENT_HELLO, Place.CLIENT_HELLO_12, Place.CERTIFICATE_REQUEST, Place.NEW_SESSION_TICKET))

# a server may send it without an offer (RFC 8446 section 4.2.2)
_UNSOLICITED = frozenset(((Place.HELLO_RETRY_REQUEST, Ext.COOKIE),))


@dataclass(frozen=True, slots=True)
class ExtensionRow:
    """One extension: where it may stand, and how its content parses there."""

    code: int
    places: Mapping[Place, Parser]


def _both_hellos(client: Parser) -> dict[Place, Parser]:
    return {Place.CLIENT_HELLO: client, Place.CLIENT_HELLO_12: client}


CORE_ROWS: tuple[ExtensionRow, ...] = (
    ExtensionRow(
        Ext.SERVER_NAME,
        {
            **_both_hellos(contents.parse_server_name),
            Place.ENCRYPTED_EXTENSIONS: contents.parse_empty,
            Place.SERVER_HELLO_12: contents.parse_empty,
        },
    ),
    ExtensionRow(
        Ext.MAX_FRAGMENT_LENGTH,
        {
            **_both_hellos(contents.parse_u8),
            Place.ENCRYPTED_EXTENSIONS: contents.parse_u8,
            Place.SERVER_HELLO_12: contents.parse_u8,
        },
    ),
    ExtensionRow(
        Ext.STATUS_REQUEST,
        {
            **_both_hellos(contents.parse_status_request),
            Place.CERTIFICATE_REQUEST: contents.parse_opaque,
            Place.CERTIFICATE: contents.parse_certificate_status,
            Place.SERVER_HELLO_12: contents.parse_empty,
        },
    ),
    ExtensionRow(
        Ext.CERT_TYPE,
        {Place.CLIENT_HELLO_12: contents.parse_certificate_types, Place.SERVER_HELLO_12: contents.parse_u8},
    ),
    ExtensionRow(
        Ext.SUPPORTED_GROUPS,
        {
            **_both_hellos(contents.parse_u16s),
            Place.ENCRYPTED_EXTENSIONS: contents.parse_u16s,
            Place.SERVER_HELLO_12: contents.parse_opaque,  # no business there, but some load balancers send it
        },
    ),
    ExtensionRow(
        Ext.EC_POINT_FORMATS,
        {**_both_hellos(contents.parse_point_formats), Place.SERVER_HELLO_12: contents.parse_point_formats},
    ),
    ExtensionRow(
        Ext.SIGNATURE_ALGORITHMS,
        {**_both_hellos(contents.parse_u16s), Place.CERTIFICATE_REQUEST: contents.parse_u16s},
    ),
    ExtensionRow(
        Ext.USE_SRTP,
        {
            **_both_hellos(contents.parse_opaque),
            Place.ENCRYPTED_EXTENSIONS: contents.parse_opaque,
            Place.SERVER_HELLO_12: contents.parse_opaque,
        },
    ),
    ExtensionRow(
        Ext.HEARTBEAT,
        {
            **_both_hellos(contents.parse_opaque),
            Place.ENCRYPTED_EXTENSIONS: contents.parse_opaque,
            Place.SERVER_HELLO_12: contents.parse_opaque,
        },
    ),
    ExtensionRow(
        Ext.ALPN,
        {
            **_both_hellos(contents.parse_protocol_names),
            Place.ENCRYPTED_EXTENSIONS: contents.parse_protocol_name,
            Place.SERVER_HELLO_12: contents.parse_protocol_name,
        },
    ),
    ExtensionRow(
        Ext.SIGNED_CERTIFICATE_TIMESTAMP,
        {
            **_both_hellos(contents.parse_empty),
            Place.CERTIFICATE_REQUEST: contents.parse_opaque,
            Place.CERTIFICATE: contents.parse_timestamps,
            Place.SERVER_HELLO_12: contents.parse_timestamps,
        },
    ),
    ExtensionRow(
        Ext.CLIENT_CERTIFICATE_TYPE,
        {
            **_both_hellos(contents.parse_certificate_types),
            Place.ENCRYPTED_EXTENSIONS: contents.parse_u8,
            Place.SERVER_HELLO_12: contents.parse_u8,
        },
    ),
    ExtensionRow(
        Ext.SERVER_CERTIFICATE_TYPE,
        {
            **_both_hellos(contents.parse_certificate_types),
            Place.ENCRYPTED_EXTENSIONS: contents.parse_u8,
            Place.SERVER_HELLO_12: contents.parse_u8,
        },
    ),
    ExtensionRow(Ext.PADDING, _both_hellos(contents.parse_opaque)),
    ExtensionRow(
        Ext.ENCRYPT_THEN_MAC,
        {**_both_hellos(contents.parse_empty), Place.SERVER_HELLO_12: contents.parse_empty},
    ),
    ExtensionRow(
        Ext.EXTENDED_MASTER_SECRET,
        {**_both_hellos(contents.parse_empty), Place.SERVER_HELLO_12: contents.parse_empty},
    ),
    ExtensionRow(
        Ext.COMPRESS_CERTIFICATE,
        {
            **_both_hellos(contents.parse_compression_algorithms),
            Place.CERTIFICATE_REQUEST: contents.parse_compression_algorithms,
        },
    ),
    ExtensionRow(
        Ext.RECORD_SIZE_LIMIT,
        {
            **_both_hellos(contents.parse_record_size_limit),
            Place.ENCRYPTED_EXTENSIONS: contents.parse_record_size_limit,
            Place.SERVER_HELLO_12: contents.parse_record_size_limit,
        },
    ),
    ExtensionRow(
        Ext.SESSION_TICKET,
        {**_both_hellos(contents.parse_opaque), Place.SERVER_HELLO_12: contents.parse_empty},
    ),
    ExtensionRow(
        Ext.PRE_SHARED_KEY,
        {Place.CLIENT_HELLO: contents.parse_offered_psks, Place.SERVER_HELLO: contents.parse_u16},
    ),
    ExtensionRow(
        Ext.EARLY_DATA,
        {
            Place.CLIENT_HELLO: contents.parse_empty,
            Place.ENCRYPTED_EXTENSIONS: contents.parse_empty,
            Place.NEW_SESSION_TICKET: contents.parse_u32,
        },
    ),
    ExtensionRow(
        Ext.SUPPORTED_VERSIONS,
        {
            Place.CLIENT_HELLO: contents.parse_u16s8,
            Place.SERVER_HELLO: contents.parse_u16,
            Place.HELLO_RETRY_REQUEST: contents.parse_u16,
            Place.CLIENT_HELLO_12: contents.parse_u16s8,
        },
    ),
    ExtensionRow(
        Ext.COOKIE,
        {Place.CLIENT_HELLO: contents.parse_cookie, Place.HELLO_RETRY_REQUEST: contents.parse_cookie},
    ),
    ExtensionRow(Ext.PSK_KEY_EXCHANGE_MODES, {Place.CLIENT_HELLO: contents.parse_u8s}),
    ExtensionRow(
        Ext.CERTIFICATE_AUTHORITIES,
        {Place.CLIENT_HELLO: contents.parse_authorities, Place.CERTIFICATE_REQUEST: contents.parse_authorities},
    ),
    ExtensionRow(Ext.OID_FILTERS, {Place.CERTIFICATE_REQUEST: contents.parse_oid_filters}),
    ExtensionRow(Ext.POST_HANDSHAKE_AUTH, {Place.CLIENT_HELLO: contents.parse_empty}),
    ExtensionRow(
        Ext.SIGNATURE_ALGORITHMS_CERT,
        {**_both_hellos(contents.parse_u16s), Place.CERTIFICATE_REQUEST: contents.parse_u16s},
    ),
    ExtensionRow(
        Ext.KEY_SHARE,
        {
            Place.CLIENT_HELLO: contents.parse_key_shares,
            Place.SERVER_HELLO: contents.parse_key_share,
            Place.HELLO_RETRY_REQUEST: contents.parse_u16,
        },
    ),
    ExtensionRow(
        Ext.RENEGOTIATION_INFO,
        {**_both_hellos(contents.parse_renegotiation_info), Place.SERVER_HELLO_12: contents.parse_renegotiation_info},
    ),
)

# what a TLS 1.3 server does not look at in a ClientHello, though a client that also speaks TLS 1.2 sends it
_IGNORED_13 = (
    Ext.CERT_TYPE,
    Ext.EC_POINT_FORMATS,
    Ext.ENCRYPT_THEN_MAC,
    Ext.EXTENDED_MASTER_SECRET,
    Ext.SESSION_TICKET,
    Ext.RENEGOTIATION_INFO,
)
# what TLS 1.3 brought: a TLS 1.2 server does not look at it in a ClientHello
_IGNORED_12 = (
    Ext.PRE_SHARED_KEY,
    Ext.EARLY_DATA,
    Ext.COOKIE,
    Ext.PSK_KEY_EXCHANGE_MODES,
    Ext.CERTIFICATE_AUTHORITIES,
    Ext.POST_HANDSHAKE_AUTH,
    Ext.KEY_SHARE,
)


def _plugin_row(extension: HandshakeExtension) -> ExtensionRow:
    # a client offers before it knows the version: in one that is none of the extension's, the offer is passed over
    places: dict[Place, Parser] = _both_hellos(contents.parse_opaque)
    if TLS13 in extension.versions:
        answer = Place.ENCRYPTED_EXTENSIONS if is_encrypted(extension, TLS13) else Place.SERVER_HELLO
        places[answer] = contents.parse_opaque
    if TLS12 in extension.versions:
        places[Place.SERVER_HELLO_12] = contents.parse_opaque
    return ExtensionRow(extension.code, places)


class ExtensionTable:
    """The rows that hold in one connection."""

    __slots__ = ("_parsers",)

    def __init__(self, parsers: Mapping[Place, Mapping[int, Parser | None]], rows: Iterable[ExtensionRow]) -> None:
        """`rows` beside what there is; None stands for an extension that is known and may not stand there."""
        self._parsers: dict[Place, dict[int, Parser | None]] = {place: dict(known) for place, known in parsers.items()}
        for row in rows:
            for place, known in self._parsers.items():
                if row.code in known:
                    raise InternalError(f"two rows for extension {row.code}")
                known[row.code] = row.places.get(place)

    def ignoring(self, place: Place, codes: Iterable[int]) -> ExtensionTable:
        """The same, but for extensions that are not looked at in one place."""
        ignored: dict[int, Parser | None] = dict.fromkeys(codes, bytes)  # which returns bytes as they are
        return ExtensionTable({**self._parsers, place: self._parsers[place] | ignored}, ())

    def extended(self, rows: Iterable[ExtensionRow]) -> ExtensionTable:
        """With rows of plugins. Raises InternalError where code points collide."""
        return ExtensionTable(self._parsers, rows)

    def parse(self, place: Place, block: Mapping[int, bytes], offered: Container[int] = ()) -> dict[int, Any]:
        """Judge and parse the extensions of one message; `offered` has the code points that the message may answer.

        Raises MisplacedExtension, UnsolicitedExtension, or a DecodeError naming the extension.
        """
        parsers = self._parsers[place]
        is_open = place in _OPEN
        found: dict[int, Any] = {}
        for code, content in block.items():
            if not is_open and code not in offered and (place, code) not in _UNSOLICITED:
                raise UnsolicitedExtension(f"extension {code} in {place.name}")
            parser = parsers.get(code)
            if parser is None:
                if code in parsers and place is not Place.NEW_SESSION_TICKET:
                    raise MisplacedExtension(f"extension {code} in {place.name}")
                if is_open:
                    continue
                raise UnsolicitedExtension(f"extension {code} in {place.name}")
            try:
                found[code] = parser(content)
            except DecodeError as error:
                raise MalformedExtension(f"extension {code} in {place.name}: {error}") from error
        return found


_CORE = (
    ExtensionTable({place: {} for place in Place}, CORE_ROWS)
    .ignoring(Place.CLIENT_HELLO, _IGNORED_13)
    .ignoring(Place.CLIENT_HELLO_12, _IGNORED_12)
)


def table_for(extensions: Sequence[HandshakeExtension]) -> ExtensionTable:
    """The core's rows and those of this session's plugins. Raises InternalError where code points collide."""
    return _CORE.extended([_plugin_row(extension) for extension in extensions]) if extensions else _CORE
