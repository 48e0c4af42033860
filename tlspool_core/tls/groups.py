"""Named groups: how two sides come to a shared secret, for both versions of TLS.

Theory of operation
-------------------
A group has two operations.  Whoever speaks first calls `generate()`, sends `public`, and gives what comes back to `finish()`.
Whoever speaks second calls `respond()` with what came, and has its answer and the secret at once.  That shape suits key
encapsulation as well as Diffie-Hellman, so callers know of no difference.

    X25519                RFC 7748, RFC 8446 section 4.2.8.2; an all-zero secret is refused (RFC 8446 section 7.4.2)
    P-256, P-384, P-521   uncompressed points only; `cryptography` checks that they lie on the curve
    hybrids with ML-KEM   draft-ietf-tls-ecdhe-mlkem: both parts side by side, both secrets side by side, in one fixed order

Whatever is wrong with the peer's share is a `BadKeyShare`.  Lengths are exact: what is joined of two parts is cut by length alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric import ec, mlkem
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tlspool_core.tls.alerts import BadKeyShare
from tlspool_core.tls.enums import NamedGroup
from tlspool_core.tls.seams import Version
from tlspool_core.tls.settings import TLS12, TLS13

_BOTH: Final = frozenset((TLS12, TLS13))
_ONLY_13: Final = frozenset((TLS13,))


class KeyShare(Protocol):
    """The first speaker's half of one exchange; used once."""

    @property
    def public(self) -> bytes:
        """What the peer is sent."""

    def finish(self, peer_public: bytes) -> bytes:
        """The shared secret. Raises BadKeyShare."""


class Group(ABC):
    """One row of the table of groups."""

    code: int
    name: str
    versions: frozenset[Version]
    quantum_safe: bool = False

    @abstractmethod
    def generate(self) -> KeyShare:
        """First speaker: a fresh key pair."""

    @abstractmethod
    def respond(self, peer_public: bytes) -> tuple[bytes, bytes]:
        """Second speaker: what to send, and the shared secret. Raises BadKeyShare."""


class _DiffieHellman(Group):
    """Here both speakers do the same."""

    versions = _BOTH

    def respond(self, peer_public: bytes) -> tuple[bytes, bytes]:
        share = self.generate()
        return share.public, share.finish(peer_public)


def _exact(peer_public: bytes, length: int, what: str) -> None:
    if len(peer_public) != length:
        raise BadKeyShare(f"{what} of {len(peer_public)} bytes instead of {length}")


class _X25519Share:
    __slots__ = ("_private",)

    def __init__(self) -> None:
        self._private = X25519PrivateKey.generate()

    @property
    def public(self) -> bytes:
        return self._private.public_key().public_bytes_raw()

    def finish(self, peer_public: bytes) -> bytes:
        _exact(peer_public, 32, "X25519 share")
        try:
            return self._private.exchange(X25519PublicKey.from_public_bytes(peer_public))
        except ValueError:  # `cryptography` refuses the points of small order, for which the secret would be zero
            raise BadKeyShare("X25519 share of small order") from None


class X25519(_DiffieHellman):
    """RFC 7748."""

    code = int(NamedGroup.X25519)
    name = "X25519"

    def generate(self) -> KeyShare:
        return _X25519Share()


class _CurveShare:
    __slots__ = ("_group", "_private")

    def __init__(self, group: NistCurve) -> None:
        self._group = group
        self._private = ec.generate_private_key(group.curve)

    @property
    def public(self) -> bytes:
        return self._private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def finish(self, peer_public: bytes) -> bytes:
        group = self._group
        _exact(peer_public, group.share_length, f"{group.name} share")
        if peer_public[0] != 4:
            raise BadKeyShare(f"{group.name} share that is no uncompressed point")
        try:
            peer = ec.EllipticCurvePublicKey.from_encoded_point(group.curve, peer_public)
        except ValueError:
            raise BadKeyShare(f"{group.name} share that is not on the curve") from None
        return self._private.exchange(ec.ECDH(), peer)


class NistCurve(_DiffieHellman):
    """RFC 8422 section 5.4, RFC 8446 section 4.2.8.2; the secret is the x coordinate in full length."""

    def __init__(self, code: NamedGroup, name: str, curve: ec.EllipticCurve) -> None:
        self.code = int(code)
        self.name = name
        self.curve = curve
        self.share_length = 1 + 2 * ((curve.key_size + 7) // 8)

    def generate(self) -> KeyShare:
        return _CurveShare(self)


class _KemPrivate(Protocol):
    def decapsulate(self, ciphertext: bytes, /) -> bytes: ...


class _KemPublic(Protocol):
    def encapsulate(self) -> tuple[bytes, bytes]: ...


class Kem:
    """One parameter set of ML-KEM (FIPS 203); lengths in bytes of encapsulation key and ciphertext."""

    def __init__(
        self,
        key_length: int,
        ciphertext_length: int,
        generate: Callable[[], tuple[_KemPrivate, bytes]],
        load: Callable[[bytes], _KemPublic],
    ) -> None:
        self.key_length = key_length
        self.ciphertext_length = ciphertext_length
        self.generate = generate
        self._load = load

    def encapsulate(self, key: bytes) -> tuple[bytes, bytes]:
        """Ciphertext and secret. Raises BadKeyShare where the key fails the checks of FIPS 203 section 7.2."""
        try:
            secret, ciphertext = self._load(key).encapsulate()
        except ValueError:
            raise BadKeyShare("ML-KEM encapsulation key that fails its check") from None
        return ciphertext, secret


def _generate_768() -> tuple[_KemPrivate, bytes]:
    private = mlkem.MLKEM768PrivateKey.generate()
    return private, private.public_key().public_bytes_raw()


def _generate_1024() -> tuple[_KemPrivate, bytes]:
    private = mlkem.MLKEM1024PrivateKey.generate()
    return private, private.public_key().public_bytes_raw()


_MLKEM768: Final = Kem(1184, 1088, _generate_768, mlkem.MLKEM768PublicKey.from_public_bytes)
_MLKEM1024: Final = Kem(1568, 1568, _generate_1024, mlkem.MLKEM1024PublicKey.from_public_bytes)


class _HybridShare:
    __slots__ = ("_curve", "_decapsulate", "_group", "public")

    def __init__(self, group: Hybrid) -> None:
        self._group = group
        private, key = group.kem.generate()
        self._decapsulate = private.decapsulate
        self._curve = group.curve.generate()
        self.public = group.join(key, self._curve.public)

    def finish(self, peer_public: bytes) -> bytes:
        group = self._group
        ciphertext, point = group.split(peer_public, group.kem.ciphertext_length)
        return group.join(self._decapsulate(ciphertext), self._curve.finish(point))


class Hybrid(Group):
    """ML-KEM beside a curve: safe as long as either of them is (draft-ietf-tls-ecdhe-mlkem).

    `kem_first` holds for shares and secrets alike: FIPS wants the approved part in front.
    """

    versions = _ONLY_13
    quantum_safe = True

    def __init__(self, code: NamedGroup, name: str, kem: Kem, curve: Group, curve_length: int, *, kem_first: bool) -> None:
        self.code = int(code)
        self.name = name
        self.kem = kem
        self.curve = curve
        self._curve_length = curve_length
        self._kem_first = kem_first

    def join(self, kem_part: bytes, curve_part: bytes) -> bytes:
        """Shares or secrets, in the group's order."""
        return kem_part + curve_part if self._kem_first else curve_part + kem_part

    def split(self, share: bytes, kem_length: int) -> tuple[bytes, bytes]:
        """The peer's share as (part of the KEM, part of the curve). Raises BadKeyShare."""
        _exact(share, kem_length + self._curve_length, f"{self.name} share")
        if self._kem_first:
            return share[:kem_length], share[kem_length:]
        return share[self._curve_length :], share[: self._curve_length]

    def generate(self) -> KeyShare:
        return _HybridShare(self)

    def respond(self, peer_public: bytes) -> tuple[bytes, bytes]:
        key, point = self.split(peer_public, self.kem.key_length)
        ciphertext, kem_secret = self.kem.encapsulate(key)
        public, curve_secret = self.curve.respond(point)
        return self.join(ciphertext, public), self.join(kem_secret, curve_secret)


_X25519: Final = X25519()
_P256: Final = NistCurve(NamedGroup.SECP256R1, "P-256", ec.SECP256R1())
_P384: Final = NistCurve(NamedGroup.SECP384R1, "P-384", ec.SECP384R1())
_P521: Final = NistCurve(NamedGroup.SECP521R1, "P-521", ec.SECP521R1())

# in the order in which we offer them when settings say nothing
GROUPS: Final[Mapping[int, Group]] = {
    group.code: group
    for group in (
        Hybrid(NamedGroup.X25519MLKEM768, "X25519MLKEM768", _MLKEM768, _X25519, 32, kem_first=True),
        _X25519,
        _P256,
        _P384,
        _P521,
        Hybrid(NamedGroup.SECP256R1MLKEM768, "SecP256r1MLKEM768", _MLKEM768, _P256, 65, kem_first=False),
        Hybrid(NamedGroup.SECP384R1MLKEM1024, "SecP384r1MLKEM1024", _MLKEM1024, _P384, 97, kem_first=False),
    )
}

DEFAULT_GROUPS: Final = tuple(GROUPS)


def generate(group: int) -> KeyShare:
    """First speaker: a fresh share for a group of the table."""
    return GROUPS[group].generate()


def respond(group: int, peer_public: bytes) -> tuple[bytes, bytes]:
    """Second speaker: (what to send, shared secret) for a group of the table. Raises BadKeyShare."""
    return GROUPS[group].respond(peer_public)
