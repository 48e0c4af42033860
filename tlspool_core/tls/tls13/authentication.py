"""Certificate and CertificateVerify in TLS 1.3, which are the same in both directions and after the handshake (RFC 8446 section 4.4).

Theory of operation
-------------------
`Showing` is what we are going to show: a credential with the scheme that fits the peer's offer.  `build_proof` makes the two
messages of it.  `Expecting` is what we asked the peer for; `read_proof` takes its two messages, has them examined and verified.
Nothing here decides on trust: that is `JudgePeer`, asked by the callers.
"""

from __future__ import annotations

import zlib
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from tlspool_core.tls.alerts import (
    BadCertificateCompression,
    CertificateChainTooLong,
    IllegalParameter,
    WrongScheme,
)
from tlspool_core.tls.enums import CompressionAlgorithm, HandshakeType
from tlspool_core.tls.enums import ExtensionType as Ext
from tlspool_core.tls.extension_contents import build_certificate_status
from tlspool_core.tls.extensions import ExtensionTable, Place
from tlspool_core.tls.handshake import Handshake
from tlspool_core.tls.messages import CertificateVerify, Message, frame
from tlspool_core.tls.questions import ExaminePeer, Sign
from tlspool_core.tls.seams import CertificateEntry, Credential, PeerCredential
from tlspool_core.tls.settings import TLS13, Settings
from tlspool_core.tls.signatures import certificate_verify_content, schemes_for
from tlspool_core.tls.tls13.messages import Certificate, CompressedCertificate

DEFAULT_MAX_ENTRIES = 10


# --- showing ours ----------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Showing:
    """A credential of ours, and how the peer takes it. `extensions` has the codes that the peer asked for in entries."""

    credential: Credential
    scheme: int
    extensions: Container[int] = ()
    ocsp: bytes | None = None
    compress: bool = False


def _entries(showing: Showing) -> tuple[CertificateEntry, ...]:
    """Our chain with the entry extensions that the peer asked for, and no other."""
    shown = []
    for position, entry in enumerate(showing.credential.entries):
        if not entry.extensions and (position or showing.ocsp is None):
            shown.append(entry)
            continue
        extensions = {code: content for code, content in entry.extensions.items() if code in showing.extensions}
        if position == 0 and showing.ocsp is not None and Ext.STATUS_REQUEST in showing.extensions:
            extensions[Ext.STATUS_REQUEST] = build_certificate_status(showing.ocsp)
        shown.append(CertificateEntry(entry.data, extensions))
    return tuple(shown)


def _certificate(showing: Showing | None, context: bytes) -> bytes:
    """Certificate, or CompressedCertificate where that is agreed and shorter; as a whole message."""
    body = Certificate(context, _entries(showing) if showing is not None else ()).build()
    if showing is not None and showing.compress:
        compressed = zlib.compress(body)
        if len(compressed) < len(body):
            message = CompressedCertificate(CompressionAlgorithm.ZLIB, len(body), compressed)
            return frame(message.handshake_type, message.build())
    return frame(HandshakeType.CERTIFICATE, body)


async def build_proof(hs: Handshake[Any], showing: Showing | None, context: bytes = b"") -> list[bytes]:
    """Our Certificate and, if there is anything to prove, CertificateVerify; added to the transcript, not yet sent."""
    messages = [_certificate(showing, context)]
    hs.transcript.add(messages[0])
    if showing is not None:
        content = certificate_verify_content(hs.role, hs.transcript.digest())
        signature = await hs.ask(Sign(showing.credential, showing.scheme, content))
        verify = CertificateVerify(showing.scheme, signature)
        messages.append(frame(verify.handshake_type, verify.build()))
        hs.transcript.add(messages[1])
        hs.own = showing.credential
        hs.know(own_signature_scheme=showing.scheme)
    return messages


# --- taking the peer's -------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Expecting:
    """What we asked the peer to show."""

    table: ExtensionTable
    schemes: Sequence[int]  # that we offered, TLS 1.3's among them
    certificate_type: int = 0
    context: bytes = b""
    extensions: Container[int] = ()  # codes that entries may answer
    compression: bool = False


def certificate_messages(expecting: Expecting) -> tuple[type[Message], ...]:
    """The kinds of message that may carry the peer's certificate."""
    return (Certificate, CompressedCertificate) if expecting.compression else (Certificate,)


def _decompress(message: CompressedCertificate, limit: int) -> Certificate:
    """RFC 8879 section 4: the announced length is exact, and bounds what is unpacked."""
    if message.algorithm != CompressionAlgorithm.ZLIB:
        raise IllegalParameter(f"certificate compression {message.algorithm} was not offered")
    if message.uncompressed_length > limit:
        raise BadCertificateCompression(f"{message.uncompressed_length} bytes announced")
    unpacker = zlib.decompressobj()
    try:
        body = unpacker.decompress(message.compressed, message.uncompressed_length + 1)
    except zlib.error:
        raise BadCertificateCompression("not zlib data") from None
    if len(body) != message.uncompressed_length or not unpacker.eof or unpacker.unused_data:
        raise BadCertificateCompression("not the announced length")
    return Certificate.parse(body)


def as_certificate(hs: Handshake[Any], message: Message) -> Certificate:
    """The peer's certificate message, unpacked if it is compressed. Raises BadCertificateCompression."""
    if isinstance(message, CompressedCertificate):
        return _decompress(message, hs.settings.max_certificate_message)
    assert isinstance(message, Certificate)
    return message


def check_certificate(hs: Handshake[Any], certificate: Certificate, expecting: Expecting) -> tuple[CertificateEntry, ...]:
    """Entries of the peer's certificate message, with their extensions judged; notes what is stapled."""
    if certificate.certificate_request_context != expecting.context:
        raise IllegalParameter("certificate_request_context is not the one that was sent")
    if len(certificate.entries) > _max_entries(hs.settings, expecting.certificate_type):
        raise CertificateChainTooLong(f"{len(certificate.entries)} entries")
    for position, entry in enumerate(certificate.entries):
        stapled = expecting.table.parse(Place.CERTIFICATE, entry.extensions, expecting.extensions)
        if position == 0:
            hs.know(peer_ocsp=stapled.get(Ext.STATUS_REQUEST), peer_scts=stapled.get(Ext.SIGNED_CERTIFICATE_TIMESTAMP))
    return certificate.entries


def _max_entries(settings: Settings, certificate_type: int) -> int:
    for form in settings.extra_forms:
        if form.certificate_type == certificate_type:
            return form.entries13_max
    return DEFAULT_MAX_ENTRIES


async def read_proof(hs: Handshake[Any], entries: Sequence[CertificateEntry], expecting: Expecting) -> PeerCredential:
    """The peer's CertificateVerify, after its certificate was checked. Raises BadSignature, WrongScheme..."""
    peer = await hs.ask(ExaminePeer(expecting.certificate_type, entries, TLS13))
    content = certificate_verify_content("server" if hs.role == "client" else "client", hs.transcript.digest())
    verify = await hs.read(CertificateVerify)
    if verify.algorithm not in expecting.schemes:
        raise WrongScheme(f"scheme 0x{verify.algorithm:04x} was not offered")
    await hs.call(
        f"certificate type {expecting.certificate_type}",
        lambda: peer.verify(verify.algorithm, content, verify.signature),
        quick=True,
    )
    hs.know(
        peer_signature_scheme=verify.algorithm, quantum_safe_authentication=schemes_for(hs.settings)[verify.algorithm].quantum_safe
    )
    return peer
