"""Does every scheme verify what it should, and nothing else: other keys, other versions, weak keys, changed content?"""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tlspool_core.testing.peers import KEY_KINDS, software_key, software_sign
from tlspool_core.tls.alerts import BadSignature, DecryptError, IllegalParameter, InsufficientSecurity, InternalError, WrongScheme
from tlspool_core.tls.seams import SignatureScheme
from tlspool_core.tls.settings import TLS12, TLS13, Settings
from tlspool_core.tls.signatures import (
    CORE_SCHEMES,
    PublicKeyCredential,
    accepted_schemes,
    certificate_verify_content,
    content_version,
    schemes_for,
    schemes_for_key,
    verify,
)

CASES = [
    (kind, scheme, pss)
    for kind in KEY_KINDS
    for pss in (False, True)
    for scheme in schemes_for_key(software_key(kind).public_key(), pss=pss)
]


@pytest.mark.parametrize(("kind", "scheme", "pss"), CASES)
def test_a_signature_holds_for_its_content_alone(kind: str, scheme: int, pss: bool) -> None:
    key = software_key(kind)
    signature = software_sign(key, scheme, b"content")
    version = max(CORE_SCHEMES[scheme].versions)
    verify(key.public_key(), scheme, b"content", signature, version=version, pss=pss)
    for content, changed in (
        (b"Content", signature),
        (b"content", signature[:-1] + bytes((signature[-1] ^ 1,))),
        (b"content", b""),
    ):
        with pytest.raises(BadSignature):
            verify(key.public_key(), scheme, content, changed, version=version, pss=pss)


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_no_key_takes_a_scheme_of_another(kind: str) -> None:
    public = software_key(kind).public_key()
    for scheme in set(CORE_SCHEMES) - set(schemes_for_key(public)) | {0x0201, 0x0203, 0x0101, 0xFFFF}:
        with pytest.raises(WrongScheme):
            verify(public, scheme, b"content", b"signature")


def test_rsa_schemes_follow_the_kind_of_key() -> None:
    """RFC 8446 section 4.2.3: rsae for rsaEncryption, pss for id-RSASSA-PSS."""
    key = software_key("rsa-2048")
    assert schemes_for_key(key.public_key()) == (0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601)
    assert schemes_for_key(key.public_key(), pss=True) == (0x0809, 0x080A, 0x080B)
    signature = software_sign(key, 0x0804, b"content")
    with pytest.raises(WrongScheme):
        verify(key.public_key(), 0x0804, b"content", signature, pss=True)


def test_tls13_binds_the_curve_and_tls12_does_not() -> None:
    key = software_key("ecdsa-p384")
    signature = software_sign(key, 0x0403, b"content")
    verify(key.public_key(), 0x0403, b"content", signature, version=TLS12)
    with pytest.raises(WrongScheme):
        verify(key.public_key(), 0x0403, b"content", signature, version=TLS13)


def test_versions_of_schemes() -> None:
    rsa_key, mldsa_key = software_key("rsa-2048"), software_key("mldsa44")
    with pytest.raises(WrongScheme):  # RFC 8446 section 4.2.3
        verify(rsa_key.public_key(), 0x0401, b"content", software_sign(rsa_key, 0x0401, b"content"), version=TLS13)
    with pytest.raises(WrongScheme):
        verify(mldsa_key.public_key(), 0x0904, b"content", mldsa_key.sign(b"content"), version=TLS12)
    both, only12 = accepted_schemes(Settings()), accepted_schemes(Settings(versions=(TLS12,)))
    assert 0x0401 in both and 0x0904 in both and 0x0904 not in only12
    assert 0x0401 not in accepted_schemes(Settings(), TLS13)
    assert tuple(accepted_schemes(Settings(signature_schemes=(0x0201, 0x0807, 0x0403)))) == (0x0807, 0x0403)


def test_weak_and_absurd_keys() -> None:
    small = rsa.generate_private_key(65537, 1024)  # noqa: S505 - weak on purpose
    with pytest.raises(InsufficientSecurity):
        verify(small.public_key(), 0x0804, b"content", software_sign(small, 0x0804, b"content"))
    numbers = software_key("rsa-2048").public_key().public_numbers()
    with pytest.raises(InsufficientSecurity):
        verify(rsa.RSAPublicNumbers(2**65 + 1, numbers.n).public_key(), 0x0804, b"content", bytes(256))
    odd = ec.generate_private_key(ec.SECP256K1())
    with pytest.raises(WrongScheme):
        verify(odd.public_key(), 0x0403, b"content", software_sign(odd, 0x0403, b"content"), version=TLS12)
    assert schemes_for_key(odd.public_key()) == ()


@pytest.mark.parametrize(
    ("role", "start"), [("client", b"TLS 1.3, client CertificateVerify"), ("server", b"TLS 1.3, server CertificateVerify")]
)
def test_content_of_certificate_verify(role: str, start: bytes) -> None:
    """RFC 8446 section 4.4.3, with the example's hash of 32 times 01."""
    content = certificate_verify_content(role, b"\1" * 32)
    assert content == b" " * 64 + start + b"\0" + b"\1" * 32
    assert content_version(content) == TLS13
    assert content_version(b" " * 63 + b"x" * 200) == TLS12


def test_credential_goes_by_the_version_of_the_content() -> None:
    key = software_key("ecdsa-p384")
    peer = PublicKeyCredential(0, (), key.public_key())
    old, new = b"\1\0\0\0messages", certificate_verify_content("client", bytes(48))
    peer.verify(0x0403, old, software_sign(key, 0x0403, old))
    peer.verify(0x0503, new, software_sign(key, 0x0503, new))
    with pytest.raises(IllegalParameter):
        peer.verify(0x0403, new, software_sign(key, 0x0403, new))
    with pytest.raises(DecryptError):
        peer.verify(0x0503, new, software_sign(key, 0x0503, old))


def test_plugins_add_schemes_but_replace_none() -> None:
    row = SignatureScheme(0x04E0, "toy", frozenset((TLS12,)), "toy")
    settings = Settings(extra_schemes=(row,))
    assert schemes_for(settings)[0x04E0] is row and 0x04E0 in accepted_schemes(settings)
    other: Any = SignatureScheme(0x0403, "mine", frozenset((TLS12,)), "toy")
    with pytest.raises(InternalError):
        schemes_for(Settings(extra_schemes=(other,)))
