"""Contents of the extensions, `parse` and `build` side by side, each with its source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final

from tlspool_core.tls.alerts import BadLength, IllegalParameter, TrailingBytes
from tlspool_core.tls.codec import Reader, split_u16s, u8, u16s, u32, vector8, vector16, vector24


def parse_opaque(content: bytes) -> bytes:
    """Nothing is looked at here."""
    return content


def parse_empty(content: bytes) -> bool:
    if content:
        raise TrailingBytes(f"{len(content)} bytes where none are defined")
    return True


def _integer(content: bytes, length: int) -> int:
    if len(content) != length:
        raise BadLength(f"{len(content)} bytes instead of {length}")
    return int.from_bytes(content, "big")


def parse_u8(content: bytes) -> int:
    return _integer(content, 1)


def parse_u16(content: bytes) -> int:
    return _integer(content, 2)


def parse_u32(content: bytes) -> int:
    return _integer(content, 4)


def parse_u16s(content: bytes) -> tuple[int, ...]:
    """supported_groups (RFC 8446 section 4.2.7), signature_algorithms and signature_algorithms_cert (section 4.2.3)."""
    length = len(content) - 2
    if length < 2 or content[0] << 8 | content[1] != length:
        raise BadLength(f"{len(content)} bytes are no list of 16-bit values")
    return split_u16s(content[2:])


def build_u16s(values: Iterable[int]) -> bytes:
    return vector16(u16s(values))


def parse_u16s8(content: bytes) -> tuple[int, ...]:
    """supported_versions, RFC 8446 section 4.2.1."""
    length = len(content) - 1
    if length < 2 or content[0] != length:
        raise BadLength(f"{len(content)} bytes are no list of 16-bit values")
    return split_u16s(content[1:])


def build_u16s8(values: Iterable[int]) -> bytes:
    return vector8(u16s(values))


def parse_compression_algorithms(content: bytes) -> tuple[int, ...]:
    """compress_certificate, RFC 8879 section 3."""
    algorithms = parse_u16s8(content)
    if len(frozenset(algorithms)) < len(algorithms):
        raise IllegalParameter("compress_certificate names an algorithm twice")
    return algorithms


def parse_u8s(content: bytes) -> bytes:
    """psk_key_exchange_modes (RFC 8446 section 4.2.9)."""
    if len(content) < 2 or content[0] != len(content) - 1:
        raise BadLength(f"{len(content)} bytes are no list of bytes")
    return content[1:]


# the head of a list of one name, as everybody sends it: length of the list, name_type host_name, length of the name
_one_host_name: Final = Struct(">HBH").pack


def parse_server_name(content: bytes) -> str | None:
    """server_name in ClientHello, RFC 6066 section 3: the host_name, None if the list has none."""
    length = len(content) - 5
    if length > 0 and content.startswith(_one_host_name(length + 3, 0, length)):
        return _host_name(content[5:])
    reader = Reader(content)
    names = reader.reader16(1)
    seen: set[int] = set()
    host = None
    while names:
        kind, name = names.u8(), names.vector16(1)
        if kind in seen:
            raise IllegalParameter(f"two names of type {kind} in server_name")
        seen.add(kind)
        if kind == 0:
            host = _host_name(name)
    reader.finish()
    return host


def _host_name(name: bytes) -> str:
    try:
        text = name.decode("ascii")
    except UnicodeDecodeError:
        raise IllegalParameter("server_name is not ASCII") from None
    if "\0" in text or len(text) > 255:
        raise IllegalParameter("server_name is no host name")
    return text


def build_server_name(name: str) -> bytes:
    return vector16(b"\0" + vector16(name.encode("ascii")))


STATUS_REQUEST = b"\1\0\0\0\0"


def parse_status_request(content: bytes) -> bool:
    """status_request in ClientHello, RFC 6066 section 8: whether OCSP is asked for; other types are passed over."""
    if content == STATUS_REQUEST:
        return True
    reader = Reader(content)
    if reader.u8() != 1:
        return False
    responders = reader.reader16()
    while responders:
        responders.vector16(1)
    reader.vector16()
    reader.finish()
    return True


def parse_certificate_status(content: bytes) -> bytes:
    """status_request in Certificate: CertificateStatus (RFC 6066 section 8), the DER OCSPResponse of it."""
    reader = Reader(content)
    if reader.u8() != 1:
        raise IllegalParameter("certificate status of an unknown type")
    response = reader.vector24(1)
    reader.finish()
    return response


def build_certificate_status(response: bytes) -> bytes:
    return u8(1) + vector24(response)


def parse_timestamps(content: bytes) -> bytes:
    """SignedCertificateTimestampList, RFC 6962 section 3.3: checked, and kept as it is."""
    reader = Reader(content)
    timestamps = reader.reader16(1)
    while timestamps:
        timestamps.vector16(1)
    reader.finish()
    return content


def parse_point_formats(content: bytes) -> bytes:
    """ec_point_formats, RFC 8422 section 5.1.2; uncompressed must be among them."""
    reader = Reader(content)
    formats = reader.vector8(1)
    reader.finish()
    if 0 not in formats:
        raise IllegalParameter("ec_point_formats without uncompressed")
    return formats


def parse_protocol_names(content: bytes) -> tuple[bytes, ...]:
    """ALPN in ClientHello, RFC 7301 section 3.1."""
    reader = Reader(content)
    names = reader.reader16(2)
    found = []
    while names:
        found.append(names.vector8(1))
    reader.finish()
    return tuple(found)


def parse_protocol_name(content: bytes) -> bytes:
    """ALPN in the server's answer: exactly one name."""
    reader = Reader(content)
    names = reader.reader16(2)
    name = names.vector8(1)
    names.finish()
    reader.finish()
    return name


def build_protocol_names(names: Iterable[bytes]) -> bytes:
    return vector16(b"".join([vector8(name) for name in names]))


def parse_certificate_types(content: bytes) -> bytes:
    """client_ and server_certificate_type in ClientHello, RFC 7250 section 3: a non-empty list of bytes."""
    reader = Reader(content)
    types = reader.vector8(1)
    reader.finish()
    return types


def build_certificate_types(types: Iterable[int]) -> bytes:
    return vector8(bytes(types))


def parse_record_size_limit(content: bytes) -> int:
    """RFC 8449 section 4."""
    limit = parse_u16(content)
    if limit < 64:
        raise IllegalParameter(f"record_size_limit {limit}")
    return limit


def parse_cookie(content: bytes) -> bytes:
    """RFC 8446 section 4.2.2."""
    reader = Reader(content)
    cookie = reader.vector16(1)
    reader.finish()
    return cookie


def build_cookie(cookie: bytes) -> bytes:
    return vector16(cookie)


def parse_authorities(content: bytes) -> tuple[bytes, ...]:
    """certificate_authorities, RFC 8446 section 4.2.4."""
    reader = Reader(content)
    names = reader.reader16(3)
    found = []
    while names:
        found.append(names.vector16(1))
    reader.finish()
    return tuple(found)


def build_authorities(names: Iterable[bytes]) -> bytes:
    return vector16(b"".join([vector16(name) for name in names]))


def parse_oid_filters(content: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """RFC 8446 section 4.2.5."""
    reader = Reader(content)
    filters = reader.reader16()
    found = []
    while filters:
        found.append((filters.vector8(1), filters.vector16()))
    reader.finish()
    return tuple(found)


KeyShareEntry = tuple[int, bytes]
_SHARE_HEAD: Final = Struct(">HH")  # group, length of key_exchange


def parse_key_shares(content: bytes) -> tuple[KeyShareEntry, ...]:
    """key_share in ClientHello, RFC 8446 section 4.2.8: at most one per group."""
    reader = Reader(content)
    shares = reader.reader16()
    found: dict[int, bytes] = {}
    while shares:
        group, length = shares.fixed(_SHARE_HEAD)
        if group in found:
            raise IllegalParameter(f"two key shares for group {group}")
        if not length:
            raise BadLength(f"an empty key share for group {group}")
        found[group] = shares.take(length)
    reader.finish()
    return tuple(found.items())


def build_key_shares(shares: Iterable[KeyShareEntry]) -> bytes:
    return vector16(b"".join([build_key_share(*share) for share in shares]))


def parse_key_share(content: bytes) -> KeyShareEntry:
    """key_share in ServerHello."""
    reader = Reader(content)
    share = (reader.u16(), reader.vector16(1))
    reader.finish()
    return share


def build_key_share(group: int, public: bytes) -> bytes:
    return _SHARE_HEAD.pack(group, len(public)) + public


@dataclass(frozen=True, slots=True)
class OfferedPsks:
    """pre_shared_key in ClientHello, RFC 8446 section 4.2.11."""

    identities: tuple[tuple[bytes, int], ...]  # identity, obfuscated_ticket_age
    binders: tuple[bytes, ...]

    @property
    def binders_length(self) -> int:
        """Bytes of the binders field with its length, which the binders do not cover."""
        return 2 + sum(1 + len(binder) for binder in self.binders)


def parse_offered_psks(content: bytes) -> OfferedPsks:
    """Raises IllegalParameter if identities and binders differ in number (RFC 8446 section 4.2.11)."""
    reader = Reader(content)
    identities = reader.reader16(7)
    found = []
    while identities:
        found.append((identities.vector16(1), identities.u32()))
    binders = reader.reader16(2)
    proofs = []
    while binders:
        # the RFC's minimum is 32, but no shorter one can match: it is refused as wrong where it is looked at
        proofs.append(binders.vector8(1))
    reader.finish()
    if len(found) != len(proofs):
        raise IllegalParameter(f"{len(found)} PSK identities and {len(proofs)} binders")
    return OfferedPsks(tuple(found), tuple(proofs))


def build_offered_psks(identities: Sequence[tuple[bytes, int]], binders: Sequence[bytes]) -> bytes:
    listed = b"".join([vector16(identity) + u32(age) for identity, age in identities])
    return vector16(listed) + vector16(b"".join([vector8(binder) for binder in binders]))


def parse_renegotiation_info(content: bytes) -> bytes:
    """RFC 5746 section 3.2: renegotiated_connection."""
    reader = Reader(content)
    value = reader.vector8()
    reader.finish()
    return value
