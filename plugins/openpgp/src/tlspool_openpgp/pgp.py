"""The one module that uses pgpy: it turns the packets of a key into facts, each self-signature verified.

Theory of operation
-------------------
This runs in the worker process alone (see `worker`), which may be killed at any time.  pgpy reads key packets, and the numbers of
signatures; it is given one packet at a time, in one framing, signatures without their subpackets, which are read in `packets` from
the very octets that are hashed.  What is hashed is put together here, as RFC 4880 section 5.2.4 says.

Nothing is judged here but what is too weak to mean anything.  The facts are plain values, ready for JSON: a self-signature appears
among them if, and only if, it verifies.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA224, SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tlspool_openpgp.packets import (
    PUBLIC_KEY,
    PUBLIC_SUBKEY,
    SECRET_KEY,
    SECRET_SUBKEY,
    SIGNATURE,
    USER_ATTRIBUTE,
    USER_ID,
    Malformed,
    Packet,
    SignatureFrame,
    Unsupported,
    Weak,
    framed,
    packets,
    signature_frame,
    walk,
)

try:
    import imghdr  # noqa: F401
except ImportError:  # gone from Python 3.13; pgpy wants it for pictures, which are never looked at
    sys.modules["imghdr"] = ModuleType("imghdr")
from pgpy import packet as pgpy_packet

MAX_VERIFIED = 128  # signatures of one request
MIN_RSA_BITS, MAX_RSA_BITS, MAX_EXPONENT_BITS = 2048, 8192, 64
_HASHES = {8: SHA256(), 9: SHA384(), 10: SHA512(), 11: SHA224()}  # RFC 4880 section 9.4; MD5, SHA-1 and RIPEMD are no longer hashes
_SIGNING = {1: "rsa", 3: "rsa", 17: "dsa", 19: "ecdsa", 22: "ed25519"}
_CERTIFICATIONS = (0x10, 0x11, 0x12, 0x13)
_CERT_REVOCATION, _DIRECT, _KEY_REVOCATION, _BINDING, _BACK, _SUBKEY_REVOCATION = 0x30, 0x1F, 0x20, 0x18, 0x19, 0x28


@dataclass(slots=True)
class _Key:
    """A primary key or subkey: its packet's body, and what pgpy made of it; `material` None for what cannot sign."""

    body: bytes
    algorithm: int
    fingerprint: bytes
    created: int
    material: Any = None
    public: Any = None

    @property
    def prefix(self) -> bytes:
        """How a key is hashed."""
        return b"\x99" + len(self.body).to_bytes(2, "big") + self.body

    def facts(self) -> dict[str, Any]:
        spki = b"" if self.public is None else self.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return {
            "fingerprint": self.fingerprint.hex(),
            "created": self.created,
            "algorithm": _SIGNING.get(self.algorithm, "") if self.public is not None else "",
            "bits": 256 if isinstance(self.public, ed25519.Ed25519PublicKey) else getattr(self.public, "key_size", 0),
            "spki": spki.hex(),
        }


@dataclass(slots=True)
class _Part:
    """A key or user id, and the signatures behind it."""

    packet: Packet
    signatures: list[SignatureFrame] = field(default_factory=list)


class _Verifier:
    """Counts what it does, so that one key cannot ask for much."""

    def __init__(self) -> None:
        self._left = MAX_VERIFIED
        self.weak = ""

    def __call__(self, key: _Key, frame: SignatureFrame, subject: bytes) -> bool:
        """Whether the key made the signature over the subject."""
        if frame.hash not in _HASHES:
            self.weak = self.weak or f"a self-signature with hash algorithm {frame.hash} (MD5 is 1, SHA-1 is 2)"
            return False
        if key.material is None or _SIGNING.get(frame.algorithm) != _SIGNING.get(key.algorithm):
            return False
        self._left -= 1
        if self._left < 0:
            raise Malformed(f"more than {MAX_VERIFIED} signatures to verify")
        head = bytes((4, frame.type, frame.algorithm, frame.hash))
        parsed = _parse(Packet(SIGNATURE, head + bytes(4) + frame.rest))
        try:
            return key.material.verify(subject + frame.trailer, parsed.signature.__sig__(), _HASHES[frame.hash]) is True
        except (ValueError, InvalidSignature, UnsupportedAlgorithm):
            return False


def _parse(packet: Packet) -> Any:
    """pgpy's object for one packet, which must be used up. Raises Malformed, whatever pgpy raises."""
    octets = bytearray(framed(packet.tag, packet.body))
    try:
        parsed = pgpy_packet.Packet(octets)
    except Exception as fault:
        raise Malformed(f"a packet of type {packet.tag} that cannot be read ({type(fault).__name__})") from None
    if octets:
        raise Malformed(f"a packet of type {packet.tag} with octets left over")
    return parsed


def _key(packet: Packet) -> _Key:
    """Raises Malformed, Unsupported, Weak."""
    body = packet.body
    if len(body) < 6:
        raise Malformed("cut off within a key packet")
    if body[0] in (2, 3):
        raise Weak(f"a key of version {body[0]}")
    if body[0] != 4:
        raise Unsupported(f"a key of version {body[0]}; only version 4 is supported")
    parsed = _parse(packet)
    # RFC 4880 section 12.2, over the octets as they came; pgpy would take those that it makes anew
    fingerprint = hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False).digest()
    key = _Key(body, body[5], fingerprint, int.from_bytes(body[1:5], "big"))
    if body[5] in _SIGNING:
        if _SIGNING[body[5]] == "rsa":
            _check_rsa(parsed.keymaterial)
        try:
            key.public = parsed.keymaterial.__pubkey__()
        except Exception as fault:
            raise Malformed(f"a key whose numbers make none ({type(fault).__name__})") from None
        key.material = parsed.keymaterial
        _check_kind(key.public)
    return key


def _check_rsa(material: Any) -> None:
    """Before anything is computed with these numbers."""
    bits, exponent = int(material.n).bit_length(), int(material.e).bit_length()
    if bits < MIN_RSA_BITS:
        raise Weak(f"an RSA key of {bits} bits; {MIN_RSA_BITS} are the least")
    if bits > MAX_RSA_BITS or exponent > MAX_EXPONENT_BITS:
        raise Unsupported(f"an RSA key of {bits} bits, exponent of {exponent}; at most {MAX_RSA_BITS} and {MAX_EXPONENT_BITS}")


def _check_kind(public: Any) -> None:
    if isinstance(public, dsa.DSAPublicKey) and not 2048 <= public.key_size <= 4096:
        raise Weak(f"a DSA key of {public.key_size} bits")
    if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name not in ("secp256r1", "secp384r1", "secp521r1"):
        raise Unsupported(f"an ECDSA key on {public.curve.name}")
    if not isinstance(public, dsa.DSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey):
        raise Unsupported("a key of a kind that is not for signatures")


def _parts(data: bytes) -> list[_Part]:
    """Keys and user ids in their order, each with its signatures. Raises Malformed."""
    parts: list[_Part] = []
    for packet in packets(data):
        if packet.tag in (SECRET_KEY, SECRET_SUBKEY):
            raise Malformed("a private key")
        if (packet.tag == PUBLIC_KEY) != (not parts):
            raise Malformed("not one public key at the beginning")
        if packet.tag == SIGNATURE:
            frame = signature_frame(packet.body)
            if frame is not None:
                parts[-1].signatures.append(frame)
        elif packet.tag in (PUBLIC_KEY, PUBLIC_SUBKEY, USER_ID, USER_ATTRIBUTE):
            parts.append(_Part(packet))
        else:
            raise Malformed(f"a packet of type {packet.tag} in a key")
    return parts


def _signature(frame: SignatureFrame, *, back: bool = False) -> dict[str, Any]:
    return {
        "type": frame.type,
        "created": frame.created,
        "expires": frame.expires,
        "key_expires": frame.key_expires,
        "flags": frame.flags,
        "primary": frame.primary,
        "reason": frame.reason,
        "back": back,
    }


def _made_by(frame: SignatureFrame, fingerprint: bytes) -> bool:
    """Whether it says so, or says nothing."""
    return not frame.issuers or any(fingerprint.endswith(issuer) for issuer in frame.issuers)


def _user_prefix(packet: Packet) -> bytes:
    return b"\xb4" + len(packet.body).to_bytes(4, "big") + packet.body


class _Reading:
    """One key on the way to its facts."""

    def __init__(self, data: bytes) -> None:
        self.parts = _parts(data)
        self.primary = _key(self.parts[0].packet)
        if self.primary.material is None:
            raise Unsupported(f"a primary key of algorithm {self.primary.algorithm}, which cannot sign")
        self.verify = _Verifier()

    def facts(self) -> dict[str, Any]:
        users = [self._user(part) for part in self.parts if part.packet.tag == USER_ID]
        subkeys = [self._subkey(part) for part in self.parts if part.packet.tag == PUBLIC_SUBKEY]
        direct = self._verified(self.parts[0], (_DIRECT, _KEY_REVOCATION), b"")
        return {
            "primary": self.primary.facts(),
            "direct": direct,
            "users": users,
            "subkeys": [subkey for subkey in subkeys if subkey is not None],
            "weak": self.verify.weak,
        }

    def _verified(self, part: _Part, types: tuple[int, ...], subject: bytes) -> list[dict[str, Any]]:
        own = [frame for frame in part.signatures if frame.type in types and _made_by(frame, self.primary.fingerprint)]
        return [_signature(frame) for frame in own if self.verify(self.primary, frame, self.primary.prefix + subject)]

    def _user(self, part: _Part) -> dict[str, Any]:
        others = [
            issuer.hex() for frame in part.signatures for issuer in frame.issuers if not self.primary.fingerprint.endswith(issuer)
        ]
        return {
            "text": part.packet.body.hex(),
            "signatures": self._verified(part, (*_CERTIFICATIONS, _CERT_REVOCATION), _user_prefix(part.packet)),
            "issuers": list(dict.fromkeys(others))[:64],
        }

    def _subkey(self, part: _Part) -> dict[str, Any] | None:
        """None for one that cannot be used, which says nothing about the others."""
        try:
            key = _key(part.packet)
        except (Malformed, Unsupported, Weak):
            return None
        signatures = []
        for frame in part.signatures:
            ours = frame.type in (_BINDING, _SUBKEY_REVOCATION) and _made_by(frame, self.primary.fingerprint)
            if ours and self.verify(self.primary, frame, self.primary.prefix + key.prefix):
                signatures.append(_signature(frame, back=self._back(key, frame)))
        return {"key": key.facts(), "signatures": signatures}

    def _back(self, key: _Key, frame: SignatureFrame) -> bool:
        """The subkey's own word that it belongs to the primary key (RFC 4880 section 5.2.1, type 0x19)."""
        embedded = signature_frame(frame.embedded) if frame.embedded else None
        return embedded is not None and embedded.type == _BACK and self.verify(key, embedded, self.primary.prefix + key.prefix)

    def certified(self, by: _Key) -> list[list[Any]]:
        """User ids, in hexadecimal, with the certifications and revocations of these that another key made."""
        found = []
        for part in self.parts:
            if part.packet.tag != USER_ID:
                continue
            subject = self.primary.prefix + _user_prefix(part.packet)
            theirs = [
                frame
                for frame in part.signatures
                if frame.type in (*_CERTIFICATIONS, _CERT_REVOCATION) and frame.issuers and _made_by(frame, by.fingerprint)
            ]
            found.append([part.packet.body.hex(), [_signature(frame) for frame in theirs if self.verify(by, frame, subject)]])
        return found


def read(data: bytes) -> dict[str, Any]:
    """Facts about a key. Raises Malformed, Unsupported, Weak."""
    return _Reading(data).facts()


def certified(data: bytes, certifier: bytes) -> list[list[Any]]:
    """What another key's primary key says about the user ids of a key. Raises Malformed, Unsupported, Weak."""
    return _Reading(data).certified(_Reading(certifier).primary)


def private_key(data: bytes, key_id: bytes, passphrase: str = "") -> bytes:
    """PKCS #8 (PEM) of the private half of one part, out of what `gpg --export-secret-keys` writes; for the operator, not the pool.

    `key_id` is the end of the part's fingerprint. Raises Malformed, Unsupported.
    """
    for packet in walk(data):
        if packet.tag not in (SECRET_KEY, SECRET_SUBKEY):
            continue
        parsed = _parse(packet)
        if not bytes.fromhex(str(parsed.fingerprint).replace(" ", "")).endswith(key_id):
            continue
        if _SIGNING.get(int(parsed.pkalg)) not in ("rsa", "ecdsa", "ed25519"):
            raise Unsupported("this part of the key is not for signatures in TLS")
        try:
            if parsed.protected:
                parsed.unprotect(passphrase)
            key = parsed.keymaterial.__privkey__()
        except Exception as fault:
            raise Malformed(f"the private half cannot be read; is the passphrase right? ({type(fault).__name__})") from None
        pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return pem
    raise Malformed(f"no private half of a key {key_id.hex().upper()} in it; `gpg --export-secret-keys` writes them")
