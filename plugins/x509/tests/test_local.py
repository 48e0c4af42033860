"""Is a credential of ours only made ready if it will work, and does a refusal say what to mend?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from tlspool_x509.credential_type import X509Type
from tlspool_x509.local import X509Credential

from tlspool_core.api import CertificateEntry, Denied, DoNAI, Key, KeyStoreError, LocalCredential, Role
from tlspool_core.testing.keys import SoftwareKeys

DAY = timedelta(days=1)
IDENTITY = DoNAI("example.com")
CONTENT = b" " * 64 + b"TLS 1.3, server CertificateVerify\0" + bytes(32)


def _load(kind: X509Type, local: LocalCredential, store: SoftwareKeys) -> X509Credential:
    return asyncio.run(kind.load(local, store.find))


def _stored(kind: X509Type, pki: Any, holder: Any, *issuers: Any, roles: Role = Role.BOTH) -> tuple[LocalCredential, SoftwareKeys]:
    store = SoftwareKeys()
    uri = store.add("key", holder.key)
    public = kind.import_local(b"".join(one.pem for one in (holder, *issuers)))
    return LocalCredential(IDENTITY, "x509", roles, uri, public), store


@pytest.mark.parametrize("key", ["p256", "p384", "p521", "rsa2048", "ed25519", "ed448"])
def test_ready_for_use(pki: Any, kind: X509Type, key: str) -> None:
    root = pki.root()
    middle = root.authority("Middle")
    holder = middle.issue("example.com", key=pki.key(key))
    local, store = _stored(kind, pki, holder, root, middle)
    made = _load(kind, local, store)
    assert [entry.data for entry in made.entries] == [holder.der, middle.der]
    assert made.certificate_type == 0
    assert made.roles is Role.BOTH
    assert list(made.issuers) == [middle.certificate.subject.public_bytes(), root.certificate.subject.public_bytes()]
    peer = pki.peer(kind, holder)
    for scheme in made.signature_schemes:
        if scheme not in (0x0401, 0x0501, 0x0601):  # TLS 1.2's alone
            peer.verify(scheme, CONTENT, asyncio.run(kind.sign(made, scheme, CONTENT)))
    with pytest.raises(Denied, match="0x0999"):
        asyncio.run(kind.sign(made, 0x0999, CONTENT))
    assert kind.describe(made, "issuer") == "CN=Middle"
    assert kind.end_point_binding(made) == kind.end_point_binding(peer)
    assert "Key" not in repr(made)


def test_schemes_are_those_that_key_and_certificate_have_in_common(pki: Any, kind: X509Type) -> None:
    local, store = _stored(kind, pki, pki.root().issue("example.com", key=pki.key("p384")))
    assert _load(kind, local, store).signature_schemes == (0x0503,)
    local, store = _stored(kind, pki, pki.root().issue("example.com", key=pki.key("rsa2048")))
    assert _load(kind, local, store).signature_schemes == (0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601)


def _pss_certificate(holder: Any) -> bytes:
    """The certificate with its key called id-RSASSA-PSS (RFC 4055 section 3.1), which the library reads but does not write."""
    plain, pss = bytes.fromhex("300d06092a864886f70d0101010500"), bytes.fromhex("300d06092a864886f70d01010a0500")
    assert holder.der.count(plain) == 1
    # parameters are absent where the key is free in its choice
    changed: bytes = holder.der.replace(plain, pss)
    return changed


def test_a_key_for_pss_alone(pki: Any, kind: X509Type) -> None:
    holder = pki.root().issue("example.com", key=pki.key("rsa2048"))
    der = _pss_certificate(holder)
    try:
        assert x509.load_der_x509_certificate(der).public_key()
    except ValueError:
        der = _without_parameters(der)
    store = SoftwareKeys()
    local = LocalCredential(IDENTITY, "x509", Role.BOTH, store.add("key", holder.key), der)
    made = _load(kind, local, store)
    assert made.signature_schemes == (0x0809, 0x080A, 0x080B)
    peer = kind.examine(0, [CertificateEntry(der)], pki.trusting(kind))
    peer.verify(0x0809, CONTENT, asyncio.run(kind.sign(made, 0x0809, CONTENT)))


def _without_parameters(der: bytes) -> bytes:
    """As above, with absent parameters; every enclosing length is two less."""
    inner = der.index(bytes.fromhex("300d06092a864886f70d01010a0500"))
    changed = der.replace(bytes.fromhex("300d06092a864886f70d01010a0500"), bytes.fromhex("300b06092a864886f70d01010a"))
    for position in (0, 4, inner - 4):  # certificate, tbsCertificate, subjectPublicKeyInfo: each with a length of two bytes
        assert changed[position : position + 2] == b"\x30\x82"
        length = int.from_bytes(changed[position + 2 : position + 4], "big") - 2
        changed = changed[: position + 2] + length.to_bytes(2, "big") + changed[position + 4 :]
    return changed


def _with(**options: Any) -> Callable[[Any], tuple[Any, list[Any]]]:
    return lambda pki: (pki.root().issue("example.com", **options), [])


def _expired_issuer(pki: Any) -> tuple[Any, list[Any]]:
    middle = pki.root().authority("Middle", lasts=(pki.now - 9 * DAY, pki.now - DAY))
    return middle.issue("example.com"), [middle]


@pytest.mark.parametrize(
    ("make", "roles", "reason"),
    [
        (_with(usages=[ExtendedKeyUsageOID.CLIENT_AUTH]), Role.SERVER, "not made for use as a TLS server"),
        (_with(usages=[ExtendedKeyUsageOID.EMAIL_PROTECTION]), Role.BOTH, "not made for use as a TLS server and client"),
        (
            lambda pki: (pki.self_signed("example.com", lasts=(pki.now - 2 * DAY, pki.now - DAY)), []),
            Role.BOTH,
            "expired on 2026-05-31",
        ),
        (
            lambda pki: (pki.self_signed("example.com", lasts=(pki.now + DAY, pki.now + 2 * DAY)), []),
            Role.BOTH,
            "is not valid before",
        ),
        (_expired_issuer, Role.BOTH, "CN=Middle expired on 2026-05-31"),
    ],
)
def test_what_cannot_be_used_says_why(pki: Any, kind: X509Type, make: Any, roles: Role, reason: str) -> None:
    holder, issuers = make(pki)
    local, store = _stored(kind, pki, holder, *issuers, roles=roles)
    with pytest.raises(Denied, match=reason):
        _load(kind, local, store)


def test_the_key_must_be_the_certificates(pki: Any, kind: X509Type) -> None:
    local, store = _stored(kind, pki, pki.root().issue("example.com"))
    with pytest.raises(Denied, match="the key software:other is not that of the certificate"):
        _load(kind, replace(local, key_uri=store.add("other", pki.key("p256"))), store)
    with pytest.raises(Denied, match="makes no signature that goes with"):
        _load(kind, replace(local, key_uri=store.add("third", pki.key("ed25519"))), store)
    with pytest.raises(KeyStoreError):
        _load(kind, replace(local, key_uri="software:none"), store)


class _SilentKey:
    """A key whose token does not tell the public part."""

    public_key = None

    def __init__(self, key: Key, public_key: bytes | None = None) -> None:
        self.uri, self.signature_schemes, self.sign = key.uri, key.signature_schemes, key.sign
        self.public_key = public_key  # type: ignore[assignment]


@pytest.mark.parametrize("key", ["p256", "rsa2048", "ed25519"])
@pytest.mark.parametrize("told", [None, b"\x30\x00"])
def test_a_key_with_unknown_public_part_is_tried(pki: Any, kind: X509Type, key: str, told: bytes | None) -> None:
    holder = pki.root().issue("example.com", key=pki.key(key))
    local, store = _stored(kind, pki, holder)
    store.add("other", pki.key(key))

    def finder(uri: str) -> Callable[[str], Awaitable[Key]]:
        async def find(_uri: str) -> Key:
            return _SilentKey(await store.find(uri), told)  # type: ignore[return-value]

        return find

    assert asyncio.run(kind.load(local, finder(local.key_uri)))
    with pytest.raises(Denied, match="is not that of the certificate"):
        asyncio.run(kind.load(local, finder("software:other")))


def test_a_damaged_chain(pki: Any, kind: X509Type) -> None:
    root = pki.root()
    holder = root.issue("example.com")
    local, store = _stored(kind, pki, holder)
    for public, reason in (
        (b"", "no certificate is stored"),
        (local.public[:-1], "damaged"),
        (local.public + b"x", "damaged"),
        (local.public + pki.root("Stranger").der, "is not issued by CN=Stranger"),
    ):
        with pytest.raises(Denied, match=reason):
            _load(kind, replace(local, public=public), store)


def test_a_credential_that_was_kept_too_long(pki: Any) -> None:
    now = [pki.now]
    kind = X509Type(clock=lambda: now[0])
    local, store = _stored(kind, pki, pki.self_signed("example.com", lasts=(pki.now - DAY, pki.now + DAY)))
    made = _load(kind, local, store)
    now[0] += 2 * DAY
    with pytest.raises(Denied, match=r"our certificate CN=example\.com expired"):
        asyncio.run(kind.sign(made, 0x0403, CONTENT))


def test_it_warns_before_it_expires(pki: Any, kind: X509Type, caplog: pytest.LogCaptureFixture) -> None:
    local, store = _stored(kind, pki, pki.self_signed("example.com", lasts=(pki.now - DAY, pki.now + DAY)))
    _load(kind, local, store)
    assert "expires on 2026-06-02" in caplog.text


def test_it_warns_if_the_certificate_is_for_another_name(pki: Any, kind: X509Type, caplog: pytest.LogCaptureFixture) -> None:
    root = pki.root()
    _load(kind, *_stored(kind, pki, root.issue("example.com", name="right")))
    assert not caplog.records
    _load(kind, *_stored(kind, pki, root.issue("example.org", name="wrong")))
    assert "CN=wrong of example.com does not name it" in caplog.text


def test_roles_are_those_of_database_and_certificate(pki: Any, kind: X509Type) -> None:
    holder = pki.root().issue("example.com", usages=[ExtendedKeyUsageOID.SERVER_AUTH])
    local, store = _stored(kind, pki, holder)
    assert _load(kind, local, store).roles is Role.SERVER
    local, store = _stored(kind, pki, pki.root().issue("example.com", usages=None), roles=Role.CLIENT)
    assert _load(kind, local, store).roles is Role.CLIENT


# --- stapling -----------------------------------------------------------------------------------------------------------------


def _response(pki: Any, root: Any, holder: Any, status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD, until: Any = None) -> bytes:
    builder = ocsp.OCSPResponseBuilder().add_response(
        holder.certificate, root.certificate, SHA256(), status, pki.now - DAY, until or pki.now + DAY, None, None
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, root.certificate)
    return builder.sign(root.key, SHA256()).public_bytes(Encoding.DER)


def test_staples_out_of_a_directory(pki: Any, kind: X509Type, tmp_path: Any) -> None:
    root = pki.root()
    holders = [root.issue("example.com") for _ in range(4)]
    good = _response(pki, root, holders[0])
    (tmp_path / "good.ocsp").write_bytes(good)
    (tmp_path / "unknown.ocsp").write_bytes(_response(pki, root, holders[1], ocsp.OCSPCertStatus.UNKNOWN))
    (tmp_path / "old.der").write_bytes(_response(pki, root, holders[2], until=pki.now - timedelta(hours=1)))
    (tmp_path / "broken.der").write_bytes(b"\x30\x00")
    (tmp_path / "notes.txt").write_bytes(_response(pki, root, holders[3]))
    kind.configure({"ocsp_staples": str(tmp_path)})
    found = [kind.ocsp_response(_load(kind, *_stored(kind, pki, holder))) for holder in holders]
    assert found == [good, None, None, None]


def test_staples_are_read_again(pki: Any, kind: X509Type, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root = pki.root()
    holder = root.issue("example.com")
    credential = _load(kind, *_stored(kind, pki, holder))
    assert kind.ocsp_response(credential) is None
    kind.configure({"ocsp_staples": str(tmp_path)})
    assert kind.ocsp_response(credential) is None
    (tmp_path / "new.ocsp").write_bytes(_response(pki, root, holder))
    assert kind.ocsp_response(credential) is None, "what was read just now is not read again"
    monkeypatch.setattr("tlspool_x509.staples.REREAD_SECONDS", -1.0)
    for _ in range(500):
        if kind.ocsp_response(credential) is not None:
            break
        asyncio.run(asyncio.sleep(0.01))
    assert kind.ocsp_response(credential) is not None


def test_rsa_signatures_are_what_tls_wants(pki: Any, kind: X509Type) -> None:
    """RFC 8446 section 4.2.3: RSASSA-PSS with a salt as long as the digest."""
    holder = pki.root().issue("example.com", key=pki.key("rsa2048"))
    made = _load(kind, *_stored(kind, pki, holder))
    signature = asyncio.run(kind.sign(made, 0x0804, CONTENT))
    public = holder.key.public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    assert public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    public.verify(signature, CONTENT, padding.PSS(padding.MGF1(SHA256()), 32), SHA256())
