"""A TLS 1.3 server's view of ClientHello: checked once, then asked (RFC 8446 sections 4.1.2, 4.2 and 9.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tlspool_core.tls.alerts import CompressionOffered, IllegalParameter, MissingExtension, SecondHelloDiffers
from tlspool_core.tls.enums import ExtensionType as Ext
from tlspool_core.tls.extensions import ExtensionTable, Place
from tlspool_core.tls.messages import ClientHello
from tlspool_core.tls.questions import PeerOffer

# what may differ after HelloRetryRequest, RFC 8446 section 4.1.2
_MAY_CHANGE: Final = frozenset((Ext.KEY_SHARE, Ext.EARLY_DATA, Ext.COOKIE, Ext.PRE_SHARED_KEY, Ext.PADDING))


class ClientOffer:
    """A ClientHello whose extensions hold what TLS 1.3 demands of them; `parsed` has their contents."""

    __slots__ = ("groups", "hello", "parsed", "shares")

    def __init__(self, hello: ClientHello, table: ExtensionTable) -> None:
        """Raises MissingExtension, IllegalParameter or a DecodeError."""
        if hello.compression_methods != b"\0":
            raise CompressionOffered("TLS 1.3 has none")
        self.hello = hello
        self.parsed: dict[int, Any] = table.parse(Place.CLIENT_HELLO, hello.extensions)
        self._check_psk()
        self.groups: tuple[int, ...] = self.parsed.get(Ext.SUPPORTED_GROUPS, ())
        self.shares: Mapping[int, bytes] = dict(self._mandatory_shares())
        self._check_shares()

    def _check_psk(self) -> None:
        parsed = self.parsed
        if Ext.PRE_SHARED_KEY in parsed:
            if next(reversed(self.hello.extensions)) != Ext.PRE_SHARED_KEY:
                raise IllegalParameter("pre_shared_key is not the last extension")
            if Ext.PSK_KEY_EXCHANGE_MODES not in parsed:
                raise MissingExtension("pre_shared_key without psk_key_exchange_modes")

    def _mandatory_shares(self) -> tuple[tuple[int, bytes], ...]:
        """RFC 8446 section 9.2. We speak no mode without (EC)DHE, so the groups are always needed."""
        parsed = self.parsed
        if Ext.SUPPORTED_GROUPS not in parsed or Ext.KEY_SHARE not in parsed:
            raise MissingExtension("ClientHello without supported_groups or key_share")
        if Ext.SIGNATURE_ALGORITHMS not in parsed and Ext.PRE_SHARED_KEY not in parsed:
            raise MissingExtension("ClientHello without signature_algorithms")
        shares: tuple[tuple[int, bytes], ...] = parsed[Ext.KEY_SHARE]
        return shares

    def _check_shares(self) -> None:
        for group in self.shares:
            if group not in self.groups:
                raise IllegalParameter(f"key share for group {group}, which supported_groups lacks")

    def peer_offer(self) -> PeerOffer:
        """For ChooseServerCredential."""
        get = self.parsed.get
        schemes = get(Ext.SIGNATURE_ALGORITHMS, ())
        return PeerOffer(
            versions=get(Ext.SUPPORTED_VERSIONS, ()),
            cipher_suites=self.hello.cipher_suites,
            groups=self.groups,
            signature_schemes=schemes,
            signature_schemes_cert=get(Ext.SIGNATURE_ALGORITHMS_CERT, schemes),
            certificate_types=tuple(get(Ext.SERVER_CERTIFICATE_TYPE, (0,))),
            peer_certificate_types=tuple(get(Ext.CLIENT_CERTIFICATE_TYPE, (0,))),
            certificate_authorities=get(Ext.CERTIFICATE_AUTHORITIES, ()),
            alpn=get(Ext.ALPN, ()),
            server_name=get(Ext.SERVER_NAME),
            wants_ocsp=bool(get(Ext.STATUS_REQUEST)),
            wants_scts=Ext.SIGNED_CERTIFICATE_TIMESTAMP in self.parsed,
        )

    def check_second(self, second: ClientOffer, group: int, plugins: frozenset[int]) -> None:
        """After our HelloRetryRequest for `group`: nothing but what it asked for, and plugins' extensions, may have changed.

        Raises SecondHelloDiffers.
        """
        first, again = self.hello, second.hello
        same = (
            first.random == again.random
            and first.legacy_session_id == again.legacy_session_id
            and first.cipher_suites == again.cipher_suites
            and first.legacy_version == again.legacy_version
        )
        if not same or Ext.COOKIE in again.extensions:
            raise SecondHelloDiffers("fields or cookie")
        for code in first.extensions.keys() | again.extensions.keys():
            if code not in _MAY_CHANGE and code not in plugins and first.extensions.get(code) != again.extensions.get(code):
                raise SecondHelloDiffers(f"extension {code}")
        if Ext.PRE_SHARED_KEY in again.extensions and Ext.PRE_SHARED_KEY not in first.extensions:
            raise SecondHelloDiffers("pre_shared_key was added")
        if list(second.shares) != [group]:
            raise SecondHelloDiffers(f"key_share is not a single share for group {group}")
