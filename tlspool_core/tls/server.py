"""A server's handshake up to the point where the version is known."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from tlspool_core.tls.alerts import InappropriateFallback, NoVersionInCommon
from tlspool_core.tls.driver import Wait
from tlspool_core.tls.enums import FALLBACK_SCSV
from tlspool_core.tls.enums import ExtensionType as Ext
from tlspool_core.tls.extension_contents import parse_u16s8
from tlspool_core.tls.handshake import Established, Handshake
from tlspool_core.tls.messages import ClientHello
from tlspool_core.tls.settings import TLS12, TLS13, ServerSettings
from tlspool_core.tls.tls12 import server as server12
from tlspool_core.tls.tls13 import server as server13


async def accept(hs: Handshake[ServerSettings]) -> Established:
    """ClientHello, then the coroutine of the version."""
    return await continue_accept(hs, await hs.read(ClientHello, add=False))


def continue_accept(hs: Handshake[ServerSettings], hello: ClientHello) -> Coroutine[Wait, Any, Established]:
    """From a ClientHello (in `hs.raw`, not in the transcript): the coroutine of the version that it selects, to be awaited."""
    _check_fallback(hs.settings, hello)
    version = _select_version(hs.settings, hello)
    hs.start_version(version)
    hs.channel.check_boundary()  # in either version, the client has to wait for our answer
    if version == TLS13:
        return server13.serve(hs, hello)
    hs.transcript.add(hs.raw)
    return server12.serve(hs, hello)


def _check_fallback(settings: ServerSettings, hello: ClientHello) -> None:
    """RFC 7507 section 3: the client says that it tries an older version after a failure; we would have had a newer one."""
    if FALLBACK_SCSV not in hello.cipher_suites:
        return
    offered = hello.extensions.get(Ext.SUPPORTED_VERSIONS)
    highest = hello.legacy_version if offered is None else max(set(parse_u16s8(offered)) & {TLS12, TLS13}, default=0)
    if highest < max(settings.versions):
        raise InappropriateFallback(f"the client fell back to 0x{highest:04x}")


def _select_version(settings: ServerSettings, hello: ClientHello) -> int:
    """RFC 8446 section 4.2.1: supported_versions counts alone where it is there; our order of preference."""
    offered = hello.extensions.get(Ext.SUPPORTED_VERSIONS)
    if offered is not None:
        versions = parse_u16s8(offered)
        for version in settings.versions:
            if version in versions:
                return version
        raise NoVersionInCommon("none of the client's supported_versions")
    if hello.legacy_version < TLS12 or TLS12 not in settings.versions:
        raise NoVersionInCommon(f"the client speaks up to 0x{hello.legacy_version:04x}")
    return TLS12
