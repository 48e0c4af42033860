"""What Kerberos puts into TLS-KDH, for the other implementation of `kdh_peer`: DER by hand, encryption by MIT's own library."""

from __future__ import annotations

import ctypes
import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime

HASH_IDS = {4: ("sha256", -2), 5: ("sha384", -3), 6: ("sha512", -4)}


def number(value: int, size: int) -> bytes:
    return value.to_bytes(size, "big")


# --- DER, as far as Kerberos needs it -----------------------------------------------------------------------------------------


def der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    length = len(body)
    if length < 0x80:
        return bytes((tag, length)) + body
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + number(length, size) + body


def integer(value: int) -> bytes:
    return der(2, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def read(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """The body of an element that has this tag, and what follows it."""
    assert data and data[0] == tag, f"tag {data[:1].hex()} where {tag:02x} is due"
    length, at = data[1], 2
    if length & 0x80:
        at += length & 0x7F
        length = int.from_bytes(data[2:at], "big")
    assert len(data) >= at + length, "an element is cut off"
    return data[at : at + length], data[at + length :]


def fields(data: bytes) -> dict[int, bytes]:
    """The members of a SEQUENCE by their context tag."""
    body, rest = read(data, 0x30)
    assert not rest, "bytes behind a SEQUENCE"
    found: dict[int, bytes] = {}
    while body:
        tag = body[0]
        assert tag & 0xE0 == 0xA0, f"member with tag {tag:02x}"
        found[tag & 0x1F], body = read(body, tag)
    return found


def read_integer(data: bytes) -> int:
    body, rest = read(data, 2)
    assert not rest, "bytes behind an INTEGER"
    return int.from_bytes(body, "big", signed=True)


def principal(names: list[str], kind: int = 1) -> bytes:
    return der(0x30, der(0xA0, integer(kind)), der(0xA1, der(0x30, *(der(0x1B, name.encode()) for name in names))))


# --- Kerberos' encryption, by MIT's library -----------------------------------------------------------------------------------


class _Data(ctypes.Structure):
    _fields_ = (("magic", ctypes.c_int32), ("length", ctypes.c_uint), ("data", ctypes.c_char_p))


class _KeyBlock(ctypes.Structure):
    _fields_ = (("magic", ctypes.c_int32), ("enctype", ctypes.c_int32), ("length", ctypes.c_uint), ("contents", ctypes.c_char_p))


class _EncData(ctypes.Structure):
    _fields_ = (("magic", ctypes.c_int32), ("enctype", ctypes.c_int32), ("kvno", ctypes.c_uint), ("ciphertext", _Data))


_crypto = ctypes.CDLL("libk5crypto.so.3")


@dataclass(frozen=True)
class SessionKey:
    """A key of Kerberos."""

    enctype: int
    value: bytes

    def _block(self) -> _KeyBlock:
        return _KeyBlock(0, self.enctype, len(self.value), self.value)

    def seal(self, usage: int, plaintext: bytes) -> bytes:
        """DER EncryptedData, without kvno."""
        size = ctypes.c_size_t()
        assert _crypto.krb5_c_encrypt_length(None, self.enctype, ctypes.c_size_t(len(plaintext)), ctypes.byref(size)) == 0
        room = ctypes.create_string_buffer(size.value)
        out = _EncData(0, 0, 0, _Data(0, size.value, ctypes.cast(room, ctypes.c_char_p)))
        text = _Data(0, len(plaintext), plaintext)
        block = self._block()
        assert _crypto.krb5_c_encrypt(None, ctypes.byref(block), usage, None, ctypes.byref(text), ctypes.byref(out)) == 0
        return der(0x30, der(0xA0, integer(self.enctype)), der(0xA2, der(4, room.raw)))

    def open(self, usage: int, sealed: bytes) -> bytes:
        """The plaintext of a DER EncryptedData of any kvno."""
        members = fields(sealed)
        assert read_integer(members[0]) == self.enctype, "another encryption type than the key's"
        cipher, _ = read(members[2], 4)
        room = ctypes.create_string_buffer(len(cipher))
        out = _Data(0, len(cipher), ctypes.cast(room, ctypes.c_char_p))
        data = _EncData(0, self.enctype, 0, _Data(0, len(cipher), cipher))
        block = self._block()
        assert _crypto.krb5_c_decrypt(None, ctypes.byref(block), usage, None, ctypes.byref(data), ctypes.byref(out)) == 0, (
            "not this key"
        )
        return room.raw[: out.length]


def make_authenticator(realm: str, client: list[str], hash_id: int, messages: bytes, *, subkey: bool) -> bytes:
    """RFC 4120 section 5.5.1, with the hash of all messages so far as checksum."""
    name, kind = HASH_IDS[hash_id]
    now = datetime.now(UTC)
    members = [
        der(0xA0, integer(5)),
        der(0xA1, der(0x1B, realm.encode())),
        der(0xA2, principal(client)),
        der(0xA3, der(0x30, der(0xA0, integer(kind)), der(0xA1, der(4, hashlib.new(name, messages).digest())))),
        der(0xA4, integer(now.microsecond)),
        der(0xA5, der(0x18, now.strftime("%Y%m%d%H%M%SZ").encode())),
    ]
    if subkey:
        members.append(der(0xA6, der(0x30, der(0xA0, integer(18)), der(0xA1, der(4, os.urandom(32))))))
    return der(0x62, der(0x30, *members))


def check_authenticator(plaintext: bytes, hash_id: int, messages: bytes, *, subkey: bool) -> None:
    """What a server looks at, and a few things that it would not."""
    name, kind = HASH_IDS[hash_id]
    body, rest = read(plaintext, 0x62)
    assert not rest, "bytes behind the Authenticator"
    members = fields(body)
    assert set(members) - {7} == {0, 1, 2, 3, 4, 5} | ({6} if subkey else set()), sorted(members)
    assert read_integer(members[0]) == 5
    checksum = fields(members[3])
    assert read_integer(checksum[0]) == kind
    assert read(checksum[1], 4)[0] == hashlib.new(name, messages).digest(), "the checksum is not the hash of all messages so far"
    if subkey:
        made = fields(members[6])
        assert read_integer(made[0]) == 18 and len(read(made[1], 4)[0]) == 32


def names_of(data: bytes) -> list[str]:
    """The components of a PrincipalName."""
    body, found = read(fields(data)[1], 0x30)[0], []
    while body:
        name, body = read(body, 0x1B)
        found.append(name.decode())
    return found
