"""What may be put into the databases, in which form is it stored, and what is an operator told otherwise?"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from tlspool_x509.certificates import MAX_CERTIFICATE, name_key
from tlspool_x509.credential_type import MAX_AUTHORITIES, X509Type
from tlspool_x509.settings import X509Settings, parse_settings

from tlspool_core.api import Role


def _private(holder: Any) -> bytes:
    pem: bytes = holder.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem


# --- chains -------------------------------------------------------------------------------------------------------------------


def test_a_chain_in_any_order_and_form_is_stored_in_one(pki: Any, kind: X509Type) -> None:
    root = pki.root()
    middle = root.authority("Middle")
    leaf = middle.issue("example.com")
    stored = leaf.der + middle.der
    for data in (
        leaf.pem + middle.pem,
        root.pem + middle.pem + leaf.pem,
        b"Subject: something\n" + middle.pem + b"\n\n" + leaf.pem + leaf.pem,
        leaf.der + middle.der + root.der,
        leaf.pem.replace(b"\n", b"\r\n") + middle.pem,
    ):
        assert kind.import_local(data) == stored
    assert kind.import_local(stored) == stored
    alone = pki.self_signed("example.com")
    assert kind.import_local(alone.pem) == alone.der


def test_what_is_no_chain(pki: Any, kind: X509Type) -> None:
    root = pki.root()
    leaf = root.issue("example.com", name="leaf")
    for data, reason in (
        (b"", "there is no certificate"),
        (b"hello", "neither PEM nor DER"),
        (leaf.der[:-1], "cut short"),
        (leaf.der + b"\x30", "neither PEM nor DER"),
        (b"\x30\x85" + bytes(9), "bad length"),
        (b"\x30\x80" + bytes(9), "bad length"),
        (leaf.pem + _private(leaf), "private key"),
        (leaf.pem.replace(b"CERTIFICATE", b"CERTIFICATE REQUEST"), "CERTIFICATE REQUEST"),
        (b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", "cannot be read"),
        (leaf.pem + root.issue("example.org", name="other").pem, "CN=leaf, CN=other"),
        (leaf.pem + root.pem + pki.root("Stranger").pem, "CN=Stranger"),
        (b"".join(pki.root(f"R{number}").pem for number in range(11)), "11 certificates"),
        (root.issue("example.com", key=pki.key("rsa1024")).pem, "RSA key of 1024 bits"),
        (root.issue("example.com", key_usage=False).pem, "digitalSignature"),
    ):
        with pytest.raises(ValueError, match=reason):
            kind.import_local(data)


# --- anchors and pins ---------------------------------------------------------------------------------------------------------


def test_anchors_are_kept_under_their_key_identifier(pki: Any, kind: X509Type) -> None:
    root = pki.root()
    other = pki.root("Other")
    records = kind.import_trust(root.pem + other.pem, pinned=False)
    assert [record.blob for record in records] == [root.der, other.der]
    identifier = root.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert records[0].key == identifier
    assert not records[0].pinned
    assert records[0].type == "x509"


def test_lists_are_kept_beside_the_anchor(pki: Any, kind: X509Type) -> None:
    root = pki.root()
    der = root.revocation_list()
    pem = x509.load_der_x509_crl(der).public_bytes(Encoding.PEM)
    for data in (root.pem + pem, root.der + der):
        records = kind.import_trust(data, pinned=False)
        assert [record.blob for record in records] == [root.der, der]
        assert records[0].key == records[1].key


def test_an_anchor_without_key_identifier(pki: Any, kind: X509Type) -> None:
    """OpenSSL makes such roots with its plain `x509 -req -signkey`."""
    root = pki.root()
    old = root.certificate
    builder = x509.CertificateBuilder(
        old.issuer, old.subject, old.public_key(), 7, old.not_valid_before_utc, old.not_valid_after_utc
    ).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    bare = type(root)(builder.sign(root.key, old.signature_hash_algorithm), root.key)
    records = kind.import_trust(bare.pem, pinned=False)
    assert records[0].key == name_key(old.subject)
    backend = pki.trusting(kind, bare.pem)
    finding = pki.establish(kind, "T", pki.context(kind, backend, pki.peer(kind, root.issue("example.com"))))
    assert finding.verdict.value == "strict", finding.reason


def test_what_is_no_anchor(pki: Any, kind: X509Type) -> None:
    root = pki.root()
    for data, reason in (
        (b"", "neither certificates nor revocation lists"),
        (b"\x30\x00", "not a certificate"),
        (root.issue("example.com", name="leaf").pem, "CN=leaf is an end certificate of CN=Root"),
        (pki.root(key=pki.key("rsa1024")).pem, "1024 bits"),
        (root.pem + _private(root), "private key"),
        (b"-----BEGIN X509 CRL-----\n!!!\n-----END X509 CRL-----\n", "revocation list cannot be read"),
    ):
        with pytest.raises(ValueError, match=reason):
            kind.import_trust(data, pinned=False)


def test_pins(pki: Any, kind: X509Type) -> None:
    holder = pki.root().issue("example.com")
    [record] = kind.import_trust(holder.pem, pinned=True)
    assert (record.key, record.blob, record.pinned) == (sha256(holder.der).digest(), holder.der, True)
    public = holder.certificate.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    [record] = kind.import_trust(public, pinned=True)
    assert len(record.key) == 32
    assert record.pinned
    for data, reason in (
        (b"-----BEGIN PUBLIC KEY-----\n!!!\n-----END PUBLIC KEY-----\n", "public key cannot be read"),
        (b"sha256//abc=", "neither PEM nor DER"),
        (_private(holder), "private key"),
    ):
        with pytest.raises(ValueError, match=reason):
            kind.import_trust(data, pinned=True)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x30\x03", b"-----BEGIN CERTIFICATE-----\n", b"sha256//"]))
def test_any_file_is_taken_or_refused_with_words(content: bytes, start: bytes) -> None:
    kind = X509Type()
    for work in (
        kind.import_local,
        lambda data: kind.import_trust(data, pinned=True),
        lambda data: kind.import_trust(data, pinned=False),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            work(start + content + b"\xff")
    assert kind.summarize(start + content)


def test_summaries(pki: Any, kind: X509Type) -> None:
    root = pki.root()
    leaf = root.issue("example.com", name="leaf")
    assert kind.summarize(leaf.der + root.der).startswith("CN=leaf by CN=Root, until 2026-08-30, 1 issuers, key sha256//")
    assert "revocation list of CN=Root, 1 entries, until 2026-06-02" in kind.summarize(root.revocation_list(leaf))
    assert kind.summarize(b"") == "pin of a public key"
    assert kind.summarize(bytes(32)) == f"pin {'00' * 32}"
    assert "neither" in kind.summarize(b"\x30\x00")
    assert "neither" in kind.summarize(bytes(MAX_CERTIFICATE + 1))


def test_authorities_for_clients(pki: Any, kind: X509Type) -> None:
    first, second = pki.root("First"), pki.root("Second")
    backend = pki.trusting(kind, first.pem, roles=Role.CLIENT)
    pki.trust(backend, kind, second.pem, roles=Role.SERVER)
    pki.trust(backend, kind, first.revocation_list(), roles=Role.CLIENT)
    assert kind.certificate_authorities(backend) == (first.certificate.subject.public_bytes(),)
    pki.trust(backend, kind, *[pki.root(f"R{number}").pem for number in range(MAX_AUTHORITIES)], roles=Role.CLIENT)
    assert kind.certificate_authorities(backend) == ()


# --- settings -----------------------------------------------------------------------------------------------------------------


def test_settings(tmp_path: Path) -> None:
    assert parse_settings({}) == X509Settings()
    made = parse_settings(
        {
            "system_store": False,
            "system_store_roles": ["client", "server"],
            "common_name_must_match": False,
            "pin": "certificate",
            "ocsp_staples": str(tmp_path),
            "extensions": {"imap": ["critical:2.5.29.15"]},
        }
    )
    assert made.system_store is None
    assert made.system_store_roles is Role.BOTH
    assert made.extensions["imap"][0].critical


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"sytem_store": True}, "sytem_store"),
        ({"system_store": "relative.pem"}, "system_store"),
        ({"system_store": 1}, "system_store"),
        ({"system_store_roles": []}, "system_store_roles"),
        ({"system_store_roles": ["peer"]}, "system_store_roles"),
        ({"common_name_must_match": "no"}, "common_name_must_match"),
        ({"pin": "name"}, "pin"),
        ({"extensions": []}, "extensions"),
        ({"extensions": {"imap": []}}, "extensions.imap"),
        ({"extensions": {"imap": ["optional:1.2.3"]}}, "extensions.imap"),
        ({"extensions": {"imap": ["1.2.x"]}}, "extensions.imap"),
    ],
)
def test_settings_that_are_wrong_are_named(section: dict[str, Any], key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key}:"):
        parse_settings(section)


def test_a_bundle_with_some_that_cannot_be_read(pki: Any, kind: X509Type, tmp_path: Path) -> None:
    root = pki.root()
    broken = b"-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n"
    (tmp_path / "bundle.pem").write_bytes(broken + root.pem)
    kind.configure({"system_store": str(tmp_path / "bundle.pem")})
    peer = pki.peer(kind, root.issue("example.com"))
    assert pki.establish(kind, "T", pki.context(kind, pki.trusting(kind), peer)).verdict.value == "strict"


def test_a_bundle_that_cannot_be_read(kind: X509Type, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        kind.configure({"system_store": str(tmp_path / "none.pem")})
    (tmp_path / "bad.pem").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"bad\.pem"):
        kind.configure({"system_store": str(tmp_path / "bad.pem")})
