"""Is a header of the PROXY protocol read as it was written, and is everything else refused, by one kind of error?"""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlspool_core.client.proxy_header import FIXED_SIZE, SIGNATURE, Facts, MalformedHeader, body_size, header, parse, tlv

WHO = ("www.example.com", "mary@example.com", "TLSv1.3", "TLS_AES_128_GCM_SHA256", "http/1.1")
FOUR = Facts(socket.AF_INET, ("192.0.2.1", 4711), ("192.0.2.2", 443), *WHO)
SIX = Facts(socket.AF_INET6, ("2001:db8::1", 4711), ("2001:db8::2", 443), *WHO)
NEITHER = Facts(socket.AF_UNSPEC, None, None, "", "", "TLSv1.2", "", "")


def read(data: bytes) -> Facts | None:
    """As a server does it."""
    fixed = data[:FIXED_SIZE]
    return parse(fixed, data[FIXED_SIZE : FIXED_SIZE + body_size(fixed)])


def made(body: bytes, command: int = 0x21, family: int = 0) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


def ssl(client: int, verify: int) -> bytes:
    return tlv(0x20, struct.pack("!BI", client, verify))


@pytest.mark.parametrize("facts", [FOUR, SIX, NEITHER, Facts(socket.AF_INET, ("192.0.2.1", 1), ("192.0.2.2", 2), secure=False)])
def test_what_is_written_is_read(facts: Facts) -> None:
    assert read(header(facts)) == facts
    assert read(header(facts) + b"GET / HTTP/1.1\r\n") == facts


def test_a_proxy_that_asks_for_itself_tells_nothing() -> None:
    assert read(made(b"whatever", 0x20)) is None


def test_other_proxies_tell_of_tls_but_of_nobody() -> None:
    told = read(made(ssl(7, 0)))
    assert told is not None
    assert (told.secure, told.remoteid) == (True, "")
    unix = read(made(b"\0" * 216, family=0x31))
    assert unix is not None
    assert (unix.secure, unix.source) == (False, None)


EVE = tlv(0xE0, b"eve@example.com")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"GET / HTTP/1.1\r\n", "does not begin"),
        (b"PROXY TCP4 192.0.2.1", "does not begin"),
        (made(b"", 0x11), "version and command"),
        (made(b"", 0x22), "version and command"),
        (made(b"", family=0x12), "address family"),
        (made(b"\0" * 5000), "more than 4096"),
        (made(b"\0" * 11, family=0x11), "cut off"),
        (made(b"\x01\x00"), "cut off"),
        (made(b"\x01\x00\x02a"), "cut off"),
        (made(tlv(1, b"a") * 2), "twice"),
        (made(tlv(3, b"1234")), "checksum"),
        (made(tlv(0x20, b"1234")), "PP2_TYPE_SSL"),
        (made(EVE), "not verified"),
        (made(EVE + ssl(7, 1)), "not verified"),
        (made(EVE + ssl(1, 0)), "not verified"),
        (made(EVE + ssl(6, 0)), "not verified"),
        (made(tlv(0x20, struct.pack("!BI", 0, 1) + tlv(0x21, b"TLSv1.3"))), "where there is none"),
        (made(tlv(0xE0, b"\xff") + ssl(7, 0)), "not UTF-8"),
        (made(tlv(0xE0, b"eve\nmary") + ssl(7, 0)), "no identity"),
        (made(tlv(0xE1, b"a b")), "no identity"),
        (made(tlv(0xE1, b"a" * 256)), "no identity"),
    ],
)
def test_what_is_out_of_order_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(MalformedHeader, match=complaint):
        read(data)


@pytest.mark.parametrize("facts", [FOUR, SIX])
def test_no_part_is_taken_for_the_whole(facts: Facts) -> None:
    whole = header(facts)
    for size in range(FIXED_SIZE, len(whole)):
        with pytest.raises(MalformedHeader):
            parse(whole[:FIXED_SIZE], whole[FIXED_SIZE:size])


@given(st.binary(max_size=300), st.sampled_from([0x20, 0x21]), st.sampled_from([0x00, 0x11, 0x21, 0x31]))
def test_nothing_else_is_raised(body: bytes, command: int, family: int) -> None:
    try:
        read(made(body, command, family))
    except MalformedHeader:
        return
