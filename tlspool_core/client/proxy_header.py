"""The header of the PROXY protocol, version 2: tells a backend who is connected, and who that proved to be.

Theory of operation
-------------------
Layout after the specification "The PROXY protocol" of HAProxy, section 2.2.  Beside the TLVs that backends know (PP2_TYPE_SSL with the
identity as common name, PP2_TYPE_AUTHORITY) the identities stand in TLVs of the range for private use.

A header is believed as a whole, so who reads one must know who wrote it.  It is parsed strictly: what is out of order, twice there, or
contradicts itself is refused, and an identity counts only if the same header says that it was verified.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Any, Final

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
FIXED_SIZE: Final = 16  # bytes before the addresses
LARGEST: Final = 4096  # bytes after the fixed part that we take; ours are far smaller
ALPN, AUTHORITY, CRC32C, SSL = 0x01, 0x02, 0x03, 0x20
SSL_VERSION, SSL_CN, SSL_CIPHER = 0x21, 0x22, 0x23
REMOTEID, LOCALID = 0xE0, 0xE1  # of ours
_CLIENT_SSL, _CERT_CONN, _CERT_SESS = 1, 2, 4
_LOCAL, _PROXY = 0x20, 0x21  # version 2, and the command
_UNSPECIFIED, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_ADDRESS_SIZES: Final = {_UNSPECIFIED: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}
_LONGEST_TEXT: Final = 255


class MalformedHeader(ValueError):
    """Not a header that can be taken; the text says why."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a backend is told; empty texts are not. Addresses are those of `socket`, client's first; `secure`: there is TLS."""

    family: int
    source: Any
    target: Any
    localid: str = ""
    remoteid: str = ""
    version: str = ""
    cipher: str = ""
    alpn: str = ""
    secure: bool = True


# --- building ---------------------------------------------------------------------------------------------------------------------


def tlv(kind: int, value: bytes) -> bytes:
    """One type-length-value; nothing if the value is empty."""
    return struct.pack("!BH", kind, len(value)) + value if value else b""


def header(facts: Facts) -> bytes:
    """All of it, to be sent before anything else."""
    code, addresses = _addresses(facts)
    texts = ((ALPN, facts.alpn), (AUTHORITY, facts.localid), (REMOTEID, facts.remoteid), (LOCALID, facts.localid))
    body = addresses + b"".join(tlv(kind, text.encode()) for kind, text in texts)
    if facts.secure:
        body += tlv(SSL, _ssl(facts))
    return SIGNATURE + struct.pack("!BBH", _PROXY, code, len(body)) + body


def _addresses(facts: Facts) -> tuple[int, bytes]:
    if facts.family not in (socket.AF_INET, socket.AF_INET6):
        return _UNSPECIFIED, b""  # the receiver takes the addresses of the connection itself
    (source, source_port), (target, target_port) = facts.source[:2], facts.target[:2]
    packed = b"".join(socket.inet_pton(facts.family, address.partition("%")[0]) for address in (source, target))
    return _TCP4 if facts.family == socket.AF_INET else _TCP6, packed + struct.pack("!HH", source_port, target_port)


def _ssl(facts: Facts) -> bytes:
    """`verify` is zero only if an identity was proven."""
    client = _CLIENT_SSL | (_CERT_CONN | _CERT_SESS if facts.remoteid else 0)
    texts = ((SSL_VERSION, facts.version), (SSL_CN, facts.remoteid), (SSL_CIPHER, facts.cipher))
    return struct.pack("!BI", client, 0 if facts.remoteid else 1) + b"".join(tlv(kind, text.encode()) for kind, text in texts)


# --- parsing ----------------------------------------------------------------------------------------------------------------------


def body_size(fixed: bytes) -> int:
    """How many bytes follow the first `FIXED_SIZE` ones. Raises MalformedHeader."""
    if len(fixed) != FIXED_SIZE or fixed[: len(SIGNATURE)] != SIGNATURE:
        raise MalformedHeader("the connection does not begin with a header of the PROXY protocol, version 2")
    command, family, size = struct.unpack("!BBH", fixed[len(SIGNATURE) :])
    if command not in (_LOCAL, _PROXY):
        raise MalformedHeader(f"version and command are {command:#04x}")
    if family not in _ADDRESS_SIZES:
        raise MalformedHeader(f"address family and protocol are {family:#04x}")
    if size > LARGEST:
        raise MalformedHeader(f"the header has {size} bytes, more than {LARGEST}")
    return int(size)


def parse(fixed: bytes, body: bytes) -> Facts | None:
    """What a header tells; None if the proxy opened the connection for itself. Raises MalformedHeader."""
    if body_size(fixed) != len(body):
        raise MalformedHeader("the header has another size than it says")
    command, family = fixed[len(SIGNATURE)], fixed[len(SIGNATURE) + 1]
    if command == _LOCAL:
        return None
    size = _ADDRESS_SIZES[family]
    if len(body) < size:
        raise MalformedHeader("the addresses are cut off")
    told = _tlvs(body[size:])
    if CRC32C in told:
        raise MalformedHeader("the header has a checksum, which is not supported")
    ssl = told.get(SSL)
    secure, verified, inner = _parse_ssl(ssl) if ssl is not None else (False, False, {})
    remoteid, localid = _text(told, REMOTEID), _text(told, LOCALID)
    if remoteid and not verified:
        raise MalformedHeader("an identity is named that was not verified")
    for kind, name, identity in ((SSL_CN, inner.get(SSL_CN), remoteid), (AUTHORITY, told.get(AUTHORITY), localid)):
        if name is not None and identity and name != identity.encode():
            raise MalformedHeader(f"TLV {kind:#04x} names somebody else than the identity")
    texts = localid, remoteid, _text(inner, SSL_VERSION), _text(inner, SSL_CIPHER), _text(told, ALPN)
    return Facts(*_parse_addresses(family, body[:size]), *texts, secure)


def _tlvs(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while data:
        if len(data) < 3 or len(data) < 3 + (size := int.from_bytes(data[1:3])):
            raise MalformedHeader("a TLV is cut off")
        if data[0] in found:
            raise MalformedHeader(f"TLV {data[0]:#04x} is there twice")
        found[data[0]] = data[3 : 3 + size]
        data = data[3 + size :]
    return found


def _parse_ssl(value: bytes) -> tuple[bool, bool, dict[int, bytes]]:
    """Whether there is TLS, whether the client was verified, and the rest."""
    if len(value) < 5:
        raise MalformedHeader("PP2_TYPE_SSL is cut off")
    client, verify = struct.unpack("!BI", value[:5])
    secure, inner = bool(client & _CLIENT_SSL), _tlvs(value[5:])
    if inner and not secure:
        raise MalformedHeader("TLS is described where there is none")
    return secure, secure and bool(client & (_CERT_CONN | _CERT_SESS)) and verify == 0, inner


def _text(told: dict[int, bytes], kind: int) -> str:
    value = told.get(kind, b"")
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise MalformedHeader(f"TLV {kind:#04x} is not UTF-8") from None
    if len(value) > _LONGEST_TEXT or not (text.isprintable() and " " not in text):
        raise MalformedHeader(f"TLV {kind:#04x} is no identity or name")
    return text


def _parse_addresses(code: int, packed: bytes) -> tuple[int, Any, Any]:
    """Family, and addresses of both ends; None where they are not told."""
    if code not in (_TCP4, _TCP6):
        return socket.AF_UNSPEC, None, None
    family = socket.AF_INET if code == _TCP4 else socket.AF_INET6
    half = (len(packed) - 4) // 2
    ports = struct.unpack("!HH", packed[-4:])
    source, target = (socket.inet_ntop(family, packed[at : at + half]) for at in (0, half))
    return family, (source, ports[0]), (target, ports[1])
