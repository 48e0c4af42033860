"""The bytes of RFC 5054: the extension `srp`, and what the two key exchange messages carry (sections 2.3 and 2.5).

opaque srp_I<1..2^8-1>                                               extension 12
opaque srp_N<1..2^16-1>, srp_g<1..2^16-1>, srp_s<1..2^8-1>, srp_B<1..2^16-1>    ServerKeyExchange
opaque srp_A<1..2^16-1>                                              ClientKeyExchange
"""

from __future__ import annotations

from dataclasses import dataclass

from tlspool_core.api import DecodeError
from tlspool_srp.groups import Group

EXTENSION = 12


@dataclass(frozen=True, slots=True)
class ServerParameters:
    """The parameters of a ServerKeyExchange, numbers as they lie in the message."""

    prime: bytes
    generator: bytes
    salt: bytes
    public: bytes

    def build(self) -> bytes:
        """The message's bytes, without a signature."""
        return _vector16(self.prime) + _vector16(self.generator) + bytes([len(self.salt)]) + self.salt + _vector16(self.public)


def parse_server_parameters(message: bytes) -> tuple[ServerParameters, int]:
    """The parameters at the start of a message, and their length: a signature may follow. Raises DecodeError."""
    prime, at = _take(message, 0, 2)
    generator, at = _take(message, at, 2)
    salt, at = _take(message, at, 1)
    public, at = _take(message, at, 2)
    return ServerParameters(prime, generator, salt, public), at


def server_parameters(group: Group, salt: bytes, public: int) -> ServerParameters:
    """Parameters with numbers in their shortest form, as other implementations send them."""
    return ServerParameters(number(group.prime), number(group.generator), salt, number(public))


def build_client_public(public: int) -> bytes:
    """Body of a ClientKeyExchange."""
    return _vector16(number(public))


def parse_client_public(body: bytes) -> int:
    """A of a ClientKeyExchange. Raises DecodeError."""
    value, end = _take(body, 0, 2)
    if end != len(body):
        raise DecodeError("bytes follow srp_A in ClientKeyExchange")
    return int.from_bytes(value)


def build_user(user: str) -> bytes:
    """Content of the extension. Raises ValueError unless the name has 1 to 255 octets."""
    name = user.encode()
    if not 0 < len(name) < 256:
        raise ValueError("an SRP user name has 1 to 255 octets")
    return bytes([len(name)]) + name


def parse_user(content: bytes) -> str:
    """The user name in the extension. Raises DecodeError."""
    name, end = _take(content, 0, 1)
    if end != len(content):
        raise DecodeError("bytes follow srp_I in the extension srp")
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise DecodeError("srp_I is not UTF-8") from None


def number(value: int) -> bytes:
    """Unsigned big-endian without leading zeros; one octet for zero."""
    return value.to_bytes((value.bit_length() + 7) // 8 or 1)


def _vector16(data: bytes) -> bytes:
    return len(data).to_bytes(2) + data


def _take(message: bytes, at: int, width: int) -> tuple[bytes, int]:
    start = at + width
    end = start + int.from_bytes(message[at:start])
    if len(message) < start or len(message) < end or end == start:
        raise DecodeError("an SRP parameter is empty or cut short")
    return message[start:end], end
