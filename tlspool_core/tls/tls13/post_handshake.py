"""TLS 1.3 after the handshake: KeyUpdate, exporters, tickets, post-handshake authentication (RFC 8446 sections 4.6 and 7.5).

Theory of operation
-------------------
`Established13` is all that remains of a handshake: the two traffic secrets (for KeyUpdate), the exporter secret, and, only where
it can still be needed, the transcript for post-handshake authentication and the resumption secret of a client.

A proof of the client's after the handshake is one uninterrupted run of messages, so each side's is a coroutine: the client's asks
for a credential and a signature and then queues all three messages at once; the server's reads them.
"""

from __future__ import annotations

import hmac
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tlspool_core.tls.alerts import (
    BadFinished,
    IllegalParameter,
    RenegotiationRefused,
    TooManyKeyUpdates,
    UnexpectedHandshakeMessage,
)
from tlspool_core.tls.driver import Wait
from tlspool_core.tls.enums import HandshakeType
from tlspool_core.tls.extensions import table_for
from tlspool_core.tls.handshake import Established, Handshake
from tlspool_core.tls.messages import Finished, Message, frame, message_name
from tlspool_core.tls.seams import CipherSuite
from tlspool_core.tls.settings import ClientSettings, ServerSettings
from tlspool_core.tls.tls13.authentication import (
    Expecting,
    as_certificate,
    build_proof,
    certificate_messages,
    check_certificate,
    read_proof,
)
from tlspool_core.tls.tls13.key_schedule import TrafficSecret, export_keying_material
from tlspool_core.tls.tls13.messages import CertificateRequest, KeyUpdate, NewSessionTicket
from tlspool_core.tls.tls13.requests import check_request, choose_showing, expecting_client, request_extensions
from tlspool_core.tls.tls13.resumption import TicketKeeper
from tlspool_core.tls.transcript import Transcript

MAX_KEY_UPDATES: Final = 32  # in a row, without application data between them
MAX_REQUESTS: Final = 4  # CertificateRequests that are not answered yet


@dataclass(slots=True)
class Secrets:
    """What the last stage of the key schedule leaves behind."""

    read: TrafficSecret
    write: TrafficSecret
    exporter: bytes = field(repr=False)


class Established13(Established):
    """A TLS 1.3 connection in its application-data phase."""

    __slots__ = ("_exporter", "_key_updates", "_read", "_requested", "_write", "cipher", "hash_name")

    def __init__(self, hs: Handshake[Any], suite: CipherSuite, secrets: Secrets) -> None:
        super().__init__(hs)
        self.cipher = suite.cipher
        self.hash_name = suite.hash_name
        self._read = secrets.read
        self._write = secrets.write
        self._exporter = secrets.exporter
        self._key_updates = 0
        self._requested = False

    # --- exporters -----------------------------------------------------------------------------------------------------------

    def export(self, label: bytes, context: bytes | None, length: int) -> bytes:
        return export_keying_material(self.hash_name, self._exporter, label, context or b"", length)

    def channel_binding(self, kind: str) -> bytes | None:
        """RFC 9266; tls-unique is not defined for TLS 1.3."""
        return self.export(b"EXPORTER-Channel-Binding", b"", 32) if kind == "tls-exporter" else None

    # --- KeyUpdate -----------------------------------------------------------------------------------------------------------

    def received_data(self) -> None:
        self._key_updates = 0
        if self.channel.records.read_protection.needs_update and not self._requested:
            self._requested = True
            self.update_keys(True)

    def before_sending(self) -> None:
        if self.channel.records.write_protection.needs_update:
            self.update_keys(False)

    def update_keys(self, request_peer: bool) -> None:
        message = KeyUpdate(request_peer)
        self.channel.queue(frame(message.handshake_type, message.build()))
        self._write = self._write.next_generation()
        self.channel.set_write_protection(self._write.protection(self.cipher))

    def _received_key_update(self, message: bytes) -> None:
        update = KeyUpdate.parse(message[4:])
        self._key_updates += 1
        if self._key_updates > MAX_KEY_UPDATES:
            raise TooManyKeyUpdates(f"{self._key_updates} in a row")
        self._read = self._read.next_generation()
        self.channel.set_read_protection(self._read.protection(self.cipher))
        self._requested = False
        if update.request_update:
            # due before the next application data (RFC 8446 section 4.6.3): one answer to any number of requests
            self.channel.records.write_protection.update_after = 0

    # --- messages ------------------------------------------------------------------------------------------------------------

    def receive(self, message: bytes) -> Coroutine[Wait, Any, Established | None] | None:
        kind = message[0]
        if kind == HandshakeType.KEY_UPDATE:
            self._received_key_update(message)
            return None
        return self._received_other(kind, message)

    def _received_other(self, kind: int, message: bytes) -> Coroutine[Wait, Any, Established | None] | None:
        raise UnexpectedHandshakeMessage(f"{message_name(kind)} after the handshake")


class ClientEstablished(Established13):
    """The client's end; `certificate_type` is what it would show. Settings are kept only if it offered to."""

    __slots__ = ("_certificate_type", "_settings", "_tickets", "_transcript")

    def __init__(
        self,
        hs: Handshake[ClientSettings],
        suite: CipherSuite,
        secrets: Secrets,
        tickets: TicketKeeper,
        certificate_type: int,
    ) -> None:
        super().__init__(hs, suite, secrets)
        self._certificate_type = certificate_type
        self._tickets = tickets
        authenticates = hs.settings.post_handshake_auth
        self._settings = hs.settings if authenticates else None
        self._transcript = hs.transcript if authenticates else None

    def _received_other(self, kind: int, message: bytes) -> Coroutine[Wait, Any, Established | None] | None:
        if kind == HandshakeType.NEW_SESSION_TICKET:
            self._tickets.take(NewSessionTicket.parse(message[4:]), self.sessions)
            return None
        if kind == HandshakeType.CERTIFICATE_REQUEST and self._transcript is not None and self._settings is not None:
            return self._authenticate(message, self._settings, self._transcript)
        return super()._received_other(kind, message)

    async def _authenticate(self, message: bytes, settings: ClientSettings, transcript: Transcript) -> None:
        """RFC 8446 section 4.6.2; the three messages leave together."""
        request = CertificateRequest.parse(message[4:])
        if not request.certificate_request_context:
            raise IllegalParameter("CertificateRequest after the handshake without context")
        hs = Handshake("client", settings, self.channel)
        hs.own = self.own
        hs.transcript = transcript.copy()
        hs.transcript.add(message)
        asked = check_request(request, table_for(settings.extensions))
        showing = await choose_showing(hs, asked, self._certificate_type)
        messages = await build_proof(hs, showing, request.certificate_request_context)
        finished = Finished(self._write.verify_data(hs.transcript.digest()))
        for raw in (*messages, frame(finished.handshake_type, finished.build())):
            self.channel.queue(raw)
        self.own = hs.own
        self.facts = replace(self.facts, own_signature_scheme=showing.scheme if showing is not None else 0)


@dataclass(slots=True)
class Asking:
    """What the server keeps so as to ask for client authentication later; only if the client can do it."""

    settings: ServerSettings
    transcript: Transcript
    certificate_type: int
    authorities: Sequence[bytes]

    @property
    def expecting(self) -> Expecting:
        return expecting_client(self.settings, self.certificate_type)


class ServerEstablished(Established13):
    """The server's end."""

    __slots__ = ("_asking", "_context", "_open_requests")

    def __init__(self, hs: Handshake[ServerSettings], suite: CipherSuite, secrets: Secrets, asking: Asking | None) -> None:
        super().__init__(hs, suite, secrets)
        self._asking = asking
        self._context = hs.context
        self._open_requests: dict[bytes, bytes] = {}

    def authenticate_client(self) -> None:
        asking = self._asking
        if asking is None:
            raise RenegotiationRefused("the client did not offer post_handshake_auth")
        if len(self._open_requests) >= MAX_REQUESTS:
            raise RenegotiationRefused("the client has not answered the requests so far")
        context = len(self._open_requests).to_bytes(1, "big") + Handshake("server", asking.settings, self.channel).random(15)
        request = CertificateRequest(context, request_extensions(asking.settings, asking.authorities))
        raw = frame(request.handshake_type, request.build())
        self._open_requests[context] = raw
        self.channel.queue(raw)

    def _received_other(self, kind: int, message: bytes) -> Coroutine[Wait, Any, Established | None] | None:
        asking = self._asking
        if self._open_requests and asking is not None:
            for carrier in certificate_messages(asking.expecting):
                if carrier.handshake_type == kind:
                    return self._authenticated(carrier.parse(message[4:]), message, asking)
        return super()._received_other(kind, message)

    async def _authenticated(self, message: Message, raw: bytes, asking: Asking) -> None:
        """The client's answer to one of our requests, RFC 8446 section 4.6.2."""
        hs = Handshake("server", asking.settings, self.channel)
        hs.own = self.own
        hs.adopt_facts(self.facts)
        certificate = as_certificate(hs, message)
        context = certificate.certificate_request_context
        request = self._open_requests.pop(context, None)
        if request is None:
            raise IllegalParameter("certificate_request_context was never sent, or was answered before")
        hs.transcript = asking.transcript.copy()
        hs.transcript.add(request)
        hs.transcript.add(raw)
        expecting = replace(asking.expecting, context=context)
        entries = check_certificate(hs, certificate, expecting)
        peer = await read_proof(hs, entries, expecting) if entries else None
        expected = self._read.verify_data(hs.transcript.digest())
        finished = await hs.read(Finished)
        if not hmac.compare_digest(finished.verify_data, expected):
            raise BadFinished("after post-handshake authentication")
        await hs.judge(peer, self._context)
        self._context = hs.context
        if peer is not None:  # a client that declines stays who it was
            self.peer, self.facts = peer, hs.facts()
