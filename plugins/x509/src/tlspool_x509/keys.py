"""Which keys may stand in a certificate: the leaf-key policy, and the weaker one for issuers.

Theory of operation
-------------------
An end certificate's key signs the handshake, so it must be of a kind that TLS signs with (RFC 8446 section 4.2.3), strong enough,
and cheap enough to verify.  Issuers' keys sign certificates only; for them `cryptography` has a list of its own, to which EdDSA is
added here.  RSA lengths are multiples of eight bits as in the CA/Browser Forum's requirements, section 6.1.6.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import PublicKeyAlgorithmOID, SignatureAlgorithmOID

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192  # verification takes time that the peer chooses, so it needs a bound
MAX_RSA_EXPONENT_BITS = 64
CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})

EDDSA_KEYS = (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)
_OTHER_KEYS = (*EDDSA_KEYS, mldsa.MLDSA44PublicKey, mldsa.MLDSA65PublicKey, mldsa.MLDSA87PublicKey)

# Algorithms that certificates, revocation lists and OCSP responses may be signed with: nothing with MD5 or SHA-1.
SIGNATURES = frozenset(
    {
        SignatureAlgorithmOID.RSA_WITH_SHA256,
        SignatureAlgorithmOID.RSA_WITH_SHA384,
        SignatureAlgorithmOID.RSA_WITH_SHA512,
        SignatureAlgorithmOID.RSASSA_PSS,
        SignatureAlgorithmOID.ECDSA_WITH_SHA256,
        SignatureAlgorithmOID.ECDSA_WITH_SHA384,
        SignatureAlgorithmOID.ECDSA_WITH_SHA512,
        SignatureAlgorithmOID.ED25519,
        SignatureAlgorithmOID.ED448,
        SignatureAlgorithmOID.ML_DSA_44,
        SignatureAlgorithmOID.ML_DSA_65,
        SignatureAlgorithmOID.ML_DSA_87,
    }
)
_STRONG_HASHES = frozenset({"sha256", "sha384", "sha512"})


def public_key_of(certificate: x509.Certificate) -> CertificatePublicKeyTypes | None:
    """The certificate's key, None if it is of an unknown kind or malformed."""
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def is_pss(certificate: x509.Certificate) -> bool:
    """Whether the key is for RSASSA-PSS alone (RFC 4055 section 1.2)."""
    return certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS


def key_fault(key: object) -> str:
    """What speaks against a key in any certificate of a path; "" if nothing."""
    if key is None:
        return "a key that cannot be read"
    if isinstance(key, rsa.RSAPublicKey):
        return _rsa_fault(key)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return "" if key.curve.name in CURVES else f"a key on the curve {key.curve.name}"
    return "" if isinstance(key, _OTHER_KEYS) else "a key of a kind that TLS does not sign with"


def _rsa_fault(key: rsa.RSAPublicKey) -> str:
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        return f"an RSA key of {key.key_size} bits, where {MIN_RSA_BITS} to {MAX_RSA_BITS} are allowed"
    if key.key_size % 8:
        return f"an RSA key of {key.key_size} bits, which is no multiple of 8"
    exponent = key.public_numbers().e
    return "" if exponent.bit_length() <= MAX_RSA_EXPONENT_BITS else "an RSA key with an exponent of absurd size"


# NIST SP 800-57 part 1 table 2, FIPS 204 for ML-DSA, RFC 8032 for EdDSA
_STRENGTH_OF_RSA = ((15360, 256), (7680, 192), (3072, 128), (2048, 112))
_STRENGTH_OF_KIND: tuple[tuple[type[object], int], ...] = (
    (ed25519.Ed25519PublicKey, 128),
    (ed448.Ed448PublicKey, 224),
    (mldsa.MLDSA44PublicKey, 128),
    (mldsa.MLDSA65PublicKey, 192),
    (mldsa.MLDSA87PublicKey, 256),
)


def strength_of(key: object) -> int:
    """Security strength in bits; 0 for what is weaker than anything in use, or unknown."""
    if isinstance(key, rsa.RSAPublicKey):
        return next((strength for bits, strength in _STRENGTH_OF_RSA if key.key_size >= bits), 0)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return min(key.curve.key_size // 2, 256) if key.curve.name in CURVES else 0
    return next((strength for kind, strength in _STRENGTH_OF_KIND if isinstance(key, kind)), 0)


def usage_fault(certificate: x509.Certificate) -> str:
    """Why keyUsage forbids the certificate to sign a handshake (RFC 8446 section 4.4.2.2); "" if it does not."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return ""
    return "" if usage.digital_signature else "keyUsage without digitalSignature"


def signature_fault(signed: x509.Certificate | x509.CertificateRevocationList) -> str:
    """What speaks against the algorithm of a signature on a certificate or list; "" if nothing."""
    if signed.signature_algorithm_oid not in SIGNATURES:
        return f"signed with {signed.signature_algorithm_oid.dotted_string}, which is not accepted"
    try:
        algorithm = signed.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return "signed in a way that cannot be read"
    if algorithm is not None and algorithm.name not in _STRONG_HASHES:
        return f"signed with {algorithm.name}"
    return ""
