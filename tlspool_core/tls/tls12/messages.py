"""Handshake messages that only TLS 1.2 has, or has in its own form (RFC 5246 section 7.4).

Certificate, ServerKeyExchange and ClientKeyExchange are opaque here: what is in them depends on the certificate type and on the
key exchange, and is read by those.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Self

from tlspool_core.tls.codec import Reader, u16s, u32, vector8, vector16
from tlspool_core.tls.enums import HandshakeType
from tlspool_core.tls.extension_contents import build_certificate_status, parse_certificate_status


@dataclass(slots=True)
class _Opaque:
    """A message whose body is read elsewhere."""

    body: bytes

    @classmethod
    def parse(cls, body: bytes) -> Self:
        return cls(body)

    def build(self) -> bytes:
        return self.body


class Certificate(_Opaque):
    """RFC 5246 sections 7.4.2 and 7.4.6; the body is of a CertificateForm."""

    __slots__ = ()
    handshake_type: ClassVar[int] = HandshakeType.CERTIFICATE


class ServerKeyExchange(_Opaque):
    """Section 7.4.3; the body is of a KeyExchange, with a signature behind it in most suites."""

    __slots__ = ()
    handshake_type: ClassVar[int] = HandshakeType.SERVER_KEY_EXCHANGE


class ClientKeyExchange(_Opaque):
    """Section 7.4.7; the body is of a KeyExchange."""

    __slots__ = ()
    handshake_type: ClassVar[int] = HandshakeType.CLIENT_KEY_EXCHANGE


class _Empty:
    """A message without content."""

    __slots__ = ()

    @classmethod
    def parse(cls, body: bytes) -> Self:
        Reader(body).finish()
        return cls()

    def build(self) -> bytes:
        return b""


class HelloRequest(_Empty):
    """Section 7.4.1.1."""

    __slots__ = ()
    handshake_type: ClassVar[int] = HandshakeType.HELLO_REQUEST


class ServerHelloDone(_Empty):
    """Section 7.4.5."""

    __slots__ = ()
    handshake_type: ClassVar[int] = HandshakeType.SERVER_HELLO_DONE


@dataclass(slots=True)
class CertificateRequest:
    """Section 7.4.4."""

    handshake_type: ClassVar[int] = HandshakeType.CERTIFICATE_REQUEST

    certificate_types: bytes
    supported_signature_algorithms: tuple[int, ...]
    certificate_authorities: tuple[bytes, ...]

    @classmethod
    def parse(cls, body: bytes) -> Self:
        reader = Reader(body)
        types = reader.vector8(1)
        schemes = reader.u16s16()
        names = reader.reader16()
        authorities = []
        while names:
            authorities.append(names.vector16(1))
        reader.finish()
        return cls(types, schemes, tuple(authorities))

    def build(self) -> bytes:
        authorities = b"".join([vector16(name) for name in self.certificate_authorities])
        return vector8(self.certificate_types) + vector16(u16s(self.supported_signature_algorithms)) + vector16(authorities)


@dataclass(slots=True)
class CertificateStatus:
    """RFC 6066 section 8: the server's OCSP response."""

    handshake_type: ClassVar[int] = HandshakeType.CERTIFICATE_STATUS

    response: bytes

    @classmethod
    def parse(cls, body: bytes) -> Self:
        return cls(parse_certificate_status(body))

    def build(self) -> bytes:
        return build_certificate_status(self.response)


@dataclass(slots=True)
class NewSessionTicket:
    """RFC 5077 section 3.3; an empty ticket says that there is none after all."""

    handshake_type: ClassVar[int] = HandshakeType.NEW_SESSION_TICKET

    ticket_lifetime_hint: int
    ticket: bytes = field(repr=False)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        reader = Reader(body)
        message = cls(reader.u32(), reader.vector16())
        reader.finish()
        return message

    def build(self) -> bytes:
        return u32(self.ticket_lifetime_hint) + vector16(self.ticket)
