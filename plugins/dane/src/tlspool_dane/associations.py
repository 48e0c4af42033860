"""Whether a record of the DNS is about the certificate that a peer shows.

Theory of operation
-------------------
Usages 1 and 3 (RFC 6698 section 2.1.1) are about the end certificate: it has to be the one in the record, and since DNSSEC has said that,
nothing else of it is looked at (RFC 7671 section 5.1).  Usages 0 and 2 are about an authority: a certificate of the chain has to be the one
in the record, and there has to be a good path from the end certificate to it, found with that one as the only anchor.  Whether there
is also a path to an anchor of ours, as usages 0 and 1 want, is the predicate T.

What a record means that has a number we do not know is not known, so it matches nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from tlspool_dane.resolver import Association

_AUTHORITY = (0, 2)
_END = (1, 3)
_MATCHING: dict[int, Callable[[bytes], bytes]] = {
    0: lambda selected: selected,
    1: lambda selected: hashlib.sha256(selected).digest(),
    2: lambda selected: hashlib.sha512(selected).digest(),
}

Path = Callable[[PolicyBuilder, x509.Certificate, list[x509.Certificate]], object]


def server_path(name: str) -> Path:
    """A path for the server of that name. Raises VerificationError or ValueError when called."""
    return lambda policy, end, others: policy.build_server_verifier(x509.DNSName(name)).verify(end, others)


def client_path() -> Path:
    """A path for a client. Raises VerificationError or ValueError when called."""
    return lambda policy, end, others: policy.build_client_verifier().verify(end, others)


def matches(record: Association, chain: Sequence[bytes], path: Path) -> bool:
    """Whether the record is about the chain (DER, end certificate first), which is to be on a path."""
    if record.usage in _END:
        return _is_it(record, chain[0])
    return record.usage in _AUTHORITY and any(_is_it(record, each) and _leads_to(each, chain, path) for each in chain[1:])


def _is_it(record: Association, certificate: bytes) -> bool:
    compare = _MATCHING.get(record.matching)
    try:
        return compare is not None and compare(_selected(record.selector, certificate)) == record.data
    except ValueError:
        return False


def _selected(selector: int, certificate: bytes) -> bytes:
    """Raises ValueError."""
    if selector == 0:
        return certificate
    if selector != 1:
        raise ValueError("an unknown selector")
    return x509.load_der_x509_certificate(certificate).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _leads_to(anchor: bytes, chain: Sequence[bytes], path: Path) -> bool:
    try:
        end, *others = (x509.load_der_x509_certificate(each) for each in chain)
        path(PolicyBuilder().store(Store([x509.load_der_x509_certificate(anchor)])), end, others)
    except (VerificationError, ValueError):
        return False
    return True
