"""What each extension of a certificate in a path must be, for each role of the peer.

Theory of operation
-------------------
`cryptography.x509.verification` builds and checks paths, and comes with the rules of the web for servers.  TLS between organisations
also has client certificates, and CAs made with plain tools.  So its verifier for clients, which is the one that asks for no name,
is used for both roles, with these changes to its rules:

* extendedKeyUsage, where present, names the role of the peer (in an end certificate anyExtendedKeyUsage is refused);
* keyUsage may be missing in an issuer (RFC 5280 section 6.1.4 (n)), but where present has keyCertSign;
* authorityKeyIdentifier may be missing, too, but where present has a keyIdentifier (section 4.2.1.1);
* policyConstraints are refused, since policies are not processed.

Names are for `names` and for policy, not for the path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, Policy

from tlspool_core.api import Role
from tlspool_x509.certificates import EKU_OF_ROLE

_Usages: TypeAlias = Callable[[Policy, x509.Certificate, x509.ExtendedKeyUsage | None], None]


def _end_usage(role: Role) -> _Usages:
    wanted = EKU_OF_ROLE[role]
    word = "server" if role is Role.SERVER else "client"

    def check(_policy: Policy, _certificate: x509.Certificate, usages: x509.ExtendedKeyUsage | None) -> None:
        if usages is not None and wanted not in usages:
            raise ValueError(f"extendedKeyUsage does not allow use as a TLS {word}")
        if usages is not None and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usages:
            raise ValueError("extendedKeyUsage of an end certificate allows any use")

    return check


def _issuer_usage(role: Role) -> _Usages:
    wanted = EKU_OF_ROLE[role]

    def check(_policy: Policy, _certificate: x509.Certificate, usages: x509.ExtendedKeyUsage | None) -> None:
        if usages is not None and wanted not in usages and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in usages:
            raise ValueError("extendedKeyUsage of an issuer does not allow this use of what it issues")

    return check


def _issuer_key_usage(_policy: Policy, _certificate: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("keyUsage of an issuer lacks keyCertSign")


def _authority(_policy: Policy, _certificate: x509.Certificate, authority: x509.AuthorityKeyIdentifier | None) -> None:
    if authority is not None and authority.key_identifier is None:
        raise ValueError("authorityKeyIdentifier has no keyIdentifier")


def _ca_policy(role: Role) -> ExtensionPolicy:
    return (
        ExtensionPolicy.webpki_defaults_ca()
        .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _issuer_usage(role))
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _issuer_key_usage)
        .may_be_present(x509.AuthorityKeyIdentifier, Criticality.NON_CRITICAL, _authority)
        .may_be_present(x509.SubjectKeyIdentifier, Criticality.NON_CRITICAL, None)
        .require_not_present(x509.PolicyConstraints)
    )


def _end_policy(role: Role) -> ExtensionPolicy:
    return (
        ExtensionPolicy.webpki_defaults_ee()
        .may_be_present(x509.ExtendedKeyUsage, Criticality.NON_CRITICAL, _end_usage(role))
        .may_be_present(x509.AuthorityKeyIdentifier, Criticality.NON_CRITICAL, _authority)
    )


CA_POLICY: Final = {role: _ca_policy(role) for role in EKU_OF_ROLE}
END_POLICY: Final = {role: _end_policy(role) for role in EKU_OF_ROLE}
