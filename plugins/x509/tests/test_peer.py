"""Does whatever a peer shows become a credential that can verify, or one of the declared errors, and nothing else?"""

from __future__ import annotations

from hashlib import sha256, sha384, sha512
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from hypothesis import given, settings
from hypothesis import strategies as st
from tlspool_x509.credential_type import X509Type
from tlspool_x509.peer import X509Peer, examine

from tlspool_core.api import (
    BadCertificate,
    CertificateEntry,
    DecodeError,
    InsufficientSecurity,
    TlsError,
    UnsupportedCertificate,
)
from tlspool_core.testing.memory import MemoryBackend

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a")  # serial numbers that are not positive, in certificates made by chance

CONTENT = b" " * 64 + b"TLS 1.3, server CertificateVerify\0" + bytes(32)


@pytest.fixture(scope="module")
def chain(pki: Any) -> list[bytes]:
    root = pki.root()
    middle = root.authority("Middle")
    return [middle.issue("example.com", "john@example.com", name="example.com").der, middle.der, root.der]


def test_a_certificate_is_remembered_unless_it_is_absurdly_large(pki: Any) -> None:
    """Whoever sends certificates without end must not fill the memory."""
    root = pki.root()
    usual, large = root.issue("example.com").der, root.issue(*[f"h{number}.example.com" for number in range(1000)]).der
    assert len(large) > 10_000

    def twice(der: bytes) -> tuple[object, object]:
        return examine(_entries([der])).leaf, examine(_entries([der])).leaf

    first, second = twice(usual)
    assert first is second
    first, second = twice(large)
    assert first is not second


def _entries(ders: list[bytes]) -> list[CertificateEntry]:
    return [CertificateEntry(der) for der in ders]


def _check(ders: list[bytes]) -> None:
    try:
        peer = examine(_entries(ders))
    except TlsError:
        return
    assert isinstance(peer, X509Peer)
    kind = X509Type()
    kind.identities(peer)
    kind.trust_keys(peer)
    for field in ("subject", "issuer", "subjectaltname"):
        kind.describe(peer, field)
    kind.end_point_binding(peer)
    with pytest.raises(TlsError):
        peer.verify(0x0403, CONTENT, b"\x30\x00")


@given(st.lists(st.binary(max_size=300), max_size=12))
def test_any_bytes(ders: list[bytes]) -> None:
    _check(ders)


@settings(max_examples=600)
@given(st.data())
def test_changed_certificates(chain: list[bytes], data: st.DataObject) -> None:
    """Bytes changed, inserted, removed; also in the inner structures, by way of their lengths."""
    which = data.draw(st.integers(0, len(chain) - 1))
    der = bytearray(chain[which])
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(der) - 1))
        change = data.draw(st.sampled_from(("set", "insert", "remove")))
        if change == "set":
            der[position] = data.draw(st.integers(0, 255))
        elif change == "insert":
            der[position:position] = data.draw(st.binary(min_size=1, max_size=4))
        elif len(der) > 5:
            del der[position : position + data.draw(st.integers(1, 4))]
    _check([*chain[:which], bytes(der), *chain[which + 1 :]])


def test_no_prefix_is_a_certificate(chain: list[bytes]) -> None:
    for length in range(len(chain[0])):
        with pytest.raises(BadCertificate):
            examine(_entries([chain[0][:length]]))
    with pytest.raises(BadCertificate):
        examine(_entries([chain[0] + b"\0"]))


def test_limits(chain: list[bytes], kind: X509Type) -> None:
    backend = MemoryBackend()
    with pytest.raises(DecodeError):
        kind.examine(0, [], backend)
    with pytest.raises(BadCertificate, match="11 certificates"):
        kind.examine(0, _entries([chain[0]] * 11), backend)
    with pytest.raises(BadCertificate, match="bytes"):
        kind.examine(0, _entries([chain[0] + bytes(70_000)]), backend)
    with pytest.raises(UnsupportedCertificate):
        kind.examine(2, _entries(chain), backend)


@pytest.mark.parametrize("weak", ["rsa1024", "p192"])
def test_weak_keys_are_refused(pki: Any, kind: X509Type, weak: str) -> None:
    with pytest.raises(InsufficientSecurity):
        pki.peer(kind, pki.root().issue("example.com", key=pki.key(weak)))


def test_key_usage_must_allow_signatures(pki: Any, kind: X509Type) -> None:
    assert pki.peer(kind, pki.root().issue("example.com", key_usage=True))
    with pytest.raises(UnsupportedCertificate, match="digitalSignature"):
        pki.peer(kind, pki.root().issue("example.com", key_usage=False))


@pytest.mark.parametrize(
    ("key", "scheme", "sign"),
    [
        ("p256", 0x0403, lambda key: key.sign(CONTENT, ec.ECDSA(SHA256()))),
        ("p384", 0x0503, lambda key: key.sign(CONTENT, ec.ECDSA(SHA384()))),
        ("p521", 0x0603, lambda key: key.sign(CONTENT, ec.ECDSA(SHA512()))),
        ("ed25519", 0x0807, lambda key: key.sign(CONTENT)),
        ("ed448", 0x0808, lambda key: key.sign(CONTENT)),
        ("mldsa65", 0x0905, lambda key: key.sign(CONTENT)),
        ("rsa2048", 0x0804, lambda key: key.sign(CONTENT, padding.PSS(padding.MGF1(SHA256()), 32), SHA256())),
    ],
)
def test_proofs(pki: Any, kind: X509Type, key: str, scheme: int, sign: Any) -> None:
    holder = pki.root().issue("example.com", key=pki.key(key))
    peer = pki.peer(kind, holder)
    peer.verify(scheme, CONTENT, sign(holder.key))
    with pytest.raises(TlsError):
        peer.verify(scheme, CONTENT + b"x", sign(holder.key))
    with pytest.raises(TlsError):
        peer.verify(0x0401, CONTENT, sign(holder.key))


def test_end_point_binding(pki: Any, kind: X509Type) -> None:
    """RFC 5929 section 4.1: the hash of the certificate's signature."""
    holder = pki.root().issue("example.com")
    assert kind.end_point_binding(pki.peer(kind, holder)) == sha256(holder.der).digest()
    for key, digest in (("p384", sha384), ("p521", sha512)):
        root = pki.root(key=pki.key(key))
        signed = _signed_with(root, {"p384": SHA384(), "p521": SHA512()}[key])
        assert kind.end_point_binding(pki.peer(kind, signed)) == digest(signed.der).digest()
    unhashed = pki.root(key=pki.key("ed25519")).issue("example.com")
    assert kind.end_point_binding(pki.peer(kind, unhashed)) is None


def _signed_with(root: Any, algorithm: Any) -> Any:
    from cryptography import x509

    holder = root.issue("example.com")
    old = holder.certificate
    builder = x509.CertificateBuilder(
        old.issuer, old.subject, old.public_key(), old.serial_number, old.not_valid_before_utc, old.not_valid_after_utc
    )
    holder.certificate = builder.sign(root.key, algorithm)
    return holder


def test_strength_is_that_of_the_weakest_shown(pki: Any, kind: X509Type) -> None:
    root = pki.root()
    strong, weak = root.authority("Strong", key=pki.key("p384")), root.authority("Weak", key=pki.key("rsa2048"))
    assert kind.strength(pki.peer(kind, strong.issue("example.com", key=pki.key("mldsa65")), strong)) == 192
    assert kind.strength(pki.peer(kind, weak.issue("example.com", key=pki.key("p521")), weak)) == 112
    assert kind.strength(pki.peer(kind, strong.issue("example.com", key=pki.key("ed448")), weak, strong)) == 192
    assert kind.strength(pki.peer(kind, root.issue("example.com", key=pki.key("ed25519")))) == 128
    assert kind.strength(pki.peer(kind, pki.self_signed("example.com", key=pki.key("p521")))) == 256
