"""Records of the databases as bytes, and back.

Theory of operation
-------------------
A record is a head of six bytes (version, kind, CRC-32 of the rest) and a row of fields, each with a length of four bytes before it.  It
is decoded strictly: any other version, kind, checksum, count or length of fields is damage, and raises `DamagedRecord`.  LMDB keeps no
checksums itself, so this is what notices a disk that forgets.  Each record repeats the key that it belongs to: one that turns up under
another key is damage, too, and never somebody else's trust.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from enum import IntEnum

from tlspool_core.api import DoNAI, LocalCredential, LocalIdentity, Role, TrustRecord

VERSION = 1
_HEAD = struct.Struct(">BBI")
_LENGTH = struct.Struct(">I")
_UID = struct.Struct(">I")


class Kind(IntEnum):
    """What a record is."""

    IDENTITY = 1  # identity, expression, uids: the first record of a local identity
    CREDENTIAL = 2  # identity, type, roles, key URI, public part
    DISCLOSURE = 3  # selector, local identities
    TRUST = 4  # key, type, roles, flags, expression, blob


class DamagedRecord(ValueError):
    """The bytes are no record of this version, or not of the place where they stand."""


def _pack(kind: Kind, fields: Sequence[bytes]) -> bytes:
    body = b"".join(_LENGTH.pack(len(field)) + field for field in fields)
    return _HEAD.pack(VERSION, kind, zlib.crc32(body)) + body


def _unpack(kind: Kind, record: bytes, least: int, most: int | None = None) -> list[bytes]:
    """The fields, `least` to `most` of them. Raises DamagedRecord."""
    if len(record) < _HEAD.size:
        raise DamagedRecord("it is too short")
    version, found, checksum = _HEAD.unpack_from(record)
    if version != VERSION:
        raise DamagedRecord(f"it is of version {version}, and this program knows version {VERSION}")
    if found != kind:
        raise DamagedRecord(f"it is of kind {found}, not {kind.value}")
    if zlib.crc32(record[_HEAD.size :]) != checksum:
        raise DamagedRecord("its checksum is wrong")
    fields = _fields(record)
    if len(fields) < least or len(fields) > (least if most is None else most):
        raise DamagedRecord(f"it has {len(fields)} fields")
    return fields


def _fields(record: bytes) -> list[bytes]:
    fields: list[bytes] = []
    at = _HEAD.size
    while at < len(record):
        begin = at + _LENGTH.size
        if begin > len(record):
            raise DamagedRecord("a length is cut off")
        (length,) = _LENGTH.unpack_from(record, at)
        at = begin + length
        if at > len(record):
            raise DamagedRecord("a field is cut off")
        fields.append(record[begin:at])
    return fields


def _belongs(field: bytes, key: bytes) -> None:
    if field != key:
        raise DamagedRecord("it belongs to another key")


def _text(field: bytes) -> str:
    try:
        return field.decode()
    except UnicodeDecodeError:
        raise DamagedRecord("a text is not UTF-8") from None


def _identity(field: bytes) -> DoNAI:
    """Identities are stored in canonical form, so that parts need no more than the constructor's checks."""
    user, at, domain = _text(field).rpartition("@")
    try:
        return DoNAI(domain, user if at else None)
    except ValueError as error:
        raise DamagedRecord(str(error)) from None


def _roles(field: bytes) -> Role:
    if len(field) != 1 or not 1 <= field[0] <= Role.BOTH.value:
        raise DamagedRecord("its roles are wrong")
    return Role(field[0])


# --- localid ------------------------------------------------------------------------------------------------------------------


def build_localid(entry: LocalIdentity) -> list[bytes]:
    """All records of a local identity, to be kept in this order."""
    key = str(entry.identity).encode()
    uids = b"".join(_UID.pack(uid) for uid in entry.allowed_uids)
    head = _pack(Kind.IDENTITY, [key, entry.expression.encode(), uids])
    return [head, *(_pack(Kind.CREDENTIAL, _credential(key, credential)) for credential in entry.credentials)]


def _credential(key: bytes, credential: LocalCredential) -> list[bytes]:
    return [key, credential.type.encode(), bytes([credential.roles.value]), credential.key_uri.encode(), credential.public]


def parse_localid(key: bytes, records: Sequence[bytes]) -> LocalIdentity:
    """From the records kept under `key`, of which there is at least one. Raises DamagedRecord."""
    owner, expression, uids = _unpack(Kind.IDENTITY, records[0], 3)
    _belongs(owner, key)
    if len(uids) % _UID.size:
        raise DamagedRecord("its list of users is cut off")
    identity = _identity(key)
    credentials = tuple(_parse_credential(key, identity, record) for record in records[1:])
    return LocalIdentity(identity, credentials, _text(expression), tuple(uid for (uid,) in _UID.iter_unpack(uids)))


def _parse_credential(key: bytes, identity: DoNAI, record: bytes) -> LocalCredential:
    owner, kind, roles, uri, public = _unpack(Kind.CREDENTIAL, record, 5)
    _belongs(owner, key)
    return LocalCredential(identity, _text(kind), _roles(roles), _text(uri), public)


# --- disclose -----------------------------------------------------------------------------------------------------------------


def build_disclosure(selector: str, identities: Sequence[DoNAI]) -> bytes:
    """The one record of a selector."""
    return _pack(Kind.DISCLOSURE, [selector.encode(), *(str(identity).encode() for identity in identities)])


def parse_disclosure(key: bytes, record: bytes) -> tuple[DoNAI, ...]:
    """Raises DamagedRecord."""
    owner, *identities = _unpack(Kind.DISCLOSURE, record, 1, len(record))
    _belongs(owner, key)
    return tuple(map(_identity, identities))


def parse_selector(key: bytes) -> str:
    """Raises DamagedRecord."""
    return _text(key)


# --- trust --------------------------------------------------------------------------------------------------------------------

_PINNED, _REVOKED = 1, 2


def build_trust(record: TrustRecord) -> bytes:
    """One of the records of a key."""
    flags = (_PINNED if record.pinned else 0) | (_REVOKED if record.revoked else 0)
    small = [bytes([record.roles.value]), bytes([flags])]
    return _pack(Kind.TRUST, [record.key, record.type.encode(), *small, record.expression.encode(), record.blob])


def parse_trust(key: bytes, record: bytes) -> TrustRecord:
    """Raises DamagedRecord."""
    owner, kind, roles, flags, expression, blob = _unpack(Kind.TRUST, record, 6)
    _belongs(owner, key)
    if len(flags) != 1 or flags[0] > _PINNED | _REVOKED:
        raise DamagedRecord("its flags are wrong")
    pinned, revoked = bool(flags[0] & _PINNED), bool(flags[0] & _REVOKED)
    return TrustRecord(key, _text(kind), _roles(roles), pinned, revoked, _text(expression), blob)
