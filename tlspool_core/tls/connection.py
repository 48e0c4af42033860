"""One TLS connection: bytes in, bytes out, questions in between.

Theory of operation
-------------------
A `TlsConnection` runs the handshake coroutine of its role as a `Flow`, feeds it, and shows the question that it waits with.  When
the coroutine has returned, all that is left of the handshake is an `Established`, and records carry application data.
Later handshake messages (KeyUpdate, tickets, post-handshake authentication) go to the `Established`, which may start another flow.

This is the one place that catches a `TlsError`: its alert is sent, `failed` is set, and nothing is read any more.  Nothing that a
peer sends raises out of `receive`.  Any other exception is our own fault: it becomes an InternalError whose cause it is.

    connection = TlsConnection(ClientSettings(server_name="example.org"))
    transport.write(connection.data_to_send())
    connection.receive(transport.read())
    if connection.question is not None:
        connection.answer(...)           # or refuse(TlsError)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tlspool_core.tls.alerts import (
    AlertDescription,
    AlertLevel,
    AlertReceived,
    InternalError,
    TlsError,
    Truncated,
    UnexpectedChangeCipherSpec,
)
from tlspool_core.tls.channel import Channel
from tlspool_core.tls.client import connect
from tlspool_core.tls.driver import Flow
from tlspool_core.tls.enums import ContentType
from tlspool_core.tls.handshake import Established, Handshake
from tlspool_core.tls.peer import meet
from tlspool_core.tls.protection import Buffer
from tlspool_core.tls.questions import AnyQuestion, HandshakeFacts
from tlspool_core.tls.record import RecordLayer
from tlspool_core.tls.seams import Credential, PeerCredential
from tlspool_core.tls.server import accept
from tlspool_core.tls.settings import ClientSettings, PeerSettings, ServerSettings, StoredSession

AnySettings = ClientSettings | ServerSettings | PeerSettings


class TlsConnection:
    """One connection; its role follows from the kind of settings, or is found out with the peer. Not for several threads at a time."""

    __slots__ = ("_channel", "_established", "_flow", "_plaintext", "closed", "failed", "records")

    def __init__(self, settings: AnySettings) -> None:
        """A client has its ClientHello in `data_to_send` at once, unless a plugin's extension asks a question first."""
        is_client = isinstance(settings, ClientSettings)
        self.records = RecordLayer(0x0301 if is_client else 0x0303)
        self._channel = Channel(self.records, settings.max_certificate_message)
        self._established: Established | None = None
        self._flow: Flow[Established | None] | None = None
        self._plaintext = bytearray()
        self.failed: TlsError | None = None
        self.closed = False  # we sent close_notify
        self._guard(self._start, settings)

    def _start(self, settings: AnySettings) -> None:
        match settings:
            case ClientSettings():
                self._run(connect(Handshake("client", settings, self._channel)))
            case ServerSettings():
                self._run(accept(Handshake("server", settings, self._channel)))
            case PeerSettings():
                self._run(meet(settings, self._channel))

    # --- the transport -------------------------------------------------------------------------------------------------------

    def receive(self, data: Buffer) -> None:
        """Bytes from the peer, cut anywhere. Never raises on what they are; ignored after failure and after close_notify."""
        if self.failed is None and not self._channel.peer_closed:
            self.records.feed(data)
            try:
                self._advance()
            except Exception as error:
                self._caught(error)

    def receive_eof(self) -> None:
        """The transport ended. Without close_notify before it, that is a truncation (RFC 8446 section 6.1)."""
        if self.failed is None and not self.peer_closed:
            self._fail(Truncated("end of the transport without close_notify"))

    def data_to_send(self) -> bytes:
        """All records that wait to be sent; take and send them after every other call."""
        self._channel.flush()
        return self.records.take_output()

    # --- questions -----------------------------------------------------------------------------------------------------------

    @property
    def question(self) -> AnyQuestion | None:
        """What the connection waits with, to be settled by `answer` or `refuse`."""
        return None if self._flow is None else self._flow.question

    def answer(self, value: object) -> None:
        """Answer the question, with the type that it asks for. Raises ValueError if there is none."""
        flow = self._flow
        if flow is None or flow.question is None:
            raise _no_question()
        try:
            flow.go_on(value)
            if flow.question is None:
                self._settle(flow)
                self._advance()
        except Exception as error:
            self._caught(error)

    def refuse(self, error: TlsError) -> None:
        """Answer with an error, which normally ends the connection with its alert. Raises ValueError if there is no question."""
        flow = self._flow
        if flow is None or flow.question is None:
            raise _no_question()
        self._guard(self._refuse, flow, error)

    # --- application data ----------------------------------------------------------------------------------------------------

    def send(self, plaintext: Buffer) -> None:
        """Protect application data. Raises ValueError before completion and after `close`."""
        if self.failed is not None:
            return
        if self._established is None or self.closed:
            raise ValueError("application data goes out between handshake and close")
        self._guard(self._send, plaintext)

    def _send(self, plaintext: Buffer) -> None:
        assert self._established is not None
        self._established.before_sending()
        self._channel.write(ContentType.APPLICATION_DATA, plaintext)

    def take_plaintext(self) -> bytes:
        """Application data received so far."""
        plaintext = bytes(self._plaintext)
        self._plaintext.clear()
        return plaintext

    def close(self) -> None:
        """Send close_notify: nothing is sent after it, reading goes on. During a handshake, gives it up."""
        if self.failed is None and not self.closed:
            self.closed = True
            self._channel.send_alert(AlertLevel.WARNING, AlertDescription.CLOSE_NOTIFY)
            if self._established is None:
                self._drop_flow()

    @property
    def peer_closed(self) -> bool:
        """The peer sent close_notify: it will send nothing more."""
        return self._channel.peer_closed

    @property
    def has_output(self) -> bool:
        """`data_to_send` would return something."""
        return self.records.has_output or self._channel.has_output

    # --- application data past this object, see `bulk` -------------------------------------------------------------------------

    @property
    def takes_bulk(self) -> bool:
        """Records of application data may be opened without `receive` now: no handshake message is under way."""
        return self._flow is None and self._established is not None and not self._channel.inside_message

    def received_bulk(self) -> None:
        """Application data was opened without `receive`; to be told before the next `receive`, and at the key's usage limit."""
        self._channel.saw_application_data()
        self._guard(self.established.received_data)

    def before_bulk(self) -> None:
        """Application data is about to be sealed without `send`; to be told at the key's usage limit.

        What `data_to_send` has always goes before such data.
        """
        self._guard(self.established.before_sending)

    # --- what is known -------------------------------------------------------------------------------------------------------

    @property
    def handshake_complete(self) -> bool:
        """Application data can be sent."""
        return self._established is not None

    @property
    def failed_by_peer(self) -> bool:
        """`failed` is an alert of the peer's, or its silence, not a decision of ours."""
        return isinstance(self.failed, AlertReceived | Truncated)

    @property
    def established(self) -> Established:
        """What remains of the handshake. Raises ValueError before completion."""
        if self._established is None:
            raise ValueError("the handshake is not complete")
        return self._established

    @property
    def facts(self) -> HandshakeFacts:
        return self.established.facts

    @property
    def peer(self) -> PeerCredential | None:
        return self.established.peer

    @property
    def own(self) -> Credential | None:
        return self.established.own

    def export(self, label: bytes, context: bytes | None, length: int) -> bytes:
        """Keying material exporter (RFC 5705, RFC 8446 section 7.5); `length` in bytes."""
        return self.established.export(label, context, length)

    def channel_binding(self, kind: str) -> bytes | None:
        """Channel binding by its IANA name: "tls-exporter" (RFC 9266), "tls-unique" (TLS 1.2 only)."""
        return self.established.channel_binding(kind)

    def take_sessions(self) -> list[StoredSession]:
        """Client: sessions that came since the last call and can be resumed."""
        established = self._established
        if established is None or not established.sessions:
            return []
        sessions, established.sessions = established.sessions, []
        return sessions

    # --- after the handshake -------------------------------------------------------------------------------------------------

    def update_keys(self, request_peer: bool) -> None:
        """Change our sending keys, and ask the peer to change its. Fails with RenegotiationRefused in TLS 1.2."""
        self.established.update_keys(request_peer)

    def request_client_authentication(self) -> None:
        """Server: start post-handshake authentication. Raises RenegotiationRefused if the client or the version has none."""
        self.established.authenticate_client()

    # --- mechanics -----------------------------------------------------------------------------------------------------------

    def _guard(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except Exception as error:
            self._caught(error)

    def _caught(self, error: Exception) -> None:
        """The reason that an alert is sent for, or else a fault of ours: whatever the peer sent, it ends this one connection only."""
        if isinstance(error, TlsError):
            self._fail(error)
            return
        fault = InternalError(f"{type(error).__name__} in the engine")
        fault.__cause__ = error
        self._fail(fault)

    def _fail(self, error: TlsError) -> None:
        self.failed = _without_frames(error)
        self._drop_flow()
        if error.alert is not None and not self.closed:
            self._channel.send_alert(AlertLevel.FATAL, error.alert)

    def _drop_flow(self) -> None:
        flow, self._flow = self._flow, None
        if flow is not None:
            flow.close()

    def _run(self, coroutine: Any) -> None:
        flow: Flow[Established | None] = Flow(coroutine)
        self._flow = flow
        self._settle(flow)

    def _refuse(self, flow: Flow[Established | None], error: TlsError) -> None:
        flow.go_on(refusal=error)
        self._settle(flow)
        self._advance()

    def _settle(self, flow: Flow[Established | None]) -> None:
        """A flow that has returned leaves its result and goes."""
        if flow.done:
            self._flow = None
            if flow.result is not None:
                self._established = flow.result

    def _advance(self) -> None:
        """Go on as far as the input reaches, or up to the next question."""
        while self.failed is None:
            flow = self._flow
            if flow is not None:
                if not flow.waits_for_input:
                    return
                flow.go_on()
                if not flow.done:
                    return
                self._settle(flow)
            elif not self._take_item():
                return

    def _take_item(self) -> bool:
        """One piece of input after the handshake; False if there is none."""
        established = self._established
        item = self._channel.next() if established is not None else None
        if item is None or established is None:
            return False
        content_type, content = item
        if content_type == ContentType.APPLICATION_DATA:
            established.received_data()
            self._plaintext += content
        elif content_type == ContentType.HANDSHAKE:
            coroutine = established.receive(content)
            if coroutine is not None:
                self._run(coroutine)
        else:
            raise UnexpectedChangeCipherSpec("after the handshake")
        return True


def _no_question() -> ValueError:
    return ValueError("there is no question to answer")


def _without_frames(error: TlsError) -> TlsError:
    """The error as it may be kept: a traceback would keep the handshake's variables, secrets among them. Our own faults keep theirs."""
    link: BaseException | None = error
    while isinstance(link, TlsError):
        link.__traceback__ = None
        link.__context__ = None
        link = link.__cause__
    return error
