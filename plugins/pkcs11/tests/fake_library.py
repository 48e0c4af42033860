"""A token library in Python, for what no token at hand does. Given to the worker's own code in place of `cryptoki.Cryptoki`."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tlspool_pkcs11 import library as ck
from tlspool_pkcs11.faults import CryptokiError

from tlspool_core.api import Secret


def ulong(value: int) -> bytes:
    """A CK_ULONG attribute."""
    return bytes(ctypes.c_ulong(value))


def key_object(object_class: int, key_type: int, **more: bytes) -> dict[int, bytes]:
    """Attributes of a key with CKA_ID 1; further ones by name, as EC_PARAMS=..."""
    basic = {ck.CKA_CLASS: ulong(object_class), ck.CKA_KEY_TYPE: ulong(key_type), ck.CKA_ID: b"\1", ck.CKA_LABEL: b"key"}
    return basic | {getattr(ck, f"CKA_{name}"): value for name, value in more.items()}


@dataclass
class FakeLibrary:
    """One token in slot 7. `calls` is what was called; `faults` gives a function's next return values."""

    objects: dict[int, dict[int, bytes]] = field(default_factory=dict)
    flags: int = 0x404
    mechanisms: Sequence[int] = (0x1041,)
    signer: Callable[[int, tuple[int, ...], bytes], bytes] = lambda mechanism, parameters, data: b"signed " + data
    calls: list[tuple[object, ...]] = field(default_factory=list)
    faults: dict[str, list[int]] = field(default_factory=dict)
    sessions: int = 0
    agreed: bytes = b""

    def _called(self, name: str, *arguments: object) -> None:
        self.calls.append((name, *arguments))
        if self.faults.get(name):
            value = self.faults[name].pop(0)
            if value:
                raise CryptokiError(name, value)

    def slots(self) -> Sequence[int]:
        return [7]

    def token(self, slot: int) -> ck.TokenInfo:
        self._called("C_GetTokenInfo", slot)
        return ck.TokenInfo("Fake", "Maker", "Model", "0001", "slot", "slot maker", self.flags)

    def signing_mechanisms(self, slot: int) -> Sequence[int]:
        return self.mechanisms

    def open_session(self, slot: int) -> int:
        self._called("C_OpenSession", slot)
        self.sessions += 1
        return self.sessions

    def close_session(self, session: int) -> None:
        self._called("C_CloseSession", session)

    def login(self, slot: int, pin: Secret | None) -> None:
        self._log_in(self.open_session(slot), ck.CKU_USER, pin)

    def _log_in(self, session: int, user: int, pin: Secret | None) -> None:
        text = None if pin is None else pin.text()
        if pin is not None:
            pin.wipe()
        self._called("C_Login", session, user, text)

    def find(self, session: int, object_class: int) -> Sequence[int]:
        return [handle for handle, found in self.objects.items() if found[ck.CKA_CLASS] == ulong(object_class)]

    def attributes(self, session: int, handle: int, wanted: Sequence[int]) -> Mapping[int, bytes]:
        self._called("C_GetAttributeValue", handle, tuple(wanted))
        return {kind: value for kind, value in self.objects[handle].items() if kind in wanted}

    def sign(self, session: int, handle: int, mechanism: int, parameters: tuple[int, ...], data: bytes) -> bytes:
        self._called("C_SignInit", session, mechanism, parameters, handle)
        self._called("C_Sign", session, data)
        return self.signer(mechanism, parameters, data)

    def sign_with_login(
        self, session: int, handle: int, mechanism: int, parameters: tuple[int, ...], data: bytes, pin: Secret | None
    ) -> bytes:
        self._called("C_SignInit", session, mechanism, parameters, handle)
        self._log_in(session, ck.CKU_CONTEXT_SPECIFIC, pin)
        self._called("C_Sign", session, data)
        return self.signer(mechanism, parameters, data)

    def agree(self, session: int, handle: int, public: bytes, length: int) -> bytes:
        self._called("C_DeriveKey", session, handle, public, length)
        return self.agreed

    def names(self) -> list[object]:
        """The functions that were called, in order."""
        return [call[0] for call in self.calls]
