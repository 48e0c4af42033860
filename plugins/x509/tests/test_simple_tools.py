"""Do certificates work that people make with `openssl` and the recipes that are around?"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tlspool_x509.credential_type import X509Type

from tlspool_core.api import CertificateEntry, DoNAI, Verdict


@dataclass
class _Shown:
    der: bytes


def _openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True, timeout=60)


def _der(path: Path) -> bytes:
    return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    "algorithm", [["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], ["rsa:2048"], ["ed25519"]], ids=lambda one: one[0]
)
@pytest.mark.parametrize("authority", [True, False], ids=["with key identifier", "without"])
def test_a_ca_of_two_commands(pki: Any, tmp_path: Path, algorithm: list[str], authority: bool) -> None:
    """The CA is that of OpenSSL's default configuration; its certificates have little more than a name."""
    new = ["req", "-newkey", *algorithm, "-nodes"]
    _openssl(tmp_path, *new, "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Demo CA", "-days", "30")
    _openssl(tmp_path, *new, "-keyout", "www.key", "-out", "www.csr", "-subj", "/CN=www.example.com")
    extensions = "subjectAltName=DNS:www.example.com,email:john@example.com\n"
    if authority:
        extensions += "authorityKeyIdentifier=keyid,issuer\nsubjectKeyIdentifier=hash\nextendedKeyUsage=serverAuth,clientAuth\n"
    (tmp_path / "ext").write_text(extensions)
    sign = ["x509", "-req", "-in", "www.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "ext"]
    _openssl(tmp_path, *sign, "-out", "www.pem")
    kind = X509Type()
    backend = pki.trusting(kind, (tmp_path / "ca.pem").read_bytes())
    peer = kind.examine(0, [CertificateEntry(_der(tmp_path / "www.pem"))], backend)
    for role in ("server", "client"):
        finding = pki.establish(kind, "T", pki.context(kind, backend, peer, role))
        assert finding.verdict is Verdict.STRICT, finding.reason
    assert kind.names(peer, DoNAI.parse("www.example.com"))
    assert kind.names(peer, DoNAI.parse("john@example.com"))
    assert kind.import_trust((tmp_path / "ca.pem").read_bytes(), pinned=False)[0].key in kind.trust_keys(peer)


def test_an_anchor_is_found_by_name_once_it_is_there(pki: Any, kind: X509Type) -> None:
    """Without key identifiers, too, the next handshake sees a change."""
    root = pki.root()
    holder = root.issue("example.com")
    old = holder.certificate
    builder = x509.CertificateBuilder(
        old.issuer, old.subject, old.public_key(), 7, old.not_valid_before_utc, old.not_valid_after_utc
    )
    bare = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("example.com")]), critical=True)
    shown = _Shown(bare.sign(root.key, old.signature_hash_algorithm).public_bytes(Encoding.DER))
    backend = pki.trusting(kind, pki.root("Other").pem)
    before = pki.peer(kind, shown, backend=backend)
    finding = pki.establish(kind, "T", pki.context(kind, backend, before))
    assert finding.verdict is Verdict.FALSE
    assert "no trust anchor for its issuer CN=Root" in finding.reason
    pki.trust(backend, kind, root.pem)
    after = pki.peer(kind, shown, backend=backend)
    assert pki.establish(kind, "T", pki.context(kind, backend, after)).verdict is Verdict.STRICT
