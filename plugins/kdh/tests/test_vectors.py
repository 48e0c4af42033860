"""Do encryption, derivation and messages give the bytes that RFCs and published vectors have?"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import core
from tlspool_kdh.asn1 import Authenticator, EncryptedData, Ticket, decode
from tlspool_kdh.codes import build_ticket, parse_ticket
from tlspool_kdh.crypto import KerberosKey, WrongKey, n_fold
from tlspool_kdh.relief import build, derive, parse
from tlspool_kdh.tickets import ClientTicket, Principal, make_authenticator

from tlspool_core.api import DecodeError, IllegalParameter
from tlspool_core.tls.tls13.key_schedule import EarlySecret

VECTORS = Path(__file__).parent.parent / "vectors"
KEY = KerberosKey(18, bytes(range(32)))


@pytest.mark.parametrize(
    ("data", "size", "folded"),
    [
        (b"012345", 8, "be072631276b1955"),
        (b"password", 7, "78a07b6caf85fa"),
        (b"Rough Consensus, and Running Code", 8, "bb6ed30870b7f0e0"),
        (b"kerberos", 16, "6b65726265726f737b9b5b2b93132b93"),
    ],
)
def test_n_fold_of_rfc3961(data: bytes, size: int, folded: str) -> None:
    assert n_fold(data, size).hex() == folded


# RFC 8009 appendix A, "Sample results": key usage 2
RFC8009 = [
    (19, "3705D96080C17728A0E800EAB6E0D23C", "7BCA285E2FD4130FB55B1A5C83BC5B24", "000102030405",
     "84D7F30754ED987BAB0BF3506BEB09CFB55402CEF7E6877CE99E247E52D16ED4421DFDF8976C"),
]  # fmt: skip


@pytest.mark.parametrize(("enctype", "key", "confounder", "plaintext", "ciphertext"), RFC8009)
def test_encryption_of_rfc8009(enctype: int, key: str, confounder: str, plaintext: str, ciphertext: str) -> None:
    made = KerberosKey(enctype, bytes.fromhex(key))
    assert made.encrypt(2, bytes.fromhex(plaintext), bytes.fromhex(confounder)).hex() == ciphertext.lower()
    assert made.decrypt(2, bytes.fromhex(ciphertext)).hex() == plaintext


@pytest.mark.parametrize(("enctype", "length"), [(17, 16), (18, 32), (19, 16), (20, 32)])
def test_every_length_comes_back_and_no_change_goes_unseen(enctype: int, length: int) -> None:
    key = KerberosKey(enctype, bytes(range(length)))
    for size in range(50):
        sealed = key.encrypt(11, bytes(size))
        assert key.decrypt(11, sealed) == bytes(size)
        for position in (0, len(sealed) // 2, -1):
            changed = bytearray(sealed)
            changed[position] ^= 1
            with pytest.raises(WrongKey):
                key.decrypt(11, bytes(changed))
        with pytest.raises(WrongKey):
            key.decrypt(12, sealed)


def test_weak_types_are_refused() -> None:
    with pytest.raises(ValueError, match="not one of AES"):
        KerberosKey(23, bytes(16))  # RC4


def load() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((VECTORS / "quantum-relief.json").read_text())
    return found


@pytest.mark.parametrize("vector", load())
def test_derivation_of_quantum_relief(vector: dict[str, Any]) -> None:
    key = KerberosKey(vector["enctype"], bytes.fromhex(vector["session_key"]))
    value = derive(key, bytes.fromhex(vector["ticket"]), vector["group"], bytes.fromhex(vector["transcript_hash"]))
    assert value.hex() == vector["value"]


@pytest.mark.parametrize("vector", load())
def test_the_extension_of_quantum_relief(vector: dict[str, Any]) -> None:
    users = vector["kind"] == "users"
    names = (Principal(("john",), "EXAMPLE.COM"), Principal(("mary",), "EXAMPLE.ORG")) if users else (None, None)
    for place, name in zip(("client_hello", "server_hello"), names, strict=True):
        content = bytes.fromhex(vector[place])
        parsed = parse(content)
        assert parsed.name == name and build(parsed.ticket, name) == content
    shown = parse(bytes.fromhex(vector["server_hello" if users else "client_hello"])).ticket
    assert shown.hex() == vector["ticket"]


@pytest.mark.parametrize("vector", load())
def test_the_key_schedule_with_quantum_relief(vector: dict[str, Any]) -> None:
    """The value takes the place of the PSK; the rest is RFC 8446's."""
    early = EarlySecret(vector["hash"], bytes.fromhex(vector["value"]))
    handshake, transcript = early.handshake(bytes.fromhex(vector["shared_secret"])), bytes.fromhex(vector["transcript_hash"])
    assert handshake.client(transcript).secret.hex() == vector["client_handshake_traffic_secret"]
    assert handshake.server(transcript).secret.hex() == vector["server_handshake_traffic_secret"]


def test_vectors_are_what_their_script_makes() -> None:
    made = subprocess.run([sys.executable, str(VECTORS / "make.py")], capture_output=True, check=True)
    assert json.loads(made.stdout) == load()


@pytest.mark.parametrize(("scheme", "kind", "name"), [(0x04E0, -2, "sha256"), (0x05E0, -3, "sha384"), (0x06E0, -4, "sha512")])
def test_an_authenticator_byte_by_byte(scheme: int, kind: int, name: str) -> None:
    held = ClientTicket(Principal(("john",), "EXAMPLE"), Principal(("http", "web"), "EXAMPLE"), b"ticket", KEY)
    sealed = make_authenticator(held, scheme, b"all messages", 1_800_000_000.25)
    outer = decode(EncryptedData, sealed)
    assert (outer["etype"], outer["kvno"]) == (18, None)
    plaintext = KEY.decrypt(11, outer["cipher"])
    assert plaintext[0] == 0x62  # [APPLICATION 2], RFC 4120 section 5.5.1
    values = decode(Authenticator, plaintext)
    assert values["cksum"] == {"cksumtype": kind, "checksum": hashlib.new(name, b"all messages").digest()}
    assert (values["authenticator-vno"], values["crealm"], values["cusec"]) == (5, "EXAMPLE", 250_000)
    assert b"20270115080000Z" in plaintext
    assert values["subkey"]["keytype"] == 18 and len(values["subkey"]["keyvalue"]) == 32


def test_a_certificate_message_is_one_ticket() -> None:
    assert parse_ticket(b"\0\0\0") == ()
    (entry,) = parse_ticket(b"\0\0\3abc")
    assert build_ticket((entry,)) == b"\0\0\3abc" and build_ticket(()) == b"\0\0\0"
    for wrong in (b"", b"\0\0", b"\0\0\2abc", b"\0\0\4abc"):
        with pytest.raises(DecodeError):
            parse_ticket(wrong)


def test_the_extension_byte_by_byte() -> None:
    assert build(b"abc").hex() == "0001" + "0003" + b"abc".hex() + "0000"
    assert parse(build(b"abc")).ticket == b"abc"
    for wrong, kind in (
        (b"", DecodeError),
        (build(b"abc")[:-1], DecodeError),
        (build(b"abc") + b"\0", DecodeError),
        (b"\0\2" + build(b"abc")[2:], IllegalParameter),
        (build(b"abc")[:-1] + b"\2", IllegalParameter),
    ):
        with pytest.raises(kind):
            parse(wrong)


@pytest.mark.parametrize("kind", [Ticket, Authenticator, EncryptedData])
def test_nonsense_is_a_value_error(kind: type[core.Sequence]) -> None:
    for wrong in (b"", b"\x61", b"\x61\x80", b"\x30\x00", b"\x61\x02\x30\x00", bytes(100), b"\x61" * 3000, bytes(70_000)):
        with pytest.raises(ValueError):
            decode(kind, wrong)
