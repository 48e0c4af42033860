"""What is known about a key: plain values, made from the worker's answers. Every self-signature in them was verified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SignatureFacts:
    """A signature that verifies. Times in seconds since the epoch; periods in seconds, 0 for without end."""

    type: int
    created: int
    expires: int = 0
    key_expires: int = 0
    flags: int | None = None
    primary: bool = False
    reason: int | None = None
    back: bool = False


@dataclass(frozen=True, slots=True)
class PublicKeyFacts:
    """A primary key or subkey. `algorithm` is "rsa", "dsa", "ecdsa", "ed25519", or "" for what does not sign."""

    fingerprint: bytes
    created: int
    algorithm: str
    bits: int
    spki: bytes

    @property
    def key_id(self) -> bytes:
        """RFC 4880 section 12.2."""
        return self.fingerprint[-8:]


@dataclass(frozen=True, slots=True)
class UserFacts:
    """A user id, what the key itself says about it, and who else claims to."""

    text: str
    signatures: tuple[SignatureFacts, ...]
    issuers: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SubkeyFacts:
    """A subkey with its bindings and revocations."""

    key: PublicKeyFacts
    signatures: tuple[SignatureFacts, ...]


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """A transferable public key (RFC 4880 section 11.1). `weak` names a self-signature that was too weak to count, if any."""

    primary: PublicKeyFacts
    direct: tuple[SignatureFacts, ...]
    users: tuple[UserFacts, ...]
    subkeys: tuple[SubkeyFacts, ...]
    weak: str = ""


def _public_key(value: Any) -> PublicKeyFacts:
    fingerprint, spki = bytes.fromhex(value["fingerprint"]), bytes.fromhex(value["spki"])
    if len(fingerprint) != 20:
        raise ValueError("a fingerprint of version 4 has 20 octets")
    return PublicKeyFacts(fingerprint, int(value["created"]), str(value["algorithm"]), int(value["bits"]), spki)


def _signatures(values: Any) -> tuple[SignatureFacts, ...]:
    return tuple([SignatureFacts(**value) for value in values])


def _text(value: str) -> str:
    return bytes.fromhex(value).decode("utf-8", "replace")


def key_from(value: Any) -> KeyFacts:
    """From the answer to a request for a key."""
    users = [
        UserFacts(_text(user["text"]), _signatures(user["signatures"]), tuple([bytes.fromhex(one) for one in user["issuers"]]))
        for user in value["users"]
    ]
    subkeys = [SubkeyFacts(_public_key(subkey["key"]), _signatures(subkey["signatures"])) for subkey in value["subkeys"]]
    return KeyFacts(_public_key(value["primary"]), _signatures(value["direct"]), tuple(users), tuple(subkeys), str(value["weak"]))


def certifications_from(value: Any) -> dict[str, tuple[SignatureFacts, ...]]:
    """From the answer to a request for certifications."""
    return {_text(text): _signatures(signatures) for text, signatures in value}
