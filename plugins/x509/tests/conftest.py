"""A small certification authority for the tests, and peers that show its certificates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tlspool_x509.credential_type import X509Type
from tlspool_x509.peer import X509Peer

from tlspool_core.api import CertificateEntry, DoNAI, Finding, HandshakeFacts, PeerContext, Role, TrustRecord
from tlspool_core.testing.memory import MemoryBackend

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
BOTH_USAGES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)

MAKERS: dict[str, Callable[[], Any]] = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa1024": lambda: rsa.generate_private_key(65537, 1024),  # noqa: S505 - to be refused
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
    "mldsa65": mldsa.MLDSA65PrivateKey.generate,
    "p192": lambda: ec.generate_private_key(ec.SECP192R1()),
}


def subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])


def names(*texts: str) -> list[x509.GeneralName]:
    return [x509.RFC822Name(text) if "@" in text else x509.DNSName(text) for text in texts]


@dataclass
class Holder:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: Any = field(repr=False)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


@dataclass
class Authority(Holder):
    """A CA; without an issuer a root."""

    def issue(
        self,
        *alternatives: str,
        name: str = "",
        key: Any = None,
        usages: Sequence[x509.ObjectIdentifier] | None = BOTH_USAGES,
        lasts: tuple[datetime, datetime] = (NOW - 10 * DAY, NOW + 90 * DAY),
        extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
        alternative_names: Sequence[x509.GeneralName] | None = None,
        key_usage: bool | None = None,
    ) -> Holder:
        """An end certificate."""
        key = key or MAKERS["p256"]()
        builder = _builder(subject(name), self.certificate.subject, key, lasts)
        found = list(alternative_names if alternative_names is not None else names(*alternatives))
        if found:
            builder = builder.add_extension(x509.SubjectAlternativeName(found), critical=not name)
        if usages is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if key_usage is not None:
            builder = builder.add_extension(_key_usage(digital_signature=key_usage, key_encipherment=True), critical=True)
        return Holder(self._sign(builder, extra), key)

    def authority(
        self, name: str, key: Any = None, extra: Sequence[tuple[x509.ExtensionType, bool]] = (), **options: Any
    ) -> Authority:
        """A subordinate CA."""
        key = key or MAKERS["p256"]()
        builder = _builder(subject(name), self.certificate.subject, key, options.pop("lasts", _LONG))
        return Authority(self._sign(_with_ca_extensions(builder, **options), extra), key)

    def _sign(self, builder: x509.CertificateBuilder, extra: Sequence[tuple[x509.ExtensionType, bool]]) -> x509.Certificate:
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(authority, critical=False)
        for extension, critical in extra:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self.key, algorithm_for(self.key))

    def revocation_list(self, *revoked: Holder, number: int = 1, **options: Any) -> bytes:
        """DER; options: `last`, `next`, `extra`."""
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=self.certificate.subject,
            last_update=options.get("last", NOW - DAY),
            next_update=options.get("next", NOW + DAY),
        )
        for holder in revoked:
            entry = x509.RevokedCertificateBuilder(holder.certificate.serial_number, NOW - DAY)
            builder = builder.add_revoked_certificate(entry.build())
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(authority, critical=False).add_extension(x509.CRLNumber(number), critical=False)
        for extension, critical in options.get("extra", ()):
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(options.get("signer", self.key), algorithm_for(self.key)).public_bytes(Encoding.DER)


_LONG = (NOW - 1000 * DAY, NOW + 1000 * DAY)


def algorithm_for(key: Any) -> SHA256 | None:
    return SHA256() if isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) else None


def _builder(name: x509.Name, issuer: x509.Name, key: Any, lasts: tuple[datetime, datetime]) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer, name, key.public_key(), x509.random_serial_number(), *lasts)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)


def _key_usage(**set_bits: bool) -> x509.KeyUsage:
    bits = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**{**bits, **set_bits})


def _with_ca_extensions(builder: x509.CertificateBuilder, pathlen: int | None = None, **usage: bool) -> x509.CertificateBuilder:
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=pathlen), critical=True)
    return builder.add_extension(_key_usage(**(usage or {"key_cert_sign": True, "crl_sign": True})), critical=True)


class Pki:
    """Makes roots, databases, peers and contexts."""

    now = NOW

    def root(
        self, name: str = "Root", key: Any = None, extra: Sequence[tuple[x509.ExtensionType, bool]] = (), **options: Any
    ) -> Authority:
        key = key or MAKERS["p256"]()
        builder = _with_ca_extensions(_builder(subject(name), subject(name), key, options.pop("lasts", _LONG)), **options)
        for extension, critical in extra:
            builder = builder.add_extension(extension, critical=critical)
        return Authority(builder.sign(key, algorithm_for(key)), key)

    def self_signed(self, *alternatives: str, key: Any = None, **options: Any) -> Holder:
        """An end certificate that is its own issuer."""
        key = key or MAKERS["p256"]()
        name = options.get("name", alternatives[0])
        builder = _builder(subject(name), subject(name), key, options.get("lasts", (NOW - DAY, NOW + DAY)))
        builder = builder.add_extension(x509.SubjectAlternativeName(names(*alternatives)), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(options.get("usages", BOTH_USAGES)), critical=False)
        return Holder(builder.sign(options.get("signer", key), algorithm_for(key)), key)

    def trusting(self, kind: X509Type, *files: bytes, roles: Role = Role.BOTH, pinned: bool = False) -> MemoryBackend:
        """A trust database that files were imported into."""
        backend = MemoryBackend()
        self.trust(backend, kind, *files, roles=roles, pinned=pinned)
        return backend

    def trust(
        self,
        backend: MemoryBackend,
        kind: X509Type,
        *files: bytes,
        roles: Role = Role.BOTH,
        pinned: bool = False,
        revoked: bool = False,
    ) -> None:
        with backend.write() as databases:
            for data in files:
                for record in kind.import_trust(data, pinned=pinned):
                    databases.put_trust(
                        TrustRecord(record.key, record.type, roles, record.pinned, revoked or record.revoked, "", record.blob)
                    )

    def peer(self, kind: X509Type, *shown: Holder, backend: MemoryBackend | None = None) -> X509Peer:
        return kind.examine(0, [CertificateEntry(holder.der) for holder in shown], backend or MemoryBackend())

    def context(
        self, kind: X509Type, backend: MemoryBackend, peer: X509Peer | None, role: str = "server", **options: Any
    ) -> PeerContext:
        """As the session makes it: identities are what the peer names, and what is wanted if the peer names that."""
        wanted = DoNAI.parse(options["wanted"]) if "wanted" in options else None
        identities = kind.identities(peer) if peer else ()
        if peer and wanted and wanted not in identities and kind.names(peer, wanted):
            identities = (*identities, wanted)
        facts = HandshakeFacts(
            role="client" if role == "server" else "server",
            version=0x0304,
            cipher_suite=0x1301,
            cipher_suite_name="TLS_AES_128_GCM_SHA256",
            peer_ocsp=options.get("ocsp"),
            resumed=options.get("resumed", False),
        )
        return PeerContext(
            peer=peer,
            identities=identities,
            own=None,
            local_identity=None,
            wanted=wanted,
            domain_represents_user=False,
            service=options.get("service", "http"),
            facts=facts,
            config=backend,
            offered_role=role,
            ignore_caches=options.get("ignore_caches", False),
        )

    def establish(self, kind: X509Type, letter: str, context: PeerContext) -> Finding:
        """The finding of one predicate, which for this type is at hand at once."""
        predicate = next(one for one in kind.predicates() if one.letter == letter)
        finding = predicate.establish(context)
        assert isinstance(finding, Finding)
        return finding

    def key(self, kind: str) -> Any:
        return MAKERS[kind]()


@pytest.fixture(scope="session")
def pki() -> Pki:
    return Pki()


@pytest.fixture
def kind() -> X509Type:
    """The credential type, at a fixed time."""
    return X509Type(clock=lambda: NOW)
