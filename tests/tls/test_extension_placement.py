"""Is each extension taken exactly where RFC 8446 section 4.2 allows it, and refused with the right alert elsewhere?"""

from __future__ import annotations

import pytest

from tlspool_core.tls.alerts import (
    DecodeError,
    DuplicateExtension,
    InternalError,
    MalformedExtension,
    MisplacedExtension,
    TlsError,
    UnsolicitedExtension,
)
from tlspool_core.tls.codec import Reader
from tlspool_core.tls.enums import ExtensionType as Ext
from tlspool_core.tls.extensions import CORE_ROWS, Place, table_for
from tlspool_core.tls.messages import build_extensions, parse_extensions

# the table of RFC 8446 section 4.2, with RFC 8879, RFC 8449 and the extensions that only TLS 1.2 has
RFC_TABLE = """
server_name                   CH, EE
max_fragment_length           CH, EE
status_request                CH, CR, CT
supported_groups              CH, EE
signature_algorithms          CH, CR
use_srtp                      CH, EE
heartbeat                     CH, EE
alpn                          CH, EE
signed_certificate_timestamp  CH, CR, CT
client_certificate_type       CH, EE
server_certificate_type       CH, EE
padding                       CH
key_share                     CH, SH, HRR
pre_shared_key                CH, SH
psk_key_exchange_modes        CH
early_data                    CH, EE, NST
cookie                        CH, HRR
supported_versions            CH, SH, HRR
certificate_authorities       CH, CR
oid_filters                   CR
post_handshake_auth           CH
signature_algorithms_cert     CH, CR
compress_certificate          CH, CR
record_size_limit             CH, EE
ec_point_formats              CH
encrypt_then_mac              CH
extended_master_secret        CH
session_ticket                CH
renegotiation_info            CH
"""

PLACES = {
    "CH": Place.CLIENT_HELLO,
    "SH": Place.SERVER_HELLO,
    "HRR": Place.HELLO_RETRY_REQUEST,
    "EE": Place.ENCRYPTED_EXTENSIONS,
    "CT": Place.CERTIFICATE,
    "CR": Place.CERTIFICATE_REQUEST,
    "NST": Place.NEW_SESSION_TICKET,
}
ALLOWED = {
    getattr(Ext, name.upper()): {PLACES[place.strip()] for place in places.split(",")}
    for name, places in (line.split(None, 1) for line in RFC_TABLE.strip().splitlines())
}
# our table lets these stand in a TLS 1.3 ClientHello without looking at them
ONLY_TLS12 = {Ext.EC_POINT_FORMATS, Ext.ENCRYPT_THEN_MAC, Ext.EXTENDED_MASTER_SECRET, Ext.SESSION_TICKET, Ext.RENEGOTIATION_INFO}
# of TLS 1.2 alone, and so in no column of TLS 1.3
OTHERS = {9}


def outcome(place: Place, code: int, content: bytes, offered: bool) -> type[TlsError] | None:
    try:
        table_for(()).parse(place, {code: content}, (code,) if offered else ())
    except TlsError as error:
        return type(error)
    return None


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
@pytest.mark.parametrize("code", ALLOWED)
def test_placement(code: int, place: Place) -> None:
    got = {outcome(place, code, malformed, offered=True) for malformed in (b"\x01", b"\xff" * 3)}
    if place in ALLOWED[code]:
        opaque = code in ONLY_TLS12 or code in (Ext.PADDING, Ext.USE_SRTP, Ext.HEARTBEAT) or place is Place.CERTIFICATE_REQUEST
        assert opaque or MalformedExtension in got
        assert MisplacedExtension not in got
    elif place is Place.NEW_SESSION_TICKET:
        assert got == {None}  # "clients MUST ignore unrecognized extensions", and a misplaced one carries nothing (section 4.6.1)
    else:
        assert got == {MisplacedExtension}
        assert MisplacedExtension.alert is not None and MisplacedExtension.alert.name == "ILLEGAL_PARAMETER"


def test_the_table_has_these_rows_and_no_other() -> None:
    assert {row.code for row in CORE_ROWS} - OTHERS == set(ALLOWED)


@pytest.mark.parametrize("place", [Place.SERVER_HELLO, Place.HELLO_RETRY_REQUEST, Place.ENCRYPTED_EXTENSIONS, Place.CERTIFICATE])
def test_answers_without_an_offer(place: Place) -> None:
    for code in ALLOWED:
        expected = None if (place, code) == (Place.HELLO_RETRY_REQUEST, Ext.COOKIE) else UnsolicitedExtension
        assert outcome(place, code, b"\0\1\0", offered=False) is expected
    assert outcome(place, 0x4242, b"", offered=False) is UnsolicitedExtension


@pytest.mark.parametrize("place", [Place.CLIENT_HELLO, Place.CERTIFICATE_REQUEST, Place.NEW_SESSION_TICKET])
def test_unknown_extensions_are_passed_over_in_requests(place: Place) -> None:
    assert outcome(place, 0x4242, b"anything", offered=False) is None


def test_duplicates() -> None:
    block = b"\x42\x42\0\0" + b"\x42\x43\0\0" + b"\x42\x42\0\0"
    with pytest.raises(DuplicateExtension):
        parse_extensions(Reader(len(block).to_bytes(2, "big") + block))


def test_a_block_ends_where_its_length_says() -> None:
    block = build_extensions({1: b"a", 2: b"bc"})
    for end in range(len(block)):
        with pytest.raises(DecodeError):
            parse_extensions(Reader(block[:end]))


class Plugin:
    """As little of a HandshakeExtension as the table looks at."""

    versions = frozenset({0x0304})

    def __init__(self, code: int) -> None:
        self.code = code


def test_a_plugin_adds_rows_and_replaces_none() -> None:
    table = table_for([Plugin(0xFF42)])  # type: ignore[list-item]
    assert table.parse(Place.SERVER_HELLO, {0xFF42: b"x"}, (0xFF42,)) == {0xFF42: b"x"}
    for place in (Place.ENCRYPTED_EXTENSIONS, Place.SERVER_HELLO_12):
        with pytest.raises(MisplacedExtension):
            table.parse(place, {0xFF42: b"x"}, (0xFF42,))
    assert table.parse(Place.CLIENT_HELLO_12, {0xFF42: b"x"}) == {0xFF42: b"x"}
    with pytest.raises(InternalError):
        table_for([Plugin(Ext.KEY_SHARE)])  # type: ignore[list-item]


def test_a_plugins_answer_may_be_encrypted() -> None:
    class Encrypted(Plugin):
        versions = frozenset({0x0303, 0x0304})
        encrypted = True

    table = table_for([Encrypted(0xFF42)])  # type: ignore[list-item]
    for place in (Place.ENCRYPTED_EXTENSIONS, Place.SERVER_HELLO_12):
        assert table.parse(place, {0xFF42: b"x"}, (0xFF42,)) == {0xFF42: b"x"}
    with pytest.raises(MisplacedExtension):
        table.parse(Place.SERVER_HELLO, {0xFF42: b"x"}, (0xFF42,))
