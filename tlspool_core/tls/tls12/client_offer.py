"""A TLS 1.2 server's view of ClientHello: checked once, then asked (RFC 5246 section 7.4.1.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tlspool_core.tls.alerts import CompressionOffered
from tlspool_core.tls.enums import CertificateType
from tlspool_core.tls.enums import ExtensionType as Ext
from tlspool_core.tls.extensions import ExtensionTable, Place
from tlspool_core.tls.messages import ClientHello
from tlspool_core.tls.questions import PeerOffer
from tlspool_core.tls.settings import TLS12
from tlspool_core.tls.tls12.key_exchange import GROUPS_UNSAID

_X509_ALONE = bytes((CertificateType.X509,))


class ClientOffer:
    """A ClientHello whose extensions hold what TLS 1.2 demands of them; `parsed` has their contents."""

    __slots__ = ("hello", "parsed", "table")

    def __init__(self, hello: ClientHello, table: ExtensionTable) -> None:
        """Raises IllegalParameter or a DecodeError."""
        if 0 not in hello.compression_methods:
            raise CompressionOffered("no null among the compression methods")
        self.hello = hello
        self.table = table
        self.parsed: dict[int, Any] = table.parse(Place.CLIENT_HELLO_12, hello.extensions)

    def __contains__(self, code: int) -> bool:
        return code in self.parsed

    def get(self, code: int, default: Any = None) -> Any:
        """Parsed content of an extension."""
        return self.parsed.get(code, default)

    @property
    def groups(self) -> Sequence[int]:
        groups: Sequence[int] = self.parsed.get(Ext.SUPPORTED_GROUPS, GROUPS_UNSAID)
        return groups

    @property
    def cert_type(self) -> bool:
        """The older cert_type (RFC 6091) speaks for the client, because RFC 7250's extension is not there."""
        return Ext.CERT_TYPE in self.parsed and Ext.SERVER_CERTIFICATE_TYPE not in self.parsed

    @property
    def server_types(self) -> Sequence[int]:
        """Certificate types that the client takes from us."""
        return tuple(self.get(Ext.SERVER_CERTIFICATE_TYPE) or self.get(Ext.CERT_TYPE, _X509_ALONE))

    @property
    def client_types(self) -> Sequence[int]:
        """Certificate types that the client may show; cert_type says it only where nothing of RFC 7250 does."""
        older = self.parsed[Ext.CERT_TYPE] if self.cert_type else _X509_ALONE
        return tuple(self.get(Ext.CLIENT_CERTIFICATE_TYPE) or older)

    def peer_offer(self) -> PeerOffer:
        """For ChooseServerCredential."""
        get = self.parsed.get
        schemes = get(Ext.SIGNATURE_ALGORITHMS, ())
        return PeerOffer(
            versions=get(Ext.SUPPORTED_VERSIONS, (TLS12,)),
            cipher_suites=self.hello.cipher_suites,
            groups=self.groups,
            signature_schemes=schemes,
            signature_schemes_cert=get(Ext.SIGNATURE_ALGORITHMS_CERT, schemes),
            certificate_types=self.server_types,
            peer_certificate_types=self.client_types,
            alpn=get(Ext.ALPN, ()),
            server_name=get(Ext.SERVER_NAME),
            wants_ocsp=bool(get(Ext.STATUS_REQUEST)),
            wants_scts=Ext.SIGNED_CERTIFICATE_TIMESTAMP in self.parsed,
        )
