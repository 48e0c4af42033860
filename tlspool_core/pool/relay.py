"""Moves bytes between the peer's TLS records and the application's plaintext, from the end of the handshake on.

Theory of operation
-------------------
A relay is a handful of references and two descriptors that the event loop watches; it has no task, and no buffer while it is idle.
When a descriptor is ready, one batch is moved (see `relay_carry`).  Then the loop goes to whoever is ready next, so that all get
their turn.

Back-pressure: what a descriptor does not take is kept (`_to_plain`, `_to_cipher`), and until it has gone, the descriptor that it
came from is not read.  The size of a batch follows what was taken last, so that what is kept is small where the reader is slow.

What the connection has to say (answers to KeyUpdate, alerts) is sent at once.  If it asks a question, reading stops until `resume`.

Halves: end of input from the application becomes close_notify and the end of our TCP half; close_notify becomes the end of
input for the application.  When both halves are through, the relay ends.  A connection that fails ends both halves: its alert is
sent, what was received before is still delivered.  An application that is gone does not take what it wrote before with it: `leave`
has that sent, within a time that no peer can draw out.

A relay ends in one place, `_finish`, which closes what is still open and calls `on_closed`, once.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from tlspool_core.fdpass import Descriptor
from tlspool_core.pool.linger import linger
from tlspool_core.pool.relay_carry import NOTHING, Carrying
from tlspool_core.pool.relay_commons import BATCH, commons_of
from tlspool_core.pool.relay_ends import plain_end, stream_end
from tlspool_core.pool.relay_pace import Pace
from tlspool_core.pool.relay_watch import CIPHER_READ, CIPHER_WRITE, PLAIN_READ, PLAIN_WRITE
from tlspool_core.tls.connection import TlsConnection
from tlspool_core.tls.questions import AnyQuestion

# A peer that makes us answer (KeyUpdate) and does not read the answers is not read either beyond this.
_MOST_ANSWERS: Final = 2 * BATCH
# For the last words of an application that has left: seconds in which a slow peer takes a socket's buffer, and a stuck one is given up.
_LAST_WORDS: Final = 30.0


class Relay(Carrying):
    """One session's data phase. Owns both descriptors from construction on; `start` begins.

    `octets_in` counts plaintext bytes from the peer, `octets_out` those of the application.
    """

    __slots__ = ("_asked", "_cause", "_in_over", "_on_closed", "_on_question", "_out_over")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: TlsConnection,
        cipher: socket.socket,
        plain: Descriptor | socket.socket,
        *,
        on_closed: Callable[[str, int, int], None],
        on_question: Callable[[AnyQuestion], None],
        idle_timeout: float | None = None,
        session_timeout: float | None = None,
        name: str = "",
    ) -> None:
        """Times in seconds; `name` of the session, for the log.

        `on_closed(cause, octets_in, octets_out)` is called exactly once, possibly within `start` or `close`.
        Raises OSError if the plaintext descriptor is of a kind that cannot be relayed; then both are closed.
        """
        near = stream_end(cipher)
        try:
            super().__init__(loop, near, plain_end(plain), idle_timeout, session_timeout, name)
        except OSError:
            near.close()
            raise
        self._connection = connection
        self._on_closed = on_closed
        self._on_question = on_question
        self._commons = commons_of(loop)
        self._to_plain = self._to_cipher = NOTHING
        self._partial = b""
        self._untold = False
        self._asked: AnyQuestion | None = None
        self._cause = "closed"  # of an end in which nothing fails
        self._in_over = False  # the peer sends no more
        self._out_over = False  # the application sends no more, close_notify is on its way
        self._pace_in, self._pace_out = Pace(), Pace()
        self.octets_in = self.octets_out = 0

    # --- what the session calls --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; what the connection has received or wants to send already comes first."""
        self._partial = self._connection.records.take_incoming()
        self._commons.touch(self)
        self.resume()

    def resume(self) -> None:
        """Go on after the session dealt with the connection: answered or refused its question, or made it send something."""
        if not self.closed:
            self._run(self._resume)

    def close(self, cause: str = "closed") -> None:
        """End in an orderly way: close_notify to the peer, end of input to the application, no waiting for either."""
        if not self.closed:
            self._connection.close()
            self._finish(cause)

    def leave(self, cause: str) -> None:
        """The application has gone: send what it wrote before, drop what comes for it, and end for this cause."""
        if not self.closed:
            self._cause = cause
            self.limit(None, _LAST_WORDS, cause)
            self._limited = True
            self._plain.refuse_more()
            self._run(self._drop_plain)

    def abort(self, cause: str) -> None:
        """End at once, without a word to the peer."""
        if not self.closed:
            self._unwatch_cipher()
            self._cipher.close()
            self._finish(cause)

    def relax(self) -> None:
        """Fall idle: drop what can be made again."""
        records = self._connection.records
        records.read_protection.relax()
        records.write_protection.relax()

    # --- ends --------------------------------------------------------------------------------------------------------------------

    def _cipher_ended(self) -> None:
        """End of the TCP connection, orderly or reset; without close_notify it makes the connection fail."""
        self._cipher.can_read = False
        self._in_over = True
        self._connection.receive_eof()

    def _cipher_lost(self) -> None:
        """The peer takes no more; what it sent before may still be there to be read."""
        self._cipher.can_write = False
        self._out_over = True
        self._plain.end_reading()

    def _plain_ended(self) -> None:
        """The application sends no more."""
        self._plain.can_read = False
        self._out_over = True
        self._connection.close()
        if self._plain.hung_up():
            self._plain_lost()

    def _plain_lost(self) -> None:
        """The application reads no more: what comes for it is dropped, but the connection goes on while it writes."""
        self._plain.can_write = False

    def _drop_plain(self) -> None:
        """Nobody is left for whom to keep what the peer has sent."""
        self._plain_lost()
        self._commons.held -= len(self._to_plain)
        self._to_plain = NOTHING
        self._pace_in.full = False
        self._resume_opening()

    def _failed(self) -> None:
        """The connection has failed: nothing goes either way, but the alert, and what was received before."""
        self._in_over = self._out_over = True
        self._partial = b""
        self._plain.end_reading()
        self._end_cipher()

    def _end_cipher(self) -> None:
        """Give the socket away to be closed in such a way that the peer gets what was sent last."""
        if self._cipher.fd < 0:
            return
        self._unwatch_cipher()
        self._commons.held -= len(self._to_cipher)
        last = bytes(self._to_cipher) + self._connection.data_to_send()
        self._to_cipher = NOTHING
        if self._cipher.can_read and not self._connection.peer_closed:
            linger(self._loop, self._cipher.take(), last)
        else:
            self._write_cipher(memoryview(last))
            self._cipher.close()

    def _finish(self, cause: str) -> None:
        """The end, on every way."""
        self.closed = True
        self._end_cipher()
        self._unwatch_all()
        self._commons.held -= len(self._to_plain)
        self._to_plain = NOTHING
        self._plain.close()
        self._commons.forget(self)
        self._on_closed(cause, self.octets_in, self.octets_out)

    # --- mechanics ---------------------------------------------------------------------------------------------------------------

    def _resume(self) -> None:
        if self._connection.question is not self._asked:
            self._asked = None
        if data := self._connection.take_plaintext():
            self._deliver(memoryview(data))
        if not self._to_plain:
            self._resume_opening()

    def _settle(self) -> None:
        """Send what the connection has to say, see which halves are through, and wait for what is needed next."""
        connection = self._connection
        if connection.has_output:
            self._send(memoryview(connection.data_to_send()))
        if connection.failed is not None and self._cipher.fd >= 0:
            self._failed()
        if connection.peer_closed:
            self._in_over = True
        if self._in_over or self._out_over or not self._plain.can_write:
            self._settle_halves()
            if self.closed:
                return
        question = connection.question
        if question is not None and question is not self._asked:
            self._asked = question
            self._loop.call_soon(self._ask, question)
        self._watch(self._needed() & ~self._deferred)
        if not (self._plain.can_read or self._plain.can_write):
            self._plain.close()

    def _ask(self, question: AnyQuestion) -> None:
        if not self.closed:
            self._on_question(question)

    def _settle_halves(self) -> None:
        """End the halves whose last byte has gone; both gone is the end."""
        if self._in_over and not self._to_plain and self._plain.can_write:
            self._plain.end_writing()
        if self._in_over and not self._plain.can_read and not self._out_over:  # nobody is there to end our half
            self._out_over = True
            self._connection.close()
            self._send(memoryview(self._connection.data_to_send()))
        if self._out_over and not self._to_cipher and self._cipher.can_write:
            self._cipher.end_writing()
        if not self._plain.can_write and not self._cipher.can_write:
            self._finish(str(self._connection.failed or self._cause))

    def _needed(self) -> int:
        needed = 0
        if self._to_plain or self._pace_in.full:
            needed |= PLAIN_WRITE
        elif self._cipher.can_read and not (self._in_over or self._asked or len(self._to_cipher) > _MOST_ANSWERS):
            needed |= CIPHER_READ
        if self._to_cipher or self._pace_out.full:
            needed |= CIPHER_WRITE
        elif self._plain.can_read and not self._out_over:
            needed |= PLAIN_READ
        return needed
