"""Handshake messages that both versions of TLS have, `parse` and `build` side by side.

Theory of operation
-------------------
A message class has its `handshake_type`, a class method `parse(body)` that takes exactly the body (the four-byte header was
taken off by `Handshake`) and uses it up, and `build()` that returns a body.  Extension blocks stay a dict from code point to bytes,
in the order of the wire, duplicates refused; `extensions.py` judges placement and parses contents once the version is known.
Messages of one version only are in `tls13.messages` and `tls12.messages`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from struct import Struct
from struct import error as StructError
from typing import ClassVar, Final, Protocol, Self

from tlspool_core.tls.alerts import DuplicateExtension, DuplicateExtensionInAnswer, InternalError, TlsError, TruncatedMessage
from tlspool_core.tls.codec import Reader, u16, u16s, vector8, vector16
from tlspool_core.tls.enums import HandshakeType, name_of

Extensions = dict[int, bytes]

# legacy_version and random of both hellos; cipher_suite and legacy_compression_method of ServerHello
_HELLO_HEAD: Final = Struct(">H32s")
_HELLO_CHOICE: Final = Struct(">HB")
# extension_type and the length of extension_data, RFC 8446 section 4.2
_EXTENSION: Final = Struct(">HH")
_head: Final = _EXTENSION.pack
_read_head: Final = _EXTENSION.unpack_from

# RFC 8446 section 4.1.3: SHA-256 of "HelloRetryRequest"
HELLO_RETRY_REQUEST_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
DOWNGRADE_TO_12 = b"DOWNGRD\x01"
DOWNGRADE_BELOW_12 = b"DOWNGRD\x00"


class Message(Protocol):
    """What `Handshake.read` and `Handshake.send` take."""

    handshake_type: ClassVar[int]

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """From a body without header. Raises a DecodeError or IllegalParameter."""

    def build(self) -> bytes:
        """The body without header."""


def frame(handshake_type: int, body: bytes) -> bytes:
    """A handshake message with its header, RFC 8446 section 4. Raises InternalError for a body that no length can tell."""
    if len(body) >= 1 << 24:
        raise InternalError(f"{len(body)} bytes do not fit the handshake message {name_of(HandshakeType, handshake_type)}")
    return (handshake_type << 24 | len(body)).to_bytes(4, "big") + body


def parse_extensions(reader: Reader, duplicate: type[TlsError] = DuplicateExtension) -> Extensions:
    """Extension extensions<0..2^16-1>; refuses duplicates (RFC 8446 section 4.2) with a `duplicate`."""
    block = reader.vector16()  # walked without a child reader: this loop runs more often than any other in a handshake
    found: Extensions = {}
    start, end = 0, len(block)
    while start < end:
        body = start + 4
        if body > end:
            raise TruncatedMessage(f"{end - start} bytes left for an extension")
        code, length = _read_head(block, start)
        start = body + length
        if start > end:
            raise TruncatedMessage(f"extension {code} is longer than its block")
        if code in found:
            raise duplicate(f"extension {code}")
        found[code] = block[body:start]
    return found


def build_extensions(extensions: Mapping[int, bytes]) -> bytes:
    """The block with its length."""
    if not extensions:
        return b"\0\0"
    try:
        return vector16(b"".join([_head(code, len(content)) + content for code, content in extensions.items()]))
    except StructError:
        raise InternalError("an extension of more than 65,535 bytes") from None


@dataclass(slots=True)
class ClientHello:
    """RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2."""

    handshake_type: ClassVar[int] = HandshakeType.CLIENT_HELLO

    random: bytes
    cipher_suites: tuple[int, ...]
    extensions: Extensions
    legacy_session_id: bytes = b""
    legacy_version: int = 0x0303
    compression_methods: bytes = b"\0"

    @classmethod
    def parse(cls, body: bytes) -> Self:
        reader = Reader(body)
        version, random = reader.fixed(_HELLO_HEAD)
        session_id = reader.vector8(0, 32)
        suites = reader.u16s16()
        compression = reader.vector8(1)
        extensions = parse_extensions(reader) if reader else {}
        reader.finish()
        return cls(random, suites, extensions, session_id, version, compression)

    def build(self) -> bytes:
        return b"".join(
            (
                _HELLO_HEAD.pack(self.legacy_version, self.random),
                vector8(self.legacy_session_id),
                vector16(u16s(self.cipher_suites)),
                vector8(self.compression_methods),
                build_extensions(self.extensions),
            )
        )


@dataclass(slots=True)
class ServerHello:
    """RFC 8446 section 4.1.3, RFC 5246 section 7.4.1.3; HelloRetryRequest is one with a fixed random (section 4.1.4)."""

    handshake_type: ClassVar[int] = HandshakeType.SERVER_HELLO

    random: bytes
    cipher_suite: int
    extensions: Extensions
    legacy_session_id_echo: bytes = b""
    legacy_version: int = 0x0303
    compression_method: int = 0

    @property
    def is_hello_retry_request(self) -> bool:
        return self.random == HELLO_RETRY_REQUEST_RANDOM

    @classmethod
    def parse(cls, body: bytes) -> Self:
        reader = Reader(body)
        version, random = reader.fixed(_HELLO_HEAD)
        session_id = reader.vector8(0, 32)
        suite, compression = reader.fixed(_HELLO_CHOICE)
        duplicate = DuplicateExtensionInAnswer if random == HELLO_RETRY_REQUEST_RANDOM else DuplicateExtension
        extensions = parse_extensions(reader, duplicate) if reader else {}
        reader.finish()
        return cls(random, suite, extensions, session_id, version, compression)

    def build(self) -> bytes:
        return b"".join(
            (
                _HELLO_HEAD.pack(self.legacy_version, self.random),
                vector8(self.legacy_session_id_echo),
                _HELLO_CHOICE.pack(self.cipher_suite, self.compression_method),
                build_extensions(self.extensions) if self.extensions else b"",
            )
        )


@dataclass(slots=True)
class CertificateVerify:
    """RFC 8446 section 4.4.3, RFC 5246 section 7.4.8."""

    handshake_type: ClassVar[int] = HandshakeType.CERTIFICATE_VERIFY

    algorithm: int
    signature: bytes

    @classmethod
    def parse(cls, body: bytes) -> Self:
        reader = Reader(body)
        message = cls(reader.u16(), reader.vector16())
        reader.finish()
        return message

    def build(self) -> bytes:
        return u16(self.algorithm) + vector16(self.signature)


@dataclass(slots=True)
class Finished:
    """RFC 8446 section 4.4.4, RFC 5246 section 7.4.9; the length is checked where it is compared."""

    handshake_type: ClassVar[int] = HandshakeType.FINISHED

    verify_data: bytes = field(repr=False)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        return cls(body)

    def build(self) -> bytes:
        return self.verify_data


def message_name(handshake_type: int) -> str:
    """For error texts."""
    return name_of(HandshakeType, handshake_type)
