"""An end of TLS that sends other handshake messages than it believes to send: how a test plays the peer that misbehaves.

Theory of operation
-------------------
The lie is told below the handshake and above the records, so that it is encrypted with the right keys, and the liar's own
transcript stays that of an honest handshake.  Whatever the other end makes of it is its own doing.

For tests only.
"""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

from tlspool_core.tls import TlsConnection
from tlspool_core.tls.channel import Channel
from tlspool_core.tls.connection import AnySettings
from tlspool_core.tls.record import RecordLayer

# from a handshake message with its header to what is sent in its place
Lie = Callable[[bytes], list[bytes]]


class LyingChannel(Channel):
    """A channel whose owner sends other handshake messages than it believes to send."""

    lie: Lie

    def queue(self, message: bytes) -> None:
        for changed in self.lie(message):
            super().queue(changed)


def lying(settings: AnySettings, lie: Lie) -> TlsConnection:
    """A connection whose every handshake message is put through `lie`, its first flight included."""

    def channel(records: RecordLayer, limit: int) -> Channel:
        made = LyingChannel(records, limit)
        made.lie = lie
        return made

    with patch("tlspool_core.tls.connection.Channel", channel):
        return TlsConnection(settings)
