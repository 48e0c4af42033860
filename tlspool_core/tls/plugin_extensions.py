"""How the extensions that plugins brought take part in the hellos.

Theory of operation
-------------------
Each `HandshakeExtension` of the settings is asked at its place in the message flow, through a `Call` question, since it may
block.  The functions here are called by the coroutines of both versions, with the extensions in the order of the settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tlspool_core.tls.alerts import UnexpectedMessage
from tlspool_core.tls.handshake import Handshake
from tlspool_core.tls.seams import HandshakeExtension, PeerCredential, Version, is_encrypted

T = TypeVar("T")


async def _call(hs: Handshake[Any], extension: HandshakeExtension, work: Callable[[], T]) -> T:
    return await hs.call(f"extension {extension.code}", work, quick=getattr(extension, "quick", False))


async def client_hello(hs: Handshake[Any], *, retry: bool) -> dict[int, bytes]:
    """Client: what to offer, for all the versions that the client speaks."""
    offered: dict[int, bytes] = {}
    for extension in hs.settings.extensions:
        if extension.versions.isdisjoint(hs.settings.versions):
            continue
        content = await _call(hs, extension, lambda ext=extension: ext.client_hello(retry))  # type: ignore[misc]
        if content is not None:
            offered[extension.code] = content
    return offered


async def received_client_hello(hs: Handshake[Any], version: Version, block: Mapping[int, bytes]) -> None:
    """Server: show each extension of this version what the client offered."""
    for extension in hs.settings.extensions:
        if version in extension.versions:
            content = block.get(extension.code)
            await _call(hs, extension, lambda ext=extension, got=content: ext.received_client_hello(got))  # type: ignore[misc]


async def server_hello(
    hs: Handshake[Any], version: Version, block: Mapping[int, bytes], *, encrypted: bool = False
) -> dict[int, bytes]:
    """Server: answers to what the client offered in `block`, those for ServerHello or the `encrypted` ones."""
    answers: dict[int, bytes] = {}
    for extension in hs.settings.extensions:
        if version in extension.versions and extension.code in block and is_encrypted(extension, version) is encrypted:
            content = await _call(hs, extension, lambda ext=extension: ext.server_hello(version))  # type: ignore[misc]
            if content is not None:
                answers[extension.code] = content
    return answers


async def received_server_hello(
    hs: Handshake[Any], version: Version, block: Mapping[int, bytes], *, encrypted: bool = False
) -> None:
    """Client: show each extension what the server answered, in ServerHello or `encrypted`."""
    for extension in hs.settings.extensions:
        if version in extension.versions and is_encrypted(extension, version) is encrypted:
            content = block.get(extension.code)
            await _call(hs, extension, lambda ext=extension, got=content: ext.received_server_hello(version, got))  # type: ignore[misc]


async def psk_input(hs: Handshake[Any], version: Version, transcript_hash: Callable[[], bytes], group: int) -> bytes | None:
    """TLS 1.3: what takes the place of the PSK; at most one extension may give one."""
    given: bytes | None = None
    for extension in hs.settings.extensions:
        if version in extension.versions:
            value = await _call(hs, extension, lambda ext=extension: ext.psk_input(transcript_hash, group))  # type: ignore[misc]
            if value is not None and given is not None:
                raise UnexpectedMessage("two extensions give the PSK input")
            if value is not None:
                given = value
                if getattr(extension, "quantum_safe", False):
                    hs.know(quantum_safe_exchange=True, quantum_safe_authentication=True)
    return given


async def peer_credential(hs: Handshake[Any], version: Version) -> PeerCredential | None:
    """Whom the extensions proved, once the peer's Finished was verified; the first that proved someone counts."""
    for extension in hs.settings.extensions:
        if version in extension.versions:
            proven: PeerCredential | None = await _call(hs, extension, extension.peer_credential)
            if proven is not None:
                return proven
    return None
