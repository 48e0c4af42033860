"""Trust anchors and revocation lists: out of the trust database, and of the system's bundle if that is wanted.

Theory of operation
-------------------
An anchor is kept under its subjectKeyIdentifier, since that is what certificates give as authorityKeyIdentifier; an anchor without
one under a hash of its name.  Each chain is asked for the few keys that it mentions, so that the size of the database does not
matter, and a change to it counts at once.  Only for certificates that do not say which key signed them (CAs made with simple tools
leave that out) anchors are found by their names, through an index that is made when the database has changed.  Revocation lists
stand under the key of their issuer, beside it.

A record that is marked as revoked takes the trust from what it names, whatever else speaks for it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.utils import CryptographyDeprecationWarning

from tlspool_core.api import ConfigBackend, Role, TrustRecord
from tlspool_x509.certificates import (
    Malformed,
    authority_key_id,
    der_of,
    issuer_key,
    name_key,
    parse_certificate,
    pem_blocks,
    read_certificates,
    spki_of,
)

log = logging.getLogger("tlspool.x509")

TYPE = "x509"
MAX_REVOCATION_LIST = 64 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Anchor:
    """A certificate that is trusted as such, and for which roles of its holders."""

    certificate: x509.Certificate
    roles: Role
    key: bytes


@lru_cache(maxsize=1024)
def _certificate(der: bytes) -> x509.Certificate | None:
    try:
        return parse_certificate(der)
    except Malformed:
        return None


@lru_cache(maxsize=32)
def _revocation_list(der: bytes) -> x509.CertificateRevocationList | None:
    try:
        return x509.load_der_x509_crl(der) if len(der) <= MAX_REVOCATION_LIST else None
    except (ValueError, UnsupportedAlgorithm):
        return None


def read_bundle(path: Path, roles: Role) -> dict[bytes, tuple[Anchor, ...]]:
    """The system's anchors by key; those that cannot be read are passed over. Raises ValueError if that leaves none."""
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise ValueError(f"system_store: {path} cannot be read: {error.strerror}") from None
    found: dict[bytes, tuple[Anchor, ...]] = {}
    for certificate in _bundled(blob):
        key = issuer_key(certificate)
        found[key] = (*found.get(key, ()), Anchor(certificate, roles, key))
    if not found:
        raise ValueError(f"system_store: {path} holds no certificate (PEM) that can be read")
    return found


def _bundled(blob: bytes) -> list[x509.Certificate]:
    found = []
    with warnings.catch_warnings():
        # some old roots have the serial number 0, which the library would tell everyone about
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        for _label, text in pem_blocks(blob):
            try:
                found += read_certificates(text)
            except Malformed as error:
                log.debug("a certificate of the system's bundle is passed over: %s", error)
    return found


def chain_keys(chain: Iterable[x509.Certificate]) -> tuple[bytes, ...]:
    """Keys of the trust database under which anchors of a chain may be: its issuers', and its own certificates'."""
    keys: dict[bytes, None] = {}
    for certificate in chain:
        if identifier := authority_key_id(certificate.extensions):
            keys[identifier] = None
        keys[name_key(certificate.issuer)] = None
        keys[issuer_key(certificate)] = None
    return tuple(keys)


def _by_name(anchors: Iterable[Anchor]) -> dict[bytes, set[bytes]]:
    """Keys of anchors by their DER names."""
    found: dict[bytes, set[bytes]] = {}
    for anchor in anchors:
        found.setdefault(anchor.certificate.subject.public_bytes(), set()).add(anchor.key)
    return found


class TrustStore:
    """Looks things up for one chain at a time."""

    def __init__(self, system: dict[bytes, tuple[Anchor, ...]] | None = None) -> None:
        self._system = system or {}
        self._system_names = _by_name(anchor for anchors in self._system.values() for anchor in anchors)
        self._names: tuple[int, dict[bytes, set[bytes]]] | None = None

    def keys(self, chain: Sequence[x509.Certificate], config: ConfigBackend) -> tuple[bytes, ...]:
        """Keys under which anchors of the chain are, if there are any. Raises ConfigError."""
        nameless = [one.issuer for one in chain if authority_key_id(one.extensions) is None]
        found = dict.fromkeys(chain_keys(chain))
        for name in nameless:
            encoded = name.public_bytes()
            found |= dict.fromkeys((*self._keys_by_name(config).get(encoded, ()), *self._system_names.get(encoded, ())))
        return tuple(found)

    def _keys_by_name(self, config: ConfigBackend) -> dict[bytes, set[bytes]]:
        generation = config.generation()
        if self._names is None or self._names[0] != generation:
            with config.read() as databases:
                records = [(record, self._anchor(record)) for record in databases.trusts(TYPE)]
            anchors = (Anchor(made, record.roles, record.key) for record, made in records if made is not None)
            self._names = (generation, _by_name(anchors))
        return self._names[1]

    def anchors(self, keys: Iterable[bytes], role: Role, config: ConfigBackend) -> list[Anchor]:
        """Anchors under these keys, for peers in `role`. Raises ConfigError."""
        keys = tuple(keys)
        found: dict[bytes, Anchor] = {}
        with config.read() as databases:
            records = [record for key in keys for record in databases.trust(key)]
        for record in records:
            certificate = self._anchor(record)
            if certificate is not None:
                anchor = Anchor(certificate, record.roles, record.key)
                found[record.blob] = anchor
        for anchor in (anchor for key in keys for anchor in self._system.get(key, ())):
            found.setdefault(der_of(anchor.certificate), anchor)
        return [anchor for anchor in found.values() if anchor.roles & role]

    def _anchor(self, record: TrustRecord) -> x509.Certificate | None:
        if record.type != TYPE or record.pinned or record.revoked or not record.blob:
            return None
        certificate = _certificate(record.blob)
        # what is under this key by accident of a peer's choice of key identifiers is not an anchor
        return certificate if certificate is not None and issuer_key(certificate) == record.key else None

    def revocation_lists(self, issuer: x509.Certificate, config: ConfigBackend) -> list[x509.CertificateRevocationList]:
        """Lists beside an issuer; nothing about them is checked yet."""
        keys = dict.fromkeys((issuer_key(issuer), name_key(issuer.subject)))  # lists may leave out the key identifier
        with config.read() as databases:
            records = [record for key in keys for record in databases.trust(key)]
        lists = [_revocation_list(record.blob) for record in records if record.type == TYPE and record.blob and not record.pinned]
        return [one for one in lists if one is not None and one.issuer == issuer.subject]

    def is_distrusted(self, certificate: x509.Certificate, config: ConfigBackend) -> bool:
        """Whether a record marked as revoked names the certificate: by its fingerprint, its key's, or as an issuer."""
        der = der_of(certificate)
        keys = (sha256(der).digest(), sha256(spki_of(certificate)).digest(), issuer_key(certificate))
        with config.read() as databases:
            records = [record for key in keys for record in databases.trust(key)]
        return any(record.type == TYPE and record.revoked and self._means(record, der) for record in records)

    def _means(self, record: TrustRecord, der: bytes) -> bool:
        """A record with a certificate means that one, one without means all that its key stands for."""
        return not record.blob or record.blob == der or _certificate(record.blob) is None

    def authorities(self, config: ConfigBackend, role: Role, limit: int) -> tuple[bytes, ...]:
        """DER names of the database's anchors for peers in `role`; empty if there are more than `limit`."""
        names: dict[bytes, None] = {}
        with config.read() as databases:
            for record in databases.trusts(TYPE):
                certificate = self._anchor(record) if record.roles & role else None
                if certificate is not None:
                    names[certificate.subject.public_bytes()] = None
                if len(names) > limit:
                    return ()
        return tuple(names)
