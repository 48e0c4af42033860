"""Encryption as Kerberos does it, for the AES types of RFC 3962 and RFC 8009.

Theory of operation
-------------------
A Kerberos key is never used as it is: for each key usage number, one key to encrypt and one to authenticate are derived from it
(RFC 3961 section 5.1, RFC 8009 section 5).  A ciphertext is `CBC-CTS(confounder | plaintext) | HMAC`; the older types authenticate
the plaintext, the newer ones the ciphertext.  AES, HMAC and CBC are `cryptography`'s and the standard library's; what is done here is
the order of things.  The weak types (DES, RC4) are not known, and so refused.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass, field
from math import lcm
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

BLOCK: Final = 16
_ZERO_IV: Final = bytes(BLOCK)


class WrongKey(Exception):
    """A ciphertext does not belong to this key and usage, or was changed."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """One encryption type: length of its key, of its HMAC, and the hash; `newer` ones follow RFC 8009."""

    key_length: int
    mac_length: int
    hash_name: str
    newer: bool


_KINDS: Final = {
    17: _Kind(16, 12, "sha1", False),  # aes128-cts-hmac-sha1-96
    18: _Kind(32, 12, "sha1", False),  # aes256-cts-hmac-sha1-96
    19: _Kind(16, 16, "sha256", True),  # aes128-cts-hmac-sha256-128
    20: _Kind(32, 24, "sha384", True),  # aes256-cts-hmac-sha384-192
}
AES256: Final = 18
AES256_TYPES: Final = frozenset({18, 20})
ENCTYPES: Final = frozenset(_KINDS)


@dataclass(frozen=True, slots=True)
class KerberosKey:
    """An EncryptionKey of RFC 4120 section 5.2.9. Raises ValueError for other than the AES types."""

    enctype: int
    value: bytes = field(repr=False)

    def __post_init__(self) -> None:
        kind = _KINDS.get(self.enctype)
        if kind is None:
            raise ValueError(f"encryption type {self.enctype} is not one of AES ({', '.join(map(str, _KINDS))})")
        if len(self.value) != kind.key_length:
            raise ValueError(f"a key of {len(self.value)} bytes for encryption type {self.enctype}")

    def encrypt(self, usage: int, plaintext: bytes, confounder: bytes | None = None) -> bytes:
        """Ciphertext for a key usage number; tests may give the confounder."""
        kind, text = _KINDS[self.enctype], (os.urandom(BLOCK) if confounder is None else confounder) + plaintext
        cipher_key, mac_key = self._derived(usage, 0xAA), self._derived(usage, 0x55)
        body = _cts_encrypt(cipher_key, text)
        covered = _ZERO_IV + body if kind.newer else text
        return body + hmac.digest(mac_key, covered, kind.hash_name)[: kind.mac_length]

    def decrypt(self, usage: int, ciphertext: bytes) -> bytes:
        """The plaintext, once its HMAC was found right. Raises WrongKey."""
        kind = _KINDS[self.enctype]
        body, mac = ciphertext[: -kind.mac_length], ciphertext[-kind.mac_length :]
        if len(body) < BLOCK:
            raise WrongKey("the ciphertext is too short")
        mac_key = self._derived(usage, 0x55)
        text = b"" if kind.newer else _cts_decrypt(self._derived(usage, 0xAA), body)
        covered = _ZERO_IV + body if kind.newer else text
        if not hmac.compare_digest(hmac.digest(mac_key, covered, kind.hash_name)[: kind.mac_length], mac):
            raise WrongKey("the ciphertext is not of this key")
        return (_cts_decrypt(self._derived(usage, 0xAA), body) if kind.newer else text)[BLOCK:]

    def _derived(self, usage: int, purpose: int) -> bytes:
        kind, constant = _KINDS[self.enctype], usage.to_bytes(4, "big") + bytes((purpose,))
        if not kind.newer:
            return _derive_by_folding(self.value, constant)
        length = kind.key_length if purpose == 0xAA else kind.mac_length
        message = b"\0\0\0\1" + constant + b"\0" + (8 * length).to_bytes(4, "big")
        return hmac.digest(self.value, message, kind.hash_name)[:length]


def new_key() -> KerberosKey:
    """A fresh subkey, AES-256."""
    return KerberosKey(AES256, os.urandom(32))


def n_fold(data: bytes, size: int) -> bytes:
    """RFC 3961 section 5.1: copies of the data, each rotated by 13 bits more, added up with end-around carry."""
    bits, whole = 8 * len(data), lcm(len(data), size)
    value, stretched = int.from_bytes(data, "big"), b""
    for copy in range(whole // len(data)):
        by = 13 * copy % bits
        stretched += ((value >> by | value << (bits - by)) & ((1 << bits) - 1)).to_bytes(len(data), "big")
    ones = (1 << 8 * size) - 1
    total = sum(int.from_bytes(stretched[start : start + size], "big") for start in range(0, whole, size))
    while total > ones:
        total = (total & ones) + (total >> 8 * size)
    return total.to_bytes(size, "big")


def _derive_by_folding(key: bytes, constant: bytes) -> bytes:
    """DK of RFC 3961 section 5.1; random-to-key of AES is the identity."""
    block, found = n_fold(constant, BLOCK), b""
    while len(found) < len(key):
        block = _cbc(key, block, decrypt=False)
        found += block
    return found[: len(key)]


def _cbc(key: bytes, data: bytes, *, decrypt: bool) -> bytes:
    cipher = Cipher(algorithms.AES(key), modes.CBC(_ZERO_IV))
    context = cipher.decryptor() if decrypt else cipher.encryptor()
    return context.update(data) + context.finalize()


def _cts_encrypt(key: bytes, text: bytes) -> bytes:
    """RFC 3962 section 5: the last two blocks change places, and what padding added is cut off."""
    body = _cbc(key, text + bytes(-len(text) % BLOCK), decrypt=False)
    if len(body) == BLOCK:
        return body
    return body[: -2 * BLOCK] + body[-BLOCK:] + body[-2 * BLOCK : -BLOCK][: (len(text) - 1) % BLOCK + 1]


def _cts_decrypt(key: bytes, body: bytes) -> bytes:
    if len(body) == BLOCK:
        return _cbc(key, body, decrypt=True)
    short = (len(body) - 1) % BLOCK + 1
    head, last, cut = body[: -short - BLOCK], body[-short - BLOCK : -short], body[-short:]
    cut += _cbc(key, last, decrypt=True)[short:]  # the missing end of the last but one block
    return _cbc(key, head + cut + last, decrypt=True)[: len(body)]
