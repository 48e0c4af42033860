"""Keys of one direction at work: how a record is sealed and opened.

Theory of operation
-------------------
A protection object belongs to one direction of one connection and one set of keys.  It owns the sequence number, which is never
sent: sealing or opening a record uses it up, and a record that does not open uses up none.  `RecordLayer` swaps the object when
the keys change, and with it the count starts anew (RFC 8446 section 5.3).

There is one class per construction, and one table of ciphers:

    TLS 1.3      XorNonce13    nonce = iv xor sequence; AAD = header; content type inside, padding behind it (RFC 8446 section 5.2)
    TLS 1.2 GCM  Explicit12    nonce = salt || 8 bytes sent along; AAD = sequence, type, version, length (RFC 5288, RFC 5246)
    TLS 1.2 ChaCha20-Poly1305  XorNonce12: as 1.3's nonce with 1.2's AAD (RFC 7905)
    TLS 1.2 CBC  EncryptThenMac12, only together with encrypt_then_mac (RFC 7366): MAC first, then padding, so there is no oracle
    before keys  NullProtection

The AEAD objects of `cryptography` hold about 2.5 KiB each.  They are made from the key when first needed, in less than a
microsecond, and `relax()` drops them again: a session that is idle keeps 16 or 32 bytes instead.

`bulk` reaches into `aead`, `iv` and `sequence` of the AEAD classes, to work on many records at a time.
"""

from __future__ import annotations

import hmac
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from tlspool_core.tls.alerts import BadRecordMac, InternalError, UnexpectedMessage

Buffer = bytes | bytearray | memoryview
Aead = AESGCM | ChaCha20Poly1305

HEADER_LENGTH: Final = 5
TAG_LENGTH: Final = 16
EXPLICIT_NONCE_LENGTH: Final = 8
BLOCK_LENGTH: Final = 16
MAX_SEQUENCE: Final = 2**64 - 1
_BYTE: Final = tuple(bytes((value,)) for value in range(256))
_DATA: Final = 23
# content type, version, length (RFC 8446 section 5.1)
_header: Final = Struct(">BHH").pack


@dataclass(frozen=True, slots=True)
class CipherKind:
    """One row of the cipher table: lengths in bytes of what the key schedule has to make, and how often a key may be used.

    `iv12` is the fixed part of the nonce in TLS 1.2; TLS 1.3 always makes 12 bytes. `update_after` counts records.
    """

    name: str
    key_length: int
    iv12: int
    aead: Callable[[bytes], Aead] | None
    update_after: int = MAX_SEQUENCE

    iv13: int = 12


# RFC 8446 section 5.5: 2^24.5 full-size records under one AES-GCM key. We ask for new keys a little earlier.
GCM_RECORDS: Final = 23_000_000

CIPHERS: Final[Mapping[str, CipherKind]] = {
    kind.name: kind
    for kind in (
        CipherKind("AES-128-GCM", 16, 4, AESGCM, GCM_RECORDS),
        CipherKind("AES-256-GCM", 32, 4, AESGCM, GCM_RECORDS),
        CipherKind("CHACHA20-POLY1305", 32, 12, ChaCha20Poly1305),
        CipherKind("AES-128-CBC", 16, 0, None),
        CipherKind("AES-256-CBC", 32, 0, None),
    )
}

# name as used in `CipherSuite.mac` -> length of the MAC and of its key, in bytes
MACS: Final[Mapping[str, int]] = {"sha1": 20, "sha256": 32, "sha384": 48}


class Protection(ABC):
    """One direction's keys; `sequence` is the number of records sealed or opened so far."""

    __slots__ = ("sequence", "update_after")

    # largest number of bytes by which a record body can exceed its plaintext, without TLS 1.3 padding
    overhead: int = 0
    # content types are inside, and the header says application_data (TLS 1.3)
    hides_type: bool = False
    encrypts: bool = True

    def __init__(self, update_after: int = MAX_SEQUENCE) -> None:
        self.sequence = 0
        self.update_after = update_after

    @property
    def needs_update(self) -> bool:
        """The usage limit of the key is near: in TLS 1.3, send a KeyUpdate (RFC 8446 section 5.5)."""
        return self.sequence >= self.update_after

    def take_sequences(self, count: int = 1) -> int:
        """Use up sequence numbers; the first of them. They must not wrap (RFC 8446 section 5.3): raises InternalError."""
        sequence = self.sequence
        if sequence + count > MAX_SEQUENCE:
            raise InternalError("sequence numbers of a key are used up")
        self.sequence = sequence + count
        return sequence

    @abstractmethod
    def seal(self, content_type: int, fragment: Buffer) -> bytes:
        """A whole record, header included. Raises InternalError when sequence numbers are used up."""

    @abstractmethod
    def open(self, header: bytes, fragment: Buffer) -> tuple[int, bytes]:
        """Content type and plaintext of a record of which `header` is the 5 bytes as received. Raises BadRecordMac."""

    def relax(self) -> None:  # noqa: B027 - only some have anything to drop
        """Drop what can be made again from the key; called when the session falls idle."""


class NullProtection(Protection):
    """Before the first keys: records in the clear. `version` is that of the next header; the first may differ from the rest."""

    __slots__ = ("version",)

    encrypts = False

    def __init__(self, version: int = 0x0303) -> None:
        super().__init__()
        self.version = version

    def seal(self, content_type: int, fragment: Buffer) -> bytes:
        header = _header(content_type, self.version, len(fragment))
        self.version = 0x0303
        return b"".join((header, fragment))

    def open(self, header: bytes, fragment: Buffer) -> tuple[int, bytes]:
        return header[0], bytes(fragment)


class AeadProtection(Protection):
    """What the AEAD constructions share; `iv` is the whole nonce as a number, before the sequence number is mixed in."""

    __slots__ = ("_aead", "_key", "_kind", "iv")

    overhead = TAG_LENGTH

    def __init__(self, kind: CipherKind, key: bytes, iv: bytes) -> None:
        assert len(key) == kind.key_length
        self.sequence = 0
        self.update_after = kind.update_after
        self._kind = kind
        self._key = key
        self._aead: Aead | None = None
        self.iv = int.from_bytes(iv, "big")

    @property
    def aead(self) -> Aead:
        """The cipher, made when first needed."""
        aead = self._aead
        if aead is None:
            assert self._kind.aead is not None
            aead = self._aead = self._kind.aead(self._key)
        return aead

    def relax(self) -> None:
        self._aead = None

    def _open(self, nonce: bytes, fragment: Buffer, associated: bytes) -> bytes:
        """Decrypt, and only then use up the sequence number. Raises BadRecordMac."""
        try:
            plaintext = self.aead.decrypt(nonce, fragment, associated)
        except InvalidTag:
            raise BadRecordMac("a record does not open") from None
        self.take_sequences()
        return plaintext


class XorNonce13(AeadProtection):
    """TLS 1.3, RFC 8446 section 5.2 and 5.3."""

    __slots__ = ()

    overhead = TAG_LENGTH + 1
    hides_type = True

    def seal(self, content_type: int, fragment: Buffer) -> bytes:
        header = _header(_DATA, 0x0303, len(fragment) + self.overhead)
        nonce = (self.iv ^ self.take_sequences()).to_bytes(12, "big")
        return header + self.aead.encrypt(nonce, b"".join((fragment, _BYTE[content_type])), header)

    def seal_padded(self, content_type: int, fragment: Buffer, zeros: int) -> bytes:
        """As `seal`, with that many bytes of padding behind the content type."""
        header = _header(_DATA, 0x0303, len(fragment) + self.overhead + zeros)
        nonce = (self.iv ^ self.take_sequences()).to_bytes(12, "big")
        return header + self.aead.encrypt(nonce, b"".join((fragment, _BYTE[content_type], bytes(zeros))), header)

    def open(self, header: bytes, fragment: Buffer) -> tuple[int, bytes]:
        inner = self._open((self.iv ^ self.sequence).to_bytes(12, "big"), fragment, header)
        if inner[-1:] in (b"\0", b""):  # padding
            inner = inner.rstrip(b"\0")
            if not inner:
                raise UnexpectedMessage("a record without content type")
        return inner[-1], inner[:-1]


class _Aead12(AeadProtection):
    """Additional data of TLS 1.2 (RFC 5246 section 6.2.3.3)."""

    __slots__ = ()

    def associated(self, content_type: int, length: int) -> bytes:
        """seq_num, type, version and plaintext length, for the record to come."""
        return (((self.sequence << 8 | content_type) << 16 | 0x0303) << 16 | length).to_bytes(13, "big")


class Explicit12(_Aead12):
    """AES-GCM in TLS 1.2: the salt is ours, 8 bytes of nonce travel along; we send the sequence number (RFC 5288 section 3)."""

    __slots__ = ()

    overhead = EXPLICIT_NONCE_LENGTH + TAG_LENGTH

    def __init__(self, kind: CipherKind, key: bytes, iv: bytes) -> None:
        super().__init__(kind, key, iv)
        self.iv <<= 64

    def seal(self, content_type: int, fragment: Buffer) -> bytes:
        associated = self.associated(content_type, len(fragment))
        nonce = (self.iv | self.take_sequences()).to_bytes(12, "big")
        header = _header(content_type, 0x0303, len(fragment) + self.overhead)
        return b"".join((header, nonce[4:], self.aead.encrypt(nonce, fragment, associated)))

    def open(self, header: bytes, fragment: Buffer) -> tuple[int, bytes]:
        if len(fragment) < self.overhead:
            raise BadRecordMac("a record shorter than its nonce and tag")
        nonce = (self.iv >> 64).to_bytes(4, "big") + bytes(fragment[:8])
        associated = self.associated(header[0], len(fragment) - self.overhead)
        return header[0], self._open(nonce, memoryview(fragment)[8:], associated)


class XorNonce12(_Aead12):
    """ChaCha20-Poly1305 in TLS 1.2 (RFC 7905 section 2)."""

    __slots__ = ()

    def seal(self, content_type: int, fragment: Buffer) -> bytes:
        associated = self.associated(content_type, len(fragment))
        nonce = (self.iv ^ self.take_sequences()).to_bytes(12, "big")
        header = _header(content_type, 0x0303, len(fragment) + self.overhead)
        return header + self.aead.encrypt(nonce, fragment, associated)

    def open(self, header: bytes, fragment: Buffer) -> tuple[int, bytes]:
        if len(fragment) < self.overhead:
            raise BadRecordMac("a record shorter than its tag")
        nonce = (self.iv ^ self.sequence).to_bytes(12, "big")
        return header[0], self._open(nonce, fragment, self.associated(header[0], len(fragment) - self.overhead))


class EncryptThenMac12(Protection):
    """AES-CBC in TLS 1.2 under encrypt_then_mac (RFC 7366 section 3): a random IV, the ciphertext, the MAC over both."""

    __slots__ = ("_key", "_mac", "_mac_key", "_mac_length")

    overhead = 2 * BLOCK_LENGTH + max(MACS.values())

    def __init__(self, key: bytes, mac_key: bytes, mac: str) -> None:
        super().__init__()
        self._key = key
        self._mac = mac
        self._mac_key = mac_key
        self._mac_length = MACS[mac]

    def _tag(self, content_type: int, body: Buffer) -> bytes:
        """MAC over seq_num, type, version, length, IV and ciphertext."""
        prefix = (((self.sequence << 8 | content_type) << 16 | 0x0303) << 16 | len(body)).to_bytes(13, "big")
        return hmac.digest(self._mac_key, prefix + bytes(body), self._mac)

    def seal(self, content_type: int, fragment: Buffer) -> bytes:
        iv = os.urandom(BLOCK_LENGTH)  # unpredictable (RFC 5246 section 6.2.3.2)
        padding = BLOCK_LENGTH - 1 - len(fragment) % BLOCK_LENGTH
        encryptor = Cipher(algorithms.AES(self._key), modes.CBC(iv)).encryptor()
        body = iv + encryptor.update(bytes(fragment) + _BYTE[padding] * (padding + 1)) + encryptor.finalize()
        tag = self._tag(content_type, body)
        self.take_sequences()
        return b"".join((_header(content_type, 0x0303, len(body) + len(tag)), body, tag))

    def open(self, header: bytes, fragment: Buffer) -> tuple[int, bytes]:
        body, tag = memoryview(fragment)[: -self._mac_length], memoryview(fragment)[-self._mac_length :]
        if len(body) < 2 * BLOCK_LENGTH or len(body) % BLOCK_LENGTH:
            raise BadRecordMac("a record of no possible length")
        if not hmac.compare_digest(self._tag(header[0], body), tag):
            raise BadRecordMac("a record does not open")
        decryptor = Cipher(algorithms.AES(self._key), modes.CBC(bytes(body[:BLOCK_LENGTH]))).decryptor()
        padded = decryptor.update(body[BLOCK_LENGTH:]) + decryptor.finalize()
        self.take_sequences()
        return header[0], _unpadded(padded)


def _unpadded(padded: bytes) -> bytes:
    """Take padding off that the MAC has already vouched for (RFC 5246 section 6.2.3.2). Raises BadRecordMac."""
    length = padded[-1] + 1
    if length > len(padded) or padded[-length:] != _BYTE[length - 1] * length:
        raise BadRecordMac("wrong padding under a correct MAC")
    return padded[:-length]


def protection13(cipher: str, key: bytes, iv: bytes) -> Protection:
    """TLS 1.3 keys of one direction; `cipher` names a row of CIPHERS, `iv` has 12 bytes. Called by the key schedule."""
    return XorNonce13(CIPHERS[cipher], key, iv)


def protection12(cipher: str, key: bytes, iv: bytes, mac_key: bytes = b"", mac: str = "") -> Protection:
    """TLS 1.2 keys of one direction; `iv` has the row's `iv12` bytes, `mac_key` MACS[mac] bytes. CBC implies encrypt_then_mac."""
    kind = CIPHERS[cipher]
    if kind.aead is None:
        return EncryptThenMac12(key, mac_key, mac)
    return (Explicit12 if kind.iv12 == 4 else XorNonce12)(kind, key, iv)
