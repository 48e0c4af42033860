"""OCSP responses (RFC 6960): what a stapled response says of a certificate, once it is known to be the issuer's word.

Theory of operation
-------------------
A response is believed if the issuer of the certificate signed it, or someone whom that same issuer certified for nothing but this
(id-kp-OCSPSigning, RFC 6960 section 4.2.2.2).  It must be about the very certificate, and current.  Everything else is an error,
and an error is never good news.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID

from tlspool_core.api import TlsError, verify
from tlspool_x509.certificates import issued_by, validity_fault
from tlspool_x509.keys import is_pss, key_fault, public_key_of, signature_fault, usage_fault

SKEW = timedelta(minutes=5)
MAX_AGE = timedelta(days=1)  # of a response that does not say when the next one comes
MAX_RESPONSE = 65_536  # bytes
MAX_RESPONDERS = 4
MAX_SINGLE = 32

# As signature schemes of TLS, whose verification the engine has; those of ML-DSA exist in TLS 1.3 only.
_TLS12, _TLS13 = 0x0303, 0x0304
_SCHEMES = {
    SignatureAlgorithmOID.RSA_WITH_SHA256: (0x0401, _TLS12),
    SignatureAlgorithmOID.RSA_WITH_SHA384: (0x0501, _TLS12),
    SignatureAlgorithmOID.RSA_WITH_SHA512: (0x0601, _TLS12),
    SignatureAlgorithmOID.ECDSA_WITH_SHA256: (0x0403, _TLS12),
    SignatureAlgorithmOID.ECDSA_WITH_SHA384: (0x0503, _TLS12),
    SignatureAlgorithmOID.ECDSA_WITH_SHA512: (0x0603, _TLS12),
    SignatureAlgorithmOID.ED25519: (0x0807, _TLS12),
    SignatureAlgorithmOID.ED448: (0x0808, _TLS12),
    SignatureAlgorithmOID.ML_DSA_44: (0x0904, _TLS13),
    SignatureAlgorithmOID.ML_DSA_65: (0x0905, _TLS13),
    SignatureAlgorithmOID.ML_DSA_87: (0x0906, _TLS13),
}


class BadResponse(Exception):
    """The response proves nothing; says why."""


def certificate_status(der: bytes, certificate: x509.Certificate, issuer: x509.Certificate, now: datetime) -> ocsp.OCSPCertStatus:
    """GOOD, REVOKED or UNKNOWN as of now, in the issuer's word. Raises BadResponse.

    The caller has verified that `issuer` issued the certificate.
    """
    if len(der) > MAX_RESPONSE:
        raise BadResponse(f"an OCSP response of {len(der)} bytes")
    try:
        response = ocsp.load_der_ocsp_response(der)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise BadResponse(f"the OCSP responder answered {response.response_status.name.lower()}")
        single = _about(response, certificate, issuer)
        _check_current(single, now)
        _check_signature(response, issuer, now)
        return single.certificate_status
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        raise BadResponse(f"the OCSP response cannot be read: {error}") from None


def _about(response: ocsp.OCSPResponse, certificate: x509.Certificate, issuer: x509.Certificate) -> ocsp.OCSPSingleResponse:
    for position, single in enumerate(response.responses):
        if position == MAX_SINGLE:
            break
        if single.serial_number == certificate.serial_number and _names_issuer(single, certificate, issuer):
            return single
    raise BadResponse("the OCSP response is about other certificates")


def _names_issuer(single: ocsp.OCSPSingleResponse, certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """CertID of RFC 6960 section 4.1.1, compared with the one that we would ask for."""
    asked = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, single.hash_algorithm).build()
    return (asked.issuer_name_hash, asked.issuer_key_hash) == (single.issuer_name_hash, single.issuer_key_hash)


def _check_current(single: ocsp.OCSPSingleResponse, now: datetime) -> None:
    """RFC 6960 section 3.2, points 5 and 6. Raises BadResponse."""
    until = single.next_update_utc or single.this_update_utc + MAX_AGE
    if single.this_update_utc > now + SKEW:
        raise BadResponse("the OCSP response is from the future")
    if until < now - SKEW:
        raise BadResponse(f"the OCSP response is outdated since {until:%Y-%m-%d %H:%M} UTC")


def _check_signature(response: ocsp.OCSPResponse, issuer: x509.Certificate, now: datetime) -> None:
    """Signed by the issuer, or by a responder that it delegates to. Raises BadResponse."""
    scheme = _SCHEMES.get(response.signature_algorithm_oid)
    if scheme is None:
        raise BadResponse(f"the OCSP response is signed with {response.signature_algorithm_oid.dotted_string}")
    responders = [one for one in response.certificates[:MAX_RESPONDERS] if _is_delegate(one, issuer, now)]
    if not any(_verifies(response, signer, *scheme) for signer in (issuer, *responders)):
        raise BadResponse("the OCSP response is signed neither by the issuer nor by a responder that it delegates to")


def _is_delegate(responder: x509.Certificate, issuer: x509.Certificate, now: datetime) -> bool:
    try:
        usages = responder.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    faults = signature_fault(responder) or validity_fault(responder, now) or usage_fault(responder)
    return not faults and ExtendedKeyUsageOID.OCSP_SIGNING in usages and issued_by(responder, issuer)


def _verifies(response: ocsp.OCSPResponse, signer: x509.Certificate, scheme: int, version: int) -> bool:
    key = public_key_of(signer)
    if key_fault(key):
        return False
    try:
        verify(key, scheme, response.tbs_response_bytes, response.signature, version=version, pss=is_pss(signer))
    except TlsError:
        return False
    return True
