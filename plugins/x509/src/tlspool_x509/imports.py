"""Files that an operator gives to `tlspool localid add` and `tlspool trust add`, checked and brought into the stored form."""

from __future__ import annotations

import base64
import binascii
import re
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from tlspool_core.api import TrustRecord
from tlspool_x509.anchors import TYPE
from tlspool_x509.certificates import (
    Malformed,
    authority_key_id,
    der_of,
    issuer_key,
    name_key,
    ordered_chain,
    parse_certificate,
    pem_blocks,
    read_certificates,
    spki_of,
    split_der,
)
from tlspool_x509.keys import key_fault, public_key_of, signature_fault, usage_fault
from tlspool_x509.names import title
from tlspool_x509.revocation import form_fault

_PIN_TEXT = re.compile(rb"\s*sha256//([A-Za-z0-9+/]{43}=)\s*")


def import_chain(data: bytes) -> bytes:
    """Canonical form of a chain: DER certificates one after the other, end certificate first, without the root.

    Takes PEM or DER in any order. Raises ValueError.
    """
    chain = ordered_chain(read_certificates(data))
    if fault := key_fault(public_key_of(chain[0])) or usage_fault(chain[0]):
        raise ValueError(f"{title(chain[0])} has {fault}, so it cannot be used in TLS")
    # RFC 8446 section 4.4.2: the root may be left out, since the peer must have it from elsewhere anyway
    if len(chain) > 1 and chain[-1].issuer == chain[-1].subject:
        chain.pop()
    return b"".join([der_of(certificate) for certificate in chain])


def import_anchors(data: bytes) -> list[TrustRecord]:
    """Records for CA certificates, self-signed end certificates and revocation lists of a file. Raises ValueError."""
    records = []
    for blob in _elements(data):
        revocation_list = _as_revocation_list(blob)
        if revocation_list is None:
            records.append(_anchor_record(parse_certificate(blob)))
        else:
            records.append(_list_record(revocation_list, blob))
    if not records:
        raise ValueError("the file holds neither certificates nor revocation lists")
    return records


def _elements(data: bytes) -> list[bytes]:
    """DER of all certificates and revocation lists. Raises Malformed."""
    blocks = pem_blocks(data)
    if not blocks:
        return split_der(data)
    elements = []
    for label, text in blocks:
        if label == "X509 CRL":
            elements.append(_pem_list(text))
        else:
            elements += [der_of(certificate) for certificate in read_certificates(text)]
    return elements


def _pem_list(text: bytes) -> bytes:
    try:
        return x509.load_pem_x509_crl(text).public_bytes(Encoding.DER)
    except (ValueError, x509.InvalidVersion) as error:
        raise Malformed(f"a revocation list cannot be read: {error}") from None


def _as_revocation_list(der: bytes) -> x509.CertificateRevocationList | None:
    try:
        return x509.load_der_x509_crl(der)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        return None


def _list_record(revocation_list: x509.CertificateRevocationList, der: bytes) -> TrustRecord:
    """Raises ValueError for a list that could never be used."""
    try:
        fault = form_fault(revocation_list) or signature_fault(revocation_list)
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        fault = f"a revocation list cannot be read: {error}"
    if fault:
        raise ValueError(fault)
    key = authority_key_id(revocation_list.extensions) or name_key(revocation_list.issuer)
    return TrustRecord(key=key, type=TYPE, blob=der)


def _anchor_record(certificate: x509.Certificate) -> TrustRecord:
    if fault := key_fault(public_key_of(certificate)):
        raise ValueError(f"{title(certificate)} has {fault}")
    if not _is_ca(certificate) and certificate.issuer != certificate.subject:
        raise ValueError(
            f"{title(certificate)} is an end certificate of {certificate.issuer.rfc4514_string()}, not a CA: add that CA, or pin this"
        )
    return TrustRecord(key=issuer_key(certificate), type=TYPE, blob=der_of(certificate))


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def import_pin(data: bytes) -> list[TrustRecord]:
    """The record that pins an end certificate, a public key (PEM), or `sha256//` with the hash of a key. Raises ValueError."""
    if text := _PIN_TEXT.fullmatch(data):
        return [TrustRecord(key=_digest(text[1]), type=TYPE, pinned=True)]
    blocks = pem_blocks(data)
    if [label for label, _ in blocks] == ["PUBLIC KEY"]:
        try:
            spki = load_pem_public_key(blocks[0][1]).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ValueError(f"the public key cannot be read: {error}") from None
        return [TrustRecord(key=sha256(spki).digest(), type=TYPE, pinned=True)]
    certificate = ordered_chain(read_certificates(data))[0]
    if fault := key_fault(public_key_of(certificate)):
        raise ValueError(f"{title(certificate)} has {fault}")
    der = der_of(certificate)
    return [TrustRecord(key=sha256(der).digest(), type=TYPE, pinned=True, blob=der)]


def _digest(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("what follows sha256// is not base64 of 32 bytes") from None


# --- for lists ----------------------------------------------------------------------------------------------------------------


def summarize(public: bytes) -> str:
    """One line on a stored chain, anchor, revocation list or pin."""
    if not public:
        return "pin of a public key"
    if len(public) == sha256().digest_size:
        return f"pin {public.hex()}"
    try:
        certificates = [parse_certificate(der) for der in split_der(public)]
    except Malformed:
        return _summarize_list(public)
    leaf = certificates[0]
    more = f", {len(certificates) - 1} issuers" if len(certificates) > 1 else ""
    key = public_key_of(leaf)
    pin = f", key sha256//{base64.b64encode(sha256(spki_of(leaf)).digest()).decode()}" if key is not None else ""
    return f"{title(leaf)} by {leaf.issuer.rfc4514_string()}, until {leaf.not_valid_after_utc:%Y-%m-%d}{more}{pin}"


def _summarize_list(der: bytes) -> str:
    revocation_list = _as_revocation_list(der)
    if revocation_list is None:
        return f"{len(der)} bytes that are neither certificate nor revocation list"
    until = revocation_list.next_update_utc
    return (
        f"revocation list of {revocation_list.issuer.rfc4514_string()}, {len(revocation_list)} entries, "
        f"until {f'{until:%Y-%m-%d}' if until else 'replaced'}"
    )
