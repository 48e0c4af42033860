"""The part of PKCS #11 that reads and signs, called through ctypes. Loaded in worker processes only.

Theory of operation
-------------------
A token library exports C_GetFunctionList, which hands out a table of functions in an order that has not changed since version
2.0 of the standard.  `_POSITIONS` names the places in that table that the pool uses.  Functions that make, change or destroy
objects have no place here, so no path through this program can write to a token: it is not a matter of care.

Why a binding of our own: the few functions are called with everything prepared before (ctypes adds about two microseconds to a
signature), every return value reaches the daemon as the number that the token gave, also those of its vendor, and the worker
needs no compiled package beside Python.

The structures are those of pkcs11t.h on UNIX: natural alignment, CK_ULONG as the machine's unsigned long.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tlspool_pkcs11.faults import (
    CKR_ATTRIBUTE_SENSITIVE,
    CKR_ATTRIBUTE_TYPE_INVALID,
    CKR_CRYPTOKI_ALREADY_INITIALIZED,
    CKR_OK,
    CryptokiError,
)

ULONG = ctypes.c_ulong
_UNAVAILABLE: Final = ULONG(-1).value

CKF_TOKEN_PRESENT: Final = 0x1
CKF_SERIAL_SESSION: Final = 0x4
CKF_SIGN: Final = 0x800
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
CKA_MODULUS: Final = 0x120
CKA_PUBLIC_EXPONENT: Final = 0x122
CKA_PUBLIC_KEY_INFO: Final = 0x129
CKA_EXTRACTABLE: Final = 0x162
CKA_EC_PARAMS: Final = 0x180
CKA_EC_POINT: Final = 0x181
CKA_ALWAYS_AUTHENTICATE: Final = 0x202
CKA_ALLOWED_MECHANISMS: Final = 0x40000600
CKA_PARAMETER_SET: Final = 0x61D

# index in CK_FUNCTION_LIST, counted after its version field (PKCS #11 v2.40 header pkcs11f.h)
_POSITIONS: Final = {
    "C_Initialize": 0,
    "C_Finalize": 1,
    "C_GetInfo": 2,
    "C_GetSlotList": 4,
    "C_GetSlotInfo": 5,
    "C_GetTokenInfo": 6,
    "C_GetMechanismList": 7,
    "C_GetMechanismInfo": 8,
    "C_OpenSession": 12,
    "C_CloseSession": 13,
    "C_Login": 18,
    "C_GetAttributeValue": 24,
    "C_FindObjectsInit": 26,
    "C_FindObjects": 27,
    "C_FindObjectsFinal": 28,
    "C_SignInit": 42,
    "C_Sign": 43,
}


class _Version(ctypes.Structure):
    _fields_ = [("major", ctypes.c_ubyte), ("minor", ctypes.c_ubyte)]


class _Info(ctypes.Structure):
    _fields_ = [
        ("cryptoki_version", _Version),
        ("manufacturer", ctypes.c_ubyte * 32),
        ("flags", ULONG),
        ("description", ctypes.c_ubyte * 32),
        ("version", _Version),
    ]


class _SlotInfo(ctypes.Structure):
    _fields_ = [
        ("description", ctypes.c_ubyte * 64),
        ("manufacturer", ctypes.c_ubyte * 32),
        ("flags", ULONG),
        ("hardware", _Version),
        ("firmware", _Version),
    ]


class _TokenInfo(ctypes.Structure):
    _fields_ = [
        ("label", ctypes.c_ubyte * 32),
        ("manufacturer", ctypes.c_ubyte * 32),
        ("model", ctypes.c_ubyte * 16),
        ("serial", ctypes.c_ubyte * 16),
        ("flags", ULONG),
        ("counts", ULONG * 10),
        ("hardware", _Version),
        ("firmware", _Version),
        ("utc_time", ctypes.c_ubyte * 16),
    ]


class _MechanismInfo(ctypes.Structure):
    _fields_ = [("minimum", ULONG), ("maximum", ULONG), ("flags", ULONG)]


class _MechanismStructure(ctypes.Structure):
    _fields_ = [("mechanism", ULONG), ("parameter", ctypes.c_void_p), ("length", ULONG)]


class _Mechanism:
    """CK_MECHANISM with its parameter block, kept where the library finds them."""

    def __init__(self, mechanism: int, parameters: tuple[int, ...]) -> None:
        self._block = (ULONG * len(parameters))(*parameters)
        self._structure = _MechanismStructure(mechanism, None, 0)
        if parameters:
            self._structure.parameter = ctypes.addressof(self._block)
            self._structure.length = ctypes.sizeof(self._block)
        self.address = ctypes.addressof(self._structure)


class _Attribute(ctypes.Structure):
    _fields_ = [("type", ULONG), ("value", ctypes.c_void_p), ("length", ULONG)]


class _InitializeArgs(ctypes.Structure):
    # NSS has its parameters where the standard has the reserved member, and its own reserved member, which must be null, behind
    _fields_ = [("functions", ctypes.c_void_p * 4), ("flags", ULONG), ("reserved", ctypes.c_void_p), ("beyond", ctypes.c_void_p)]


_ANY = ctypes.CFUNCTYPE(ULONG)
_SIGN_INIT = ctypes.CFUNCTYPE(ULONG, ULONG, ctypes.c_void_p, ULONG)
_SIGN = ctypes.CFUNCTYPE(ULONG, ULONG, ctypes.c_char_p, ULONG, ctypes.c_void_p, ctypes.c_void_p)


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


def _padded(field: ctypes.Array[ctypes.c_ubyte]) -> str:
    """Text of a field that the standard pads with spaces; some libraries pad with zero bytes."""
    return bytes(field).split(b"\0")[0].rstrip(b" ").decode(errors="replace")


class Cryptoki:
    """A token library, initialised. One thread only: the standard lets a caller without locks demand that."""

    def __init__(self, path: str, init_string: str = "") -> None:
        """Load and initialise. Raises OSError (no such library, or not one for this machine) and CryptokiError."""
        self._library = ctypes.CDLL(path)
        self._address = self._function_list()
        self._functions: dict[str, Any] = {name: _ANY(address) for name, address in self._address.items()}
        # the two functions of the hot path: typed, and with buffers that are used again
        self._sign_init = _SIGN_INIT(self._address["C_SignInit"])
        self._sign = _SIGN(self._address["C_Sign"])
        self._signature = ctypes.create_string_buffer(8192)
        self._length = ULONG(0)
        self._length_at = ctypes.addressof(self._length)
        self._mechanisms: dict[tuple[int, tuple[int, ...]], _Mechanism] = {}
        self._initialize(init_string)

    def _function_list(self) -> dict[str, int]:
        try:
            get_list = self._library.C_GetFunctionList
        except AttributeError as error:
            raise OSError("the library exports no C_GetFunctionList, so it is no PKCS #11 module") from error
        table = ctypes.c_void_p()
        value = get_list(ctypes.byref(table))
        if value != CKR_OK or not table.value:
            raise CryptokiError("C_GetFunctionList", value)
        pointer = ctypes.sizeof(ctypes.c_void_p)
        functions: dict[str, int] = {}
        for name, position in _POSITIONS.items():
            # the version field takes one pointer's room because of alignment
            address = ctypes.c_void_p.from_address(table.value + pointer * (1 + position)).value
            if not address:
                raise OSError(f"the library has no {name}")
            functions[name] = address
        return functions

    def _initialize(self, init_string: str) -> None:
        arguments = None
        if init_string:
            text = ctypes.create_string_buffer(init_string.encode())
            arguments = ctypes.byref(_InitializeArgs(flags=0, reserved=ctypes.cast(text, ctypes.c_void_p)))
        value = self._functions["C_Initialize"](arguments)
        if value not in (CKR_OK, CKR_CRYPTOKI_ALREADY_INITIALIZED):
            raise CryptokiError("C_Initialize", value)

    def _call(self, name: str, *arguments: Any) -> None:
        value = self._functions[name](*arguments)
        if value != CKR_OK:
            raise CryptokiError(name, value)

    def finalize(self) -> None:
        """C_Finalize."""
        self._call("C_Finalize", None)

    def info(self) -> LibraryInfo:
        """C_GetInfo."""
        info = _Info()
        self._call("C_GetInfo", ctypes.byref(info))
        return LibraryInfo(_padded(info.manufacturer), _padded(info.description), (info.version.major, info.version.minor))

    def slots(self) -> Sequence[int]:
        """Slots in which there is a token (C_GetSlotList)."""
        count = ULONG(0)
        present = ctypes.c_ubyte(1)
        self._call("C_GetSlotList", present, None, ctypes.byref(count))
        # a token may be inserted between the two calls
        count.value += 8
        slots = (ULONG * count.value)()
        self._call("C_GetSlotList", present, slots, ctypes.byref(count))
        return slots[: count.value]

    def token(self, slot: int) -> TokenInfo:
        """C_GetSlotInfo and C_GetTokenInfo."""
        at = _SlotInfo()
        info = _TokenInfo()
        self._call("C_GetSlotInfo", ULONG(slot), ctypes.byref(at))
        self._call("C_GetTokenInfo", ULONG(slot), ctypes.byref(info))
        texts = (info.label, info.manufacturer, info.model, info.serial, at.description, at.manufacturer)
        label, manufacturer, model, serial, description, slot_manufacturer = map(_padded, texts)
        return TokenInfo(label, manufacturer, model, serial, description, slot_manufacturer, info.flags)

    def signing_mechanisms(self, slot: int) -> Sequence[int]:
        """Mechanisms with CKF_SIGN (C_GetMechanismList, C_GetMechanismInfo)."""
        count = ULONG(0)
        self._call("C_GetMechanismList", ULONG(slot), None, ctypes.byref(count))
        found = (ULONG * count.value)()
        self._call("C_GetMechanismList", ULONG(slot), found, ctypes.byref(count))
        return [mechanism for mechanism in found[: count.value] if self._signs(slot, mechanism)]

    def _signs(self, slot: int, mechanism: int) -> bool:
        info = _MechanismInfo()
        value = self._functions["C_GetMechanismInfo"](ULONG(slot), ULONG(mechanism), ctypes.byref(info))
        return value == CKR_OK and bool(info.flags & CKF_SIGN)

    def open_session(self, slot: int) -> int:
        """A read-only session (C_OpenSession)."""
        handle = ULONG(0)
        self._call("C_OpenSession", ULONG(slot), ULONG(CKF_SERIAL_SESSION), None, None, ctypes.byref(handle))
        return handle.value

    def close_session(self, session: int) -> None:
        """C_CloseSession."""
        self._call("C_CloseSession", ULONG(session))

    def login(self, session: int, user: int, pin: bytes | None) -> None:
        """C_Login; `pin` None is for a protected authentication path, where the token itself asks."""
        if pin is None:
            self._call("C_Login", ULONG(session), ULONG(user), None, ULONG(0))
            return
        buffer = ctypes.create_string_buffer(pin, len(pin))
        try:
            self._call("C_Login", ULONG(session), ULONG(user), buffer, ULONG(len(pin)))
        finally:
            ctypes.memset(buffer, 0, len(pin))

    def find(self, session: int, object_class: int) -> Sequence[int]:
        """Handles of all objects of a class (C_FindObjectsInit, C_FindObjects, C_FindObjectsFinal)."""
        wanted = ULONG(object_class)
        template = _Attribute(CKA_CLASS, ctypes.cast(ctypes.byref(wanted), ctypes.c_void_p), ctypes.sizeof(wanted))
        self._call("C_FindObjectsInit", ULONG(session), ctypes.byref(template), ULONG(1))
        handles: list[int] = []
        batch = (ULONG * 64)()
        count = ULONG(0)
        try:
            while True:
                self._call("C_FindObjects", ULONG(session), batch, ULONG(len(batch)), ctypes.byref(count))
                handles += batch[: count.value]
                if count.value == 0:
                    return handles
        finally:
            self._functions["C_FindObjectsFinal"](ULONG(session))

    def attributes(self, session: int, handle: int, wanted: Sequence[int]) -> Mapping[int, bytes]:
        """Values of those attributes that the object has and gives away (C_GetAttributeValue: lengths, then values)."""
        template = (_Attribute * len(wanted))(*[_Attribute(kind, None, 0) for kind in wanted])
        self._get(session, handle, template)
        available = [entry for entry in template if entry.length != _UNAVAILABLE]
        buffers = [ctypes.create_string_buffer(max(entry.length, 1)) for entry in available]
        pairs = zip(available, buffers, strict=True)
        second = (_Attribute * len(available))(
            *[_Attribute(entry.type, ctypes.cast(buffer, ctypes.c_void_p), entry.length) for entry, buffer in pairs]
        )
        self._get(session, handle, second)
        return {
            entry.type: buffer.raw[: entry.length]
            for entry, buffer in zip(second, buffers, strict=True)
            if entry.length != _UNAVAILABLE
        }

    def _get(self, session: int, handle: int, template: ctypes.Array[_Attribute]) -> None:
        value = self._functions["C_GetAttributeValue"](ULONG(session), ULONG(handle), template, ULONG(len(template)))
        # these two say that some attributes are missing; their lengths tell which, and the others are there
        if value not in (CKR_OK, CKR_ATTRIBUTE_SENSITIVE, CKR_ATTRIBUTE_TYPE_INVALID):
            raise CryptokiError("C_GetAttributeValue", value)

    def sign_init(self, session: int, mechanism: int, parameters: tuple[int, ...], handle: int) -> None:
        """C_SignInit; `parameters` are the CK_ULONGs of the mechanism's parameter structure, none for no structure."""
        prepared = self._mechanisms.get((mechanism, parameters)) or self._prepare(mechanism, parameters)
        value = self._sign_init(session, prepared.address, handle)
        if value != CKR_OK:
            raise CryptokiError("C_SignInit", value)

    def _prepare(self, mechanism: int, parameters: tuple[int, ...]) -> _Mechanism:
        prepared = _Mechanism(mechanism, parameters)
        if len(self._mechanisms) < 64:
            self._mechanisms[mechanism, parameters] = prepared
        return prepared

    def sign(self, session: int, data: bytes) -> bytes:
        """C_Sign."""
        self._length.value = len(self._signature)
        value = self._sign(session, data, len(data), self._signature, self._length_at)
        if value != CKR_OK:
            raise CryptokiError("C_Sign", value)
        return ctypes.string_at(self._signature, self._length.value)
