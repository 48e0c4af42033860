"""Pins: credentials that are known from before, put there by an operator or kept on first use.

Theory of operation
-------------------
An operator's pin stands in the trust database under the SHA-256 of an end certificate or of its public key.  It says that this very
credential is meant; whom it names is still in the certificate, so that a pin for one host does not serve another.

A pin that was kept on first use is bound to an identity: under the key `x509:pin:ROLE:IDENTITY` stands the SHA-256.  The first
credential under an identity becomes its pin once policy as a whole has accepted it; from then on others are refused.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence

from tlspool_core.api import ConfigBackend, Denied, DoNAI, Role, TrustRecord
from tlspool_x509.anchors import TYPE
from tlspool_x509.peer import X509Peer

_PREFIX = b"x509:pin:"
_WORDS = {Role.SERVER: b"server", Role.CLIENT: b"client"}


def identity_key(identity: DoNAI, role: Role) -> bytes:
    """Key of the trust database for the pins of an identity in a role."""
    return _PREFIX + _WORDS[role] + b":" + str(identity).encode()


def operator_pins(peer: X509Peer, role: Role, config: ConfigBackend) -> list[TrustRecord]:
    """Records that pin exactly what the peer showed, for its role."""
    with config.read() as databases:
        records = [record for key in (peer.fingerprint, peer.key_fingerprint) for record in databases.trust(key)]
    return [record for record in records if _is_pin(record) and record.roles & role]


def kept_pins(identity: DoNAI, role: Role, config: ConfigBackend) -> list[TrustRecord]:
    """Records of what was kept for an identity."""
    with config.read() as databases:
        return [record for record in databases.trust(identity_key(identity, role)) if _is_pin(record)]


def _is_pin(record: TrustRecord) -> bool:
    return record.type == TYPE and record.pinned and not record.revoked


def matches(peer: X509Peer, pins: Sequence[TrustRecord]) -> bool:
    """Whether one of the kept pins is the peer's certificate or key."""
    shown = (peer.fingerprint, peer.key_fingerprint)
    return any(hmac.compare_digest(pin.blob, digest) for pin in pins for digest in shown)


def keeper(peer: X509Peer, identity: DoNAI, role: Role, config: ConfigBackend, what: str) -> Callable[[], None]:
    """Work that keeps the pin: of the public key, or of the certificate. Raises Denied if another was kept meanwhile."""
    digest = peer.key_fingerprint if what == "key" else peer.fingerprint
    record = TrustRecord(key=identity_key(identity, role), type=TYPE, roles=role, pinned=True, blob=digest)

    def keep() -> None:
        with config.write() as databases:
            others = [one for one in databases.trust(record.key) if _is_pin(one)]
            if others and not matches(peer, others):
                raise Denied(f"another credential was pinned for {identity} at the same time")
            if not others:
                databases.put_trust(record)

    return keep
