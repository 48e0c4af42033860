"""A client's handshake up to the point where the version is known."""

from __future__ import annotations

from tlspool_core.tls.alerts import DowngradeDetected, IllegalParameter, NoVersionInCommon
from tlspool_core.tls.client_hello import Offer, make_offer, send_client_hello
from tlspool_core.tls.enums import ExtensionType as Ext
from tlspool_core.tls.extension_contents import parse_u16
from tlspool_core.tls.handshake import Established, Handshake
from tlspool_core.tls.messages import DOWNGRADE_BELOW_12, DOWNGRADE_TO_12, ServerHello
from tlspool_core.tls.settings import TLS12, TLS13, ClientSettings
from tlspool_core.tls.tls12 import client as client12
from tlspool_core.tls.tls13 import client as client13


async def connect(hs: Handshake[ClientSettings]) -> Established:
    """ClientHello, ServerHello, then the coroutine of the version."""
    offer = await make_offer(hs)
    send_client_hello(hs, offer)
    return await continue_connect(hs, offer)


async def continue_connect(hs: Handshake[ClientSettings], offer: Offer) -> Established:
    """From a ClientHello that was sent to the established session."""
    server_hello = await hs.read(ServerHello, add=False)
    version = _selected_version(hs.settings, server_hello)
    hs.start_version(version)
    if version == TLS13:
        return await client13.continue_client(hs, offer, server_hello)
    _check_downgrade(hs.settings, server_hello)
    hs.transcript.add(hs.raw)
    return await client12.continue_client(hs, offer.hello, server_hello)


def _selected_version(settings: ClientSettings, hello: ServerHello) -> int:
    """RFC 8446 section 4.2.1; HelloRetryRequest selects in the same way."""
    selected = hello.extensions.get(Ext.SUPPORTED_VERSIONS)
    if selected is not None and TLS13 in settings.versions:
        version = parse_u16(selected)
        if version != TLS13:
            raise IllegalParameter(f"supported_versions selects 0x{version:04x}")
        return version
    if hello.legacy_version != TLS12 or TLS12 not in settings.versions:
        raise NoVersionInCommon(f"the server selects 0x{hello.legacy_version:04x}")
    return TLS12


def _check_downgrade(settings: ClientSettings, hello: ServerHello) -> None:
    """RFC 8446 section 4.1.3: a server that speaks TLS 1.3 says so in its random when it selects less."""
    if TLS13 in settings.versions and hello.random[-8:] in (DOWNGRADE_TO_12, DOWNGRADE_BELOW_12):
        raise DowngradeDetected("the server speaks a newer version than it selected")
