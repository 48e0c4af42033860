"""What a session is, however it is waited for: identities, flags, and the plaintext socket with its one owner."""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import dataclass

from tlspool_core.client.options import limits
from tlspool_core.wire.flags import StartTlsFlags
from tlspool_core.wire.messages import StartTls, StartTlsData


@dataclass(frozen=True, slots=True)
class Again:
    """A request to renegotiate, and how long to wait for its answer in seconds."""

    request: StartTls
    patience: float | None


class Established:
    """The facts of a session as the pool gave them."""

    def __init__(self, answer: StartTlsData, plaintext: socket.socket | None) -> None:
        self._answer = answer
        self._plaintext = plaintext

    @property
    def plaintext(self) -> socket.socket:
        """The socket to go on with. Raises ValueError if the caller brought its own."""
        if self._plaintext is None:
            raise ValueError("the plaintext socket is the one that you passed or took")
        return self._plaintext

    @property
    def localid(self) -> str:
        """Who we are towards the other side; empty if we showed no identity."""
        return self._answer.localid

    @property
    def remoteid(self) -> str:
        """Who the other side proved to be; empty if it showed no identity."""
        return self._answer.remoteid

    @property
    def service(self) -> str:
        """The service that was asked for."""
        return self._answer.service

    @property
    def flags(self) -> StartTlsFlags:
        """Flags as the pool applied them."""
        return self._answer.flags

    @property
    def role(self) -> str:
        """What we are in TLS: "client" or "server"; of interest after `starttls_peer`."""
        return "server" if self.flags & StartTlsFlags.LOCALROLE_SERVER else "client"

    def _again(self, flags: StartTlsFlags, remoteid: str, timeout: float | None) -> Again:
        """The request to renegotiate in the same roles."""
        limit = limits(timeout)
        roles = self.flags & (StartTlsFlags.LOCALROLE_PEER | StartTlsFlags.REMOTEROLE_PEER)
        request = StartTls(
            flags=roles | flags | StartTlsFlags.RENEGOTIATE,
            ipproto=self._answer.ipproto,
            localid=self.localid,
            remoteid=remoteid or self.remoteid,
            ctlkey=self._answer.ctlkey,
            service=self.service,
            timeout=limit.wire,
        )
        return Again(request, limit.patience)

    def take(self) -> socket.socket:
        """The plaintext socket, for the caller to own: closing this session leaves it open."""
        plaintext, self._plaintext = self.plaintext, None
        return plaintext

    def close(self) -> None:
        """End the session."""
        if self._plaintext is not None:
            with suppress(OSError):
                self._plaintext.close()

    def __repr__(self) -> str:
        return f"<Session of {self.localid or '(nobody)'} with {self.remoteid or '(nobody)'}>"
