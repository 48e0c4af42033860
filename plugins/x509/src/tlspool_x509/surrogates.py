"""Paths that the verifier of `cryptography` cannot take: EdDSA issuers, and directory names in name constraints.

Theory of operation
-------------------
`cryptography.x509.verification` follows the web, which knows neither CAs with Ed25519 or Ed448 keys nor critical name constraints on
directory names: it refuses them outright.  Both are ordinary in private PKIs and in constrained CAs of organisations.

Where such a certificate is among the candidates, signatures are verified here first, each certificate against its issuer.  Then the
verifier is given surrogates: the same certificates, name by name and extension by extension, but with each issuer's key replaced by
a P-256 key that lives for this one call, signed anew along the links that were verified, and without constraints on directory names
(which `constraints` holds against the path afterwards).  So the search and all other rules remain the verifier's.  A certificate
whose issuer is not found has no surrogate, and can be in no path.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256

from tlspool_x509.certificates import der_of, issued_by, spki_of
from tlspool_x509.keys import EDDSA_KEYS, public_key_of


def needs_surrogates(issuers: Iterable[x509.Certificate]) -> bool:
    """Whether one of the certificates that may issue others is beyond the verifier."""
    return any(isinstance(public_key_of(one), EDDSA_KEYS) or _constrains_directory_names(one) for one in issuers)


def _constraints(certificate: x509.Certificate) -> x509.NameConstraints | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return None


def _constrains_directory_names(certificate: x509.Certificate) -> bool:
    constraints = _constraints(certificate)
    if constraints is None:
        return False
    subtrees = [*(constraints.permitted_subtrees or ()), *(constraints.excluded_subtrees or ())]
    return any(isinstance(subtree, x509.DirectoryName) for subtree in subtrees)


class Surrogates:
    """For one search: `leaf`, `intermediates` and `anchors` are what to give to the verifier; `original` leads back.

    `leaf` is None if nobody among the others issued it.
    """

    def __init__(
        self, leaf: x509.Certificate, intermediates: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate]
    ) -> None:
        self._issuers = [*intermediates, *anchors]
        self._keys: dict[bytes, ec.EllipticCurvePrivateKey] = {}
        self._originals: dict[bytes, x509.Certificate] = {}
        self.anchors = [self._made(one, one, self._key(one).public_key()) for one in anchors]
        self.intermediates = [made for one in intermediates if (made := self._issued(one, self._key(one).public_key()))]
        self.leaf = self._issued(leaf, leaf.public_key())

    def original(self, surrogate: x509.Certificate) -> x509.Certificate:
        """What a surrogate stands for."""
        return self._originals[der_of(surrogate)]

    def _key(self, issuer: x509.Certificate) -> ec.EllipticCurvePrivateKey:
        spki = spki_of(issuer)
        if spki not in self._keys:
            self._keys[spki] = ec.generate_private_key(ec.SECP256R1())
        return self._keys[spki]

    def _issued(self, certificate: x509.Certificate, key: CertificatePublicKeyTypes) -> x509.Certificate | None:
        issuer = next((one for one in self._issuers if issued_by(certificate, one)), None)
        return None if issuer is None else self._made(certificate, issuer, key)

    def _made(self, certificate: x509.Certificate, issuer: x509.Certificate, key: CertificatePublicKeyTypes) -> x509.Certificate:
        builder = x509.CertificateBuilder(
            issuer_name=certificate.issuer,
            subject_name=certificate.subject,
            public_key=key,
            serial_number=certificate.serial_number,
            not_valid_before=certificate.not_valid_before_utc.replace(tzinfo=None),
            not_valid_after=certificate.not_valid_after_utc.replace(tzinfo=None),
        )
        for extension in certificate.extensions:
            value = _verifiable(extension.value)
            if value is not None:
                builder = builder.add_extension(value, extension.critical)
        made = builder.sign(self._key(issuer), SHA256())
        self._originals[der_of(made)] = certificate
        return made


def _verifiable(value: x509.ExtensionType) -> x509.ExtensionType | None:
    """The extension without constraints on directory names; None if nothing is left of it."""
    if not isinstance(value, x509.NameConstraints):
        return value
    permitted = _without_directory_names(value.permitted_subtrees)
    excluded = _without_directory_names(value.excluded_subtrees)
    return x509.NameConstraints(permitted, excluded) if permitted or excluded else None


def _without_directory_names(subtrees: list[x509.GeneralName] | None) -> list[x509.GeneralName] | None:
    return [subtree for subtree in subtrees or () if not isinstance(subtree, x509.DirectoryName)] or None
