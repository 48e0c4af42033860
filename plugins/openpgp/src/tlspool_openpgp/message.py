"""How an OpenPGP key lies in TLS 1.2's Certificate message (RFC 6091 section 3.3).

Theory of operation
-------------------
The body is a vector of three octets of length, as with X.509, around one descriptor: 2 with a key id and the key, 3 with a key id and
the fingerprint of a key that the receiver is known to have, or 1 with no key at all, which says that there is none.  RFC 5081, the
older specification, has a key behind the 1; that is read, never written.  An entry of the engine holds one descriptor as it is, so
that a resumed session shows again what was shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tlspool_core.api import BadCertificate, CertificateEntry, CertificateForm, DecodeError
from tlspool_openpgp.packets import MAX_KEY

OPENPGP = 1  # IANA registry "TLS Certificate Types"
EMPTY, SUBKEY, FINGERPRINT = 1, 2, 3
_KEY_ID, _FINGERPRINT_LENGTH = 8, 20
_NO_KEY = b"\x01\0\0\0"


@dataclass(frozen=True, slots=True)
class Shown:
    """A descriptor: the key, or the fingerprint in its place, and the id of the key that signs (b"": the primary key)."""

    key_id: bytes
    key: bytes = b""
    fingerprint: bytes = b""


def subkey_descriptor(key_id: bytes, key: bytes) -> bytes:
    """What we show."""
    return bytes((SUBKEY, len(key_id))) + key_id + len(key).to_bytes(3, "big") + key


def read_descriptor(data: bytes) -> Shown:
    """Raises DecodeError for what is not well formed, BadCertificate for a key of absurd size."""
    if not data:
        raise DecodeError("an OpenPGP Certificate without a descriptor")
    if data[0] == EMPTY:
        return Shown(b"", _vector(data, 1))
    if data[0] not in (SUBKEY, FINGERPRINT):
        raise DecodeError(f"{data[0]} is no descriptor of an OpenPGP key")
    if len(data) < 2 + _KEY_ID or data[1] != _KEY_ID:
        raise DecodeError("an OpenPGP key id has eight octets")
    key_id, at = data[2 : 2 + _KEY_ID], 2 + _KEY_ID
    if data[0] == SUBKEY:
        key = _vector(data, at)
        if not key:
            raise DecodeError("an OpenPGP key without content")
        return Shown(key_id, key)
    if len(data) != at + 1 + _FINGERPRINT_LENGTH or data[at] != _FINGERPRINT_LENGTH:
        raise DecodeError("an OpenPGP fingerprint has twenty octets")
    return Shown(key_id, fingerprint=data[at + 1 :])


def _vector(data: bytes, at: int) -> bytes:
    """What stands behind a length of three octets, up to the end."""
    content = data[at + 3 :]
    if len(data) < at + 3 or int.from_bytes(data[at : at + 3], "big") != len(content):
        raise DecodeError("an OpenPGP key that is not as long as it says")
    if len(content) > MAX_KEY:
        raise BadCertificate(f"an OpenPGP key of {len(content)} bytes; at most {MAX_KEY}")
    return content


def parse12(body: bytes) -> tuple[CertificateEntry, ...]:
    """The whole body; no entry where there is no key."""
    if len(body) < 3 or int.from_bytes(body[:3], "big") != len(body) - 3:
        raise DecodeError("an OpenPGP Certificate is one vector")
    descriptor = body[3:]
    if descriptor in (b"", _NO_KEY):
        return ()
    read_descriptor(descriptor)
    return (CertificateEntry(descriptor),)


def build12(entries: Sequence[CertificateEntry]) -> bytes:
    """The other way round."""
    descriptor = entries[0].data if entries else _NO_KEY
    return len(descriptor).to_bytes(3, "big") + descriptor


FORM = CertificateForm(OPENPGP, "OpenPGP", frozenset({0x0303}), parse12, build12, entries13_max=1, cert_type=True)
