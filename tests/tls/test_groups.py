"""Do both speakers of every group arrive at one secret, is what goes over the wire as specified, and is nonsense refused?"""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, mlkem
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tlspool_core.tls.alerts import BadKeyShare
from tlspool_core.tls.enums import NamedGroup
from tlspool_core.tls.groups import DEFAULT_GROUPS, GROUPS, generate, respond
from tlspool_core.tls.settings import TLS12

# client share, server share, secret, in bytes: RFC 8446 section 4.2.8.2 and draft-ietf-tls-ecdhe-mlkem section 4
LENGTHS = {
    NamedGroup.X25519: (32, 32, 32),
    NamedGroup.SECP256R1: (65, 65, 32),
    NamedGroup.SECP384R1: (97, 97, 48),
    NamedGroup.SECP521R1: (133, 133, 66),
    NamedGroup.X25519MLKEM768: (1216, 1120, 64),
    NamedGroup.SECP256R1MLKEM768: (1249, 1153, 64),
    NamedGroup.SECP384R1MLKEM1024: (1665, 1665, 80),
}
# RFC 7748 section 5.2 with others of its kind: points whose order divides eight
SMALL_ORDER = [bytes(32), b"\1" + bytes(31), bytes.fromhex("ec" + "ff" * 30 + "7f"), bytes.fromhex("ed" + "ff" * 30 + "7f")]


@pytest.mark.parametrize("group", LENGTHS)
def test_both_sides_agree(group: int) -> None:
    share = generate(group)
    answer, secret = respond(group, share.public)
    assert share.finish(answer) == secret
    assert (len(share.public), len(answer), len(secret)) == LENGTHS[group]
    assert generate(group).public != share.public


def test_the_table_is_the_default_offer() -> None:
    assert set(DEFAULT_GROUPS) == set(GROUPS) == set(LENGTHS)
    assert [group.name for group in GROUPS.values() if group.quantum_safe] == [
        "X25519MLKEM768",
        "SecP256r1MLKEM768",
        "SecP384r1MLKEM1024",
    ]
    assert not [group for group in GROUPS.values() if group.quantum_safe and TLS12 in group.versions]


@pytest.mark.parametrize("group", LENGTHS)
@pytest.mark.parametrize("cut", [0, 1, -1, 2000])
def test_wrong_lengths(group: int, cut: int) -> None:
    share = generate(group)
    answer, _ = respond(group, share.public)
    for refuse, public in ((lambda data: respond(group, data), share.public), (share.finish, answer)):
        changed = public + bytes(cut) if cut > 1 else public[:cut] if cut <= 0 else public + b"\0"
        with pytest.raises(BadKeyShare):
            refuse(changed)


@pytest.mark.parametrize("point", SMALL_ORDER)
@pytest.mark.parametrize("group", [NamedGroup.X25519, NamedGroup.X25519MLKEM768])
def test_points_of_small_order(group: int, point: bytes) -> None:
    """RFC 8446 section 7.4.2: an all-zero secret ends the handshake."""
    share = generate(group)
    answer, _ = respond(group, share.public)
    with pytest.raises(BadKeyShare):
        respond(group, share.public[:-32] + point)
    with pytest.raises(BadKeyShare):
        share.finish(answer[:-32] + point)


@pytest.mark.parametrize("group", [NamedGroup.SECP256R1, NamedGroup.SECP384R1, NamedGroup.SECP521R1])
def test_points_off_the_curve_and_other_forms(group: int) -> None:
    public = generate(group).public
    off = public[:-1] + bytes((public[-1] ^ 1,))
    compressed = b"\2" + public[1 : 1 + len(public) // 2]
    hybrid = bytes((6 + (public[-1] & 1),)) + public[1:]
    for point in (off, compressed, hybrid, b"\0" * len(public), b"\0"):
        with pytest.raises(BadKeyShare):
            respond(group, point)


def test_an_encapsulation_key_that_is_not_reduced() -> None:
    """FIPS 203 section 7.2, the modulus check: a coefficient of 3329 or more."""
    public = generate(NamedGroup.X25519MLKEM768).public
    with pytest.raises(BadKeyShare):
        respond(NamedGroup.X25519MLKEM768, b"\x01\x0d" + public[2:])


def test_the_hybrid_is_both_of_its_parts_in_order() -> None:
    """Taken apart with the primitives themselves."""
    kem, curve = mlkem.MLKEM768PrivateKey.generate(), X25519PrivateKey.generate()
    answer, secret = respond(NamedGroup.X25519MLKEM768, kem.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw())
    assert secret == kem.decapsulate(answer[:1088]) + curve.exchange(X25519PublicKey.from_public_bytes(answer[1088:]))

    point = ec.generate_private_key(ec.SECP256R1())
    encoded = point.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    answer, secret = respond(NamedGroup.SECP256R1MLKEM768, encoded + kem.public_key().public_bytes_raw())
    peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), answer[:65])
    assert secret == point.exchange(ec.ECDH(), peer) + kem.decapsulate(answer[65:])
