"""CertificateRequest in TLS 1.3: what a server asks of a client, and what the client makes of it (RFC 8446 section 4.3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tlspool_core.tls import extension_contents as contents
from tlspool_core.tls.alerts import MissingExtension, NoCertificateTypeInCommon, NoCredential, NoSchemeInCommon
from tlspool_core.tls.enums import CompressionAlgorithm
from tlspool_core.tls.enums import ExtensionType as Ext
from tlspool_core.tls.extensions import ExtensionTable, Place, table_for
from tlspool_core.tls.handshake import Handshake
from tlspool_core.tls.negotiation import Usable, choose_credential
from tlspool_core.tls.questions import ChooseClientCredential, PeerOffer
from tlspool_core.tls.settings import TLS13, ClientSettings, ServerSettings
from tlspool_core.tls.signatures import accepted_schemes
from tlspool_core.tls.tls13.authentication import Expecting, Showing
from tlspool_core.tls.tls13.messages import CertificateRequest


def request_extensions(settings: ServerSettings, authorities: Sequence[bytes]) -> dict[int, bytes]:
    """Server: what stands in its CertificateRequest."""
    found = {Ext.SIGNATURE_ALGORITHMS: contents.build_u16s(accepted_schemes(settings))}
    if settings.signature_schemes_cert:
        found[Ext.SIGNATURE_ALGORITHMS_CERT] = contents.build_u16s(settings.signature_schemes_cert)
    if authorities:
        found[Ext.CERTIFICATE_AUTHORITIES] = contents.build_authorities(authorities)
    if settings.certificate_compression:
        found[Ext.COMPRESS_CERTIFICATE] = contents.build_u16s8((CompressionAlgorithm.ZLIB,))
    return found


def expecting_client(settings: ServerSettings, certificate_type: int) -> Expecting:
    """Server: what its request lets the client show."""
    table, schemes = table_for(settings.extensions), accepted_schemes(settings, TLS13)
    return Expecting(table, schemes, certificate_type, compression=settings.certificate_compression)


def _offer(asked: dict[int, Any], certificate_type: int) -> PeerOffer:
    schemes = asked[Ext.SIGNATURE_ALGORITHMS]
    return PeerOffer(
        versions=(TLS13,),
        signature_schemes=schemes,
        signature_schemes_cert=asked.get(Ext.SIGNATURE_ALGORITHMS_CERT, schemes),
        certificate_types=(certificate_type,),
        certificate_authorities=asked.get(Ext.CERTIFICATE_AUTHORITIES, ()),
        wants_ocsp=Ext.STATUS_REQUEST in asked,
        wants_scts=Ext.SIGNED_CERTIFICATE_TIMESTAMP in asked,
        oid_filters=asked.get(Ext.OID_FILTERS, ()),
    )


def check_request(request: CertificateRequest, table: ExtensionTable) -> dict[int, Any]:
    """Client: the parsed extensions of a request. Raises MissingExtension without signature_algorithms."""
    asked = table.parse(Place.CERTIFICATE_REQUEST, request.extensions)
    if Ext.SIGNATURE_ALGORITHMS not in asked:
        raise MissingExtension("CertificateRequest without signature_algorithms")
    return asked


async def choose_showing(hs: Handshake[ClientSettings], asked: dict[int, Any], certificate_type: int) -> Showing | None:
    """Client: what to show for a request; None where nothing fits, which is for the server to judge."""
    offer = _offer(asked, certificate_type)
    credentials = await hs.ask(ChooseClientCredential(offer, TLS13))
    usable = Usable(hs.settings, TLS13, offer.signature_schemes)
    try:
        credential, scheme = choose_credential(credentials, (certificate_type,), usable, offer.certificate_authorities)
    except (NoCredential, NoCertificateTypeInCommon, NoSchemeInCommon):
        return None
    compress = hs.settings.certificate_compression and CompressionAlgorithm.ZLIB in asked.get(Ext.COMPRESS_CERTIFICATE, ())
    return Showing(credential, scheme, asked, compress=compress)
