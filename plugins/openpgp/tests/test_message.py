"""Are the bytes those of RFC 6091 and of GnuTLS: extension 9, extensions 19 and 20, and the Certificate message in all its forms?"""

from __future__ import annotations

import pytest
from tlspool_openpgp.message import FORM, build12, parse12, read_descriptor, subkey_descriptor
from tlspool_openpgp.packets import MAX_KEY

from tlspool_core.api import BadCertificate, CertificateEntry, DecodeError

KEY_ID = bytes.fromhex("0123456789abcdef")
KEY = b"octets of a key"
FINGERPRINT = bytes(range(20))
SUBKEY_FORM = bytes.fromhex("00001c 02 08 0123456789abcdef 00000f".replace(" ", "")) + KEY
FINGERPRINT_FORM = bytes.fromhex("00001f 03 08 0123456789abcdef 14".replace(" ", "")) + FINGERPRINT
OLDER_FORM = bytes.fromhex("000013 01 00000f".replace(" ", "")) + KEY
EMPTY_FORM = bytes.fromhex("000004 01 000000".replace(" ", ""))


def test_the_subkey_form_is_what_we_send() -> None:
    assert build12((CertificateEntry(subkey_descriptor(KEY_ID, KEY)),)) == SUBKEY_FORM
    assert build12(()) == EMPTY_FORM
    assert FORM.cert_type and FORM.versions == {0x0303} and FORM.certificate_type == 1


def test_every_form_is_read() -> None:
    for body, key_id, key, fingerprint in (
        (SUBKEY_FORM, KEY_ID, KEY, b""),
        (FINGERPRINT_FORM, KEY_ID, b"", FINGERPRINT),
        (OLDER_FORM, b"", KEY, b""),
    ):
        (entry,) = parse12(body)
        shown = read_descriptor(entry.data)
        assert (shown.key_id, shown.key, shown.fingerprint) == (key_id, key, fingerprint)
        assert build12((entry,)) == body
    assert parse12(EMPTY_FORM) == parse12(bytes(3)) == ()


@pytest.mark.parametrize("body", [SUBKEY_FORM, FINGERPRINT_FORM, OLDER_FORM, EMPTY_FORM])
def test_cut_or_lengthened(body: bytes) -> None:
    for length in range(len(body)):
        with pytest.raises(DecodeError):
            parse12(body[:length])
        # cut inside, with an outer length that fits
        if length > 4:
            inner = body[3:length]
            with pytest.raises(DecodeError):
                parse12(len(inner).to_bytes(3, "big") + inner)
    with pytest.raises(DecodeError):
        parse12(body + b"\0")
    with pytest.raises(DecodeError):
        parse12((len(body) - 2).to_bytes(3, "big") + body[3:] + b"\0")


@pytest.mark.parametrize(
    "descriptor",
    [
        b"\0" + KEY_ID,  # RFC 5081's fingerprint without a key id
        b"\x04\x08" + KEY_ID,
        b"\x02\x07" + KEY_ID[1:] + b"\0\0\1x",
        b"\x02\x00\0\0\1x",
        b"\x02\x08" + KEY_ID + b"\0\0\0",
        b"\x03\x08" + KEY_ID + b"\x10" + bytes(16),
        b"\x03\x08" + KEY_ID + b"\x20" + bytes(32),
        b"\xff",
    ],
)
def test_what_is_no_descriptor(descriptor: bytes) -> None:
    with pytest.raises(DecodeError):
        parse12(len(descriptor).to_bytes(3, "big") + descriptor)


def test_a_key_of_absurd_size() -> None:
    descriptor = subkey_descriptor(KEY_ID, bytes(MAX_KEY + 1))
    with pytest.raises(BadCertificate):
        parse12(len(descriptor).to_bytes(3, "big") + descriptor)
    descriptor = subkey_descriptor(KEY_ID, bytes(MAX_KEY))
    assert parse12(len(descriptor).to_bytes(3, "big") + descriptor)
