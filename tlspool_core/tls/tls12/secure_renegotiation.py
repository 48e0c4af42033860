"""renegotiation_info: both sides tell each other that a handshake follows no other on the same connection (RFC 5746).

We never negotiate twice.  The signal is needed all the same: without it, an attacker could have spoken first to the peer, and
what we take for the first handshake be the peer's second.
"""

from __future__ import annotations

from typing import Final

from tlspool_core.tls.alerts import HandshakeFailure
from tlspool_core.tls.enums import EMPTY_RENEGOTIATION_INFO_SCSV
from tlspool_core.tls.messages import ClientHello

INITIAL: Final = b"\0"  # the extension's content in a first handshake: an empty vector


def check_client(hello: ClientHello, info: bytes | None) -> bool:
    """Server: judge what the client sent; returns whether it is to be answered (RFC 5746 section 3.6). Raises HandshakeFailure."""
    if info:
        raise HandshakeFailure("the client takes this for a renegotiation")
    return info is not None or EMPTY_RENEGOTIATION_INFO_SCSV in hello.cipher_suites


def check_server(info: bytes | None) -> None:
    """Client: judge the answer (RFC 5746 section 3.4). Raises HandshakeFailure, also for a server without the signal (section 4.1)."""
    if info is None:
        raise HandshakeFailure("the server does not secure renegotiation (RFC 5746)")
    if info:
        raise HandshakeFailure("the server takes this for a renegotiation")
