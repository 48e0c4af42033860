"""Verifiers: what the server keeps of a password, and how it lies in the trust database.

Theory of operation
-------------------
The server never knows a password.  It keeps salt and verifier, v = g^x with x = SHA1(salt | SHA1(user | ":" | password))
(RFC 5054 section 2.4), as a record of the trust database under the key `srp:` and the identity.  A stolen verifier permits guessing the
password off line, and acting as this server, so it is a secret too: it has no repr, and lists show only group and salt length.

User names that are not known get a verifier that is computed from a secret of this installation (section 2.5.1.3): always the same for the
same name, so that asking twice tells nothing.  It is computed for known names as well, and then dropped, so that time tells nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

from srptools import SRPContext

from tlspool_core.api import ConfigBackend, ConfigReader, DoNAI, TrustRecord
from tlspool_srp.groups import GROUPS, Group

TYPE = "srp"
PREFIX = b"srp:"
SEED_KEY = PREFIX + b"\0seed"  # no identity begins with a zero byte
SALT_SIZE = 16
PRIVATE_BITS = 256  # RFC 5054 sections 2.5.3 and 2.5.4: at least 256
MAX_PASSWORD = 1024


@dataclass(frozen=True, slots=True)
class Verifier:
    """Salt and verifier of one user; `user` is the name as it was hashed."""

    user: str
    group: Group
    salt: bytes = field(repr=False)
    value: int = field(repr=False)

    def encode(self) -> bytes:
        """The record's blob: version, bits of the group, then salt, verifier and user, each with its length."""
        value = self.value.to_bytes(self.group.size)
        parts = (self.salt, value, self.user.encode())
        return b"\x01" + self.group.bits.to_bytes(2) + b"".join(len(part).to_bytes(2) + part for part in parts)

    @classmethod
    def decode(cls, blob: bytes) -> Verifier:
        """Raises ValueError if the blob is not exactly what `encode` makes."""
        group = GROUPS.get(int.from_bytes(blob[1:3]))
        if blob[:1] != b"\x01" or group is None:
            raise ValueError("not an SRP verifier of a known version and group")
        parts, rest = [], blob[3:]
        for _ in range(3):
            size = int.from_bytes(rest[:2])
            parts.append(rest[2 : 2 + size])
            if len(parts[-1]) != size or len(rest) < 2:
                raise ValueError("the SRP verifier is cut short")
            rest = rest[2 + size :]
        value = int.from_bytes(parts[1])
        if rest or not parts[0] or len(parts[1]) != group.size or not 1 < value < group.prime:
            raise ValueError("the SRP verifier is damaged")
        return cls(parts[2].decode(), group, parts[0], value)


def context_for(group: Group, user: str, password: str | None = None) -> SRPContext:
    """srptools' computations with a group of the RFC, SHA-1 (RFC 5054 section 2.1), and private values of 256 bits."""
    return SRPContext(
        user, password, prime=f"{group.prime:x}", generator=f"{group.generator:x}", hash_func=hashlib.sha1, bits_random=PRIVATE_BITS
    )


def make_verifier(user: str, password: str, bits: int = 2048) -> Verifier:
    """A fresh verifier for a password. Raises ValueError for an empty or overlong password, or an unknown group."""
    if not password or len(password.encode()) > MAX_PASSWORD:
        raise ValueError(f"a password has 1 to {MAX_PASSWORD} octets")
    if bits not in GROUPS:
        raise ValueError(f"there is no group of {bits} bits; there are {', '.join(map(str, GROUPS))}")
    context = context_for(GROUPS[bits], user, password)
    salt = secrets.token_bytes(SALT_SIZE)
    return Verifier(user, GROUPS[bits], salt, context.get_common_password_verifier(context.get_common_password_hash(salt)))


def record_key(identity: DoNAI) -> bytes:
    """Where the trust database keeps the verifier of an identity."""
    return PREFIX + str(identity).encode()


def record_for(identity: DoNAI, verifier: Verifier, expression: str = "") -> TrustRecord:
    """The trust record of a user."""
    return TrustRecord(record_key(identity), TYPE, expression=expression, blob=verifier.encode())


def find_verifier(databases: ConfigReader, identity: DoNAI) -> Verifier | None:
    """The verifier of an identity, None if there is none or it is revoked. Raises ValueError if it is damaged."""
    for record in databases.trust(record_key(identity)):
        if record.type == TYPE and not record.revoked:
            return Verifier.decode(record.blob)
    return None


def installation_seed(config: ConfigBackend) -> bytes:
    """The secret that simulated verifiers come from; made when it is first needed. May block."""
    with config.read() as databases:
        found = databases.trust(SEED_KEY)
    if not found:
        with config.write() as databases:
            found = databases.trust(SEED_KEY)  # another process may have been quicker
            if not found:
                record = TrustRecord(SEED_KEY, TYPE, blob=secrets.token_bytes(32))
                databases.put_trust(record)
                found = (record,)
    return found[0].blob


def simulated_verifier(seed: bytes, user: str, bits: int) -> Verifier:
    """What an unknown user is served: looks like a verifier, and fits no password that anybody knows."""
    group = GROUPS[bits]
    salt = hmac.digest(seed, b"salt\0" + user.encode(), "sha256")[:SALT_SIZE]
    exponent = int.from_bytes(hmac.digest(seed, b"x\0" + user.encode(), "sha1"))  # as long as a real x
    return Verifier(user, group, salt, context_for(group, user).get_common_password_verifier(exponent))
