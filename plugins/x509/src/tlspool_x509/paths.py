"""Certificate paths: from a peer's end certificate to an anchor, by RFC 5280 section 6.

Theory of operation
-------------------
The search for a path, signatures, validity, name constraints and path lengths are `cryptography.x509.verification`'s, which bounds
its own work.  Before it, certificates are sifted by what it does not look at: keys and algorithms of end certificates, serial
numbers, key identifiers.  After it, the names that it does not know are held against the name constraints (`constraints`).  What
it does not take at all goes through `surrogates`.

An end certificate that is itself an anchor needs no path: whoever put it into the trust database meant this very certificate.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from tlspool_core.api import Role
from tlspool_x509.anchors import Anchor
from tlspool_x509.certificates import authority_key_id, der_of, issued_by, roles_of, serial_fault, subject_key_id, validity_fault
from tlspool_x509.constraints import constraint_fault
from tlspool_x509.keys import key_fault, public_key_of, signature_fault
from tlspool_x509.names import title
from tlspool_x509.rules import CA_POLICY, END_POLICY
from tlspool_x509.surrogates import Surrogates, needs_surrogates

MAX_DEPTH = 8  # intermediates between end certificate and anchor

_WORDS = {Role.SERVER: "server", Role.CLIENT: "client"}
_NOISE = re.compile(
    r"validation failed: |candidates exhausted: |fatal error: |Python extension validator failed: (?:ValueError: )?"
    r"|\(encountered processing .*\)$",
    re.DOTALL,
)
_EXTENSION_NAMES = {
    "2.5.29.14": "subjectKeyIdentifier",
    "2.5.29.15": "keyUsage",
    "2.5.29.17": "subjectAltName",
    "2.5.29.19": "basicConstraints",
    "2.5.29.35": "authorityKeyIdentifier",
    "2.5.29.36": "policyConstraints",
    "2.5.29.37": "extendedKeyUsage",
}


class Untrusted(Exception):
    """There is no acceptable path; the text says why, for log and application."""


@dataclass(frozen=True, slots=True)
class Path:
    """A valid path, end certificate first, anchor last (they may be the same)."""

    chain: tuple[x509.Certificate, ...]
    anchor: Anchor

    @property
    def links(self) -> tuple[tuple[x509.Certificate, x509.Certificate], ...]:
        """Each certificate that was issued, with its issuer."""
        return tuple(pairwise(self.chain))


def find_path(
    chain: Sequence[x509.Certificate], anchors: Sequence[Anchor], role: Role, now: datetime, max_depth: int = MAX_DEPTH
) -> Path:
    """A path from `chain[0]` through others of the chain to one of the anchors. Raises Untrusted."""
    leaf = chain[0]
    check_end(leaf, role, now)
    for anchor in anchors:
        if anchor.certificate == leaf:
            return Path((leaf,), anchor)
    if fault := _issued_fault(leaf):
        raise Untrusted(f"{title(leaf)}: {fault}")
    usable = [one for one in chain[1:] if not _intermediate_fault(one)]
    trusted = {der_of(anchor.certificate): anchor for anchor in anchors}
    candidates = [anchor.certificate for anchor in anchors if not key_fault(public_key_of(anchor.certificate))]
    if not candidates:
        raise Untrusted(_without_anchor(chain, anchors))
    try:
        found = _search(leaf, usable, candidates, _builder(role, now, max_depth))
    except VerificationError as error:
        raise Untrusted(f"{title(leaf)}: {_plain(str(error))}") from None
    path = Path(tuple(found), trusted[der_of(found[-1])])
    if fault := constraint_fault(path.chain):
        raise Untrusted(f"{title(leaf)}: {fault}")
    return path


def _builder(role: Role, now: datetime, max_depth: int) -> PolicyBuilder:
    builder = PolicyBuilder().time(now).max_chain_depth(max_depth)
    return builder.extension_policies(ca_policy=CA_POLICY[role], ee_policy=END_POLICY[role])


def _search(
    leaf: x509.Certificate, intermediates: list[x509.Certificate], anchors: list[x509.Certificate], builder: PolicyBuilder
) -> list[x509.Certificate]:
    """A path as the verifier finds it, where needed among surrogates. Raises VerificationError."""
    if not needs_surrogates([*intermediates, *anchors]):
        return builder.store(Store(anchors)).build_client_verifier().verify(leaf, intermediates).chain
    try:
        surrogates = Surrogates(leaf, intermediates, anchors)
    except (ValueError, TypeError, NotImplementedError) as error:  # names or extensions that can be read, but not be written
        raise VerificationError(f"a certificate cannot be rebuilt for verification: {error}") from None
    if surrogates.leaf is None:
        raise VerificationError("no certificate of its issuer verifies its signature")
    verifier = builder.store(Store(surrogates.anchors)).build_client_verifier()
    return [surrogates.original(one) for one in verifier.verify(surrogates.leaf, surrogates.intermediates).chain]


def check_end(leaf: x509.Certificate, role: Role, now: datetime) -> None:
    """What an end certificate must be, however it came to be trusted. Raises Untrusted."""
    if fault := validity_fault(leaf, now):
        raise Untrusted(f"{title(leaf)} {fault}")
    if not roles_of(leaf) & role:
        raise Untrusted(f"{title(leaf)}: extendedKeyUsage does not allow use as a TLS {_WORDS[role]}")
    if fault := serial_fault(leaf) or key_fault(public_key_of(leaf)):
        raise Untrusted(f"{title(leaf)} has {fault}")


def _issued_fault(certificate: x509.Certificate) -> str:
    """What speaks against a certificate that needs an issuer, as far as it shows by itself; "" if nothing."""
    return serial_fault(certificate) or key_fault(public_key_of(certificate)) or signature_fault(certificate)


def _intermediate_fault(certificate: x509.Certificate) -> str:
    """Beside that, RFC 5280 sections 4.2.1.1 and 4.2.1.2 want both key identifiers."""
    if subject_key_id(certificate) is None or authority_key_id(certificate.extensions) is None:
        return "an intermediate certificate without key identifiers"
    return _issued_fault(certificate)


def _without_anchor(chain: Sequence[x509.Certificate], refused: Sequence[Anchor]) -> str:
    """Names the issuer whose certificate would have to be an anchor, or says why that is not accepted."""
    for anchor in refused:
        return f"{title(chain[0])}: the trust anchor {title(anchor.certificate)} has {key_fault(public_key_of(anchor.certificate))}"
    top = chain[0]
    for _ in chain:
        above = next((one for one in chain[1:] if one is not top and issued_by(top, one)), None)
        if above is None or above.issuer == above.subject:
            break
        top = above
    issuer = top.issuer.rfc4514_string() or "(no name)"
    return f"{title(chain[0])}: no trust anchor for its issuer {issuer}; if it is to be trusted, add it (tlspool trust add --type x509)"


def _plain(text: str) -> str:
    """The verifier's reason without its wrapping, and with names for extensions."""
    text = _NOISE.sub("", text).strip()
    text = text.removeprefix("invalid extension: ")
    oid, colon, rest = text.partition(":")
    return f"{_EXTENSION_NAMES[oid]}:{rest}" if colon and oid in _EXTENSION_NAMES else text
