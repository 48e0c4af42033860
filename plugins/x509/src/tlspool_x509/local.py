"""Credentials of our own: a certificate chain from the localid database, and the key in a key store that goes with it.

Theory of operation
-------------------
A chain and a key that do not belong together, an expired certificate, or one for the other role, would only show as a refusal by
the peer.  So `load_credential` checks all that when the credential is made ready, and says what to mend.  Validity is looked at
again with each signature, since a credential may be kept for months.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from tlspool_core.api import CertificateEntry, Denied, Key, LocalCredential, Role, TlsError, schemes_for_key, verify
from tlspool_x509.certificates import (
    Malformed,
    der_of,
    issued_by,
    parse_certificate,
    roles_of,
    split_der,
    validity_fault,
)
from tlspool_x509.keys import is_pss, key_fault, public_key_of, usage_fault
from tlspool_x509.names import Names, title

log = logging.getLogger("tlspool.x509")

WARN_BEFORE = timedelta(days=14)
_WORDS = {Role.SERVER: "server", Role.CLIENT: "client"}

# A token makes RSASSA-PSS signatures, whatever the certificate calls the key: rsa_pss_pss_* and what the key store may call it.
_PSS_AS_RSAE = {0x0809: 0x0804, 0x080A: 0x0805, 0x080B: 0x0806}


@dataclass(frozen=True, slots=True)
class X509Credential:
    """Ready for use. `roles` are those that both the database and extendedKeyUsage allow."""

    certificate_type: int
    entries: Sequence[CertificateEntry]
    signature_schemes: Sequence[int]
    issuers: Sequence[bytes]
    roles: Role
    leaf: x509.Certificate
    key: Key = field(repr=False, compare=False)
    scheme_names: dict[int, int] = field(repr=False, compare=False)  # what the key store calls a scheme


async def load_credential(
    local: LocalCredential, find_key: Callable[[str], Awaitable[Key]], clock: Callable[[], datetime]
) -> X509Credential:
    """Check everything about a stored credential. Raises Denied, or KeyStoreError from the key store."""
    chain = _stored_chain(local)
    leaf = chain[0]
    roles = _usable_roles(local, leaf)
    _check_validity(local, chain, clock())
    if not Names.of(leaf).name(local.identity, user_case_counts=True) and not Names.of(leaf).name(local.identity):
        log.warning("the certificate %s of %s does not name it; peers will refuse it", title(leaf), local.identity)
    key = await find_key(local.key_uri)
    names = _schemes(local, leaf, key)
    await _check_key(local, leaf, key, names)
    return X509Credential(
        certificate_type=0,
        entries=tuple([CertificateEntry(der_of(certificate)) for certificate in chain]),
        signature_schemes=tuple(names),
        issuers=tuple([certificate.issuer.public_bytes() for certificate in chain]),
        roles=roles,
        leaf=leaf,
        key=key,
        scheme_names=names,
    )


def _stored_chain(local: LocalCredential) -> list[x509.Certificate]:
    """The chain, each certificate followed by its issuer. Raises Denied."""
    try:
        chain = [parse_certificate(der) for der in split_der(local.public)]
    except Malformed as error:
        raise Denied(f"the stored chain of {local.identity} is damaged: {error}; add it anew (tlspool localid add)") from None
    if not chain:
        raise Denied(f"no certificate is stored for {local.identity}; add one (tlspool localid add)")
    for certificate, issuer in pairwise(chain):
        if not issued_by(certificate, issuer):
            raise Denied(f"in the chain of {local.identity}, {title(certificate)} is not issued by {title(issuer)}, which follows")
    fault = key_fault(public_key_of(chain[0])) or usage_fault(chain[0])
    if fault:
        raise Denied(f"the certificate of {local.identity} has {fault}, so it cannot be used in TLS")
    return chain


def _usable_roles(local: LocalCredential, leaf: x509.Certificate) -> Role:
    """Raises Denied if extendedKeyUsage leaves none of the stored roles."""
    roles = local.roles & roles_of(leaf)
    if not roles:
        wanted = " and ".join(word for role, word in _WORDS.items() if role & local.roles)
        raise Denied(f"the certificate of {local.identity} is not made for use as a TLS {wanted}: see its extendedKeyUsage")
    return roles


def _check_validity(local: LocalCredential, chain: Sequence[x509.Certificate], now: datetime) -> None:
    """Raises Denied; warns ahead of time."""
    for certificate in chain:
        if fault := validity_fault(certificate, now):
            raise Denied(f"in the chain of {local.identity}, {title(certificate)} {fault}; install a new one")
    ends = min(certificate.not_valid_after_utc for certificate in chain)
    if ends - now < WARN_BEFORE:
        log.warning("the chain of %s expires on %s", local.identity, f"{ends:%Y-%m-%d %H:%M} UTC")


def _schemes(local: LocalCredential, leaf: x509.Certificate, key: Key) -> dict[int, int]:
    """Schemes that both certificate and key allow, the key's best first; with the key store's name for each. Raises Denied."""
    allowed = schemes_for_key(public_key_of(leaf), pss=is_pss(leaf))
    offered = tuple(key.signature_schemes)
    found = {scheme: scheme for scheme in offered if scheme in allowed}
    for scheme in allowed:
        alias = _PSS_AS_RSAE.get(scheme)
        if alias is not None and alias in offered:
            found.setdefault(scheme, alias)
    if not found:
        raise Denied(f"the key {local.key_uri} makes no signature that goes with the certificate of {local.identity}")
    return found


async def _check_key(local: LocalCredential, leaf: x509.Certificate, key: Key, names: dict[int, int]) -> None:
    """Raises Denied unless certificate and key belong together: by the public key, or if it is not known by a signature."""
    public = key.public_key
    if public is None:
        matches = await _signs_for(leaf, key, names)
    else:
        try:
            matches = load_der_public_key(public) == public_key_of(leaf)
        except (ValueError, UnsupportedAlgorithm):
            matches = await _signs_for(leaf, key, names)
    if not matches:
        raise Denied(f"the key {local.key_uri} is not that of the certificate {title(leaf)}, stored for {local.identity}")


async def _signs_for(leaf: x509.Certificate, key: Key, names: dict[int, int]) -> bool:
    scheme, name = next(iter(names.items()))
    # spaces and a name of our own: no signature that TLS could ever take for a proof
    content = b" " * 64 + b"TLS Pool, key check\0" + os.urandom(32)
    signature = await key.sign(name, content)
    try:
        verify(public_key_of(leaf), scheme, content, signature, version=_version(scheme), pss=is_pss(leaf))
    except TlsError:
        return False
    return True


def _version(scheme: int) -> int:
    """RSASSA-PKCS1-v1_5 proves possession in TLS 1.2 only."""
    return 0x0303 if scheme in (0x0401, 0x0501, 0x0601) else 0x0304


async def sign(credential: X509Credential, scheme: int, content: bytes, now: datetime) -> bytes:
    """The proof of possession. Raises Denied if the certificate is no longer valid, KeyStoreError from the key store."""
    if fault := validity_fault(credential.leaf, now):
        raise Denied(f"our certificate {title(credential.leaf)} {fault}; install a new one")
    name = credential.scheme_names.get(scheme)
    if name is None:
        raise Denied(f"our key does not make signature scheme {scheme:#06x}")
    return await credential.key.sign(name, content)
