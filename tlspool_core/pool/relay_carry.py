"""How a relay carries bytes, either way: a batch at a time, from one descriptor through the shared buffers to the other.

Theory of operation
-------------------
From the peer, what was read is opened into the outgoing buffer and delivered; a record that has not come whole waits in `_partial` for its
rest.  From the application, what was read is sealed into the outgoing buffer and sent.  What a descriptor does not take is kept in
`_to_plain` or `_to_cipher`, and until it has gone nothing is read that would go the same way.

Bulk data goes through `tls.bulk`; all other records, one at a time, through `TlsConnection.receive`, in the order of their coming.

Each step says whether all is as before it, so that nothing follows from it; else `relay` looks what is needed next.  Steps that find an end
tell so, by methods that `relay` brings.
"""

from __future__ import annotations

import errno
from abc import abstractmethod
from typing import Final

from tlspool_core.pool.relay_commons import BATCH, Commons
from tlspool_core.pool.relay_pace import STREAM, Pace
from tlspool_core.pool.relay_watch import CIPHER_READ, PLAIN_READ, Watched
from tlspool_core.tls.bulk import complete_record, open_batch, seal_batch, sealed_capacity
from tlspool_core.tls.connection import TlsConnection

NOTHING: Final = memoryview(b"")
# Records opened between two writes: their plaintext, a quarter of a MiB, is then still in the processor's cache.
_RECORDS: Final = 16


class Carrying(Watched):
    """The steps of a relay, which sets all of this up."""

    __slots__ = (
        "_commons",
        "_connection",
        "_pace_in",
        "_pace_out",
        "_partial",
        "_to_cipher",
        "_to_plain",
        "_untold",
        "octets_in",
        "octets_out",
    )

    _commons: Commons
    _connection: TlsConnection
    _pace_in: Pace
    _pace_out: Pace
    _partial: bytes  # from the peer, not opened yet: normally the beginning of a record
    _to_cipher: memoryview
    _to_plain: memoryview
    _untold: bool  # data was opened of which the connection does not know
    octets_in: int
    octets_out: int

    @abstractmethod
    def _cipher_ended(self) -> None: ...

    @abstractmethod
    def _cipher_lost(self) -> None: ...

    @abstractmethod
    def _plain_ended(self) -> None: ...

    @abstractmethod
    def _plain_lost(self) -> None: ...

    @abstractmethod
    def relax(self) -> None: ...

    # --- from the peer to the application ----------------------------------------------------------------------------------------

    def _read_cipher(self) -> bool:
        commons, pace = self._commons, self._pace_in
        commons.touch(self)
        room = pace.room(commons, self._plain)
        if not room:
            return False
        wire, kept = commons.incoming, len(self._partial)
        if kept:
            wire[:kept] = self._partial
        try:
            count = self._cipher.read(wire[kept : kept + room])
        except BlockingIOError:
            return bool(self._armed & CIPHER_READ)
        except OSError:
            count = 0
        if not count:
            self._cipher_ended()
            return False
        self._pace_out.streamed = 0
        pace.took(count)
        return self._open(kept + count) and self._stays_watched(CIPHER_READ, pace, count, room)

    def _open(self, end: int) -> bool:
        """Open what lies in the shared buffer up to `end`, deliver it, and keep what cannot be opened yet; True if all is quiet."""
        connection, wire, out = self._connection, self._commons.incoming, self._commons.outgoing
        most = 1 if self._plain.messages else _RECORDS
        position = filled = 0
        quiet = True
        while True:
            if connection.takes_bulk:
                before = filled
                position, filled, full, odd = open_batch(connection.records, wire, position, end, out, filled, most)
                self._untold = self._untold or filled > before
            else:
                full, odd = False, complete_record(wire, position, end)
            if odd:
                quiet = False
                filled = self._receive(wire[position : position + odd], out, filled)
                position += odd
            if filled and (full or most == 1):
                self._deliver(out[:filled])
                filled = 0
            if not (odd or full) or self._to_plain or (odd and self._must_wait()):
                break
        self._partial = bytes(wire[position:end])
        if filled:
            self._deliver(out[:filled])
        if connection.records.read_protection.needs_update:
            self._tell_of_bulk()
            return False
        return quiet and not self._to_plain and self._plain.can_write

    def _receive(self, record: memoryview, out: memoryview, filled: int) -> int:
        """Let the connection have a record; its plaintext goes behind the rest, and the new length of that is returned."""
        connection = self._connection
        self._tell_of_bulk()
        connection.receive(record)
        plaintext = connection.take_plaintext()
        out[filled : filled + len(plaintext)] = plaintext
        return filled + len(plaintext)

    def _tell_of_bulk(self) -> None:
        """The connection counts what comes without data in between."""
        if self._untold:
            self._untold = False
            self._connection.received_bulk()

    def _must_wait(self) -> bool:
        """The connection takes no more records, now or ever."""
        connection = self._connection
        return connection.question is not None or connection.failed is not None or connection.peer_closed

    def _deliver(self, data: memoryview) -> None:
        """To the application; dropped if it does not read any more."""
        self.octets_in += len(data)
        if not self._plain.can_write:
            return
        rest = self._write_plain(data)
        if rest:
            self._pace_in.blocked()
            self._to_plain = memoryview(bytes(rest))
            self._commons.held += len(rest)

    def _write_plain(self, data: memoryview) -> memoryview:
        """What is left of the data."""
        try:
            while data:
                data = data[self._plain.write(data) :]
        except BlockingIOError:
            return data
        except OSError:
            self._plain_lost()
        return NOTHING

    def _drain_plain(self) -> None:
        """The application has room again: what was kept, then what was not opened for lack of room."""
        self._commons.touch(self)
        before = len(self._to_plain)
        rest = self._write_plain(self._to_plain)
        self._commons.held -= before - len(rest)
        self._to_plain = rest
        self._pace_in.full = False
        if not rest:
            self._resume_opening()

    def _resume_opening(self) -> None:
        """Open what had to wait, for room or for an answer."""
        if not self._partial or self._connection.question is not None:
            return
        kept = len(self._partial)
        self._commons.incoming[:kept] = self._partial
        self._open(kept)

    # --- from the application to the peer ----------------------------------------------------------------------------------------

    def _read_plain(self) -> bool:
        commons, records, pace = self._commons, self._connection.records, self._pace_out
        commons.touch(self)
        plain, out = commons.incoming, commons.outgoing
        room = BATCH if self._plain.messages else pace.room(commons, self._cipher)
        if not room:
            return False
        room = min(room, sealed_capacity(records, len(out)))
        try:
            count = self._plain.read(plain[:room])
        except BlockingIOError:
            return bool(self._armed & PLAIN_READ)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                self.abort("message too long")
                return False
            count = 0
        if not count:
            self._plain_ended()
            return False
        self.octets_out += count
        self._pace_in.streamed = 0
        pace.took(count)
        if records.write_protection.needs_update:
            self._connection.before_bulk()
        if self._connection.has_output:  # under the keys that it was queued with, so before any other record
            self._send(memoryview(self._connection.data_to_send()))
        self._send(out[: seal_batch(records, plain, count, out)])
        return not self._to_cipher and self._cipher.can_write and self._stays_watched(PLAIN_READ, pace, count, room)

    def _send(self, records: memoryview) -> None:
        """To the peer, behind what waits already."""
        if not self._cipher.can_write:
            return
        if self._to_cipher:
            self._commons.held += len(records)
            self._to_cipher = memoryview(b"".join((self._to_cipher, records)))
            return
        rest = self._write_cipher(records)
        if rest:
            self._pace_out.blocked()
            self._to_cipher = memoryview(bytes(rest))
            self._commons.held += len(rest)

    def _write_cipher(self, data: memoryview) -> memoryview:
        """What is left of the records."""
        try:
            while data:
                data = data[self._cipher.write(data) :]
        except BlockingIOError:
            return data
        except OSError:
            self._cipher_lost()
        return NOTHING

    def _drain_cipher(self) -> None:
        """The peer has room again."""
        self._commons.touch(self)
        before = len(self._to_cipher)
        rest = self._write_cipher(self._to_cipher)
        self._commons.held -= before - len(rest)
        self._to_cipher = rest
        self._pace_out.full = False

    def _stays_watched(self, bit: int, pace: Pace, count: int, room: int) -> bool:
        """After a good read: go on at the next tick, or at once while the descriptor is not watched; True if all stays as it is."""
        if pace.streamed > STREAM and pace.can_wait(count, room):
            if not self._deferred:
                self._commons.put_off(self)
            self._deferred |= bit
            return False
        if self._armed & bit:
            return True
        self._defer(bit)
        return False
