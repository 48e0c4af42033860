"""The extension of symmetric TLS: what two ends that may both be client or server tell each other in their hellos.

Theory of operation
-------------------
Its bytes, and why they are these, are in docs/reference/symmetric-tls.md.  In a ClientHello the extension says which roles the sender
can have, and a random tie-break.  Where both ends have sent a ClientHello, `stays_client` says at each of them, from the same two
values, whose counts.  The other one is dropped: it is in nobody's transcript, so the server that has sent it returns its hash, in
EncryptedExtensions or, in TLS 1.2, in ServerHello.  That makes it part of what Finished vouches for, and with it the tie-break.

To the rest of the engine these are two more objects of the kind that plugins bring (`HandshakeExtension`), one for each role.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

from tlspool_core.tls.alerts import DroppedHelloDiffers, IllegalParameter, NoRoleInCommon, Reflected, SecondHelloDiffers
from tlspool_core.tls.codec import Reader, u8
from tlspool_core.tls.seams import Version
from tlspool_core.tls.settings import TLS12, TLS13

FORMAT: Final = 1
CLIENT_ONLY: Final = 1
CLIENT_OR_SERVER: Final = 3
TIE_BREAK_LENGTH: Final = 32
HASH_LENGTH: Final = 32


def _check_format(reader: Reader) -> None:
    version = reader.u8()
    if version != FORMAT:
        raise IllegalParameter(f"format {version} of the symmetry extension")


@dataclass(frozen=True, slots=True)
class SymmetryOffer:
    """extension_data in ClientHello: struct { uint8 format = 1; uint8 roles; opaque tie_break[32]; }."""

    roles: int
    tie_break: bytes

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Raises DecodeError or IllegalParameter."""
        reader = Reader(content)
        _check_format(reader)
        roles = reader.u8()
        if roles not in (CLIENT_ONLY, CLIENT_OR_SERVER):
            raise IllegalParameter(f"roles {roles:#04x} of whoever sends a ClientHello")
        made = cls(roles, reader.take(TIE_BREAK_LENGTH))
        reader.finish()
        return made

    def build(self) -> bytes:
        return u8(FORMAT) + u8(self.roles) + self.tie_break


def parse_answer(content: bytes) -> bytes:
    """struct { uint8 format = 1; opaque dropped_hello[32]; }: the hash. Raises DecodeError or IllegalParameter."""
    reader = Reader(content)
    _check_format(reader)
    dropped = reader.take(HASH_LENGTH)
    reader.finish()
    return dropped


def build_answer(dropped_hello: bytes) -> bytes:
    """The answer of a server that has dropped its own ClientHello, given with its header."""
    return u8(FORMAT) + hash_of_hello(dropped_hello)


def hash_of_hello(hello: bytes) -> bytes:
    """SHA-256 of a ClientHello with its four-byte header."""
    return hashlib.sha256(hello).digest()


def stays_client(ours: SymmetryOffer, theirs: SymmetryOffer) -> bool:
    """Both ends have sent a ClientHello: whether ours counts. Raises Reflected or NoRoleInCommon.

    An end that can be nothing else is the client; between two that can be either it is the one with the larger tie-break.
    """
    if ours.tie_break == theirs.tie_break:
        raise Reflected("a ClientHello with our own tie-break")
    if ours.roles != theirs.roles:
        return ours.roles == CLIENT_ONLY
    if ours.roles == CLIENT_ONLY:
        raise NoRoleInCommon("both ends can only be clients")
    return ours.tie_break > theirs.tie_break


class _Symmetry:
    """A HandshakeExtension that takes no part in anything but in what its role adds."""

    versions: frozenset[Version] = frozenset((TLS12, TLS13))
    encrypted = True
    quick = True

    def __init__(self, code: int) -> None:
        self._code = code

    @property
    def code(self) -> int:
        return self._code

    def client_hello(self, retry: bool) -> bytes | None:
        return None

    def received_client_hello(self, content: bytes | None) -> None:
        return

    def server_hello(self, version: Version) -> bytes | None:
        return None

    def received_server_hello(self, version: Version, content: bytes | None) -> None:
        return

    def psk_input(self, transcript_hash: Callable[[], bytes], group: int) -> bytes | None:
        return None

    def peer_credential(self) -> None:
        return None


class ClientSymmetry(_Symmetry):
    """Our ClientHello has it; `lost` is the ClientHello, with its header, that the server sent and then dropped."""

    def __init__(self, code: int, offer: SymmetryOffer) -> None:
        super().__init__(code)
        self._offer = offer
        self.lost: bytes | None = None

    def client_hello(self, retry: bool) -> bytes:
        return self._offer.build()

    def received_server_hello(self, version: Version, content: bytes | None) -> None:
        """The server answers if, and only if, it has dropped a ClientHello: the one that came to us. Raises DroppedHelloDiffers."""
        dropped = None if content is None else parse_answer(content)
        if dropped is None and self.lost is None:
            return
        if dropped is None:
            raise DroppedHelloDiffers("the server does not know of the ClientHello that came before its ServerHello")
        if self.lost is None:
            raise DroppedHelloDiffers("the server has sent a ClientHello, which did not arrive")
        if not hmac.compare_digest(dropped, hash_of_hello(self.lost)):
            raise DroppedHelloDiffers("the server has sent another ClientHello than the one that arrived")


class ServerSymmetry(_Symmetry):
    """The ClientHello that we answer may have it; `dropped` is our own, with its header, if we have sent one before."""

    def __init__(self, code: int, dropped: bytes | None = None, offered: bytes | None = None) -> None:
        """`offered` is what the ClientHello had that won against ours."""
        super().__init__(code)
        self._dropped = dropped
        self._offered = offered

    def received_client_hello(self, content: bytes | None) -> None:
        """The last ClientHello's: after HelloRetryRequest it has to be as it was."""
        if content is not None:
            SymmetryOffer.parse(content)
        if self._dropped is not None and content != self._offered:
            raise SecondHelloDiffers(f"extension {self._code}")

    def server_hello(self, version: Version) -> bytes | None:
        return None if self._dropped is None else build_answer(self._dropped)
