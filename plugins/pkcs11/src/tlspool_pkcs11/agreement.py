"""Key agreement (ECDH) with a private key in a token: what the token gets, and what it must return.

Theory of operation
-------------------
The other side's public key comes as SubjectPublicKeyInfo, and is read by the library `cryptography`, which refuses a point that is
not on its curve: a token that does not look would give its private key away, bit by bit (invalid curve attack).  The token gets
the bare point, uncompressed, and returns the x coordinate of the product, as long as the field (PKCS #11 v3.1 section 6.3.19,
CKD_NULL; SEC 1 section 3.3.1).  An x coordinate that is shorter has lost its leading zeros in a token, and gets them back.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from tlspool_core.api import KeyStoreError

_CURVES = ("secp256r1", "secp384r1", "secp521r1")


@dataclass(frozen=True, slots=True)
class Agreement:
    """`kind` is that of `publickeys.PublicKey`; `length` is the field's, in octets."""

    kind: str
    point: bytes
    length: int

    def secret(self, answer: bytes) -> bytes:
        """What the token returned, in full length. Raises KeyStoreError if that is not possible."""
        if not 0 < len(answer) <= self.length:
            raise KeyStoreError(f"the token agreed on {len(answer)} octets, not {self.length}")
        return answer.rjust(self.length, b"\0")


def agreement(peer_public: bytes) -> Agreement:
    """Read DER SubjectPublicKeyInfo of the other side. Raises KeyStoreError."""
    try:
        public = load_der_public_key(peer_public)
    except (ValueError, UnsupportedAlgorithm):
        raise KeyStoreError("the public key to agree with cannot be read, or is not on its curve") from None
    if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name not in _CURVES:
        raise KeyStoreError(f"keys agree on the curves {', '.join(_CURVES)}")
    point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return Agreement(f"ec-{public.curve.name}", point, (public.key_size + 7) // 8)
