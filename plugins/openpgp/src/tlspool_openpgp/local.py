"""Keys of our own: the public key from the localid database, and the private half of one of its parts in a key store.

Theory of operation
-------------------
Which part signs, primary key or a subkey, follows from the private key: its public half is looked for among the parts.  If the key
store does not know it, a signature tells.  All that a peer would refuse is refused here, when the credential is made ready, with what
to mend; and looked at again with each signature, as a credential may be kept for months.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from tlspool_core.api import CertificateEntry, Denied, Key, LocalCredential, TlsError, schemes_for_key, verify
from tlspool_openpgp import standing
from tlspool_openpgp.facts import KeyFacts, PublicKeyFacts
from tlspool_openpgp.message import OPENPGP, subkey_descriptor
from tlspool_openpgp.peer import public_key, read_key
from tlspool_openpgp.reader import Reader

_TLS12 = 0x0303


@dataclass(frozen=True, slots=True)
class OpenPgpCredential:
    """Ready for use."""

    entries: Sequence[CertificateEntry]
    signature_schemes: Sequence[int]
    facts: KeyFacts
    signing: PublicKeyFacts
    key: Key = field(repr=False, compare=False)
    certificate_type: int = OPENPGP
    issuers: Sequence[bytes] = ()


async def load(
    local: LocalCredential, find_key: Callable[[str], Awaitable[Key]], reader: Reader, clock: Callable[[], float]
) -> OpenPgpCredential:
    """Check everything about a stored credential. Raises Denied, or KeyStoreError from the key store."""
    key = await find_key(local.key_uri)
    try:
        facts = await asyncio.to_thread(read_key, reader, local.public)
        found = await _part(facts, key)
        if found is None:
            raise Denied(f"the key {local.key_uri} belongs to no part of the OpenPGP key of {local.identity}")
        signing = standing.signing_key(facts, found.key_id, clock())
        schemes = _schemes(signing, key)
    except TlsError as fault:
        raise Denied(f"the OpenPGP key of {local.identity} cannot be used: {fault}") from None
    if not schemes:
        raise Denied(f"the key {local.key_uri} makes no signature that goes with the OpenPGP key of {local.identity}")
    entry = CertificateEntry(subkey_descriptor(signing.key_id, local.public))
    return OpenPgpCredential((entry,), schemes, facts, signing, key)


def _schemes(signing: PublicKeyFacts, key: Key) -> tuple[int, ...]:
    """Schemes that both halves have, the key store's best first."""
    allowed = schemes_for_key(public_key(signing))
    return tuple([scheme for scheme in key.signature_schemes if scheme in allowed])


async def _part(facts: KeyFacts, key: Key) -> PublicKeyFacts | None:
    """The part of an OpenPGP key whose private half this is."""
    parts = [part for part in (facts.primary, *(subkey.key for subkey in facts.subkeys)) if part.spki]
    known = _canonical(key.public_key)
    if known:
        return next((part for part in parts if hmac.compare_digest(_canonical(part.spki), known)), None)
    for part in parts:
        if part.algorithm != "dsa" and await _signs_for(part, key):
            return part
    return None


def _canonical(spki: bytes | None) -> bytes:
    """A public key in the one form in which keys can be compared; empty if it is none."""
    try:
        return load_der_public_key(spki).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) if spki else b""
    except (ValueError, UnsupportedAlgorithm):
        return b""


async def _signs_for(part: PublicKeyFacts, key: Key) -> bool:
    schemes = _schemes(part, key)
    if not schemes:
        return False
    # spaces and a name of our own: no signature that TLS could ever take for a proof
    content = b" " * 64 + b"TLS Pool, key check\0" + os.urandom(32)
    try:
        verify(public_key(part), schemes[0], content, await key.sign(schemes[0], content), version=_TLS12)
    except TlsError:
        return False
    return True


async def sign(credential: OpenPgpCredential, scheme: int, content: bytes, now: float) -> bytes:
    """The proof of possession. Raises Denied if the key may no longer be used, KeyStoreError from the key store."""
    try:
        standing.signing_key(credential.facts, credential.signing.key_id, now)
    except TlsError as fault:
        raise Denied(f"our own key: {fault}") from None
    return await credential.key.sign(scheme, content)
