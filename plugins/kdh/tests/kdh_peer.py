"""TLS-KDH in TLS 1.2 once more, from its description alone: a client and a server that share no code with the pool.

Theory of operation
-------------------
Every message is put together and taken apart here, byte by byte; the primitives are `cryptography`'s, and Kerberos' encryption is MIT's
own (libk5crypto).  Nothing is negotiated: each peer knows what it wants, and an `AssertionError` says what the other end did otherwise.
A peer works on a blocking socket.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from kdh_kerberos import SessionKey, check_authenticator, fields, make_authenticator, names_of, number, read, read_integer

ALERT, HANDSHAKE, CHANGE_CIPHER_SPEC, DATA = 21, 22, 20, 23
P256, P384, P521 = 23, 24, 25
CURVES = {P256: ec.SECP256R1(), P384: ec.SECP384R1(), P521: ec.SECP521R1()}
KRB = 224
# suite: hash, length of the key, length of Finished
SUITES = {0xFFA1: ("sha256", 16, 32), 0xFFA2: ("sha384", 32, 48), 0xC02B: ("sha256", 16, 12)}


def vector(size: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return number(len(body), size) + body


def take(data: bytes, size: int) -> tuple[bytes, bytes]:
    """A vector behind a length of `size` bytes, and what follows it."""
    length = int.from_bytes(data[:size], "big")
    assert len(data) >= size + length, "a vector is cut off"
    return data[size : size + length], data[size + length :]


# --- TLS 1.2 ------------------------------------------------------------------------------------------------------------------


def prf(secret: bytes, label: bytes, seed: bytes, size: int, hash_name: str) -> bytes:
    """RFC 5246 section 5."""
    block, found = label + seed, b""
    while len(found) < size:
        block = hmac.digest(secret, block, hash_name)
        found += hmac.digest(secret, block + label + seed, hash_name)
    return found[:size]


@dataclass
class _Direction:
    """AES-GCM as in RFC 5288."""

    key: bytes
    salt: bytes
    count: int = 0

    def _extra(self, kind: int, length: int) -> bytes:
        return number(self.count, 8) + bytes((kind, 3, 3)) + number(length, 2)

    def seal(self, kind: int, body: bytes) -> bytes:
        explicit = number(self.count, 8)
        sealed = AESGCM(self.key).encrypt(self.salt + explicit, body, self._extra(kind, len(body)))
        self.count += 1
        return explicit + sealed

    def open(self, kind: int, body: bytes) -> bytes:
        plain = AESGCM(self.key).decrypt(self.salt + body[:8], body[8:], self._extra(kind, len(body) - 24))
        self.count += 1
        return plain


class AlertCame(Exception):
    """The other end sent an alert: its two bytes."""


@dataclass
class Peer:
    """What client and server share."""

    sock: socket.socket
    suite: int
    hash_id: int = 4
    extended: bool = True
    messages: bytes = b""
    before_verify: bytes = b""
    _in: _Direction | None = None
    _out: _Direction | None = None
    _handshake: bytes = b""
    change: dict[str, object] = field(default_factory=dict)  # what to do wrong

    @property
    def hash_name(self) -> str:
        return SUITES[self.suite][0]

    @property
    def kdh_only(self) -> bool:
        return self.suite >> 8 == 0xFF

    def send_record(self, kind: int, body: bytes) -> None:
        sealed = body if self._out is None else self._out.seal(kind, body)
        try:
            self.sock.sendall(bytes((kind, 3, 3)) + vector(2, sealed))
        except BrokenPipeError:
            self.read_record()  # an alert that came meanwhile says more
            raise

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            piece = self.sock.recv(size - len(found))
            assert piece, "the connection ended"
            found += piece
        return found

    def read_record(self) -> tuple[int, bytes]:
        head = self._exactly(5)
        body = self._exactly(int.from_bytes(head[3:], "big"))
        if self._in is not None:
            body = self._in.open(head[0], body)
        if head[0] == ALERT:
            raise AlertCame(body)
        return head[0], body

    def send(self, kind: int, *parts: bytes) -> None:
        message = bytes((kind,)) + vector(3, *parts)
        self.messages += message
        self.send_record(HANDSHAKE, message)

    def read_message(self, kind: int) -> bytes:
        """The body of the next message, which must be of this type."""
        while len(self._handshake) < 4 or len(self._handshake) < 4 + int.from_bytes(self._handshake[1:4], "big"):
            content, body = self.read_record()
            assert content == HANDSHAKE, f"record of type {content} within the handshake"
            self._handshake += body
        size = 4 + int.from_bytes(self._handshake[1:4], "big")
        message, self._handshake = self._handshake[:size], self._handshake[size:]
        assert message[0] == kind, f"message {message[0]} where {kind} is due"
        self.before_verify = self.messages
        self.messages += message
        return message[4:]

    def transcript(self) -> bytes:
        return hashlib.new(self.hash_name, self.messages).digest()

    def make_keys(self, premaster: bytes, randoms: bytes, session_hash: bytes) -> None:
        """Master secret, by RFC 7627 or RFC 5246, and the keys for AES-GCM."""
        if self.extended:
            self.master = prf(premaster, b"extended master secret", session_hash, 48, self.hash_name)
        else:
            self.master = prf(premaster, b"master secret", randoms, 48, self.hash_name)
        size = SUITES[self.suite][1]
        block = prf(self.master, b"key expansion", randoms[32:] + randoms[:32], 2 * size + 8, self.hash_name)
        self.from_client = _Direction(block[:size], block[2 * size : 2 * size + 4])
        self.from_server = _Direction(block[size : 2 * size], block[2 * size + 4 :])

    def verify_data(self, who: str) -> bytes:
        return prf(self.master, f"{who} finished".encode(), self.transcript(), SUITES[self.suite][2], self.hash_name)

    def send_finished(self, who: str, keys: _Direction) -> None:
        self.send_record(CHANGE_CIPHER_SPEC, b"\1")
        self._out = keys
        self.send(20, self.verify_data(who))

    def read_finished(self, who: str, keys: _Direction) -> None:
        assert not self._handshake, "bytes before ChangeCipherSpec"
        assert self.read_record() == (CHANGE_CIPHER_SPEC, b"\1")
        self._in = keys
        expected = self.verify_data(who)
        assert self.read_message(20) == expected, "Finished is wrong, or of a wrong length"

    def premaster(self, shared: bytes, authenticator: bytes) -> bytes:
        return vector(2, shared) + vector(2, authenticator) if self.kdh_only else shared


@dataclass
class Client(Peer):
    """Shows a ticket. `fetch` turns the server's ticket-granting ticket (empty if it sent none) into a ticket and its session key."""

    server_name: str = ""
    realm: str = ""
    names: tuple[str, ...] = ()
    ticket: bytes = b""
    key: SessionKey | None = None
    server_types: bytes = bytes((KRB,))
    fetch: Callable[[bytes], tuple[bytes, SessionKey]] | None = None

    def hello(self, random: bytes) -> bytes:
        extensions = [
            (0, vector(2, b"\0" + vector(2, self.server_name.encode()))),
            (10, vector(2, number(P256, 2), number(P384, 2))),
            (11, b"\1\0"),
            (13, vector(2, *(bytes((code, KRB)) for code in (4, 5, 6)), b"\4\3\4\1")),
            (19, vector(1, bytes((KRB,)))),
            (0xFF01, b"\0"),
        ]
        if self.server_types:
            extensions.append((20, vector(1, self.server_types)))
        if self.extended:
            extensions.append((23, b""))
        block = b"".join(number(code, 2) + vector(2, body) for code, body in extensions)
        return b"\3\3" + random + vector(1) + vector(2, number(self.suite, 2)) + b"\1\0" + vector(2, block)

    def run(self, certificate: x509.Certificate | None = None) -> None:
        """The whole handshake."""
        random = os.urandom(32)
        self.send(1, self.hello(random))
        server_random = self._server_hello(self.read_message(2))
        self.server_ticket = self._server_certificate(self.read_message(11), certificate)
        group, point = self._server_key_exchange(self.read_message(12), random + server_random, certificate)
        self._certificate_request(self.read_message(13))
        assert self.read_message(14) == b""

        if self.fetch is not None:
            self.ticket, self.key = self.fetch(self.server_ticket)
        self.send(11, vector(3, self.ticket))
        share = ec.generate_private_key(CURVES[group])
        shared = share.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(CURVES[group], point))
        self.send(16, vector(1, share.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)))
        session_hash = self.transcript()
        authenticator = self._certificate_verify()
        self.make_keys(self.premaster(shared, authenticator), random + server_random, session_hash)
        self.send_finished("client", self.from_client)
        self.read_finished("server", self.from_server)

    def _certificate_verify(self) -> bytes:
        assert self.key is not None
        covered = self.messages if "messages" not in self.change else b"other messages"
        plaintext = make_authenticator(
            self.realm, list(self.names), self.hash_id, covered, subkey=self.kdh_only and "subkey" not in self.change
        )
        self.sealed = self.key.seal(11, plaintext)
        self.send(15, bytes((self.hash_id, KRB)), vector(2, self.sealed))
        return plaintext

    def _server_hello(self, body: bytes) -> bytes:
        assert body[:2] == b"\3\3"
        random, rest = body[2:34], body[34:]
        session_id, rest = take(rest, 1)
        assert session_id == b""
        assert int.from_bytes(rest[:2], "big") == self.suite and rest[2] == 0
        block, rest = take(rest[3:], 2)
        assert not rest
        found: dict[int, bytes] = {}
        while block:
            code = int.from_bytes(block[:2], "big")
            found[code], block = take(block[2:], 2)
        assert found[19] == bytes((KRB,)), "the client's certificate type is not that of Kerberos"
        if self.server_types:
            assert found[20] == bytes((KRB,) if self.kdh_only else (0,))
        assert (23 in found) is self.extended
        return random

    def _server_certificate(self, body: bytes, certificate: x509.Certificate | None) -> bytes:
        """The server's ticket-granting ticket, empty for none."""
        entries, rest = take(body, 3)
        assert not rest
        if certificate is None:
            return entries
        first, _ = take(entries, 3)
        assert first == certificate.public_bytes(Encoding.DER)
        return b""

    def _server_key_exchange(self, body: bytes, randoms: bytes, certificate: x509.Certificate | None) -> tuple[int, bytes]:
        assert body[0] == 3
        group = int.from_bytes(body[1:3], "big")
        point, signed = take(body[3:], 1)
        if certificate is None:
            assert not signed, "ServerKeyExchange is signed, or has bytes behind the point"
        else:
            assert signed[:2] == b"\4\3"
            signature, rest = take(signed[2:], 2)
            key = certificate.public_key()
            assert not rest and isinstance(key, ec.EllipticCurvePublicKey)
            key.verify(signature, randoms + body[: len(body) - len(signed)], ec.ECDSA(SHA256()))
        return group, point

    def _certificate_request(self, body: bytes) -> None:
        types, rest = take(body, 1)
        assert KRB in types
        schemes, rest = take(rest, 2)
        pairs = {schemes[at : at + 2].hex() for at in range(0, len(schemes), 2)}
        assert pairs >= {"04e0", "05e0", "06e0"}
        authorities, rest = take(rest, 2)
        assert authorities == b"" and not rest


@dataclass
class Server(Peer):
    """Opens tickets with its key; with a certificate it speaks KDH-enhanced."""

    key: SessionKey | None = None
    tgt: bytes = b""
    certificate: bytes = b""
    sign_key: ec.EllipticCurvePrivateKey | None = None
    group: int = P256
    client: str = ""

    def run(self) -> None:
        """The whole handshake."""
        random = os.urandom(32)
        client_random, offered = self._client_hello(self.read_message(1))
        self.extended = self.extended and 23 in offered
        self.send(2, self._server_hello(random))
        self.send(11, vector(3, vector(3, self.certificate)) if self.certificate else vector(3, self.tgt))
        share = ec.generate_private_key(CURVES[self.group])
        point = share.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        params = b"\3" + number(self.group, 2) + vector(1, point)
        self.send(12, params, self._signature(client_random + random + params))
        self.send(13, vector(1, bytes((1, 2, 64, KRB))), vector(2, *(bytes((code, KRB)) for code in (4, 5, 6))), vector(2))
        self.send(14)

        ticket, rest = take(self.read_message(11), 3)
        assert not rest
        theirs, rest = take(self.read_message(16), 1)
        assert not rest
        shared = share.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(CURVES[self.group], theirs))
        session_hash = self.transcript()
        authenticator = self._authenticator(ticket, self.read_message(15))
        self.make_keys(self.premaster(shared, authenticator), client_random + random, session_hash)
        self.read_finished("client", self.from_client)
        self.send_finished("server", self.from_server)

    def _client_hello(self, body: bytes) -> tuple[bytes, dict[int, bytes]]:
        random = body[2:34]
        _, rest = take(body[34:], 1)
        suites, rest = take(rest, 2)
        assert number(self.suite, 2) in [suites[at : at + 2] for at in range(0, len(suites), 2)], "the suite is not offered"
        _, rest = take(rest, 1)
        block, rest = take(rest, 2)
        assert not rest
        found: dict[int, bytes] = {}
        while block:
            code = int.from_bytes(block[:2], "big")
            found[code], block = take(block[2:], 2)
        assert KRB in take(found[19], 1)[0], "no client certificate of type 224"
        assert not self.kdh_only or KRB in take(found[20], 1)[0], "no server certificate of type 224"
        schemes = take(found[13], 2)[0]
        assert bytes((self.hash_id, KRB)) in [schemes[at : at + 2] for at in range(0, len(schemes), 2)]
        return random, found

    def _server_hello(self, random: bytes) -> bytes:
        extensions = [(19, bytes((KRB,))), (0xFF01, b"\0")]
        if self.kdh_only:
            extensions.append((20, bytes((KRB,))))
        if self.extended:
            extensions.append((23, b""))
        block = b"".join(number(code, 2) + vector(2, body) for code, body in extensions)
        return b"\3\3" + random + vector(1) + number(self.suite, 2) + b"\0" + vector(2, block)

    def _signature(self, content: bytes) -> bytes:
        if self.sign_key is None:
            return b""
        return b"\4\3" + vector(2, self.sign_key.sign(content, ec.ECDSA(SHA256())))

    def _authenticator(self, ticket: bytes, verify: bytes) -> bytes:
        """Open the ticket, then the Authenticator; returns its plaintext."""
        assert self.key is not None
        outer = fields(read(ticket, 0x61)[0])
        inner = fields(read(self.key.open(2, outer[3]), 0x63)[0])
        held = fields(inner[1])
        session_key = SessionKey(read_integer(held[0]), read(held[1], 4)[0])
        self.client = "/".join(names_of(inner[3])) + "@" + read(inner[2], 0x1B)[0].decode()
        assert verify[1] == KRB
        sealed, rest = take(verify[2:], 2)
        assert not rest
        assert set(fields(sealed)) == {0, 2}, "EncryptedData has a kvno"
        plaintext = session_key.open(11, sealed)
        check_authenticator(plaintext, verify[0], self.before_verify, subkey=self.kdh_only)
        return plaintext
