"""Attributes by number, and their values as bytes.

Theory of operation
-------------------
A list of attributes is a list of pairs of number and value, in the order in which they are sent.  We know a few dozen attributes only, and
their values are text, opaque bytes or 32-bit numbers; so no dictionary is read, and none decides how bytes are taken.  Names are
those of RFC 2865, 2866 and 2869.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

Attributes = list[tuple[int, bytes]]

USER_NAME: Final = 1
SERVICE_TYPE: Final = 6
REPLY_MESSAGE: Final = 18
CLASS: Final = 25
VENDOR_SPECIFIC: Final = 26
SESSION_TIMEOUT: Final = 27
IDLE_TIMEOUT: Final = 28
CALLED_STATION_ID: Final = 30
CALLING_STATION_ID: Final = 31
NAS_IDENTIFIER: Final = 32
PROXY_STATE: Final = 33
ACCT_STATUS_TYPE: Final = 40
ACCT_DELAY_TIME: Final = 41
ACCT_INPUT_OCTETS: Final = 42
ACCT_OUTPUT_OCTETS: Final = 43
ACCT_SESSION_ID: Final = 44
ACCT_AUTHENTIC: Final = 45
ACCT_SESSION_TIME: Final = 46
ACCT_TERMINATE_CAUSE: Final = 49
ACCT_MULTI_SESSION_ID: Final = 50
ACCT_INPUT_GIGAWORDS: Final = 52
ACCT_OUTPUT_GIGAWORDS: Final = 53
EVENT_TIMESTAMP: Final = 55
NAS_PORT_TYPE: Final = 61
CONNECT_INFO: Final = 77
MESSAGE_AUTHENTICATOR: Final = 80
NAS_PORT_ID: Final = 87

MAX_VALUE: Final = 253  # octets, RFC 2865 section 5
VIRTUAL: Final = 5  # NAS-Port-Type

NAMES: Final = {
    SERVICE_TYPE: "Service-Type",
    REPLY_MESSAGE: "Reply-Message",
    CLASS: "Class",
    SESSION_TIMEOUT: "Session-Timeout",
    IDLE_TIMEOUT: "Idle-Timeout",
}


def text(value: str) -> bytes:
    """A value of type text, without what would end a line in a server's log, and cut between characters to what fits."""
    value = "".join(character if character.isprintable() else " " for character in value)
    return value.encode("utf-8", "replace")[:MAX_VALUE].decode("utf-8", "ignore").encode()


def number(value: float) -> bytes:
    """A value of type integer or time: 32 bits; what is outside becomes the nearest that fits."""
    return min(max(int(value), 0), 0xFFFFFFFF).to_bytes(4, "big")


def octets(count: int, low: int, high: int) -> Attributes:
    """A count of 64 bits in two attributes: the octets, and how often 2^32 of them (RFC 2869 section 5.1)."""
    count = min(max(count, 0), 0xFFFFFFFFFFFFFFFF)
    return [(low, number(count & 0xFFFFFFFF)), (high, number(count >> 32))] if count >> 32 else [(low, number(count))]


def non_empty(attributes: Iterable[tuple[int, bytes]]) -> Attributes:
    """Without those whose value is empty, which no attribute of text may be."""
    return [(code, value) for code, value in attributes if value]
