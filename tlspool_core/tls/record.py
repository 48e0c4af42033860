"""The record layer: bytes in, records out; fragments in, bytes out.

Theory of operation
-------------------
`RecordLayer` cuts the byte stream into records, opens them with the keys of the moment, and enforces what holds for records
whatever they carry: types, versions, lengths, empty fragments, floods (RFC 8446 section 5, RFC 5246 section 6.2, RFC 8449).
What the content means is not its business.  It is pulled: a record is opened only when `next_record` is called, so that one that
came in the same packet as a key change is opened with the new keys.

Keys change by `set_read_protection` and `set_write_protection`; that no handshake message spans the change is for `Channel` to see,
which joins the messages.

change_cipher_spec is real in TLS 1.2, and an appeasement of middleboxes in TLS 1.3 (RFC 8446 appendix D.4): `CcsRule` says which
of these holds now.

Refused 0-RTT data (RFC 8446 section 4.2.10) comes under keys that we do not have: `skip_early_data` makes the layer drop what does
not open, up to a limit, until the first record that does.
"""

from __future__ import annotations

from enum import Enum
from struct import Struct
from typing import Final

from tlspool_core.tls.alerts import (
    BadRecordMac,
    EmptyRecord,
    ProtocolVersion,
    RecordOverflow,
    TooManyEmptyRecords,
    TooMuchEarlyData,
    UnexpectedChangeCipherSpec,
    UnexpectedRecordType,
)
from tlspool_core.tls.enums import ContentType
from tlspool_core.tls.padding import Padding
from tlspool_core.tls.protection import HEADER_LENGTH, Buffer, NullProtection, Protection, XorNonce13

MAX_PLAINTEXT: Final = 2**14
MAX_EXPANSION_13: Final = 256
MAX_EXPANSION_12: Final = 2048
MIN_RECORD_SIZE_LIMIT: Final = 64  # RFC 8449 section 4

# Floods: a peer with a reason sends a few of these, never dozens.
MAX_EMPTY_RECORDS: Final = 32
MAX_CHANGE_CIPHER_SPECS: Final = 16

_CCS: Final = int(ContentType.CHANGE_CIPHER_SPEC)
_ALERT: Final = int(ContentType.ALERT)
_DATA: Final = int(ContentType.APPLICATION_DATA)
_CCS_RECORD: Final = b"\x14\x03\x03\x00\x01\x01"
_VERSIONS_13: Final = 0x0304
# content type, version, length (RFC 8446 section 5.1)
_read_header: Final = Struct(">BBBH").unpack_from


class CcsRule(Enum):
    """What becomes of a change_cipher_spec record."""

    DELIVER = "deliver"  # TLS 1.2, and before the version is known: `next_record` returns it
    DROP = "drop"  # TLS 1.3, from the first ClientHello until the peer's Finished
    REFUSE = "refuse"  # at any other time


class RecordLayer:
    """Both directions of one connection.

    The driver sets `version` and `padding` as soon as they are known, `change_cipher_spec` as the flow goes on.  Lengths are in bytes.
    `receive_limit` bounds the plaintext of a protected record, in TLS 1.3 with content type and padding.
    """

    __slots__ = (
        "_body_limit",
        "_early_data_left",
        "_empty_run",
        "_incoming",
        "_outgoing",
        "_seen_ccs",
        "_send_limit",
        "change_cipher_spec",
        "padding",
        "read_protection",
        "receive_limit",
        "version",
        "write_protection",
    )

    def __init__(self, first_version: int = 0x0303) -> None:
        """`first_version` goes into the header of the first record: 0x0301 in a ClientHello (RFC 8446 section 5.1)."""
        self.read_protection: Protection = NullProtection()
        self.write_protection: Protection = NullProtection(first_version)
        self.version = 0
        self.change_cipher_spec = CcsRule.DELIVER
        self.padding: Padding | None = None
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self.receive_limit = MAX_PLAINTEXT + 1
        self._body_limit = MAX_PLAINTEXT
        self._send_limit = MAX_PLAINTEXT + 1
        self._early_data_left = 0
        self._empty_run = 0
        self._seen_ccs = 0

    # --- set-up, called by the driver ------------------------------------------------------------------------------------------

    def set_read_protection(self, protection: Protection) -> None:
        """New keys of the peer, from the next record on."""
        self.read_protection = protection
        self._body_limit = MAX_PLAINTEXT + (MAX_EXPANSION_13 if protection.hides_type else MAX_EXPANSION_12)

    def set_write_protection(self, protection: Protection) -> None:
        """New keys of ours, from the next record on."""
        self.write_protection = protection

    def limit_received(self, limit: int) -> None:
        """The record_size_limit that we sent and the peer honours (RFC 8449): holds for protected records only."""
        self.receive_limit = limit

    def limit_sent(self, limit: int) -> None:
        """The peer's record_size_limit, at least 64; a larger value than the version's maximum is no promise to use it."""
        self._send_limit = min(limit, MAX_PLAINTEXT + 1)

    def skip_early_data(self, limit: int) -> None:
        """Server, 0-RTT refused: drop up to `limit` bytes of records that do not open, until one does."""
        self._early_data_left = limit

    # --- reading ---------------------------------------------------------------------------------------------------------------

    def feed(self, data: Buffer) -> None:
        """Bytes from the peer, cut anywhere."""
        self._incoming += data

    @property
    def buffered(self) -> int:
        """Number of bytes that were fed and not yet taken out as records."""
        return len(self._incoming)

    def take_incoming(self) -> bytes:
        """Hand over all bytes not yet taken out as records; called by the relay when it begins to cut records by itself."""
        incoming = bytes(self._incoming)
        self._incoming.clear()
        return incoming

    def next_record(self) -> tuple[int, bytes] | None:
        """The next record as (content type, plaintext), None until it is complete. Raises a TlsError on anything illegal."""
        while self._incoming and (record := self._cut()) is not None:
            content = self._open(*record)
            if content is not None:
                if content[1]:
                    self._empty_run = 0
                else:
                    self._count_empty(content[0])
                return content
        return None

    def saw_application_data(self) -> None:
        """Someone opened application data past this layer: what was counted as a flood was none."""
        self._empty_run = 0

    def _cut(self) -> tuple[bytes, bytes] | None:
        """Header and body of the next complete record."""
        incoming = self._incoming
        available = len(incoming)
        if available < HEADER_LENGTH:
            return None
        length = self._check_header(*_read_header(incoming))
        end = HEADER_LENGTH + length
        if available < end:
            return None
        header, body = bytes(incoming[:HEADER_LENGTH]), bytes(incoming[HEADER_LENGTH:end])
        del incoming[:end]
        return header, body

    def _check_header(self, kind: int, major: int, minor: int, length: int) -> int:
        """Refuse what cannot become a record, before its body is waited for; returns the length of the body."""
        if not _CCS <= kind <= _DATA:
            raise UnexpectedRecordType(f"content type {kind}: what came is no record of TLS")
        # RFC 8446 section 5.1: the version is ignored in TLS 1.3. Before, it tells TLS from other protocols.
        if self.version != _VERSIONS_13 and (major != 3 or (self.version and minor != self.version & 0xFF)):
            raise ProtocolVersion(f"record version {major}.{minor}")
        if length > self._body_limit and not (
            kind == _DATA and self._early_data_left and length <= MAX_PLAINTEXT + MAX_EXPANSION_13
        ):
            raise RecordOverflow(f"a record of {length} bytes")
        return length

    def _open(self, header: bytes, body: bytes) -> tuple[int, bytes] | None:
        """Content of a record, None if it is one to be dropped."""
        kind = header[0]
        protection = self.read_protection
        if kind == _CCS and self.change_cipher_spec is not CcsRule.DELIVER:
            self._drop_change_cipher_spec(body)
            return None
        if self._early_data_left and kind == _DATA:
            return self._open_or_skip(header, body)
        if protection.hides_type and kind != _DATA:
            # A client that could not follow our ServerHello has no keys to send its alert with (RFC 8446 section 6).
            if kind == _ALERT and protection.sequence == 0:
                return kind, body
            raise UnexpectedRecordType(f"a record of type {kind} that is not encrypted")
        content = protection.open(header, body)
        self._check_inner(content, len(body))
        return content

    def _open_or_skip(self, header: bytes, body: bytes) -> tuple[int, bytes] | None:
        """The first record that opens ends early data; up to then, those that do not open are dropped."""
        if self.read_protection.encrypts:
            try:
                content = self.read_protection.open(header, body)
            except BadRecordMac:
                pass
            else:
                self._early_data_left = 0
                self._check_inner(content, len(body))
                return content
        self._early_data_left -= len(body)
        if self._early_data_left <= 0:
            raise TooMuchEarlyData("0-RTT data was refused and does not end")
        return None

    def _drop_change_cipher_spec(self, body: bytes) -> None:
        """RFC 8446 section 5: a single byte 1 during the handshake is dropped, all else is unexpected."""
        self._seen_ccs += 1
        if self.change_cipher_spec is CcsRule.REFUSE or body != b"\x01" or self._seen_ccs > MAX_CHANGE_CIPHER_SPECS:
            raise UnexpectedChangeCipherSpec(f"number {self._seen_ccs}, {len(body)} bytes")

    def _check_inner(self, content: tuple[int, bytes], body_length: int) -> None:
        """What only an opened record shows: its true type, and its length with padding."""
        protection = self.read_protection
        if protection.hides_type:
            if not _ALERT <= content[0] <= _DATA:
                raise UnexpectedRecordType(f"content type {content[0]} in an encrypted record")
            length, limit = body_length - protection.overhead + 1, self.receive_limit
        elif protection.encrypts:
            length, limit = len(content[1]), min(self.receive_limit, MAX_PLAINTEXT)
        else:
            return  # as long as the header said
        if length > limit:
            raise RecordOverflow(f"{length} bytes of plaintext")

    def _count_empty(self, kind: int) -> None:
        """Empty records are for application data only, and not without end (RFC 8446 section 5.1 and 5.4)."""
        if kind != _DATA:
            raise EmptyRecord(f"content type {kind}")
        self._empty_run += 1
        if self._empty_run > MAX_EMPTY_RECORDS:
            raise TooManyEmptyRecords(f"{self._empty_run} in a row")

    # --- writing ---------------------------------------------------------------------------------------------------------------

    @property
    def max_fragment(self) -> int:
        """Largest plaintext of one record that we may send now (RFC 8449 section 4)."""
        protection = self.write_protection
        if protection.hides_type:
            return self._send_limit - 1
        return min(self._send_limit, MAX_PLAINTEXT) if protection.encrypts else MAX_PLAINTEXT

    def write(self, content_type: int, data: Buffer) -> None:
        """Queue `data` as one record or, where it is longer than one may be, several. Nothing is sent for no data.

        change_cipher_spec is never encrypted: in TLS 1.2 it precedes the keys, in TLS 1.3 it is for middleboxes only.
        """
        if content_type == _CCS:
            self._outgoing += _CCS_RECORD
            return
        step = self.max_fragment
        if 0 < len(data) <= step:
            self._outgoing += self.seal(content_type, data)
            return
        view = memoryview(data)
        for start in range(0, len(view), step):
            self._outgoing += self.seal(content_type, view[start : start + step])

    def seal(self, content_type: int, fragment: Buffer) -> bytes:
        """One record, padded if it is to be; `fragment` has at most `max_fragment` bytes."""
        protection, padding = self.write_protection, self.padding
        if padding is not None and isinstance(protection, XorNonce13):
            zeros = padding.zeros(content_type, len(fragment) + 1, self._send_limit)
            if zeros:
                return protection.seal_padded(content_type, fragment, zeros)
        return protection.seal(content_type, fragment)

    @property
    def has_output(self) -> bool:
        """Something waits to be sent."""
        return bool(self._outgoing)

    def take_output(self) -> bytes:
        """All that was queued, to be sent in this order."""
        outgoing = bytes(self._outgoing)
        self._outgoing.clear()
        return outgoing
