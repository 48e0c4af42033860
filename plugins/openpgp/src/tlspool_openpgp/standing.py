"""What a key is good for now: revocation, expiry, key flags, user ids, judged on verified facts.

Theory of operation
-------------------
Of several statements of the same kind the newest counts; one from the future does not count yet.  A revocation of a key or subkey
counts whatever its age; one of a user id ends the certifications that are not newer.  A key that has no user id with a valid
self-signature is nobody's, and is refused.  Flags, where a key has them, must allow to sign or to authenticate; a subkey that may
sign must have said itself that it belongs to the primary key.
"""

from __future__ import annotations

from collections.abc import Iterable

from tlspool_core.api import (
    BadCertificate,
    CertificateExpired,
    CertificateRevoked,
    InsufficientSecurity,
    TlsError,
    UnsupportedCertificate,
)
from tlspool_openpgp.facts import KeyFacts, PublicKeyFacts, SignatureFacts, SubkeyFacts, UserFacts

CERTIFICATIONS = frozenset({0x10, 0x11, 0x12, 0x13})
CERT_REVOCATION, DIRECT, KEY_REVOCATION, BINDING, SUBKEY_REVOCATION = 0x30, 0x1F, 0x20, 0x18, 0x28
SIGN, AUTHENTICATE, CERTIFY = 0x02, 0x20, 0x01  # key flags, RFC 4880 section 5.2.3.21
TOLERANCE = 600  # seconds that others' clocks may be ahead of ours
_TLS_ALGORITHMS = frozenset({"rsa", "ecdsa", "ed25519"})
_STRENGTH = ((15360, 256), (7680, 192), (3072, 128), (2048, 112))  # NIST SP 800-57 part 1, table 2


def newest(signatures: Iterable[SignatureFacts], types: frozenset[int] | set[int], now: float) -> SignatureFacts | None:
    """The newest statement of these types that was made already; it may have expired since."""
    made = [one for one in signatures if one.type in types and one.created <= now + TOLERANCE]
    return max(made, key=lambda one: one.created, default=None)


def expired(signature: SignatureFacts, now: float) -> bool:
    """Whether the signature itself has come to its end."""
    return bool(signature.expires) and now >= signature.created + signature.expires


def certification(signatures: Iterable[SignatureFacts], now: float) -> SignatureFacts | None:
    """The certification of a user id by one key that stands: the newest, if it is neither expired nor revoked."""
    signatures = tuple(signatures)
    found = newest(signatures, CERTIFICATIONS, now)
    if found is None or expired(found, now):
        return None
    revoked = any(one.type == CERT_REVOCATION and one.created >= found.created for one in signatures)
    return None if revoked else found


def users(facts: KeyFacts, now: float) -> list[UserFacts]:
    """User ids that the key itself certifies, the primary one first."""
    valid = [(user, found) for user in facts.users if (found := certification(user.signatures, now)) is not None]
    valid.sort(key=lambda pair: (not pair[1].primary, -pair[1].created if pair[1].primary else 0))
    return [user for user, _ in valid]


def _own_word(facts: KeyFacts, now: float) -> SignatureFacts | None:
    """The newest self-signature that speaks of the primary key: its flags and expiry."""
    statements = [found for user in facts.users if (found := certification(user.signatures, now)) is not None]
    direct = newest(facts.direct, {DIRECT}, now)
    if direct is not None and not expired(direct, now):
        statements.append(direct)
    return max(statements, key=lambda one: one.created, default=None)


def _ended(key: PublicKeyFacts, word: SignatureFacts, now: float) -> bool:
    return bool(word.key_expires) and now >= key.created + word.key_expires


def primary_fault(facts: KeyFacts, now: float) -> TlsError | None:
    """Why the key as a whole must not be used, None if it may."""
    if any(one.type == KEY_REVOCATION for one in facts.direct):
        return CertificateRevoked("the OpenPGP key is revoked by its owner")
    if facts.primary.created > now + TOLERANCE:
        return BadCertificate("the OpenPGP key is from the future")
    if not users(facts, now):
        if facts.weak:
            return InsufficientSecurity(f"the OpenPGP key has {facts.weak}, and no user id with a better one")
        return BadCertificate("the OpenPGP key has no user id with a valid self-signature")
    word = _own_word(facts, now)
    if word is not None and _ended(facts.primary, word, now):
        return CertificateExpired("the OpenPGP key has expired")
    return None


def may_certify(facts: KeyFacts, now: float) -> bool:
    """Whether its certifications count: it stands, and its flags, if any, allow it."""
    word = _own_word(facts, now)
    return primary_fault(facts, now) is None and (word is None or word.flags is None or bool(word.flags & CERTIFY))


def signing_key(facts: KeyFacts, key_id: bytes, now: float) -> PublicKeyFacts:
    """The key of this id (b"": the primary) if it may prove who we talk to. Raises a TlsError."""
    fault = primary_fault(facts, now)
    if fault is not None:
        raise fault
    if key_id in (b"", facts.primary.key_id):
        key, word = facts.primary, _own_word(facts, now)
    else:
        subkey = next((one for one in facts.subkeys if one.key.key_id == key_id), None)
        if subkey is None:
            raise BadCertificate(f"the OpenPGP key has no usable subkey {key_id.hex().upper()}")
        key, word = subkey.key, _binding(subkey, now)
    if word is not None and word.flags is not None and not word.flags & (SIGN | AUTHENTICATE):
        raise UnsupportedCertificate("the OpenPGP key's flags allow neither to sign nor to authenticate")
    if key.algorithm not in _TLS_ALGORITHMS:
        raise UnsupportedCertificate(f"TLS is not signed with {key.algorithm or 'this kind of OpenPGP key'}")
    return key


def _binding(subkey: SubkeyFacts, now: float) -> SignatureFacts:
    """The statement that a subkey belongs to its primary key. Raises a TlsError."""
    if any(one.type == SUBKEY_REVOCATION for one in subkey.signatures):
        raise CertificateRevoked("the OpenPGP subkey is revoked")
    found = newest(subkey.signatures, {BINDING}, now)
    if found is None:
        raise BadCertificate("the OpenPGP subkey is not bound to its primary key")
    if expired(found, now) or _ended(subkey.key, found, now):
        raise CertificateExpired("the OpenPGP subkey has expired")
    if (found.flags is None or found.flags & SIGN) and not found.back:
        raise BadCertificate("the OpenPGP subkey does not confirm that it belongs to its primary key")
    return found


def strength(*keys: PublicKeyFacts) -> int:
    """Bits of the weakest of some keys."""
    return min(_strength(key) for key in keys)


def _strength(key: PublicKeyFacts) -> int:
    if key.algorithm in ("rsa", "dsa"):
        return next((strength for bits, strength in _STRENGTH if key.bits >= bits), 0)
    return min(key.bits // 2, 256)
