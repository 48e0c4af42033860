"""A token library, reached through python-pkcs11. Loaded in worker processes only.

Theory of operation
-------------------
python-pkcs11 calls the library without a lock and lets other threads run meanwhile; a worker has one thread, so its calls are one
after the other.  Sessions are read-only and nothing here is stored, so no path through this program changes a token; the only
object that is made is the secret of a key agreement, which lives in the session and is destroyed once it is read.

What python-pkcs11 has in its own way:

* Its objects belong to the session that found them.  They are kept by handle; when a session was replaced, the objects of the new
  one are looked up once, as handles of token objects are the same in all sessions of a process.
* Attributes are wanted as the library stores them, hence a mapper of our own.
* What it cannot do as it is needed, C_Login above all, is called directly (`direct`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass, Slot
from pkcs11 import _pkcs11 as binding
from pkcs11.attributes import AttributeMapper
from pkcs11.exceptions import AttributeSensitive, AttributeTypeInvalid, PKCS11Error
from pkcs11.mechanisms import KDF, MGF
from pkcs11.types import Object

from tlspool_core.secret import Secret
from tlspool_pkcs11.direct import DirectCalls
from tlspool_pkcs11.errors import fault, value_of
from tlspool_pkcs11.faults import (
    CKR_CRYPTOKI_ALREADY_INITIALIZED,
    CKR_KEY_FUNCTION_NOT_PERMITTED,
    CKR_KEY_HANDLE_INVALID,
    CKR_MECHANISM_INVALID,
    CKR_MECHANISM_PARAM_INVALID,
    CKR_SESSION_HANDLE_INVALID,
    CKR_SLOT_ID_INVALID,
    CryptokiError,
)
from tlspool_pkcs11.library import LibraryInfo, TokenInfo

_BATCH: Final = 64
# room for a signature by RSA of 4096 bits; python-pkcs11 asks for the length first and makes room for more
_ROOM: Final = 512
_TRUTHS: Final = frozenset(
    {"ENCRYPT", "DECRYPT", "SIGN", "VERIFY", "WRAP", "UNWRAP", "DERIVE", "ENCAPSULATE", "DECAPSULATE"}
)  # attributes by which python-pkcs11 gives an object its methods
_DECIDING: Final = frozenset(int(Attribute[name]) for name in _TRUTHS)


class _AsStored(AttributeMapper):
    """Values as bytes, apart from the class; a flag that is off is empty, so that it is false for python-pkcs11 too."""

    def unpack_attributes(self, key: Attribute, value: bytes) -> Any:
        """Called by python-pkcs11 for each attribute that the token gave."""
        if key == Attribute.CLASS:
            return int.from_bytes(value, _ORDER)
        return value if key not in _DECIDING or any(value) else b""


_ORDER: Final = "little" if bytes(ctypes.c_ushort(1))[0] else "big"


class _Lenient(binding.lib):
    """A library that may have been initialised before, by itself or by a direct call."""

    def initialize(self) -> None:
        """C_Initialize, called as python-pkcs11 loads the library."""
        try:
            super().initialize()
        except PKCS11Error as error:
            if value_of(error) != CKR_CRYPTOKI_ALREADY_INITIALIZED:
                raise


def _loaded(path: str) -> binding.lib:
    try:
        return _Lenient(path)
    except PKCS11Error as error:
        raise fault("C_Initialize", error) from None


class _Open:
    """A session and the objects that were found in it."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.objects: dict[int, Any] = {}

    def object(self, handle: int) -> Any:
        found = self.objects.get(handle)
        if found is None:
            self.keep(self.session.get_objects(batch_size=_BATCH))
            found = self.objects.get(handle)
        if found is None:
            raise CryptokiError("C_FindObjects", CKR_KEY_HANDLE_INVALID)
        return found

    def keep(self, found: Any) -> list[int]:
        handles = []
        for each in found:
            # an object that is known already has cached what python-pkcs11 asks of it
            self.objects.setdefault(each.handle, each)
            handles.append(each.handle)
        return handles


class Cryptoki:
    """A token library, initialised. One thread only."""

    def __init__(self, path: str, init_string: str = "") -> None:
        """Load and initialise. Raises OSError (no such library, or not one for this machine) and CryptokiError."""
        self._direct = DirectCalls(path)
        if init_string:
            self._direct.initialize(init_string)
        self._library = _loaded(path)
        self._slots: dict[int, Slot] = {}
        self._open: dict[int, _Open] = {}
        self._logins: list[Any] = []
        self._mechanisms: dict[tuple[int, tuple[int, ...]], dict[str, Any]] = {}

    def info(self) -> LibraryInfo:
        """What C_GetInfo told."""
        library = self._library
        return LibraryInfo(_text(library.manufacturer_id), _text(library.library_description), library.library_version)

    def slots(self) -> Sequence[int]:
        """Slots in which there is a token."""
        try:
            found = self._library.get_slots(token_present=True)
        except PKCS11Error:
            # a token may come or go between the list and a look at each
            found = self._second_look()
        self._slots = {slot.slot_id: slot for slot in found}
        return list(self._slots)

    def _second_look(self) -> list[Slot]:
        try:
            return self._library.get_slots(token_present=True)
        except PKCS11Error as error:
            raise fault("C_GetSlotList", error) from None

    def _slot(self, number: int) -> Slot:
        if number not in self._slots:
            raise CryptokiError("C_GetSlotInfo", CKR_SLOT_ID_INVALID)
        return self._slots[number]

    def token(self, slot: int) -> TokenInfo:
        """The token in a slot, with its present flags."""
        at = self._slot(slot)
        try:
            info = at.get_token()
        except PKCS11Error as error:
            raise fault("C_GetTokenInfo", error) from None
        serial = info.serial.decode(errors="replace")
        texts = (info.label, info.manufacturer_id, info.model, serial, at.slot_description, at.manufacturer_id)
        label, manufacturer, model, serial, description, maker = map(_text, texts)
        return TokenInfo(label, manufacturer, model, serial, description, maker, int(info.flags))

    def signing_mechanisms(self, slot: int) -> Sequence[int]:
        """Mechanisms with CKF_SIGN."""
        at = self._slot(slot)
        try:
            found = at.get_mechanisms()
        except PKCS11Error as error:
            raise fault("C_GetMechanismList", error) from None
        return [int(mechanism) for mechanism in found if _signs(at, mechanism)]

    def open_session(self, slot: int) -> int:
        """A read-only session; login to the token holds for it too."""
        at = self._slot(slot)
        try:
            # the annotations of python-pkcs11 lack the handle, and the size of batches in a search
            session: Any = at.get_token().open(attribute_mapper=_AsStored())
        except PKCS11Error as error:
            raise fault("C_OpenSession", error) from None
        handle: int = session.handle
        self._open[handle] = _Open(session)
        return handle

    def close_session(self, session: int) -> None:
        """End a session that `open_session` opened."""
        opened = self._open.pop(session, None)
        try:
            if opened:
                opened.session.close()
        except PKCS11Error as error:
            raise fault("C_CloseSession", error) from None

    def login(self, slot: int, pin: Secret | None) -> None:
        """Log in as the user; without a PIN the token asks for it. Wipes the PIN.

        It is done in a session of its own, which stays open as long as the process: a token logs out when the last one closes.
        """
        at = self._slot(slot)
        try:
            session: Any = at.get_token().open()
        except PKCS11Error as error:
            raise fault("C_OpenSession", error) from None
        try:
            self._direct.login(session.handle, pin)
        except CryptokiError:
            with suppress(PKCS11Error):
                session.close()
            raise
        self._logins.append(session)

    def find(self, session: int, object_class: int) -> Sequence[int]:
        """Handles of all objects of a class."""
        opened = self._opened(session)
        try:
            return opened.keep(opened.session.get_objects({Attribute.CLASS: ObjectClass(object_class)}, batch_size=_BATCH))
        except PKCS11Error as error:
            raise fault("C_FindObjects", error) from None

    def _opened(self, session: int) -> _Open:
        if session not in self._open:
            raise CryptokiError("C_GetSessionInfo", CKR_SESSION_HANDLE_INVALID)
        return self._open[session]

    def attributes(self, session: int, handle: int, wanted: Sequence[int]) -> Mapping[int, bytes]:
        """Values of those attributes that the object has and gives away, as the library stores them."""
        try:
            found: Mapping[int, bytes] = self._opened(session).object(handle).get_attributes(wanted)
        except (AttributeSensitive, AttributeTypeInvalid):
            # none of them; where there are some, python-pkcs11 returns these
            return {}
        except PKCS11Error as error:
            raise fault("C_GetAttributeValue", error) from None
        return found

    def sign(self, session: int, handle: int, mechanism: int, parameters: tuple[int, ...], data: bytes) -> bytes:
        """One signature."""
        how = self._mechanisms.get((mechanism, parameters)) or self._prepare(mechanism, parameters)
        try:
            signature: bytes = self._opened(session).object(handle).sign(data, **how)
        except PKCS11Error as error:
            raise fault("C_Sign", error) from None
        except AttributeError:
            raise CryptokiError("C_SignInit", CKR_KEY_FUNCTION_NOT_PERMITTED) from None
        return signature

    def sign_with_login(
        self, session: int, handle: int, mechanism: int, parameters: tuple[int, ...], data: bytes, pin: Secret | None
    ) -> bytes:
        """One signature with a login between C_SignInit and C_Sign; without a PIN the token asks for it. Wipes the PIN."""
        self._opened(session)
        return self._direct.sign(session, handle, mechanism, parameters, data, pin)

    def _prepare(self, mechanism: int, parameters: tuple[int, ...]) -> dict[str, Any]:
        """Arguments of python-pkcs11's `sign`, made once for each pair."""
        try:
            known = Mechanism(mechanism)
        except ValueError:
            raise CryptokiError("C_SignInit", CKR_MECHANISM_INVALID) from None
        how = {"mechanism": known, "mechanism_param": _parameter(known, parameters), "buffer_size": _ROOM}
        if len(self._mechanisms) < 64:
            self._mechanisms[mechanism, parameters] = how
        return how

    def agree(self, session: int, handle: int, public: bytes, length: int) -> bytes:
        """The shared secret of `length` octets of a key and the other side's public point (CKM_ECDH1_DERIVE, CKD_NULL)."""
        template = {Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True, Attribute.PRIVATE: False, Attribute.TOKEN: False}
        try:
            derived = (
                self._opened(session)
                .object(handle)
                .derive_key(
                    KeyType.GENERIC_SECRET,
                    8 * length,
                    capabilities=MechanismFlag(0),
                    mechanism=Mechanism.ECDH1_DERIVE,
                    mechanism_param=(KDF.NULL, None, public),
                    template=template,
                )
            )
        except PKCS11Error as error:
            raise fault("C_DeriveKey", error) from None
        except AttributeError:
            raise CryptokiError("C_DeriveKey", CKR_KEY_FUNCTION_NOT_PERMITTED) from None
        return _read_and_destroyed(derived)


def _read_and_destroyed(derived: Object) -> bytes:
    try:
        value: bytes = derived[Attribute.VALUE]
        derived.destroy()
    except PKCS11Error as error:
        raise fault("C_GetAttributeValue", error) from None
    return value


def _signs(slot: Slot, mechanism: Mechanism) -> bool:
    try:
        return bool(slot.get_mechanism_info(mechanism).flags & MechanismFlag.SIGN)
    except PKCS11Error:
        return False


def _parameter(mechanism: Mechanism, parameters: tuple[int, ...]) -> Any:
    """The CK_ULONGs of a parameter structure, as python-pkcs11 wants them."""
    match parameters:
        case ():
            return None
        case (0, 0, 0) if mechanism is Mechanism.EDDSA:
            return False, None
        case (hashed, mask, salt) if mechanism.name.endswith("RSA_PKCS_PSS"):
            return Mechanism(hashed), MGF(mask), salt
    raise CryptokiError("C_SignInit", CKR_MECHANISM_PARAM_INVALID)


def _text(padded: str) -> str:
    """Some libraries pad with a zero byte and what happened to be in memory."""
    return padded.split("\0")[0].rstrip(" ")
