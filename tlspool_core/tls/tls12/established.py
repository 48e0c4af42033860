"""What remains of a TLS 1.2 handshake: exporters, channel bindings, and the refusal to negotiate again."""

from __future__ import annotations

from typing import Any, Final

from tlspool_core.tls.alerts import RenegotiationRefused, UnexpectedHandshakeMessage
from tlspool_core.tls.enums import HandshakeType
from tlspool_core.tls.handshake import Established, Handshake
from tlspool_core.tls.messages import ClientHello, message_name
from tlspool_core.tls.tls12.key_schedule import KeySchedule
from tlspool_core.tls.tls12.messages import HelloRequest

EXPORTER_LABEL: Final = b"EXPORTER-Channel-Binding"


class Established12(Established):
    """A TLS 1.2 session in use."""

    __slots__ = ("_first_finished", "_keys", "_role")

    def __init__(self, hs: Handshake[Any], keys: KeySchedule, first_finished: bytes) -> None:
        """`first_finished` is the verify_data that was sent first: the client's in a full handshake, the server's in a resumed one."""
        super().__init__(hs)
        self._role = hs.role
        self._keys = keys
        self._first_finished = first_finished

    def export(self, label: bytes, context: bytes | None, length: int) -> bytes:
        """Keying material exporter, RFC 5705. Raises ValueError for a label of the protocol itself."""
        return self._keys.export(label, context, length)

    def channel_binding(self, kind: str) -> bytes | None:
        """tls-unique (RFC 5929 section 3) and tls-exporter (RFC 9266); both need the extended master secret to be safe."""
        if not self._keys.extended:
            return None
        if kind == "tls-unique":
            return self._first_finished
        return self.export(EXPORTER_LABEL, None, 32) if kind == "tls-exporter" else None

    def receive(self, message: bytes) -> None:
        """Only a proposal to renegotiate may come, and is refused (RFC 5246 section 7.2.2)."""
        proposal = HandshakeType.HELLO_REQUEST if self._role == "client" else HandshakeType.CLIENT_HELLO
        if message[0] != proposal:
            raise UnexpectedHandshakeMessage(f"{message_name(message[0])} after the handshake")
        (HelloRequest if self._role == "client" else ClientHello).parse(message[4:])
        raise RenegotiationRefused("by the peer's wish")
