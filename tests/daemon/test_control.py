"""Does a control key give control to exactly one client at a time, with the documented refusals?"""

from __future__ import annotations

import pytest

from tlspool_core.pool.control import ControlKeys
from tlspool_core.wire.errors import ErrorCode, WireError

KEY = b"k" * 16


def refused(code: ErrorCode, call: object, *args: object) -> None:
    assert callable(call)
    with pytest.raises(WireError) as caught:
        call(*args)
    assert caught.value.code == code


def test_the_way_of_a_session_from_client_to_client() -> None:
    keys: ControlKeys[str] = ControlKeys()
    keys.register(KEY, "session", "maker")
    refused(ErrorCode.CTLKEY_REGISTRATION_FAILED, keys.register, KEY, "other", "maker")
    assert keys.controlled(KEY, "maker") == "session"
    refused(ErrorCode.CTLKEY_NOT_YOURS, keys.controlled, KEY, "heir")
    refused(ErrorCode.CTLKEY_ALREADY_ATTACHED, keys.reattach, KEY, "heir")
    refused(ErrorCode.CTLKEY_ALREADY_ATTACHED, keys.reattach, KEY, "maker")
    refused(ErrorCode.CTLKEY_NOT_YOURS, keys.detach, KEY, "heir")
    keys.detach(KEY, "maker")
    refused(ErrorCode.CTLKEY_ALREADY_DETACHED, keys.detach, KEY, "maker")
    refused(ErrorCode.CTLKEY_NOT_YOURS, keys.controlled, KEY, "maker")
    keys.reattach(KEY, "heir")
    assert keys.controlled(KEY, "heir") == "session"
    keys.remove(KEY, "session")
    refused(ErrorCode.CTLKEY_NOT_FOUND, keys.controlled, KEY, "heir")
    refused(ErrorCode.CTLKEY_NOT_FOUND, keys.reattach, KEY, "heir")
    assert len(keys) == 0


def test_a_client_that_goes_leaves_its_sessions_detached() -> None:
    keys: ControlKeys[int] = ControlKeys()
    for number in range(3):
        keys.register(bytes([number]) * 16, number, "maker")
    keys.release("maker")
    for number in range(3):
        keys.reattach(bytes([number]) * 16, "heir")
    keys.release("maker")
    assert [keys.controlled(bytes([number]) * 16, "heir") for number in range(3)] == [0, 1, 2]
    assert sorted(keys.sessions()) == [0, 1, 2]


def test_only_the_session_itself_takes_its_key_back() -> None:
    keys: ControlKeys[str] = ControlKeys()
    keys.register(KEY, "session", "maker")
    keys.remove(KEY, "an older one")
    assert KEY in keys
