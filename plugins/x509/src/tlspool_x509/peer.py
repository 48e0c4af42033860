"""What a peer showed: the strict and bounded reading of a Certificate message's entries.

Theory of operation
-------------------
Nothing about trust is decided here.  The end certificate must be one whose key may sign a handshake at all; each further entry
must be a certificate, of which there are few.  What comes out can verify the peer's proof, and holds all that path validation and
policy look at later, so that nothing is parsed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256

from cryptography import x509

from tlspool_core.api import (
    BadCertificate,
    CertificateEntry,
    DecodeError,
    InsufficientSecurity,
    PublicKeyCredential,
    UnsupportedCertificate,
)
from tlspool_x509.anchors import chain_keys
from tlspool_x509.certificates import MAX_CHAIN, Malformed, parse_certificate, spki_of
from tlspool_x509.keys import is_pss, key_fault, public_key_of, usage_fault
from tlspool_x509.names import Names

CERTIFICATE_TYPE = 0  # IANA registry "TLS Certificate Types"
_REMEMBERED = 8192  # bytes of a certificate at the most; strangers send others, up to what a handshake may bring


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Peer(PublicKeyCredential):
    """A peer's certificate chain; `chain[0]` is the end certificate, the others may be in any order."""

    chain: tuple[x509.Certificate, ...]
    names: Names
    fingerprint: bytes  # SHA-256 of the end certificate
    key_fingerprint: bytes  # SHA-256 of its SubjectPublicKeyInfo
    digest: bytes = field(repr=False)  # SHA-256 over everything that was shown
    anchor_keys: tuple[bytes, ...] = field(repr=False)  # keys of the trust database under which its anchors may be

    @property
    def leaf(self) -> x509.Certificate:
        """The end certificate."""
        return self.chain[0]

    @property
    def issuing(self) -> list[x509.Certificate]:
        """The end certificate, and those of the others that lead up from it, by their names."""
        found = [self.chain[0]]
        rest = list(self.chain[1:])
        while above := next((one for one in rest if one.subject == found[-1].issuer), None):
            found.append(above)
            rest.remove(above)
        return found


@lru_cache(maxsize=128)
def _known(der: bytes) -> x509.Certificate:
    """Issuers' certificates come again and again; so do the end certificates of frequent peers. Raises Malformed."""
    return parse_certificate(der)


def examine(
    entries: Sequence[CertificateEntry], anchor_keys: Callable[[Sequence[x509.Certificate]], tuple[bytes, ...]] = chain_keys
) -> X509Peer:
    """From the entries of a Certificate message; `anchor_keys` says where to look for anchors of a chain.

    Raises DecodeError, BadCertificate, UnsupportedCertificate, InsufficientSecurity.
    """
    if not entries:
        raise DecodeError("no certificate in the message")
    if len(entries) > MAX_CHAIN:
        raise BadCertificate(f"a chain of {len(entries)} certificates, more than {MAX_CHAIN}")
    try:
        chain = tuple([(_known if len(entry.data) <= _REMEMBERED else parse_certificate)(entry.data) for entry in entries])
    except Malformed as error:
        raise BadCertificate(str(error)) from None
    leaf = chain[0]
    key = public_key_of(leaf)
    if key is None:
        raise UnsupportedCertificate("the end certificate's key cannot be read")
    if fault := key_fault(key):
        raise InsufficientSecurity(f"the end certificate has {fault}")
    if fault := usage_fault(leaf):
        raise UnsupportedCertificate(f"the end certificate has {fault}")
    return X509Peer(
        certificate_type=CERTIFICATE_TYPE,
        entries=tuple(entries),
        public_key=key,
        pss=is_pss(leaf),
        chain=chain,
        names=Names.of(leaf),
        fingerprint=sha256(entries[0].data).digest(),
        key_fingerprint=sha256(spki_of(leaf)).digest(),
        digest=sha256(b"".join([sha256(entry.data).digest() for entry in entries])).digest(),
        anchor_keys=anchor_keys(chain),
    )
