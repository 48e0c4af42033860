"""External pre-shared keys, imported for two named ends (RFC 9258).

Theory of operation
-------------------
A pre-shared key proves that somebody has it, not who.  An end that holds a key in both roles can be made to talk with itself: its own
ClientHello comes back, the binder is right, and it takes itself for the other end (Selfie; RFC 9257 section 4.1).  So a key is not
used as it is: the client says whom it takes both ends for, and the key that goes into the key schedule is derived from the external
one and these names.  A server answers to its own name alone, and refuses a hello that has it for the client's.

    ImportedIdentity = external_identity<1..2^16-1> | context<0..2^16-1> | target_protocol | target_kdf
    context          = client<1..2^8-1> | server<1..2^8-1>
    key              = HKDF-Expand-Label(HKDF-Extract(0, external key), "derived psk", Hash(ImportedIdentity), L)

Raw keys, as OpenSSL and GnuTLS speak them, have no names.  A server takes them only if its settings say so.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from tlspool_core.tls.alerts import DecodeError
from tlspool_core.tls.codec import Reader, u16, vector8, vector16
from tlspool_core.tls.keyed_hash import digest_once
from tlspool_core.tls.tls13.key_schedule import HASH_LENGTHS, expand_label

_TARGET_PROTOCOL: Final = 0x0304
_KDFS: Final = {"sha256": 0x0001, "sha384": 0x0002}  # TLS KDF identifiers (RFC 9258 section 8)
_KEY_HASH: Final = "sha256"  # that goes with an external key which says nothing else (RFC 9258 section 5.1)
MAX_NAME: Final = 255


@dataclass(frozen=True, slots=True)
class PskNames:
    """Whom the client takes both ends for: any bytes by which they know each other, up to 255. Raises ValueError."""

    client: bytes
    server: bytes

    def __post_init__(self) -> None:
        if self.client == self.server or not all(1 <= len(name) <= MAX_NAME for name in (self.client, self.server)):
            raise ValueError(f"a pre-shared key needs two different names of up to {MAX_NAME} bytes")


@dataclass(frozen=True, slots=True)
class ImportedIdentity:
    """What stands in the place of an identity on the wire; `hash_name` is that of the suites that it goes with."""

    external: bytes
    names: PskNames
    hash_name: str

    def build(self) -> bytes:
        """Raises InternalError if the external identity is too long."""
        context = vector8(self.names.client) + vector8(self.names.server)
        return vector16(self.external) + vector16(context) + u16(_TARGET_PROTOCOL) + u16(_KDFS[self.hash_name])

    @classmethod
    def parse(cls, identity: bytes) -> ImportedIdentity | None:
        """None if it is anything else, such as a raw identity or one for another protocol."""
        reader = Reader(identity)
        try:
            external, context = reader.vector16(1), Reader(reader.vector16())
            client, server = context.vector8(1), context.vector8(1)
            protocol, kdf = reader.u16(), reader.u16()
            context.finish()
            reader.finish()
            names = PskNames(client, server)
        except (DecodeError, ValueError):
            return None
        hash_name = {code: name for name, code in _KDFS.items()}.get(kdf)
        return None if hash_name is None or protocol != _TARGET_PROTOCOL else cls(external, names, hash_name)

    def key(self, external_key: bytes) -> bytes:
        """The pre-shared key for the key schedule (RFC 9258 section 5.1)."""
        extracted = digest_once(_KEY_HASH, bytes(HASH_LENGTHS[_KEY_HASH]), external_key)
        return expand_label(
            _KEY_HASH, extracted, b"derived psk", hashlib.new(_KEY_HASH, self.build()).digest(), HASH_LENGTHS[self.hash_name]
        )
