"""Calls into a token library that python-pkcs11 cannot make as they are needed here; by ctypes, out of the library's function list.

Theory of operation
-------------------
* C_Initialize with a text, which NSS wants: python-pkcs11 calls it without arguments.
* C_Login with a PIN where it lies, in locked memory: python-pkcs11 takes a text and encodes it, and neither can be wiped.
* C_SignInit, C_Login, C_Sign for keys that want a login for each signature (CKA_ALWAYS_AUTHENTICATE), for the same reason; and as
  python-pkcs11 cannot have the token ask for the PIN there.

Both sides load the same library, so sessions and handles of python-pkcs11 are good here.

Source of the numbers and structures: PKCS #11 v3.1 (OASIS), headers pkcs11t.h and pkcs11f.h.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

from tlspool_core.secret import Secret
from tlspool_pkcs11.faults import (
    CKR_BUFFER_TOO_SMALL,
    CKR_CRYPTOKI_ALREADY_INITIALIZED,
    CKR_OK,
    CKR_PIN_INVALID,
    CryptokiError,
)
from tlspool_pkcs11.library import CKU_CONTEXT_SPECIFIC, CKU_USER

# room for a signature by RSA of 4096 bits; a library asks for more
_ROOM: Final = 512
_ULONG, _POINTER = ctypes.c_ulong, ctypes.c_void_p

# which place a function has in CK_FUNCTION_LIST, and what it takes
_FUNCTIONS: Final[dict[str, tuple[int, tuple[type[Any], ...]]]] = {
    "C_Initialize": (0, (_POINTER,)),
    "C_Login": (18, (_ULONG, _ULONG, _POINTER, _ULONG)),
    "C_SignInit": (42, (_ULONG, _POINTER, _ULONG)),
    "C_Sign": (43, (_ULONG, ctypes.c_char_p, _ULONG, _POINTER, _POINTER)),
}


class _InitializeArgs(ctypes.Structure):
    # NSS has its parameters where the standard has the reserved member, and its own reserved member, which must be null, behind
    _fields_ = [("functions", _POINTER * 4), ("flags", _ULONG), ("reserved", _POINTER), ("beyond", _POINTER)]


class _FunctionList(ctypes.Structure):
    # as far as it is needed
    _fields_ = [("version", ctypes.c_ubyte * 2), ("functions", _POINTER * 44)]


class _Mechanism(ctypes.Structure):
    _fields_ = [("mechanism", _ULONG), ("parameter", _POINTER), ("parameter_length", _ULONG)]


class DirectCalls:
    """A token library, loaded. One thread only."""

    def __init__(self, path: str) -> None:
        """Raises OSError if there is no such library, or none for PKCS #11, and CryptokiError."""
        self._library = ctypes.CDLL(path)
        self._list = ctypes.POINTER(_FunctionList)()
        try:
            get_list = self._library.C_GetFunctionList
        except AttributeError:
            raise OSError("the library exports no C_GetFunctionList, so it is no PKCS #11 module") from None
        value = get_list(ctypes.byref(self._list))
        if value != CKR_OK:
            raise CryptokiError("C_GetFunctionList", value)

    def _call(self, name: str, *arguments: object) -> int:
        place, kinds = _FUNCTIONS[name]
        value: int = ctypes.CFUNCTYPE(_ULONG, *kinds)(self._list.contents.functions[place])(*arguments)
        return value

    def _check(self, name: str, *arguments: object) -> None:
        value = self._call(name, *arguments)
        if value != CKR_OK:
            raise CryptokiError(name, value)

    def initialize(self, text: str) -> None:
        """C_Initialize with NSS's parameters; a library that is initialised already will do. Raises CryptokiError."""
        buffer = ctypes.create_string_buffer(text.encode())
        arguments = _InitializeArgs(flags=0, reserved=ctypes.cast(buffer, _POINTER))
        value = self._call("C_Initialize", ctypes.byref(arguments))
        if value not in (CKR_OK, CKR_CRYPTOKI_ALREADY_INITIALIZED):
            raise CryptokiError("C_Initialize", value)

    def login(self, session: int, pin: Secret | None, user: int = CKU_USER) -> None:
        """C_Login; without a PIN the token asks for it. The PIN is wiped once the library has seen it. Raises CryptokiError."""
        if pin is None:
            self._check("C_Login", session, user, None, 0)
            return
        with pin:
            if not pin.is_utf8:
                raise CryptokiError("C_Login", CKR_PIN_INVALID)  # a token would count it as a wrong one
            self._check("C_Login", session, user, pin.address, len(pin))

    def sign(self, session: int, key: int, mechanism: int, parameters: tuple[int, ...], data: bytes, pin: Secret | None) -> bytes:
        """A signature with a login of its own, PIN and all like `login`; the parameter block is `parameters` as CK_ULONGs."""
        block = (_ULONG * len(parameters))(*parameters)
        how = _Mechanism(mechanism, ctypes.addressof(block) if parameters else None, ctypes.sizeof(block))
        self._check("C_SignInit", session, ctypes.byref(how), key)
        self.login(session, pin, CKU_CONTEXT_SPECIFIC)
        length = _ULONG(_ROOM)
        for _ in range(2):
            room = ctypes.create_string_buffer(length.value)
            value = self._call("C_Sign", session, data, len(data), room, ctypes.byref(length))
            if value != CKR_BUFFER_TOO_SMALL:
                break
        if value != CKR_OK:
            raise CryptokiError("C_Sign", value)
        return room.raw[: length.value]
