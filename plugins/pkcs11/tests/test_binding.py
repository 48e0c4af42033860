"""Does what python-pkcs11 says, or leaves unsaid, arrive in the daemon as the return value that the token gave?"""

from __future__ import annotations

import re
from typing import Any

import pytest
from pkcs11 import MGF, Mechanism, exceptions
from tlspool_pkcs11 import protocol as wire
from tlspool_pkcs11.client import TokenFault
from tlspool_pkcs11.cryptoki import Cryptoki, _AsStored, _parameter
from tlspool_pkcs11.direct import DirectCalls
from tlspool_pkcs11.errors import value_of
from tlspool_pkcs11.faults import _TABLE, CryptokiError
from tlspool_pkcs11.library import CKA_CLASS, CKA_EXTRACTABLE, CKA_SIGN
from tlspool_pkcs11.mechanisms import MECHANISMS

from tlspool_core.api import Secret
from tlspool_core.testing.keystore import holds

# where python-pkcs11 spells a name otherwise than the standard
_OTHERWISE = {"FunctionCancelled": "FUNCTION_CANCELED", "TokenNotRecognised": "TOKEN_NOT_RECOGNIZED"}
_OTHERWISE |= {"SlotIDInvalid": "SLOT_ID_INVALID", "AnotherUserAlreadyLoggedIn": "USER_ANOTHER_ALREADY_LOGGED_IN"}


def standard_name(kind: type[Exception]) -> str:
    name = kind.__name__
    return "CKR_" + _OTHERWISE.get(name, re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper())


KINDS = [each for each in vars(exceptions).values() if isinstance(each, type) and issubclass(each, exceptions.PKCS11Error)]


def test_every_exception_with_a_known_name_has_that_number() -> None:
    numbers = {row[0]: value for value, row in _TABLE.items()}
    compared = [kind for kind in KINDS if standard_name(kind) in numbers]
    assert len(compared) > 35
    assert {kind.__name__: value_of(kind()) for kind in compared} == {
        kind.__name__: numbers[standard_name(kind)] for kind in compared
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Unmapped error code 0x80000042", 0x80000042),
        ("Unmapped error code 0xa", 0x0A),
        ("Initialisation error (already initialized). Should never see this.", 0x191),
        ("Initialisation error (not initialized). Should never see this.", 0x190),
        ("Buffer was too small. Should never see this.", 0x150),
        ("something else", 0x05),
    ],
)
def test_what_has_no_class_of_its_own_keeps_its_number(text: str, value: int) -> None:
    assert value_of(exceptions.PKCS11Error(text)) == value


def test_parameters_are_those_that_the_binding_wants() -> None:
    assert _parameter(Mechanism.RSA_PKCS_PSS, (0x250, 2, 32)) == (Mechanism.SHA256, MGF.SHA256, 32)
    assert _parameter(Mechanism.EDDSA, (0, 0, 0)) == (False, None)
    assert _parameter(Mechanism.ECDSA, ()) is None
    with pytest.raises(CryptokiError, match="CKR_MECHANISM_PARAM_INVALID"):
        _parameter(Mechanism.ECDSA, (1, 2))


def test_the_binding_knows_every_mechanism_that_is_used() -> None:
    # ML-DSA among them, which no token at hand makes
    assert {name: int(Mechanism(number)) for name, number in MECHANISMS.items()} == dict(MECHANISMS)


def test_attributes_are_what_the_token_stores_and_flags_are_false_when_off() -> None:
    mapper: Any = _AsStored()
    assert mapper.unpack_attributes(CKA_CLASS, (3).to_bytes(8, "little")) == 3
    assert not mapper.unpack_attributes(CKA_SIGN, b"\0")
    assert mapper.unpack_attributes(CKA_SIGN, b"\1") == b"\1"
    assert mapper.unpack_attributes(CKA_EXTRACTABLE, b"\0") == b"\0"


def test_a_pin_that_is_no_text_is_refused_before_the_token_counts_it(hsm: Any) -> None:
    calls = DirectCalls(hsm.module()["path"])
    pin = Secret.of(b"\xff\xfe")
    with pytest.raises(CryptokiError, match="C_Login: CKR_PIN_INVALID"):
        calls.login(1, pin)
    assert not pin


def test_what_is_not_known_is_an_error_of_the_standard(hsm: Any) -> None:
    async def work(store: Any) -> None:
        key = await store.find("pkcs11:token=Web;object=p256")
        worker, reference = hsm.inner(store).present, key._found.record.reference
        # a mechanism that nobody knows, one that is for other keys, a slot that is not there
        for request, text in (
            (wire.Sign(reference, 0x80001234, 0, (), b"x"), "CKR_MECHANISM_INVALID"),
            (wire.Sign(reference, 0x1041, 0, (1,), b"x"), "CKR_MECHANISM_PARAM_INVALID"),
            (wire.Sign(reference, MECHANISMS["CKM_EDDSA"], 0, (), b"x"), "CKR_"),
            (wire.ListObjects(987654), "CKR_SLOT_ID_INVALID"),
        ):
            with pytest.raises(TokenFault, match=text):
                await worker.call(request, wire.Value)
            # the session was replaced, and the key is found in the new one
            assert holds(key.public_key, 0x0403, b"content", await key.sign(0x0403, b"content"))
        assert hsm.inner(store).present is worker

    hsm.use(work)


def test_a_key_without_permission_to_sign_says_so(hsm: Any) -> None:
    async def work(store: Any) -> None:
        mute = await store.find("pkcs11:token=Web;object=mute")
        request = wire.Sign(mute._found.record.reference, MECHANISMS["CKM_ECDSA"], 0, (), bytes(32))
        with pytest.raises(TokenFault, match="CKR_KEY_FUNCTION_NOT_PERMITTED"):
            await hsm.inner(store).present.call(request, wire.Value)

    hsm.use(work)


def test_a_session_that_nobody_opened_is_refused() -> None:
    nothing = Cryptoki.__new__(Cryptoki)
    nothing._open = {}
    with pytest.raises(CryptokiError, match="CKR_SESSION_HANDLE_INVALID"):
        nothing.find(1, 3)
