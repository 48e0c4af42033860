"""Makes the test vectors of Quantum Relief's derivation, with nothing but HMAC, and apart from the plugin's code.

Run it as `python make.py > quantum-relief.json`. Inputs are made of SHA-256 of a text, so that anybody can make them again.
"""

import hashlib
import hmac
import json
import sys

LABEL = b"TLS 1.3 Quantum Relief KDH"


def bytes_of(text: str, length: int) -> bytes:
    """Some bytes that look random."""
    found = b""
    while len(found) < length:
        found += hashlib.sha256(text.encode() + bytes((len(found) // 32,))).digest()
    return found[:length]


def vector(number: int, enctype: int, key_length: int, group: int, hash_name: str) -> dict[str, object]:
    """One vector; HKDF is written out as in RFC 5869 section 2, whose one round suffices for one hash length."""
    key, ticket = bytes_of(f"session key {number}", key_length), bytes_of(f"ticket {number}", 300 + number)
    transcript = hashlib.new(hash_name, b"ClientHello, ServerHello %d" % number).digest()
    prk = hmac.new(LABEL, key, hash_name).digest()
    info = enctype.to_bytes(2, "big") + group.to_bytes(2, "big") + bytes((len(transcript),)) + transcript
    info += hashlib.new(hash_name, ticket).digest()
    value = hmac.new(prk, info + b"\x01", hash_name).digest()
    early_secret = hmac.new(bytes(len(transcript)), value, hash_name).digest()  # RFC 8446 section 7.1
    return {
        "enctype": enctype,
        "session_key": key.hex(),
        "ticket": ticket.hex(),
        "group": group,
        "hash": hash_name,
        "transcript_hash": transcript.hex(),
        "prk": prk.hex(),
        "value": value.hex(),
        "early_secret": early_secret.hex(),
    }


if __name__ == "__main__":
    rows = (
        (18, 32, 29, "sha256"),
        (18, 32, 24, "sha384"),
        (17, 16, 23, "sha256"),
        (20, 32, 4588, "sha384"),
        (19, 16, 29, "sha256"),
    )
    json.dump([vector(number, *row) for number, row in enumerate(rows)], sys.stdout, indent=1)
    print()
