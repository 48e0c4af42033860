"""Is of what anybody can send only DER taken, and only so much of it that nobody has to work for long?"""

from __future__ import annotations

import random

import pytest
from kdh_kerberos import der, integer
from tlspool_kdh.asn1 import MAX_BYTES, EncryptedData, KRB5PrincipalName, Ticket, decode, encode
from tlspool_kdh.der import MOST_ELEMENTS, check
from tlspool_kdh.tickets import Principal

PART = {"etype": 18, "kvno": 2**32 - 1, "cipher": bytes(300)}
WHOLE = {"tkt-vno": 5, "realm": "KDH.EXAMPLE", "sname": {"name-type": 2, "name-string": ["http", "web"]}, "enc-part": PART}


def data(cipher: bytes = b"\x04\x01x", etype: bytes = b"\x02\x01\x12") -> bytes:
    """An EncryptedData of these elements."""
    return der(0x30, der(0xA0, etype), der(0xA2, cipher))


def test_what_is_right_is_taken() -> None:
    assert decode(Ticket, encode(Ticket, WHOLE)) == WHOLE
    for kvno in (0, 127, 128, 255, 2**31, -1, -(2**31)):
        values = PART | {"kvno": kvno}
        assert decode(EncryptedData, encode(EncryptedData, values)) == values
    assert decode(EncryptedData, data())["cipher"] == b"x"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (b"", "cut off"),
        (data() + b"\0", "cut off|behind the end"),
        (data() + data(), "behind the end"),
        (data()[:-1], "cut off"),
        (b"\x30\x81" + data()[1:], "shortest form"),
        (data(cipher=b"\x04\x01x\x04\0"), "behind the end"),
        (data(cipher=b"\x04\x01x\0"), "cut off|behind the end"),
        (data(cipher=b""), "around nothing"),
        (b"\x30\x82\0" + data()[1:], "shortest form"),
        (b"\x30\x80" + data()[2:] + b"\0\0", "shortest form"),
        (data(cipher=b"\x24\x03\x04\x01x"), "in pieces"),
        (data(cipher=b"\x24\x80\x04\x01x\0\0"), "in pieces|shortest"),
        (data(etype=b"\x02\x02\0\x12"), "integer"),
        (data(etype=b"\x02\x02\xff\xff"), "integer"),
        (data(etype=b"\x02\0"), "integer"),
        (data(etype=integer(2**32)), "32 bits"),
        (data(etype=integer(-(2**32))), "32 bits"),
        (data(etype=integer(2**100)), "integer"),
        (data(cipher=b"\x1f\x81\x01\x01x"), "more than one byte"),
        (b"\x30\x8f" + bytes(15), "cut off|shortest"),
        (b"\x30\xff" + b"\xff" * 127, "cut off"),
        (b"\x30\x84\xff\xff\xff\xff", "cut off"),
    ],
)
def test_what_is_not_der(wrong: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check(wrong)
    with pytest.raises(ValueError, match="no EncryptedData"):
        decode(EncryptedData, wrong)


def test_many_elements() -> None:
    """Sixty thousand bytes of them kept a process busy for a second."""
    names = der(0x30, b"\x1b\0" * 29_000)
    principal = der(0x30, der(0xA0, integer(1)), der(0xA1, names))
    whole = der(0x30, der(0xA0, der(0x1B, b"KDH.EXAMPLE")), der(0xA1, principal))
    assert len(whole) < MAX_BYTES
    with pytest.raises(ValueError, match=f"more than {MOST_ELEMENTS} elements"):
        decode(KRB5PrincipalName, whole)


@pytest.mark.parametrize("tag", [0x30, 0xA0, 0x61])
def test_elements_within_elements(tag: int) -> None:
    nested = b""
    for _ in range(100):
        nested = der(tag, nested)
    with pytest.raises(ValueError, match="beyond measure"):
        check(nested)


def test_names_that_are_too_long() -> None:
    """They would go into errors and the log."""
    for names in (("x" * 1100,), ("x",) * 9, ()):
        with pytest.raises(ValueError, match="principal name"):
            Principal.build(names, "KDH.EXAMPLE")
    assert Principal.build(("x" * 1000,), "KDH.EXAMPLE")


def test_damage_is_a_value_error_in_one_line() -> None:
    lot, whole, refused = random.Random(7), encode(Ticket, WHOLE), 0
    for _ in range(5000):
        changed = bytearray(whole[: lot.choice((len(whole), lot.randrange(len(whole))))])
        for _ in range(lot.randint(1, 5)):
            if changed:
                changed[lot.randrange(min(len(changed), 90))] = lot.randrange(256)
        try:
            decode(Ticket, bytes(changed))
        except ValueError as error:
            refused += 1
            assert str(error).isprintable() and len(str(error)) < 300
    assert refused > 4000
