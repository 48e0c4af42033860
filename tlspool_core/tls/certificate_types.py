"""Certificate types: their forms, and the extension of RFC 6091 by which TLS 1.2 also negotiates them.

Theory of operation
-------------------
A certificate type is a code point with a `CertificateForm`.  Plugins bring forms; the chain of RFC 5246 is here, because it is
what TLS 1.2 has when nobody negotiates.  Types are negotiated by client_certificate_type and server_certificate_type
(RFC 7250), and for forms that say so also by cert_type (RFC 6091), with which one answer stands for both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tlspool_core.tls.alerts import NoCertificateTypeInCommon
from tlspool_core.tls.codec import Reader, vector24
from tlspool_core.tls.enums import CertificateType
from tlspool_core.tls.seams import CertificateEntry, CertificateForm
from tlspool_core.tls.settings import TLS12, TLS13, Settings

RSA_SIGN: Final = 1  # ClientCertificateType, RFC 5246 section 7.4.4
ECDSA_SIGN: Final = 64  # RFC 8422 section 5.5


def _parse_chain(body: bytes) -> tuple[CertificateEntry, ...]:
    """certificate_list of RFC 5246 section 7.4.2."""
    reader = Reader(body)
    chain = reader.reader24()
    entries = []
    while chain:
        entries.append(CertificateEntry(chain.vector24(1)))
    reader.finish()
    return tuple(entries)


def _build_chain(entries: Sequence[CertificateEntry]) -> bytes:
    return vector24(b"".join([vector24(entry.data) for entry in entries]))


CHAIN: Final = CertificateForm(
    CertificateType.X509,
    "X.509",
    frozenset((TLS12, TLS13)),
    _parse_chain,
    _build_chain,
    client_certificate_types=(RSA_SIGN, ECDSA_SIGN),
)


def form_for(settings: Settings, certificate_type: int) -> CertificateForm:
    """The form of a type in TLS 1.2; a plugin's goes before ours. Raises NoCertificateTypeInCommon."""
    for form in (*settings.extra_forms, CHAIN):
        if form.certificate_type == certificate_type and TLS12 in form.versions:
            return form
    raise NoCertificateTypeInCommon(f"certificate type {certificate_type} is not known in TLS 1.2")


def client_certificate_types(form: CertificateForm) -> tuple[int, ...]:
    """What stands for the form in CertificateRequest."""
    return form.client_certificate_types or CHAIN.client_certificate_types


def cert_type_offer(settings: Settings) -> Sequence[int]:
    """Types for cert_type in a ClientHello, best first; empty where there is nothing to negotiate by it.

    Since one answer stands for both sides, those that we can show ourselves go first.
    """
    by_cert_type = {form.certificate_type for form in settings.extra_forms if form.cert_type and TLS12 in form.versions}
    types = [kind for kind in settings.peer_certificate_types if kind in by_cert_type or kind == CertificateType.X509]
    types.sort(key=lambda kind: kind not in settings.own_certificate_types)
    return types if by_cert_type.intersection(types) else ()
