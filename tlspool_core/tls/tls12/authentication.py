"""Certificates and signatures in TLS 1.2, in either direction (RFC 5246 sections 7.4.2, 7.4.3, 7.4.6, 7.4.8).

Nothing here decides on trust: that is `JudgePeer`, asked by the callers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tlspool_core.tls.alerts import CertificateChainTooLong, WrongScheme
from tlspool_core.tls.certificate_types import form_for
from tlspool_core.tls.codec import Reader, u16, vector16
from tlspool_core.tls.handshake import Handshake
from tlspool_core.tls.messages import CertificateVerify
from tlspool_core.tls.questions import ExaminePeer, Sign
from tlspool_core.tls.seams import CertificateEntry, Credential, PeerCredential
from tlspool_core.tls.settings import TLS12
from tlspool_core.tls.signatures import accepted_schemes, schemes_for
from tlspool_core.tls.tls12.messages import Certificate


@dataclass(frozen=True, slots=True)
class Showing:
    """A credential of ours, and the scheme to sign by."""

    credential: Credential
    scheme: int


@dataclass(frozen=True, slots=True)
class Proof:
    """What a CertificateVerify carried, for key exchanges that draw on it."""

    credential: Credential | PeerCredential
    scheme: int
    content: bytes
    signature: bytes


def send_certificate(hs: Handshake[Any], certificate_type: int, entries: Sequence[CertificateEntry]) -> None:
    """Our Certificate, in the form of its type; no entries for an empty one."""
    hs.send(Certificate(form_for(hs.settings, certificate_type).build12(entries)))


def parse_entries(hs: Handshake[Any], certificate_type: int, message: Certificate) -> tuple[CertificateEntry, ...]:
    """What the peer's Certificate holds. Raises a DecodeError or CertificateChainTooLong."""
    form = form_for(hs.settings, certificate_type)
    entries = form.parse12(message.body)
    if len(entries) > form.entries13_max:
        raise CertificateChainTooLong(f"{len(entries)} entries")
    return entries


async def examine(hs: Handshake[Any], certificate_type: int, entries: Sequence[CertificateEntry]) -> PeerCredential:
    """Have the peer's certificate parsed by whoever knows its type."""
    return await hs.ask(ExaminePeer(certificate_type, entries, TLS12))


async def _verify(hs: Handshake[Any], peer: PeerCredential, scheme: int, content: bytes, signature: bytes) -> None:
    await hs.call(f"certificate type {peer.certificate_type}", lambda: peer.verify(scheme, content, signature), quick=True)
    hs.know(peer_signature_scheme=scheme, quantum_safe_authentication=schemes_for(hs.settings)[scheme].quantum_safe)


# --- ServerKeyExchange -------------------------------------------------------------------------------------------------------------


async def sign_parameters(hs: Handshake[Any], showing: Showing, randoms: tuple[bytes, bytes], params: bytes) -> bytes:
    """The signature to go behind ServerKeyExchange params: SignatureAndHashAlgorithm and signature."""
    signature = await hs.ask(Sign(showing.credential, showing.scheme, b"".join((*randoms, params))))
    hs.know(own_signature_scheme=showing.scheme)
    return u16(showing.scheme) + vector16(signature)


async def verify_parameters(
    hs: Handshake[Any], peer: PeerCredential, usable: frozenset[int], randoms: tuple[bytes, bytes], params: bytes, signed: bytes
) -> None:
    """Verify what stands behind the params; `usable` has the schemes that we offered and that go with the suite."""
    reader = Reader(signed)
    scheme, signature = reader.u16(), reader.vector16()
    reader.finish()
    if scheme not in usable:
        raise WrongScheme(f"scheme 0x{scheme:04x} was not offered, or not for this suite")
    await _verify(hs, peer, scheme, b"".join((*randoms, params)), signature)


# --- CertificateVerify -------------------------------------------------------------------------------------------------------------


async def prove(hs: Handshake[Any], showing: Showing) -> Proof:
    """Client: sign all messages so far, and send the signature."""
    content = hs.transcript.messages
    signature = await hs.ask(Sign(showing.credential, showing.scheme, content))
    hs.know(own_signature_scheme=showing.scheme)
    hs.send(CertificateVerify(showing.scheme, signature))
    return Proof(showing.credential, showing.scheme, content, signature)


async def read_proof(hs: Handshake[Any], peer: PeerCredential) -> Proof:
    """Server: the client's CertificateVerify over all messages before it. Raises WrongScheme, BadSignature..."""
    content = hs.transcript.messages
    verify = await hs.read(CertificateVerify)
    if verify.algorithm not in accepted_schemes(hs.settings, TLS12):
        raise WrongScheme(f"scheme 0x{verify.algorithm:04x} was not offered")
    await _verify(hs, peer, verify.algorithm, content, verify.signature)
    return Proof(peer, verify.algorithm, content, verify.signature)
