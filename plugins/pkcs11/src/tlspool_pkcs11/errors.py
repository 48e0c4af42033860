"""python-pkcs11's exceptions as return values of PKCS #11. Loaded in worker processes only.

Theory of operation
-------------------
What helps against a fault is decided in the daemon, by the number (`faults`).  python-pkcs11 has an exception class for most
numbers; one that it does not know, such as a vendor's, it spells out in the text of its base class, and a few that "should never
be seen" it puts into words.  All three are turned back into the number.
"""

from __future__ import annotations

import re
from typing import Final

from pkcs11 import exceptions as raised

from tlspool_pkcs11.faults import (
    CKR_BUFFER_TOO_SMALL,
    CKR_CRYPTOKI_ALREADY_INITIALIZED,
    CKR_CRYPTOKI_NOT_INITIALIZED,
    CKR_GENERAL_ERROR,
    CryptokiError,
)

_VALUES: Final[dict[type[raised.PKCS11Error], int]] = {
    raised.HostMemory: 0x002,
    raised.SlotIDInvalid: 0x003,
    raised.GeneralError: 0x005,
    raised.FunctionFailed: 0x006,
    raised.ArgumentsBad: 0x007,
    raised.AttributeReadOnly: 0x010,
    raised.AttributeSensitive: 0x011,
    raised.AttributeTypeInvalid: 0x012,
    raised.AttributeValueInvalid: 0x013,
    raised.DataInvalid: 0x020,
    raised.DataLenRange: 0x021,
    raised.DeviceError: 0x030,
    raised.DeviceMemory: 0x031,
    raised.DeviceRemoved: 0x032,
    raised.FunctionCancelled: 0x050,
    raised.FunctionNotSupported: 0x054,
    raised.KeyHandleInvalid: 0x060,
    raised.KeySizeRange: 0x062,
    raised.KeyTypeInconsistent: 0x063,
    raised.MechanismInvalid: 0x070,
    raised.MechanismParamInvalid: 0x071,
    raised.ObjectHandleInvalid: 0x082,
    raised.OperationActive: 0x090,
    raised.OperationNotInitialized: 0x091,
    raised.PinIncorrect: 0x0A0,
    raised.PinInvalid: 0x0A1,
    raised.PinLenRange: 0x0A2,
    raised.PinExpired: 0x0A3,
    raised.PinLocked: 0x0A4,
    raised.SessionClosed: 0x0B0,
    raised.SessionCount: 0x0B1,
    raised.SessionHandleInvalid: 0x0B3,
    raised.SessionReadOnly: 0x0B5,
    raised.TemplateIncomplete: 0x0D0,
    raised.TemplateInconsistent: 0x0D1,
    raised.TokenNotPresent: 0x0E0,
    raised.TokenNotRecognised: 0x0E1,
    raised.UserAlreadyLoggedIn: 0x100,
    raised.UserNotLoggedIn: 0x101,
    raised.UserPinNotInitialized: 0x102,
    raised.AnotherUserAlreadyLoggedIn: 0x104,
    raised.UserTooManyTypes: 0x105,
    raised.DomainParamsInvalid: 0x130,
    raised.PublicKeyInvalid: 0x1B9,
    raised.FunctionRejected: 0x200,
}
_UNMAPPED: Final = re.compile(r"Unmapped error code 0x([0-9a-fA-F]+)")
_WORDS: Final = {
    "already initialized": CKR_CRYPTOKI_ALREADY_INITIALIZED,
    "not initialized": CKR_CRYPTOKI_NOT_INITIALIZED,
    "Buffer was too small": CKR_BUFFER_TOO_SMALL,
}


def value_of(error: raised.PKCS11Error) -> int:
    """The CKR_ number behind an exception; CKR_GENERAL_ERROR if it does not tell."""
    known = _VALUES.get(type(error))
    if known is not None:
        return known
    text = str(error)
    if found := _UNMAPPED.search(text):
        return int(found[1], 16)
    return next((value for words, value in _WORDS.items() if words in text), CKR_GENERAL_ERROR)


def fault(function: str, error: raised.PKCS11Error) -> CryptokiError:
    """The same as the plugin's own exception; `function` is the one that is to blame, as far as that is known."""
    return CryptokiError(function, value_of(error))
