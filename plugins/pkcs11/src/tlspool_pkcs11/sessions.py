"""One session for each token, and the objects found through it: what a worker remembers.

Theory of operation
-------------------
Login belongs to the whole process, not to a session, so one session for each token is enough for a worker that does one thing
at a time (beside the one in which it logged in).  The session stays open and object handles stay known: a signature
then costs no search.
An object is named to the daemon by a reference, a small number that is never used again, so that a stale name cannot reach
another object.

After an error the token may think that the operation is still going on; the session is then replaced (the new one is opened
first, since a token logs out when its last session closes).
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress

from tlspool_core.secret import Secret
from tlspool_pkcs11 import library as ck
from tlspool_pkcs11 import protocol as wire
from tlspool_pkcs11.faults import (
    CKR_ATTRIBUTE_SENSITIVE,
    CKR_OBJECT_HANDLE_INVALID,
    CKR_OPERATION_ACTIVE,
    CKR_USER_ALREADY_LOGGED_IN,
    CryptokiError,
)

CKF_TOKEN_INITIALIZED = 0x400

_CLASSES = (ck.CKO_PRIVATE_KEY, ck.CKO_PUBLIC_KEY, ck.CKO_CERTIFICATE, ck.CKO_SECRET_KEY, ck.CKO_DATA)
_NAMES = (ck.CKA_ID, ck.CKA_LABEL)
_KEY = (*_NAMES, ck.CKA_KEY_TYPE, ck.CKA_PUBLIC_KEY_INFO)
_PUBLIC = (ck.CKA_MODULUS, ck.CKA_PUBLIC_EXPONENT, ck.CKA_EC_PARAMS, ck.CKA_EC_POINT, ck.CKA_PARAMETER_SET)
_MANNERS = (ck.CKA_SIGN, ck.CKA_DERIVE, ck.CKA_ALWAYS_AUTHENTICATE, ck.CKA_EXTRACTABLE, ck.CKA_ALLOWED_MECHANISMS)
_WANTED: Mapping[int, Sequence[int]] = {
    ck.CKO_PRIVATE_KEY: (*_KEY, *_PUBLIC, *_MANNERS),
    # CKA_VALUE of a public key is the key itself where it has no structure (ML-DSA); it is never asked of a private key
    ck.CKO_PUBLIC_KEY: (*_KEY, *_PUBLIC, ck.CKA_VALUE),
    ck.CKO_CERTIFICATE: (*_NAMES, ck.CKA_VALUE),
    ck.CKO_SECRET_KEY: (*_NAMES, ck.CKA_KEY_TYPE, ck.CKA_SENSITIVE, ck.CKA_EXTRACTABLE),
    ck.CKO_DATA: _NAMES,
}
_ABSENT = 2**64 - 1
_SIZE = ctypes.sizeof(ctypes.c_ulong)
_CODE = "Q" if _SIZE == 8 else "I"


class UnknownReference(Exception):
    """The daemon named an object that this worker never told it of."""


class Sessions:
    """Tokens, sessions and objects of one library."""

    def __init__(self, library: ck.Library) -> None:
        self._library = library
        self._sessions: dict[int, int] = {}
        self._objects: dict[int, tuple[int, int, int]] = {}
        self._references: dict[tuple[int, int], int] = {}

    def tokens(self) -> tuple[wire.TokenRecord, ...]:
        """All initialised tokens. One that is pulled while it is looked at is left out."""
        records = []
        for slot in self._library.slots():
            with suppress(CryptokiError):
                info = self._library.token(slot)
                if info.flags & CKF_TOKEN_INITIALIZED:
                    records.append(self._token_record(slot, info))
        return tuple(records)

    def _token_record(self, slot: int, info: ck.TokenInfo) -> wire.TokenRecord:
        return wire.TokenRecord(
            slot,
            info.label,
            info.manufacturer,
            info.model,
            info.serial,
            info.slot_description,
            info.slot_manufacturer,
            info.flags,
            tuple(self._library.signing_mechanisms(slot)),
        )

    def _session(self, slot: int) -> int:
        session = self._sessions.get(slot)
        if session is None:
            session = self._sessions[slot] = self._library.open_session(slot)
        return session

    def login(self, slot: int, pin: Secret | None) -> None:
        """Log in; being logged in already is as good."""
        try:
            self._library.login(slot, pin)
        except CryptokiError as error:
            if error.value != CKR_USER_ALREADY_LOGGED_IN:
                raise

    def objects(self, slot: int) -> tuple[wire.ObjectRecord, ...]:
        """All objects that the token shows; private ones only after login."""
        session = self._session(slot)
        return tuple(
            self._object_record(slot, session, object_class, handle)
            for object_class in _CLASSES
            for handle in self._library.find(session, object_class)
        )

    def _object_record(self, slot: int, session: int, object_class: int, handle: int) -> wire.ObjectRecord:
        found = self._library.attributes(session, handle, _WANTED[object_class])
        first, second = _material(object_class, found)
        return wire.ObjectRecord(
            reference=self._reference(slot, handle, object_class),
            object_class=object_class,
            key_type=_number(found.get(ck.CKA_KEY_TYPE, b"")),
            id=found.get(ck.CKA_ID, b""),
            label=found.get(ck.CKA_LABEL, b"").rstrip(b"\0").decode(errors="replace"),
            flags=_flags(object_class, found),
            material_first=first,
            material_second=second,
            public_key_info=found.get(ck.CKA_PUBLIC_KEY_INFO, b""),
            allowed_mechanisms=_numbers(found.get(ck.CKA_ALLOWED_MECHANISMS, b"")),
        )

    def _reference(self, slot: int, handle: int, object_class: int) -> int:
        reference = self._references.setdefault((slot, handle), len(self._references) + 1)
        self._objects[reference] = (slot, handle, object_class)
        return reference

    def sign(self, request: wire.Sign) -> bytes:
        """One signature. Raises CryptokiError and UnknownReference."""
        slot, handle, _ = self._object(request.reference)
        try:
            return self._sign(self._session(slot), handle, request)
        except CryptokiError as error:
            self._renew(slot)
            # with a PIN there is no second attempt: it may have been sent
            if error.value != CKR_OPERATION_ACTIVE or request.authenticate:
                raise
        return self._sign(self._session(slot), handle, request)

    def _sign(self, session: int, handle: int, request: wire.Sign) -> bytes:
        if request.authenticate:
            return self._library.sign_with_login(session, handle, request.mechanism, request.parameters, request.data, request.pin)
        return self._library.sign(session, handle, request.mechanism, request.parameters, request.data)

    def agree(self, reference: int, public: bytes, length: int) -> bytes:
        """The shared secret of a private key and a public point. Raises CryptokiError and UnknownReference."""
        slot, handle, object_class = self._object(reference)
        if object_class != ck.CKO_PRIVATE_KEY:
            raise CryptokiError("C_DeriveKey", CKR_OBJECT_HANDLE_INVALID)
        return self._library.agree(self._session(slot), handle, public, length)

    def _object(self, reference: int) -> tuple[int, int, int]:
        try:
            return self._objects[reference]
        except KeyError:
            raise UnknownReference(f"object {reference} is unknown to this worker") from None

    def _renew(self, slot: int) -> None:
        """Put a new session in the place of one in which an operation may be left open."""
        old = self._sessions.pop(slot)
        with suppress(CryptokiError):
            self._sessions[slot] = self._library.open_session(slot)
        with suppress(CryptokiError):
            self._library.close_session(old)

    def value(self, reference: int) -> bytes:
        """CKA_VALUE of a secret or data object. Raises CryptokiError if the token keeps it to itself."""
        slot, handle, object_class = self._object(reference)
        if object_class not in (ck.CKO_SECRET_KEY, ck.CKO_DATA):
            raise CryptokiError("C_GetAttributeValue", CKR_OBJECT_HANDLE_INVALID)
        found = self._library.attributes(self._session(slot), handle, (ck.CKA_VALUE,))
        if ck.CKA_VALUE not in found:
            raise CryptokiError("C_GetAttributeValue", CKR_ATTRIBUTE_SENSITIVE)
        return found[ck.CKA_VALUE]


def _material(object_class: int, found: Mapping[int, bytes]) -> tuple[bytes, bytes]:
    """The attributes that make the public key, or the certificate; empty if the object has none of them."""
    if object_class == ck.CKO_CERTIFICATE:
        return found.get(ck.CKA_VALUE, b""), b""
    if ck.CKA_MODULUS in found:
        return found[ck.CKA_MODULUS], found.get(ck.CKA_PUBLIC_EXPONENT, b"")
    if ck.CKA_EC_PARAMS in found:
        return found[ck.CKA_EC_PARAMS], found.get(ck.CKA_EC_POINT, b"")
    if ck.CKA_PARAMETER_SET in found:
        parameter_set = _number(found[ck.CKA_PARAMETER_SET]).to_bytes(8, "big")
        return parameter_set, found.get(ck.CKA_VALUE, b"")
    return b"", b""


def _flags(object_class: int, found: Mapping[int, bytes]) -> int:
    def holds(attribute: int, otherwise: bool) -> bool:
        return any(found[attribute]) if attribute in found else otherwise

    if object_class == ck.CKO_DATA:
        return wire.OBJECT_READABLE
    extractable = holds(ck.CKA_EXTRACTABLE, False)
    flags = wire.OBJECT_EXTRACTABLE * extractable
    if object_class == ck.CKO_PRIVATE_KEY:
        flags |= wire.OBJECT_SIGNS * holds(ck.CKA_SIGN, True)
        flags |= wire.OBJECT_DERIVES * holds(ck.CKA_DERIVE, False)
        flags |= wire.OBJECT_ALWAYS_AUTHENTICATE * holds(ck.CKA_ALWAYS_AUTHENTICATE, False)
    elif object_class == ck.CKO_SECRET_KEY:
        flags |= wire.OBJECT_READABLE * (extractable and not holds(ck.CKA_SENSITIVE, True))
    return flags


def _numbers(value: bytes) -> tuple[int, ...]:
    """CK_ULONGs as the library stores them; a value of another length counts as absent."""
    return () if len(value) % _SIZE else struct.unpack(f"={len(value) // _SIZE}{_CODE}", value)


def _number(value: bytes) -> int:
    """A CK_ULONG as the library stores it; all ones if the object does not have the attribute."""
    numbers = _numbers(value)
    return numbers[0] if len(numbers) == 1 else _ABSENT
