"""The header of the PROXY protocol, version 2: tells a backend who is connected, and who that proved to be.

Layout after the specification "The PROXY protocol" of HAProxy, section 2.2.  Beside the TLVs that backends know (PP2_TYPE_SSL with the
identity as common name, PP2_TYPE_AUTHORITY) the identities stand in TLVs of the range for private use.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Any, Final

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
ALPN, AUTHORITY, SSL = 0x01, 0x02, 0x20
SSL_VERSION, SSL_CN, SSL_CIPHER = 0x21, 0x22, 0x23
REMOTEID, LOCALID = 0xE0, 0xE1  # of ours
_CLIENT_SSL, _CERT_CONN, _CERT_SESS = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Facts:
    """What a backend is told; empty texts are not. Addresses are those of `socket`, client's first."""

    family: int
    source: Any
    target: Any
    localid: str = ""
    remoteid: str = ""
    version: str = ""
    cipher: str = ""
    alpn: str = ""


def tlv(kind: int, value: bytes) -> bytes:
    """One type-length-value; nothing if the value is empty."""
    return struct.pack("!BH", kind, len(value)) + value if value else b""


def header(facts: Facts) -> bytes:
    """All of it, to be sent before anything else."""
    code, addresses = _addresses(facts)
    texts = ((ALPN, facts.alpn), (AUTHORITY, facts.localid), (REMOTEID, facts.remoteid), (LOCALID, facts.localid))
    body = addresses + b"".join(tlv(kind, text.encode()) for kind, text in texts) + tlv(SSL, _ssl(facts))
    return SIGNATURE + struct.pack("!BBH", 0x21, code, len(body)) + body


def _addresses(facts: Facts) -> tuple[int, bytes]:
    if facts.family not in (socket.AF_INET, socket.AF_INET6):
        return 0, b""  # unspecified: the receiver takes the addresses of the connection itself
    (source, source_port), (target, target_port) = facts.source[:2], facts.target[:2]
    packed = b"".join(socket.inet_pton(facts.family, address.partition("%")[0]) for address in (source, target))
    return 0x11 if facts.family == socket.AF_INET else 0x21, packed + struct.pack("!HH", source_port, target_port)


def _ssl(facts: Facts) -> bytes:
    """`verify` is zero only if an identity was proven."""
    client = _CLIENT_SSL | (_CERT_CONN | _CERT_SESS if facts.remoteid else 0)
    texts = ((SSL_VERSION, facts.version), (SSL_CN, facts.remoteid), (SSL_CIPHER, facts.cipher))
    return struct.pack("!BI", client, 0 if facts.remoteid else 1) + b"".join(tlv(kind, text.encode()) for kind, text in texts)
