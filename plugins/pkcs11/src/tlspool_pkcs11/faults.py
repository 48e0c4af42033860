"""What can go wrong with a token: PKCS #11 return values, sorted by what helps against them.

Theory of operation
-------------------
A return value alone tells an operator little.  `remedy` gives each the sentence that belongs beside it, and `Cure` says what
the pool does about it by itself.  Token libraries differ in the value with which they report that a token was pulled or that a
network HSM dropped the connection; all of these go the same way: a fresh worker process, which looks for the key by its URI
again.

Source of the numbers: PKCS #11 v3.1 (OASIS), section 5.1 and the header pkcs11t.h.
"""

from __future__ import annotations

from enum import Enum


class Cure(Enum):
    """What helps against a fault."""

    NONE = "none"  # the request cannot be served; asking again gives the same
    OTHER_MECHANISM = "other mechanism"  # the token lists what it cannot do with this key
    FRESH_WORKER = "fresh worker"  # sessions, handles or the token went away
    OTHER_PIN = "other PIN"  # never the same one again


CKR_OK = 0x000
CKR_SLOT_ID_INVALID = 0x003
CKR_GENERAL_ERROR = 0x005
CKR_ATTRIBUTE_SENSITIVE = 0x011
CKR_ATTRIBUTE_TYPE_INVALID = 0x012
CKR_DEVICE_REMOVED = 0x032
CKR_KEY_HANDLE_INVALID = 0x060
CKR_KEY_FUNCTION_NOT_PERMITTED = 0x068
CKR_MECHANISM_INVALID = 0x070
CKR_MECHANISM_PARAM_INVALID = 0x071
CKR_OBJECT_HANDLE_INVALID = 0x082
CKR_OPERATION_ACTIVE = 0x090
CKR_PIN_INCORRECT = 0x0A0
CKR_PIN_INVALID = 0x0A1
CKR_SESSION_HANDLE_INVALID = 0x0B3
CKR_TOKEN_NOT_PRESENT = 0x0E0
CKR_USER_ALREADY_LOGGED_IN = 0x100
CKR_USER_NOT_LOGGED_IN = 0x101
CKR_BUFFER_TOO_SMALL = 0x150
CKR_CRYPTOKI_NOT_INITIALIZED = 0x190
CKR_CRYPTOKI_ALREADY_INITIALIZED = 0x191

_REINSERT = "the pool looks for the token again; insert it, or reconnect the device"
_PIN = "give the pool another PIN source; it does not send the same PIN again"
_MECHANISM = "list the mechanism under disable_mechanisms of this module if the token never offers it"
_AGREE = "the token does not give away the secret of a key agreement"
_VENDOR = "see the log of the token's vendor"

# value: (name, what to do, what the pool does)
_TABLE: dict[int, tuple[str, str, Cure]] = {
    0x001: ("CKR_CANCEL", "the operation was cancelled at the token", Cure.NONE),
    0x002: ("CKR_HOST_MEMORY", "the machine is short of memory", Cure.FRESH_WORKER),
    0x003: ("CKR_SLOT_ID_INVALID", _REINSERT, Cure.FRESH_WORKER),
    0x005: ("CKR_GENERAL_ERROR", _VENDOR, Cure.FRESH_WORKER),
    0x006: ("CKR_FUNCTION_FAILED", _VENDOR, Cure.FRESH_WORKER),
    0x007: ("CKR_ARGUMENTS_BAD", "check init_string of this module; otherwise report it", Cure.NONE),
    0x00A: ("CKR_CANT_LOCK", "the module cannot be used by this worker; report it with the module's name", Cure.NONE),
    0x011: ("CKR_ATTRIBUTE_SENSITIVE", "the object does not let its value be read", Cure.NONE),
    0x012: ("CKR_ATTRIBUTE_TYPE_INVALID", "the object lacks an attribute", Cure.NONE),
    0x013: ("CKR_ATTRIBUTE_VALUE_INVALID", _AGREE, Cure.NONE),
    0x020: ("CKR_DATA_INVALID", _MECHANISM, Cure.OTHER_MECHANISM),
    0x021: ("CKR_DATA_LEN_RANGE", _MECHANISM, Cure.OTHER_MECHANISM),
    0x030: ("CKR_DEVICE_ERROR", _REINSERT, Cure.FRESH_WORKER),
    0x031: ("CKR_DEVICE_MEMORY", _VENDOR, Cure.FRESH_WORKER),
    0x032: ("CKR_DEVICE_REMOVED", _REINSERT, Cure.FRESH_WORKER),
    0x050: ("CKR_FUNCTION_CANCELED", "the operation was cancelled at the token", Cure.NONE),
    0x054: ("CKR_FUNCTION_NOT_SUPPORTED", _MECHANISM, Cure.OTHER_MECHANISM),
    0x060: ("CKR_KEY_HANDLE_INVALID", _REINSERT, Cure.FRESH_WORKER),
    0x062: ("CKR_KEY_SIZE_RANGE", _MECHANISM, Cure.OTHER_MECHANISM),
    0x063: ("CKR_KEY_TYPE_INCONSISTENT", _MECHANISM, Cure.OTHER_MECHANISM),
    0x068: (
        "CKR_KEY_FUNCTION_NOT_PERMITTED",
        "the key was made without permission for this (CKA_SIGN, CKA_DERIVE)",
        Cure.OTHER_MECHANISM,
    ),
    0x070: ("CKR_MECHANISM_INVALID", _MECHANISM, Cure.OTHER_MECHANISM),
    0x071: ("CKR_MECHANISM_PARAM_INVALID", _MECHANISM, Cure.OTHER_MECHANISM),
    0x082: ("CKR_OBJECT_HANDLE_INVALID", _REINSERT, Cure.FRESH_WORKER),
    0x090: ("CKR_OPERATION_ACTIVE", "the pool opens a new session", Cure.FRESH_WORKER),
    0x091: ("CKR_OPERATION_NOT_INITIALIZED", "the pool opens a new session", Cure.FRESH_WORKER),
    0x0A0: ("CKR_PIN_INCORRECT", _PIN, Cure.OTHER_PIN),
    0x0A1: ("CKR_PIN_INVALID", _PIN, Cure.OTHER_PIN),
    0x0A2: ("CKR_PIN_LEN_RANGE", _PIN, Cure.OTHER_PIN),
    0x0A3: ("CKR_PIN_EXPIRED", "change the PIN with the token's own tool", Cure.OTHER_PIN),
    0x0A4: ("CKR_PIN_LOCKED", "unlock the token with its own tool and the security officer's PIN", Cure.OTHER_PIN),
    0x0B0: ("CKR_SESSION_CLOSED", _REINSERT, Cure.FRESH_WORKER),
    0x0B1: ("CKR_SESSION_COUNT", "the token allows no further session; end other programs that use it", Cure.FRESH_WORKER),
    0x0B3: ("CKR_SESSION_HANDLE_INVALID", _REINSERT, Cure.FRESH_WORKER),
    0x0D0: ("CKR_TEMPLATE_INCOMPLETE", _AGREE, Cure.NONE),
    0x0D1: ("CKR_TEMPLATE_INCONSISTENT", _AGREE, Cure.NONE),
    0x0E0: ("CKR_TOKEN_NOT_PRESENT", _REINSERT, Cure.FRESH_WORKER),
    0x0E1: ("CKR_TOKEN_NOT_RECOGNIZED", _REINSERT, Cure.FRESH_WORKER),
    0x100: ("CKR_USER_ALREADY_LOGGED_IN", "nothing needs to be done", Cure.NONE),
    0x101: ("CKR_USER_NOT_LOGGED_IN", "configure a PIN for this token", Cure.FRESH_WORKER),
    0x102: ("CKR_USER_PIN_NOT_INITIALIZED", "set the user's PIN with the token's own tool", Cure.OTHER_PIN),
    0x104: ("CKR_USER_ANOTHER_ALREADY_LOGGED_IN", "end the other program that is logged in to the token", Cure.NONE),
    0x105: ("CKR_USER_TOO_MANY_TYPES", "end the other program that is logged in to the token", Cure.NONE),
    0x130: ("CKR_DOMAIN_PARAMS_INVALID", "the public key is not on the curve of the token's key", Cure.NONE),
    0x150: ("CKR_BUFFER_TOO_SMALL", "report it with the module's name", Cure.NONE),
    0x190: ("CKR_CRYPTOKI_NOT_INITIALIZED", _REINSERT, Cure.FRESH_WORKER),
    0x191: ("CKR_CRYPTOKI_ALREADY_INITIALIZED", "nothing needs to be done", Cure.NONE),
    0x1B9: ("CKR_PUBLIC_KEY_INVALID", "the public key is not one of the token's key's curve", Cure.NONE),
}

_UNKNOWN = (_VENDOR, Cure.FRESH_WORKER)


def ckr_name(value: int) -> str:
    """`CKR_...` as the standard spells it, or the number for a value that only the vendor knows."""
    row = _TABLE.get(value)
    return row[0] if row else f"CKR 0x{value:08x}"


def remedy(value: int) -> str:
    """What an operator can do, or what the pool does, about a return value."""
    row = _TABLE.get(value)
    return row[1] if row else _UNKNOWN[0]


def cure(value: int) -> Cure:
    """What the pool does about a return value by itself."""
    row = _TABLE.get(value)
    return row[2] if row else _UNKNOWN[1]


class CryptokiError(Exception):
    """A function of the token library returned something else than CKR_OK; raised in the worker only."""

    def __init__(self, function: str, value: int) -> None:
        super().__init__(f"{function}: {ckr_name(value)}")
        self.function = function
        self.value = value
