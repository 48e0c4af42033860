"""The handshake of an end that does not know yet whether it is client or server.

Theory of operation
-------------------
    listen a moment; something comes             ->  we are the server
    ClientHello, with our tie-break   <-
        ServerHello              ->                  we are the client; the other end may never have heard of this extension
        ClientHello              ->                  both have spoken: the tie-breaks decide which ClientHello counts
            ours                                     we are the client; ServerHello is next
            theirs                                   ours is dropped, and we are the server

How long to listen is a matter of time, so of the driver (`SpeakFirst`).  What follows is the ordinary handshake of either role:
this module only finds out which.  What is said in the extension, and how the dropped hello is bound, is in `symmetry`.

A client that knows no more than its own role never sends an extension of this kind, and gives up when a ClientHello comes to it: that is
why we listen first.  One that has to be the client, but may meet an end such as this, says so (`may_serve` is false) and does not
listen: of two hellos, its own counts.

An external pre-shared key proves that somebody has it, not who: an end in both roles would take itself for its peer (Selfie, RFC 9257).
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Final

from tlspool_core.tls.alerts import InternalError, NoRoleInCommon, Reflected
from tlspool_core.tls.channel import Channel
from tlspool_core.tls.client import continue_connect
from tlspool_core.tls.client_hello import Offer, make_offer, send_client_hello
from tlspool_core.tls.driver import ask
from tlspool_core.tls.handshake import Established, Handshake
from tlspool_core.tls.messages import ClientHello
from tlspool_core.tls.protection import NullProtection
from tlspool_core.tls.questions import BecomeServer, SpeakFirst
from tlspool_core.tls.server import accept, continue_accept
from tlspool_core.tls.settings import ClientSettings, PeerSettings, ServerSettings
from tlspool_core.tls.symmetry import (
    CLIENT_ONLY,
    CLIENT_OR_SERVER,
    TIE_BREAK_LENGTH,
    ClientSymmetry,
    ServerSymmetry,
    SymmetryOffer,
    stays_client,
)

_FIRST_RECORD: Final = 0x0301  # in the header of a ClientHello's record (RFC 8446 section 5.1)


async def meet(peer: PeerSettings, channel: Channel) -> Established:
    """Find out the role, then the handshake of that role."""
    settings = await ask(SpeakFirst(peer.may_serve))
    if settings is not None:
        return await _speak(peer, channel, settings)
    if not peer.may_serve:
        raise InternalError("an end that cannot be the server has to speak first")
    return await accept(Handshake("server", await _server_settings(ServerSymmetry(peer.extension)), channel))


async def _speak(peer: PeerSettings, channel: Channel, settings: ClientSettings) -> Established:
    """Send ClientHello, and see whether it is answered or crossed by another."""
    if settings.psk is not None:
        raise InternalError("an external pre-shared key does not tell two peers apart")
    roles = CLIENT_OR_SERVER if peer.may_serve else CLIENT_ONLY
    ours = SymmetryOffer(roles, (settings.random or os.urandom)(TIE_BREAK_LENGTH))
    symmetry = ClientSymmetry(peer.extension, ours)
    hs = Handshake("client", replace(settings, extensions=(*settings.extensions, symmetry)), channel)
    offer = await make_offer(hs)
    channel.set_write_protection(NullProtection(_FIRST_RECORD))
    send_client_hello(hs, offer)
    channel.flush()
    if await hs.next_type() != ClientHello.handshake_type:
        return await continue_connect(hs, offer)
    hello = await hs.read(ClientHello, add=False)
    if _ours_counts(offer, ours, hello, peer.extension):
        symmetry.lost = hs.raw
        return await continue_connect(hs, offer)
    return await _serve_instead(peer, hs, hello)


def _ours_counts(offer: Offer, ours: SymmetryOffer, hello: ClientHello, extension: int) -> bool:
    """Of two hellos that have crossed. Raises Reflected, NoRoleInCommon, or what is wrong with the extension."""
    if hello.random == offer.hello.random:
        raise Reflected("a ClientHello with our own random")
    theirs = hello.extensions.get(extension)
    if theirs is not None:
        return stays_client(ours, SymmetryOffer.parse(theirs))
    if ours.roles == CLIENT_ONLY:
        raise NoRoleInCommon("both ends can only be clients")
    return False


async def _serve_instead(peer: PeerSettings, hs: Handshake[ClientSettings], hello: ClientHello) -> Established:
    """From a ClientHello (in `hs.raw`) that takes the place of ours: nothing but its hash is left of that."""
    offered = hello.extensions.get(peer.extension)
    symmetry = ServerSymmetry(peer.extension, None if offered is None else hs.transcript.messages, offered)
    return await continue_accept(hs.turned("server", await _server_settings(symmetry)), hello)


async def _server_settings(symmetry: ServerSymmetry) -> ServerSettings:
    settings = await ask(BecomeServer())
    return replace(settings, extensions=(*settings.extensions, symmetry))
