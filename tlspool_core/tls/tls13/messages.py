"""Handshake messages that only TLS 1.3 has (RFC 8446 section 4), or has in its own form."""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct
from typing import ClassVar, Final, Self

from tlspool_core.tls.alerts import DuplicateExtensionInAnswer, IllegalParameter
from tlspool_core.tls.codec import Reader, u8, u16, u24, vector8, vector16, vector24
from tlspool_core.tls.enums import HandshakeType
from tlspool_core.tls.messages import Extensions, build_extensions, parse_extensions
from tlspool_core.tls.seams import CertificateEntry

_TICKET_HEAD: Final = Struct(">II")  # ticket_lifetime, ticket_age_add


@dataclass(slots=True)
class EncryptedExtensions:
    """Section 4.3.1."""

    handshake_type: ClassVar[int] = HandshakeType.ENCRYPTED_EXTENSIONS

    extensions: Extensions

    @classmethod
    def parse(cls, body: bytes) -> Self:
        reader = Reader(body)
        extensions = parse_extensions(reader)
        reader.finish()
        return cls(extensions)

    def build(self) -> bytes:
        return build_extensions(self.extensions)


@dataclass(slots=True)
class CertificateRequest:
    """Section 4.3.2."""

    handshake_type: ClassVar[int] = HandshakeType.CERTIFICATE_REQUEST

    certificate_request_context: bytes
    extensions: Extensions

    @classmethod
    def parse(cls, body: bytes) -> Self:
        reader = Reader(body)
        context = reader.vector8()
        extensions = parse_extensions(reader)
        reader.finish()
        return cls(context, extensions)

    def build(self) -> bytes:
        return vector8(self.certificate_request_context) + build_extensions(self.extensions)


@dataclass(slots=True)
class Certificate:
    """Section 4.4.2."""

    handshake_type: ClassVar[int] = HandshakeType.CERTIFICATE

    certificate_request_context: bytes
    entries: tuple[CertificateEntry, ...]

    @classmethod
    def parse(cls, body: bytes) -> Self:
        reader = Reader(body)
        context = reader.vector8()
        certificates = reader.reader24()
        entries = []
        while certificates:
            data = certificates.vector24(1)
            entries.append(CertificateEntry(data, parse_extensions(certificates)))
        reader.finish()
        return cls(context, tuple(entries))

    def build(self) -> bytes:
        entries = [vector24(entry.data) + build_extensions(entry.extensions) for entry in self.entries]
        return vector8(self.certificate_request_context) + vector24(b"".join(entries))


@dataclass(slots=True)
class CompressedCertificate:
    """RFC 8879 section 4."""

    handshake_type: ClassVar[int] = HandshakeType.COMPRESSED_CERTIFICATE

    algorithm: int
    uncompressed_length: int
    compressed: bytes

    @classmethod
    def parse(cls, body: bytes) -> Self:
        reader = Reader(body)
        message = cls(reader.u16(), reader.u24(), reader.vector24(1))
        reader.finish()
        return message

    def build(self) -> bytes:
        return u16(self.algorithm) + u24(self.uncompressed_length) + vector24(self.compressed)


@dataclass(slots=True)
class NewSessionTicket:
    """Section 4.6.1."""

    handshake_type: ClassVar[int] = HandshakeType.NEW_SESSION_TICKET

    ticket_lifetime: int
    ticket_age_add: int
    ticket_nonce: bytes
    ticket: bytes = field(repr=False)
    extensions: Extensions

    @classmethod
    def parse(cls, body: bytes) -> Self:
        reader = Reader(body)
        lifetime, age_add = reader.fixed(_TICKET_HEAD)
        nonce, ticket = reader.vector8(), reader.vector16(1)
        extensions = parse_extensions(reader, DuplicateExtensionInAnswer)
        reader.finish()
        return cls(lifetime, age_add, nonce, ticket, extensions)

    def build(self) -> bytes:
        head = _TICKET_HEAD.pack(self.ticket_lifetime, self.ticket_age_add)
        return head + vector8(self.ticket_nonce) + vector16(self.ticket) + build_extensions(self.extensions)


@dataclass(slots=True)
class KeyUpdate:
    """Section 4.6.3."""

    handshake_type: ClassVar[int] = HandshakeType.KEY_UPDATE

    request_update: bool

    @classmethod
    def parse(cls, body: bytes) -> Self:
        reader = Reader(body)
        value = reader.u8()
        reader.finish()
        if value > 1:
            raise IllegalParameter(f"request_update {value}")
        return cls(value == 1)

    def build(self) -> bytes:
        return u8(self.request_update)
