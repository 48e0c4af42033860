"""Handshake messages and alerts over the record layer.

Theory of operation
-------------------
Incoming: records are drawn from the `RecordLayer` one at a time and only when someone asks for the next item, so a change of keys
always falls between two records.  Handshake fragments are joined into messages, which must not be interleaved with other content
(RFC 8446 section 5.1); alerts are dealt with here (section 6); the rest is handed up.

Outgoing: handshake messages are collected, and written as few records as possible by `flush`, which everything does that writes
another content type or changes keys.

A channel lives as long as its connection, and holds a few dozen bytes when nothing is under way.
"""

from __future__ import annotations

from typing import Final

from tlspool_core.tls.alerts import (
    AlertDescription,
    AlertLevel,
    AlertReceived,
    EmptyRecord,
    ExcessHandshakeData,
    HandshakeMessageTooLong,
    InterleavedRecord,
    MalformedAlert,
    TooManyWarnings,
    UnknownAlertLevel,
)
from tlspool_core.tls.enums import ContentType, HandshakeType
from tlspool_core.tls.protection import Buffer, Protection
from tlspool_core.tls.record import RecordLayer

# what an honest peer sends between two messages of substance is none at all; a few are forgiven
MAX_WARNINGS = 4
MAX_MESSAGE = 16384
_LONG = frozenset((HandshakeType.CERTIFICATE, HandshakeType.COMPRESSED_CERTIFICATE, HandshakeType.CERTIFICATE_REQUEST))
# ticket and hello sizes are bounded by their own 16-bit vectors
_MEDIUM = frozenset((HandshakeType.CLIENT_HELLO, HandshakeType.NEW_SESSION_TICKET, HandshakeType.CERTIFICATE_STATUS))
MAX_MEDIUM = 131_072

_HANDSHAKE: Final = int(ContentType.HANDSHAKE)
_ALERT: Final = int(ContentType.ALERT)

Item = tuple[int, bytes]


class Channel:
    """Both directions of one connection, below the handshake and above the records."""

    __slots__ = ("_outgoing", "_partial", "_warnings", "max_certificate_message", "peer_closed", "records", "strict_alerts")

    def __init__(self, records: RecordLayer, max_certificate_message: int = 100_000) -> None:
        self.records = records
        self.max_certificate_message = max_certificate_message
        self.peer_closed = False
        self.strict_alerts = False  # TLS 1.3: there are no warnings but close_notify and user_canceled (RFC 8446 section 6)
        self._partial: bytes | bytearray = b""
        self._outgoing: list[bytes] = []
        self._warnings = 0

    # --- incoming ------------------------------------------------------------------------------------------------------------

    def next(self) -> Item | None:
        """The next whole handshake message (with header), application data or change_cipher_spec; None: feed more.

        Raises a TlsError for what is malformed, and AlertReceived for fatal alerts.
        """
        while True:
            if self._partial:
                message = self._next_message()
                if message is not None:
                    return _HANDSHAKE, message
            if self.peer_closed:
                return None
            record = self.records.next_record()
            if record is None:
                return None
            content_type, fragment = record
            if content_type == _HANDSHAKE:
                if not fragment:
                    raise EmptyRecord("handshake record without content")
                self._join(fragment)
                continue
            if self._partial:
                raise InterleavedRecord(f"content type {content_type} inside a handshake message")
            if content_type == _ALERT:
                self._alert(fragment)
                continue
            self._warnings = 0
            return record

    def _join(self, fragment: bytes) -> None:
        """Whole messages stay the bytes that came; only what is in pieces costs a copy, and each piece one."""
        if not self._partial:
            self._partial = fragment
        elif isinstance(self._partial, bytearray):
            self._partial += fragment
        else:
            self._partial = bytearray(self._partial + fragment)

    def _next_message(self) -> bytes | None:
        partial = self._partial
        available = len(partial)
        if available < 4:
            return None
        length = partial[1] << 16 | partial[2] << 8 | partial[3]
        if length > MAX_MESSAGE:
            self._check_length(partial[0], length)
        end = 4 + length
        if available < end:
            return None
        self._warnings = 0
        self._partial = bytes(partial[end:])
        return bytes(partial[:end])

    def _check_length(self, handshake_type: int, length: int) -> None:
        limit = MAX_MESSAGE
        if handshake_type in _LONG:
            limit = max(limit, self.max_certificate_message)
        elif handshake_type in _MEDIUM:
            limit = MAX_MEDIUM
        if length > limit:
            raise HandshakeMessageTooLong(f"message of type {handshake_type} with {length} bytes")

    def _alert(self, fragment: bytes) -> None:
        if len(fragment) != 2:
            raise MalformedAlert(f"alert of {len(fragment)} bytes")
        level, description = fragment
        if level == AlertLevel.WARNING:
            if description == AlertDescription.CLOSE_NOTIFY:
                self.peer_closed = True
                return
            if not self.strict_alerts or description == AlertDescription.USER_CANCELED:
                self._warnings += 1
                if self._warnings > MAX_WARNINGS:
                    raise TooManyWarnings(f"{self._warnings} warning alerts")
                return
            raise MalformedAlert(f"warning alert {description} in TLS 1.3")
        if level != AlertLevel.FATAL:
            raise UnknownAlertLevel(f"alert level {level}")
        raise AlertReceived(description)

    def saw_application_data(self) -> None:
        """Someone opened application data past this channel: what was counted as a flood was none."""
        self._warnings = 0
        self.records.saw_application_data()

    @property
    def inside_message(self) -> bool:
        """Handshake bytes are held that no one has taken yet."""
        return bool(self._partial)

    def check_boundary(self) -> None:
        """The keys change now, so no handshake bytes may be left over (RFC 8446 section 5.1)."""
        if self._partial:
            raise ExcessHandshakeData(f"{len(self._partial)} bytes after a message that ends its keys")

    def set_read_protection(self, protection: Protection) -> None:
        """New keys for what comes in from here on. Raises ExcessHandshakeData."""
        self.check_boundary()
        self.records.set_read_protection(protection)

    # --- outgoing ------------------------------------------------------------------------------------------------------------

    @property
    def has_output(self) -> bool:
        """Handshake messages wait for `flush`."""
        return bool(self._outgoing)

    def queue(self, message: bytes) -> None:
        """A whole handshake message, to go out with the next flush."""
        self._outgoing.append(message)

    def flush(self) -> None:
        """Write the collected handshake messages as records."""
        messages = self._outgoing
        if messages:
            self.records.write(_HANDSHAKE, messages[0] if len(messages) == 1 else b"".join(messages))
            messages.clear()

    def write(self, content_type: int, content: Buffer) -> None:
        """Other content, after the handshake messages so far."""
        self.flush()
        self.records.write(content_type, content)

    def set_write_protection(self, protection: Protection) -> None:
        """New keys for what goes out from here on."""
        self.flush()
        self.records.set_write_protection(protection)

    def send_alert(self, level: AlertLevel, description: AlertDescription) -> None:
        self.write(ContentType.ALERT, bytes((level, description)))
