"""The framing of OpenPGP: armor, packets, signatures and their subpackets, taken apart without looking at any number inside.

Theory of operation
-------------------
Whatever a peer or an operator hands in goes through `packets` first.  It is strict: lengths are definite, nothing is left over, and
kinds, sizes and counts are limited.  So what lies behind (see `pgp`) meets few and small packets, one by one, each with one framing.
The contents of signatures are read here as well, from the octets that are hashed: creation, expiry and key flags that stand in the
unhashed area are anybody's, and do not count.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAX_KEY = 65_536  # bytes of one transferable public key
MAX_PACKETS = 512
MAX_BODIES = {2: 8192, 6: 4096, 14: 4096, 13: 1024}  # bytes, by packet tag; others are skipped

SIGNATURE, SECRET_KEY, PUBLIC_KEY, SECRET_SUBKEY, MARKER, TRUST = 2, 5, 6, 7, 10, 12
USER_ID, PUBLIC_SUBKEY, USER_ATTRIBUTE, PADDING = 13, 14, 17, 21
_IGNORED = (MARKER, TRUST, PADDING)

# RFC 4880 section 5.2.3.1, RFC 9580 section 5.2.3.7: what may be critical, since it is either heeded or means nothing to TLS
_CREATED, _EXPIRES, _KEY_EXPIRES, _ISSUER, _PRIMARY, _FLAGS, _REASON, _EMBEDDED, _ISSUER_FINGERPRINT = (
    2,
    3,
    9,
    16,
    25,
    27,
    29,
    32,
    33,
)
_HARMLESS = frozenset({4, 7, 11, 12, 21, 22, 23, 24, 26, 28, 30, 34})
_UNDERSTOOD = _HARMLESS | {_CREATED, _EXPIRES, _KEY_EXPIRES, _ISSUER, _PRIMARY, _FLAGS, _REASON, _EMBEDDED, _ISSUER_FINGERPRINT}


class Malformed(ValueError):
    """The octets are no OpenPGP key; says why."""


class Unsupported(ValueError):
    """They are one, of a kind that cannot be used here; says which."""


class Weak(ValueError):
    """They are one that nobody should rely on; says why."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet, without its header."""

    tag: int
    body: bytes


def _old_length(data: bytes, at: int, kind: int) -> tuple[int, int]:
    """RFC 4880 section 4.2.1."""
    if kind == 3:
        raise Malformed("a packet of indeterminate length")
    size = 1 << kind
    if at + size > len(data):
        raise Malformed("cut off within a packet header")
    return int.from_bytes(data[at : at + size], "big"), at + size


def _new_length(data: bytes, at: int) -> tuple[int, int]:
    """RFC 4880 section 4.2.2; also the form of subpackets (section 5.2.3.1), which have no partial lengths either."""
    if at >= len(data):
        raise Malformed("cut off within a packet header")
    first = data[at]
    if first < 192:
        return first, at + 1
    if 224 <= first < 255:
        raise Malformed("a packet of partial length")
    size = 2 if first < 224 else 5
    if at + size > len(data):
        raise Malformed("cut off within a packet header")
    if size == 2:
        return ((first - 192) << 8) + data[at + 1] + 192, at + 2
    return int.from_bytes(data[at + 1 : at + 5], "big"), at + 5


def packets(data: bytes) -> list[Packet]:
    """All packets of a key, those that mean nothing left out. Raises Malformed."""
    if not data or len(data) > MAX_KEY:
        raise Malformed(f"{len(data)} bytes; a key has 1 to {MAX_KEY}")
    found = []
    for count, packet in enumerate(walk(data), 1):
        if count > MAX_PACKETS:
            raise Malformed(f"more than {MAX_PACKETS} packets")
        if packet.tag not in _IGNORED:
            found.append(packet)
    return found


def walk(data: bytes) -> Iterator[Packet]:
    """One packet after the other. Raises Malformed."""
    at = 0
    while at < len(data):
        header = data[at]
        if not header & 0x80:
            raise Malformed("no packet header where one must be")
        if header & 0x40:
            tag, (length, start) = header & 0x3F, _new_length(data, at + 1)
        else:
            tag, (length, start) = (header >> 2) & 0x0F, _old_length(data, at + 1, header & 3)
        at = start + length
        if at > len(data):
            raise Malformed("cut off within a packet")
        if length > MAX_BODIES.get(tag, MAX_KEY):
            raise Malformed(f"a packet of type {tag} with {length} bytes")
        yield Packet(tag, data[start:at])


def framed(tag: int, body: bytes) -> bytes:
    """A packet in the one framing that is used from here on: new format, five octets of length."""
    return bytes((0xC0 | tag, 0xFF)) + len(body).to_bytes(4, "big") + body


# --- signatures ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SignatureFrame:
    """A version 4 signature packet, taken apart (RFC 4880 section 5.2.3)."""

    type: int
    algorithm: int
    hash: int
    hashed: bytes  # the octets that are hashed, from the version on
    rest: bytes  # left 16 bits of the hash, and the numbers
    created: int
    expires: int = 0  # seconds after creation, 0 for never
    key_expires: int = 0  # seconds after creation of the key, 0 for never
    flags: int | None = None  # first octet of the key flags, None where there are none
    primary: bool = False
    reason: int | None = None
    issuers: tuple[bytes, ...] = ()  # key ids and fingerprints
    embedded: bytes = b""

    @property
    def trailer(self) -> bytes:
        """What is hashed behind the subject."""
        return self.hashed + b"\x04\xff" + len(self.hashed).to_bytes(4, "big")


def signature_frame(body: bytes) -> SignatureFrame | None:
    """None for a signature that must be passed over: another version, no creation time, unknown critical parts. Raises Malformed."""
    if len(body) < 10 or body[0] != 4:
        return None
    end = 6 + int.from_bytes(body[4:6], "big")
    if end + 2 > len(body):
        raise Malformed("cut off within a signature")
    end_unhashed = end + 2 + int.from_bytes(body[end : end + 2], "big")
    if end_unhashed + 2 > len(body):
        raise Malformed("cut off within a signature")
    hashed = dict(_subpackets(body[6:end]))
    if any(code & 0x80 and code & 0x7F not in _UNDERSTOOD for code in hashed):
        return None
    known = {code & 0x7F: content for code, content in hashed.items()}
    unhashed = dict(_subpackets(body[end + 2 : end_unhashed]))
    if len(known.get(_CREATED, b"")) != 4:
        return None
    flags, reason = known.get(_FLAGS), known.get(_REASON)
    return SignatureFrame(
        type=body[1],
        algorithm=body[2],
        hash=body[3],
        hashed=body[:end],
        rest=body[end_unhashed:],
        created=_number(known[_CREATED]),
        expires=_number(known.get(_EXPIRES, b"")),
        key_expires=_number(known.get(_KEY_EXPIRES, b"")),
        flags=None if flags is None else (flags[0] if flags else 0),
        primary=known.get(_PRIMARY, b"\0") not in (b"", b"\0"),
        reason=None if reason is None else (reason[0] if reason else 0),
        issuers=_issuers((known, unhashed)),
        embedded=known.get(_EMBEDDED) or unhashed.get(_EMBEDDED, b""),
    )


def _number(content: bytes) -> int:
    if len(content) not in (0, 4):
        raise Malformed("a time that is not four octets")
    return int.from_bytes(content, "big")


def _subpackets(area: bytes) -> Iterator[tuple[int, bytes]]:
    """Type, with the critical bit, and content. Raises Malformed."""
    at = 0
    while at < len(area):
        length, start = _new_length(area, at)
        at = start + length
        if length < 1 or at > len(area):
            raise Malformed("a subpacket of wrong length")
        yield area[start], area[start + 1 : at]


def _issuers(areas: Sequence[dict[int, bytes]]) -> tuple[bytes, ...]:
    """Hints on who signed; whether that is true, only the signature tells."""
    found = []
    for area in areas:
        if len(area.get(_ISSUER, b"")) == 8:
            found.append(area[_ISSUER])
        if len(area.get(_ISSUER_FINGERPRINT, b"")) == 21 and area[_ISSUER_FINGERPRINT][0] == 4:
            found.append(area[_ISSUER_FINGERPRINT][1:])
    return tuple(dict.fromkeys(found))


# --- files -----------------------------------------------------------------------------------------------------------------------------

_ARMOR = re.compile(
    rb"-----BEGIN PGP (?P<kind>[A-Z ]{1,40})-----[ \t]*\r?\n(?P<headers>(?:[A-Za-z]+:[^\n]*\n)*)[ \t]*\r?\n"
    rb"(?P<body>[A-Za-z0-9+/=\s]*?)-----END PGP (?P=kind)-----"
)
_CHECKSUM = re.compile(rb"\n=[A-Za-z0-9+/]{4}\s*\Z")


def dearmored(data: bytes, wanted: bytes = b"PUBLIC KEY BLOCK") -> bytes:
    """The octets of a file, armored (RFC 4880 section 6.2) or not. The checksum is not looked at, as RFC 9580 recommends.

    Raises Malformed.
    """
    if b"-----BEGIN PGP" not in data:
        return data
    blocks = list(_ARMOR.finditer(data))
    if not blocks:
        raise Malformed("armor that is not well formed")
    octets = b""
    for block in blocks:
        if block["kind"] != wanted:
            raise Malformed(f"a {block['kind'].decode().lower()}, where a {wanted.decode().lower()} is wanted")
        try:
            octets += base64.b64decode(b"".join(_CHECKSUM.sub(b"", b"\n" + block["body"]).split()), validate=True)
        except binascii.Error:
            raise Malformed("armor that is no base64") from None
    return octets


def keys_of(data: bytes) -> list[bytes]:
    """The transferable public keys of a file, each as octets with packets in one framing. Raises Malformed."""
    keys: list[bytes] = []
    for packet in walk(dearmored(data)):
        if packet.tag in (SECRET_KEY, SECRET_SUBKEY):
            raise Malformed("a private key; export the public one (gpg --export)")
        if packet.tag == PUBLIC_KEY:
            keys.append(b"")
        if not keys:
            raise Malformed(f"begins with a packet of type {packet.tag}, not with a public key")
        if packet.tag not in _IGNORED:
            keys[-1] += _compact(packet)
    if not keys:
        raise Malformed("there is no OpenPGP key in it")
    for key in keys:
        packets(key)
    return keys


def _compact(packet: Packet) -> bytes:
    """As old implementations like it best: old format where the type allows."""
    if packet.tag > 15:
        return framed(packet.tag, packet.body)
    kind = 0 if len(packet.body) < 256 else 1 if len(packet.body) < 65536 else 2
    return bytes((0x80 | packet.tag << 2 | kind,)) + len(packet.body).to_bytes(1 << kind, "big") + packet.body
