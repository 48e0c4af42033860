"""OpenPGP keys in the trust database, and pins that were kept on first use.

Theory of operation
-------------------
A record stands under the fingerprint of a key, and holds the key.  Pinned, it says that this very key is meant (predicate P);
otherwise that the key is trusted, and with it what it certifies (predicate T).  Marked as revoked, it says never again.  A pin that
was kept on first use stands under `openpgp:pin:ROLE:IDENTITY`, and holds a fingerprint.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable

from tlspool_core.api import ConfigBackend, Denied, DoNAI, Role, TrustRecord

TYPE = "openpgp"
_PREFIX = b"openpgp:pin:"
_MAX_CERTIFIERS = 16


def records(config: ConfigBackend, key: bytes) -> list[TrustRecord]:
    """Ours under a key of the database."""
    with config.read() as databases:
        return [record for record in databases.trust(key) if record.type == TYPE]


def is_distrusted(config: ConfigBackend, fingerprint: bytes) -> bool:
    """Whether a key is marked as never to be trusted."""
    return any(record.revoked for record in records(config, fingerprint))


def stored_key(config: ConfigBackend, fingerprint: bytes) -> bytes:
    """The key of a fingerprint, b"" if there is none, or none to be trusted."""
    found = records(config, fingerprint)
    if any(record.revoked for record in found):
        return b""
    return next((record.blob for record in found if record.blob), b"")


def trusted(config: ConfigBackend, fingerprint: bytes, role: Role) -> TrustRecord | None:
    """The record that makes a key trusted for peers in a role."""
    found = records(config, fingerprint)
    if any(record.revoked for record in found):
        return None
    return next((record for record in found if record.roles & role and not record.pinned), None)


def is_pinned(config: ConfigBackend, fingerprint: bytes, role: Role) -> bool:
    """Whether an operator pinned a key for a role."""
    found = records(config, fingerprint)
    return any(one.pinned and one.roles & role for one in found) and not any(one.revoked for one in found)


def known_certifiers(config: ConfigBackend, issuers: Iterable[bytes]) -> tuple[bytes, ...]:
    """Fingerprints of stored keys among some fingerprints and key ids; a few at most."""
    found: dict[bytes, None] = {}
    wanted = tuple(dict.fromkeys(issuers))
    with config.read() as databases:
        for issuer in wanted:
            if len(issuer) == 20 and any(record.type == TYPE for record in databases.trust(issuer)):
                found[issuer] = None
        ids = {issuer for issuer in wanted if len(issuer) == 8} - {fingerprint[-8:] for fingerprint in found}
        if ids:
            found.update(
                (record.key, None) for record in databases.trusts(TYPE) if len(record.key) == 20 and record.key[-8:] in ids
            )
    return tuple(found)[:_MAX_CERTIFIERS]


# --- pins on first use -------------------------------------------------------------------------------------------------------------------


def pin_key(identity: DoNAI, role: Role) -> bytes:
    """Key of the trust database for the pin of an identity in a role."""
    return _PREFIX + (b"client" if role is Role.CLIENT else b"server") + b":" + str(identity).encode()


def kept_pins(config: ConfigBackend, identity: DoNAI, role: Role) -> list[TrustRecord]:
    """Records of what was kept for an identity."""
    return [record for record in records(config, pin_key(identity, role)) if record.pinned and not record.revoked]


def matches(pins: Iterable[TrustRecord], fingerprint: bytes) -> bool:
    """Whether one of the pins is this key."""
    return any(hmac.compare_digest(pin.blob, fingerprint) for pin in pins)


def keeper(config: ConfigBackend, identity: DoNAI, role: Role, fingerprint: bytes) -> Callable[[], None]:
    """Work that keeps the pin. Raises Denied if another was kept meanwhile."""
    record = TrustRecord(pin_key(identity, role), TYPE, role, pinned=True, blob=fingerprint)

    def keep() -> None:
        with config.write() as databases:
            others = [one for one in databases.trust(record.key) if one.type == TYPE and one.pinned and not one.revoked]
            if others and not matches(others, fingerprint):
                raise Denied(f"another OpenPGP key was pinned for {identity} at the same time")
            if not others:
                databases.put_trust(record)

    return keep
