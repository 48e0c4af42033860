"""What a worker wants of a token library: numbers, records, and the calls. Without the library, and so for both sides.

Theory of operation
-------------------
The daemon never loads a token library, and not python-pkcs11 either, whose import costs more than the rest of the plugin; yet it
speaks of object classes and attributes.  Hence these numbers stand here, and `cryptoki` alone reaches the library, in the worker.

Source of the numbers: PKCS #11 v3.1 (OASIS), header pkcs11t.h.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from tlspool_core.secret import Secret

CKU_USER: Final = 1
CKU_CONTEXT_SPECIFIC: Final = 2

CKO_DATA: Final = 0
CKO_CERTIFICATE: Final = 1
CKO_PUBLIC_KEY: Final = 2
CKO_PRIVATE_KEY: Final = 3
CKO_SECRET_KEY: Final = 4

CKA_CLASS: Final = 0x000
CKA_LABEL: Final = 0x003
CKA_VALUE: Final = 0x011
CKA_KEY_TYPE: Final = 0x100
CKA_ID: Final = 0x102
CKA_SENSITIVE: Final = 0x103
CKA_SIGN: Final = 0x108
CKA_DERIVE: Final = 0x10C
CKA_MODULUS: Final = 0x120
CKA_PUBLIC_EXPONENT: Final = 0x122
CKA_PUBLIC_KEY_INFO: Final = 0x129
CKA_EXTRACTABLE: Final = 0x162
CKA_EC_PARAMS: Final = 0x180
CKA_EC_POINT: Final = 0x181
CKA_ALWAYS_AUTHENTICATE: Final = 0x202
CKA_ALLOWED_MECHANISMS: Final = 0x40000600
CKA_PARAMETER_SET: Final = 0x61D


@dataclass(frozen=True, slots=True)
class LibraryInfo:
    """What C_GetInfo tells."""

    manufacturer: str
    description: str
    version: tuple[int, int]


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """What C_GetSlotInfo and C_GetTokenInfo tell."""

    label: str
    manufacturer: str
    model: str
    serial: str
    slot_description: str
    slot_manufacturer: str
    flags: int


class Library(Protocol):
    """The calls that a worker makes; `cryptoki.Cryptoki` is the real one. All raise `faults.CryptokiError`."""

    def slots(self) -> Sequence[int]:
        """Slots in which there is a token."""

    def token(self, slot: int) -> TokenInfo:
        """The token in a slot, with its present flags."""

    def signing_mechanisms(self, slot: int) -> Sequence[int]:
        """Mechanisms with CKF_SIGN."""

    def open_session(self, slot: int) -> int:
        """A read-only session; login to the token holds for it too."""

    def close_session(self, session: int) -> None:
        """End a session that `open_session` opened."""

    def login(self, slot: int, pin: Secret | None) -> None:
        """Log in as the user; without a PIN the token asks for it. Wipes the PIN."""

    def find(self, session: int, object_class: int) -> Sequence[int]:
        """Handles of all objects of a class."""

    def attributes(self, session: int, handle: int, wanted: Sequence[int]) -> Mapping[int, bytes]:
        """Values of those attributes that the object has and gives away, as the library stores them."""

    def sign(self, session: int, handle: int, mechanism: int, parameters: tuple[int, ...], data: bytes) -> bytes:
        """One signature."""

    def sign_with_login(
        self, session: int, handle: int, mechanism: int, parameters: tuple[int, ...], data: bytes, pin: Secret | None
    ) -> bytes:
        """One signature with a login between C_SignInit and C_Sign; without a PIN the token asks for it. Wipes the PIN."""

    def agree(self, session: int, handle: int, public: bytes, length: int) -> bytes:
        """The shared secret of `length` octets of a key and the other side's public point."""
