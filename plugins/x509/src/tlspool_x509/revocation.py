"""Revocation lists: is this list the issuer's word as of now, and is this certificate on it (RFC 5280 section 6.3.3).

Theory of operation
-------------------
Only complete lists that the issuer signed itself are used; indirect lists, delta lists and lists of some reasons only are passed
over, as if they were not there.  Of several lists the newest counts.  An outdated list cannot prove that a certificate is clean,
but what it names stays revoked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from tlspool_x509.keys import public_key_of, signature_fault

SKEW = timedelta(minutes=5)

_KNOWN_CRITICAL = frozenset({x509.IssuingDistributionPoint.oid})


class Standing(Enum):
    """What the lists say of one certificate."""

    CLEAN = "clean"
    REVOKED = "revoked"
    OUTDATED = "outdated"  # not listed, but no list is current
    UNLISTED = "unlisted"  # there is no list that could name it


@dataclass(frozen=True, slots=True)
class Listed:
    """A standing, with its reason for people."""

    standing: Standing
    reason: str


def standing(
    certificate: x509.Certificate, issuer: x509.Certificate, lists: Iterable[x509.CertificateRevocationList], now: datetime
) -> Listed:
    """What the issuer's lists say of a certificate; the caller has verified that `issuer` issued it."""
    usable, faults = [], []
    for one in lists:
        fault = _fault(one, certificate, issuer, now)
        faults.append(fault) if fault else usable.append(one)
    if not usable:
        return Listed(Standing.UNLISTED, faults[0] if faults else f"no revocation list of {_name(issuer)}")
    newest = max(usable, key=lambda one: (_number(one), one.last_update_utc))
    entry = newest.get_revoked_certificate_by_serial_number(certificate.serial_number)
    if entry is not None:
        return Listed(Standing.REVOKED, f"revoked by {_name(issuer)} on {entry.revocation_date_utc:%Y-%m-%d}")
    if newest.next_update_utc is None or now > newest.next_update_utc + SKEW:
        return Listed(Standing.OUTDATED, f"the revocation list of {_name(issuer)} is outdated")
    return Listed(Standing.CLEAN, f"not on the revocation list of {_name(issuer)}")


def _name(issuer: x509.Certificate) -> str:
    return issuer.subject.rfc4514_string() or "(no name)"


def _fault(one: x509.CertificateRevocationList, certificate: x509.Certificate, issuer: x509.Certificate, now: datetime) -> str:
    """Why a list cannot be used for the certificate; "" if it can."""
    try:
        fault = form_fault(one) or _scope_fault(one, certificate) or signature_fault(one) or _issuer_fault(one, issuer)
    except (ValueError, x509.DuplicateExtension, UnsupportedAlgorithm) as error:
        return f"the revocation list cannot be read: {error}"
    if not fault and one.last_update_utc > now + SKEW:
        return "the revocation list is from the future"
    return fault


def _number(one: x509.CertificateRevocationList) -> int:
    return one.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def form_fault(one: x509.CertificateRevocationList) -> str:
    """Why a list cannot be used whatever it is held against; "" if it can. Raises what the library raises on nonsense."""
    try:
        number = one.extensions.get_extension_for_class(x509.CRLNumber)
    except x509.ExtensionNotFound:
        return "the revocation list has no cRLNumber"
    if number.critical:  # RFC 5280 section 5.2.3
        return "the revocation list has a critical cRLNumber"
    if any(extension.critical and extension.oid not in _KNOWN_CRITICAL for extension in one.extensions):
        return "the revocation list is a delta list, or has a critical extension that is not known"
    return ""


def _scope_fault(one: x509.CertificateRevocationList, certificate: x509.Certificate) -> str:
    """RFC 5280 section 5.2.5: whether the list could name the certificate at all, and by itself."""
    try:
        scope = one.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
    except x509.ExtensionNotFound:
        return ""
    if scope.indirect_crl or scope.only_some_reasons or scope.only_contains_attribute_certs:
        return "the revocation list is indirect or partial"
    if scope.only_contains_user_certs if _is_ca(certificate) else scope.only_contains_ca_certs:
        return "the revocation list is about other kinds of certificates"
    if scope.full_name and not set(scope.full_name) & _distribution_names(certificate):
        return "the revocation list is of another distribution point"
    return ""


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _distribution_names(certificate: x509.Certificate) -> set[x509.GeneralName]:
    return {name for point in distribution_points(certificate) for name in point.full_name or ()}


def distribution_points(certificate: x509.Certificate) -> list[x509.DistributionPoint]:
    """Where the issuer says that its list can be had; empty if it does not say."""
    try:
        return list(certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value)
    except x509.ExtensionNotFound:
        return []


def _issuer_fault(one: x509.CertificateRevocationList, issuer: x509.Certificate) -> str:
    try:
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        usage = None
    if usage is not None and not usage.crl_sign:
        return f"{_name(issuer)} may not sign revocation lists: keyUsage lacks cRLSign"
    key = public_key_of(issuer)
    if key is None or one.issuer != issuer.subject:
        return "the revocation list is another issuer's"
    try:
        valid = one.is_signature_valid(key)  # type: ignore[arg-type] # raises TypeError for keys that sign nothing
    except TypeError:
        valid = False
    return "" if valid else "the revocation list's signature does not verify"
