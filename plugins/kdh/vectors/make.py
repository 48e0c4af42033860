"""Makes the test vectors of Quantum Relief, with nothing but HMAC and DER written out by hand, and apart from the plugin's code.

Run it as `python make.py > quantum-relief.json`. Inputs are made of SHA-256 of a text, so that anybody can make them again.
"""

import hashlib
import hmac
import json
import sys

LABEL = b"TLS 1.3 Quantum Relief KDH"
METHOD = "0001"
SERVICE, USERS = "0000", "0001"  # peer name types


def bytes_of(text: str, length: int) -> bytes:
    """Some bytes that look random."""
    found = b""
    while len(found) < length:
        found += hashlib.sha256(text.encode() + bytes((len(found) // 32,))).digest()
    return found[:length]


def expand_label(secret: bytes, label: bytes, context: bytes, hash_name: str) -> bytes:
    """HKDF-Expand-Label of RFC 8446 section 7.1, for one hash length."""
    length = len(secret)
    label = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes((len(label),)) + label + bytes((len(context),)) + context
    return hmac.new(secret, info + b"\x01", hash_name).digest()


def counted(data: bytes) -> str:
    """A vector behind a length of two bytes."""
    return len(data).to_bytes(2, "big").hex() + data.hex()


def element(tag: int, *parts: bytes) -> bytes:
    """One element of DER that is shorter than 128 bytes."""
    body = b"".join(parts)
    assert len(body) < 128
    return bytes((tag, len(body))) + body


def principal(realm: str, *names: str) -> bytes:
    """KRB5PrincipalName (RFC 4556 section 3.2.2), with name type 1."""
    strings = element(0x30, *(element(0x1B, name.encode()) for name in names))
    name = element(0x30, element(0xA0, b"\x02\x01\x01"), element(0xA1, strings))
    return element(0x30, element(0xA0, element(0x1B, realm.encode())), element(0xA1, name))


def to_service(ticket: bytes) -> dict[str, object]:
    """A client's ticket for a service, and the service's consent."""
    return {
        "kind": "service",
        "client_hello": METHOD + counted(ticket) + SERVICE,
        "server_hello": METHOD + counted(b"") + SERVICE,
    }


def to_user(ticket: bytes, number: int) -> dict[str, object]:
    """A client's ticket-granting ticket and name; the server's ticket for it, and the server's name."""
    granting = bytes_of(f"ticket-granting ticket {number}", 280 + number)
    client, server = principal("EXAMPLE.COM", "john"), principal("EXAMPLE.ORG", "mary")
    return {
        "kind": "users",
        "client_hello": METHOD + counted(granting) + USERS + counted(client),
        "server_hello": METHOD + counted(ticket) + USERS + counted(server),
    }


def vector(number: int, enctype: int, key_length: int, group: int, hash_name: str, *, users: bool = False) -> dict[str, object]:
    """One vector; HKDF is written out as in RFC 5869 section 2, whose one round suffices for one hash length."""
    key, ticket = bytes_of(f"session key {number}", key_length), bytes_of(f"ticket {number}", 300 + number)
    transcript = hashlib.new(hash_name, b"ClientHello, ServerHello %d" % number).digest()
    prk = hmac.new(LABEL, key, hash_name).digest()
    info = enctype.to_bytes(2, "big") + group.to_bytes(2, "big") + bytes((len(transcript),)) + transcript
    info += hashlib.new(hash_name, ticket).digest()
    value = hmac.new(prk, info + b"\x01", hash_name).digest()
    early_secret = hmac.new(bytes(len(transcript)), value, hash_name).digest()  # RFC 8446 section 7.1, and so what follows
    shared = bytes_of(f"(EC)DHE {number}", 32)
    derived = expand_label(early_secret, b"derived", hashlib.new(hash_name).digest(), hash_name)
    handshake_secret = hmac.new(derived, shared, hash_name).digest()
    return {
        "enctype": enctype,
        "session_key": key.hex(),
        "ticket": ticket.hex(),
        "group": group,
        "hash": hash_name,
        "transcript_hash": transcript.hex(),
        "prk": prk.hex(),
        "info": info.hex(),
        "value": value.hex(),
        "early_secret": early_secret.hex(),
        "shared_secret": shared.hex(),
        "client_handshake_traffic_secret": expand_label(handshake_secret, b"c hs traffic", transcript, hash_name).hex(),
        "server_handshake_traffic_secret": expand_label(handshake_secret, b"s hs traffic", transcript, hash_name).hex(),
    } | (to_user(ticket, number) if users else to_service(ticket))


if __name__ == "__main__":
    rows = (
        (18, 32, 29, "sha256"),
        (18, 32, 24, "sha384"),
        (17, 16, 23, "sha256"),
        (20, 32, 4588, "sha384"),
        (19, 16, 29, "sha256"),
    )
    made = [vector(number, *row) for number, row in enumerate(rows)]
    made.append(vector(len(rows), 18, 32, 4588, "sha256", users=True))
    made.append(vector(len(rows) + 1, 20, 32, 29, "sha384", users=True))
    json.dump(made, sys.stdout, indent=1)
    print()
