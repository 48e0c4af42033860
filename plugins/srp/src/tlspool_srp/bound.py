"""SRP#11: a client's password that only a token can compute.

Theory of operation
-------------------
    binding:    make a key pair (e, E); the secret is ECDH(e, public key of the token's key); keep E in the account, throw e away
    each time:  the secret is ECDH(key in the token, E), computed inside the token; the same, and e is not needed
    password:   base64url(HKDF-SHA256(secret, info = label, user, server)), 43 characters of 256 bits

What SRP makes of it is up to SRP: the server keeps a verifier as for any password and need not know.  E is public.  Binding needs
the public half of the token's key only, so it is done without the token, and says the password once, for the server to make its
verifier from.  User and server are in the derivation, each behind its length, so that one pair of keys gives no two accounts
the same password.

Source of the derivation: RFC 5869; of the encoding: RFC 4648 section 5, without padding.
"""

from __future__ import annotations

import base64

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key, load_pem_public_key

_LABEL = b"TLS Pool SRP#11"
_CURVES = ("secp256r1", "secp384r1", "secp521r1")


def derive_password(secret: bytes, user: str, server: str) -> str:
    """The password, given what the token agreed on."""
    parts = [part.encode() for part in (user, server)]
    info = _LABEL + b"".join(len(part).to_bytes(2, "big") + part for part in parts)
    derived = HKDF(hashes.SHA256(), 32, None, info).derive(secret)
    return base64.urlsafe_b64encode(derived).rstrip(b"=").decode()


def bind(token_public: bytes, user: str, server: str) -> tuple[bytes, str]:
    """Bind a new password to a key: the point for the account (DER SubjectPublicKeyInfo), and the password for the server.

    `token_public` is the public half of the token's key, DER or PEM. Raises ValueError.
    """
    public = load_public(token_public)
    own = ec.generate_private_key(public.curve)
    point = own.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return point, derive_password(own.exchange(ec.ECDH(), public), user, server)


def load_public(data: bytes) -> ec.EllipticCurvePublicKey:
    """A public key on a curve that can be used. Raises ValueError."""
    try:
        public = load_pem_public_key(data) if data.lstrip().startswith(b"-----") else load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("no public key in PEM or DER, or not on its curve") from None
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name not in _CURVES:
        raise ValueError(f"a key for SRP#11 is on one of the curves {', '.join(_CURVES)}")
    return public


def encode_point(point: bytes) -> str:
    """For the account's JSON."""
    return base64.b64encode(point).decode()


def decode_point(text: str) -> bytes:
    """The point of an account, DER SubjectPublicKeyInfo. Raises ValueError."""
    try:
        point = base64.b64decode(text, validate=True)
    except ValueError:
        raise ValueError("the point of an SRP account is base64") from None
    load_public(point)
    return point
