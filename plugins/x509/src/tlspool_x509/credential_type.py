"""X.509 as a credential type: puts the modules of this package behind the pool's interface."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from tlspool_core.api import (
    CertificateEntry,
    ConfigBackend,
    Credential,
    CredentialType,
    DoNAI,
    Key,
    LocalCredential,
    PeerCredential,
    Predicate,
    Role,
    TrustRecord,
    UnsupportedCertificate,
)
from tlspool_x509 import imports, local
from tlspool_x509.anchors import TYPE, TrustStore, read_bundle
from tlspool_x509.certificates import utc_now
from tlspool_x509.issuing import Issuing, read_issuers
from tlspool_x509.keys import public_key_of, strength_of
from tlspool_x509.local import X509Credential
from tlspool_x509.names import alternative_names, encoded_names
from tlspool_x509.peer import CERTIFICATE_TYPE, X509Peer, examine
from tlspool_x509.predicates import PREDICATES, State
from tlspool_x509.settings import X509Settings, parse_settings
from tlspool_x509.staples import Staples
from tlspool_x509.validation import Validator

MAX_AUTHORITIES = 32  # names in a CertificateRequest; with more trusted CAs a client is told nothing rather than half


class X509Type(CredentialType):
    """See the interface. `clock` gives the time that certificates are held against."""

    name = TYPE
    certificate_types = (CERTIFICATE_TYPE,)

    def __init__(self, clock: Callable[[], datetime] = utc_now) -> None:
        self._clock = clock
        settings = X509Settings()
        self._state = State(settings, Validator(settings, TrustStore(), clock))
        self._staples: Staples | None = None
        self._issuing: Issuing | None = None
        self._authorities: tuple[int, tuple[bytes, ...]] | None = None

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Settings of [credential.x509]; reads the system's bundle and stapled responses. Raises ValueError."""
        chosen = parse_settings(settings)
        system = read_bundle(chosen.system_store, chosen.system_store_roles) if chosen.system_store else None
        staples = Staples(chosen.ocsp_staples, self._clock) if chosen.ocsp_staples else None
        issuing = None
        if chosen.issuing_certificate is not None:
            issuing = Issuing(chosen.issuing_key, read_issuers(chosen.issuing_certificate), chosen.issued_lifetime, self._clock)
        self._state.settings = chosen
        self._issuing = issuing
        self._state.validator = Validator(chosen, TrustStore(system), self._clock)
        self._staples = staples
        self._authorities = None

    # --- our own credentials ------------------------------------------------------------------------------------------------

    async def load(self, credential: LocalCredential, find_key: Callable[[str], Awaitable[Key]]) -> X509Credential:
        """See `local.load_credential`."""
        return await local.load_credential(credential, find_key, self._clock)

    async def issue(
        self, identity: DoNAI, service: str, role: Role, find_key: Callable[[str], Awaitable[Key]]
    ) -> X509Credential | None:
        """A certificate under the configured issuing key; None without one."""
        return None if self._issuing is None else await self._issuing.credential(identity, service, role, find_key)

    async def sign(self, credential: Credential, scheme: int, content: bytes) -> bytes:
        """See `local.sign`."""
        assert isinstance(credential, X509Credential)
        return await local.sign(credential, scheme, content, self._clock())

    def ocsp_response(self, credential: Credential) -> bytes | None:
        """A current response of the configured directory."""
        if self._staples is None or not isinstance(credential, X509Credential):
            return None
        return self._staples.get(credential.leaf)

    # --- the peer's -----------------------------------------------------------------------------------------------------------

    def examine(self, certificate_type: int, entries: Sequence[CertificateEntry], config: ConfigBackend) -> X509Peer:
        """See `peer.examine`. Raises a TlsError."""
        if certificate_type != CERTIFICATE_TYPE:
            raise UnsupportedCertificate(f"certificate type {certificate_type} is not X.509")
        return examine(entries, lambda chain: self._state.validator.trust.keys(chain, config))

    def identities(self, peer: PeerCredential) -> tuple[DoNAI, ...]:
        """Users first, then domains; wildcards are none."""
        assert isinstance(peer, X509Peer)
        return peer.names.identities(user_case_counts=self._state.settings.user_case_counts)

    def names(self, peer: PeerCredential, wanted: DoNAI) -> bool:
        """Exactly, or through a wildcard."""
        assert isinstance(peer, X509Peer)
        return peer.names.name(wanted, user_case_counts=self._state.settings.user_case_counts)

    def predicates(self) -> Iterable[Predicate]:
        """T P R O E."""
        return [make(self._state) for make in PREDICATES]

    def trust_keys(self, peer: PeerCredential) -> tuple[bytes, ...]:
        """Issuers of everything that was shown, and what the end certificate may be pinned under."""
        assert isinstance(peer, X509Peer)
        return (*peer.anchor_keys, peer.fingerprint, peer.key_fingerprint)

    def strength(self, peer: PeerCredential) -> int:
        """The weakest key of the end certificate and of those issuers that were shown; anchors are the operator's choice."""
        assert isinstance(peer, X509Peer)
        return min(strength_of(public_key_of(certificate)) for certificate in peer.issuing)

    def certificate_authorities(self, config: ConfigBackend) -> Sequence[bytes]:
        """Names of the anchors for clients, unless there are many."""
        generation = config.generation()
        if self._authorities is None or self._authorities[0] != generation:
            self._authorities = (generation, self._state.validator.trust.authorities(config, Role.CLIENT, MAX_AUTHORITIES))
        return self._authorities[1]

    # --- facts ----------------------------------------------------------------------------------------------------------------

    def describe(self, side: Credential | PeerCredential, field: str) -> str | None:
        """Subject and issuer as RFC 4514 has it, alternative names as `dns:...` and `email:...`."""
        certificate = _certificate(side)
        if field == "subject":
            return certificate.subject.rfc4514_string() or None
        if field == "issuer":
            return certificate.issuer.rfc4514_string() or None
        return alternative_names(certificate) if field == "subjectaltname" else None

    def encoded(self, side: Credential | PeerCredential, field: str) -> Sequence[bytes]:
        """The DER of a Name, or of each GeneralName (RFC 5280 sections 4.1.2.4 and 4.2.1.6)."""
        certificate = _certificate(side)
        if field == "subject":
            return (certificate.subject.public_bytes(),)
        if field == "issuer":
            return (certificate.issuer.public_bytes(),)
        return encoded_names(certificate) if field == "subjectaltname" else ()

    def end_point_binding(self, side: Credential | PeerCredential) -> bytes | None:
        """RFC 5929 section 4.1: SHA-256 in place of weaker hashes; undefined where the signature has no hash of its own."""
        certificate = _certificate(side)
        try:
            algorithm = certificate.signature_hash_algorithm
        except (ValueError, UnsupportedAlgorithm):
            return None
        if algorithm is None:
            return None
        return certificate.fingerprint(hashes.SHA256() if algorithm.name in ("md5", "sha1") else algorithm)

    # --- command line -----------------------------------------------------------------------------------------------------------

    def import_local(self, data: bytes) -> bytes:
        """See `imports.import_chain`."""
        return imports.import_chain(data)

    def import_trust(self, data: bytes, *, pinned: bool) -> list[TrustRecord]:
        """See `imports.import_anchors` and `imports.import_pin`."""
        return imports.import_pin(data) if pinned else imports.import_anchors(data)

    def summarize(self, public: bytes) -> str:
        """See `imports.summarize`."""
        return imports.summarize(public)


def _certificate(side: Credential | PeerCredential) -> x509.Certificate:
    assert isinstance(side, X509Credential | X509Peer)
    return side.leaf
