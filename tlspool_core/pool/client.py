"""One application's connection to the pool.

Theory of operation
-------------------
`wire.connection.PoolSide` keeps the books; this class moves its bytes, and has each request served.  Requests that can be
answered at once are; STARTTLS runs as a task of its own, so one application may have many under way.  Whatever goes wrong while
a request is served ends this request with an ERROR, and nothing else.

A program that registers for PINs, and may, is from then on read into locked memory.

An application that does not read its answers is not read from any longer; if still more piles up, it is disconnected.  When the
connection ends, so do the sessions that it made, except those that were to outlive it (FORK).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from tlspool_core import fdpass
from tlspool_core.fdpass import Descriptor
from tlspool_core.pool import commands
from tlspool_core.pool.accept import PeerProcess
from tlspool_core.pool.beginning import Beginning
from tlspool_core.pool.commands import SessionCommand
from tlspool_core.pool.logs import say, session_id
from tlspool_core.pool.session import Session
from tlspool_core.wire.connection import Answered, Asked, Callback, CallbackMessage, Exchange, PoolSide, Refused, Step
from tlspool_core.wire.errors import ErrorCode, WireError
from tlspool_core.wire.flags import Facility
from tlspool_core.wire.messages import Accounting, LidentryRegister, Message, PinEntry, Ping, StartTls

if TYPE_CHECKING:
    from tlspool_core.pool.core import Pool

log = logging.getLogger("tlspool.client")

PRODUCER = "20261123tlspool-core@localhost"
_FACILITIES = Facility.STARTTLS
_STOP_READING = 256  # packets that wait to be sent
_DISCONNECT = 8192

Registration = PinEntry | LidentryRegister
CallbackAnswer = tuple[CallbackMessage, Descriptor | None]


class Client:
    """Owns the socket; `process` is who was at its other end when it was accepted."""

    def __init__(self, pool: Pool, connected: socket.socket, process: PeerProcess, on_gone: Callable[[Client], None]) -> None:
        self.process = process
        self.sessions: set[Session] = set()
        self.closed = False
        self._pool = pool
        self._socket = connected
        self._fd = connected.fileno()
        self._on_gone = on_gone
        self._side: PoolSide[Descriptor] = PoolSide(pool.config.limits.handshakes_per_client)
        self._waiting: dict[Callback, asyncio.Future[CallbackAnswer]] = {}
        self._output: deque[bytes] = deque()
        self._reading = False
        self._guarded = False  # what comes may be a PIN
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting: dict[Beginning, asyncio.Task[None]] = {}
        self._token: bytes | None = None  # what stands for this client in other workers, once it gave commands there

    @property
    def busy(self) -> bool:
        """Requests wait for their answer; a registered desk waits for none."""
        return any(not isinstance(exchange.request, Registration) for exchange in self._side.exchanges)

    def start(self) -> None:
        self._read(True)

    def close(self) -> None:
        """End the connection and what hangs on it; harmless if done before."""
        if self.closed:
            return
        self.closed = True
        self._read(False)
        if self._output:
            self._pool.loop.remove_writer(self._fd)
            self._output.clear()
        self._act(self._side.close())
        fdpass.close_connection(self._socket)
        self._pool.release(self)
        if self._token is not None and self._pool.mesh is not None:
            self._pool.mesh.gone(self._token)
        for session in list(self.sessions):
            session.maker_gone()
        self._on_gone(self)

    # --- bytes ---------------------------------------------------------------------------------------------------------------

    def _read(self, on: bool) -> None:
        if on != self._reading:
            self._reading = on
            if on:
                self._pool.loop.add_reader(self._fd, self._readable)
            else:
                self._pool.loop.remove_reader(self._fd)

    def _readable(self) -> None:
        if self._guarded:
            self._readable_guarded()
            return
        try:
            received = fdpass.receive(self._socket, self._side.wanted)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        if not received.data:
            fdpass.close_all(received.descriptors)
            self.close()
            return
        self._act(self._side.receive(received.data, received.descriptors))

    def _readable_guarded(self) -> None:
        try:
            length, descriptors = fdpass.receive_into(self._socket, self._side.room)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        if not length:
            fdpass.close_all(descriptors)
            self.close()
            return
        self._act(self._side.arrived(length, descriptors))

    def _send(self, data: bytes) -> None:
        """Each packet goes with one call, as existing applications do not reassemble."""
        if not data or self.closed:
            return
        if not self._output:
            try:
                sent = fdpass.send(self._socket, data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                # not at once: the caller may be about to use what ends with the connection
                self._pool.loop.call_soon(self.close)
                return
            if sent == len(data):
                return
            data = data[sent:]
            self._pool.loop.add_writer(self._fd, self._writable)
        self._output.append(data)
        if len(self._output) >= _STOP_READING:
            self._read(False)
        if len(self._output) > _DISCONNECT:
            say(log, logging.WARNING, "client does not read its answers", uid=self.process.uid, pid=self.process.pid)
            self._pool.loop.call_soon(self.close)

    def _writable(self) -> None:
        while self._output:
            try:
                sent = fdpass.send(self._socket, self._output[0])
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.close()
                return
            if sent < len(self._output[0]):
                self._output[0] = self._output[0][sent:]
                return
            self._output.popleft()
        self._pool.loop.remove_writer(self._fd)
        self._read(True)

    # --- events --------------------------------------------------------------------------------------------------------------

    def _act(self, step: Step[Descriptor]) -> None:
        self._send(step.replies)
        fdpass.close_all(step.discard)
        for event in step.events:
            match event:
                case Asked(exchange, descriptor):
                    self._serve(exchange, descriptor)
                case Answered(callback, message, descriptor):
                    self._answered(callback, message, descriptor)
                case Refused(callback, error):
                    future = self._waiting.pop(callback, None)
                    if future is not None and not future.done():
                        future.set_exception(error)

    def _answered(self, callback: Callback, message: CallbackMessage, descriptor: Descriptor | None) -> None:
        future = self._waiting.pop(callback, None)
        if future is not None and not future.done():
            future.set_result((message, descriptor))
        else:
            _drop((message, descriptor))

    async def call_back(self, exchange: Exchange, message: CallbackMessage, time_limit: float | None) -> CallbackAnswer:
        """Ask the application; the caller owns the descriptor. Raises WireError if it refuses, vanishes, or takes too long.

        `time_limit` in seconds; None if the caller limits the time itself.
        """
        callback, data = self._side.call_back(exchange, message)
        future: asyncio.Future[CallbackAnswer] = self._pool.loop.create_future()
        self._waiting[callback] = future
        self._send(data)
        try:
            if time_limit is None:
                return await future
            async with asyncio.timeout(time_limit):
                return await future
        except TimeoutError:
            _abandon(future)
            raise WireError(ErrorCode.CALLBACK_TIMEOUT) from None
        except asyncio.CancelledError:
            _abandon(future)
            raise
        finally:
            self._waiting.pop(callback, None)
            self._side.expire(callback)

    # --- requests ------------------------------------------------------------------------------------------------------------

    def _serve(self, exchange: Exchange, descriptor: Descriptor | None) -> None:
        """Have one request served."""
        try:
            request = exchange.request
            if isinstance(request, StartTls):
                self._start_tls(exchange, request, descriptor)
            elif isinstance(request, Accounting):
                self._run(self._answered_by(exchange, self._accounted(request)))
            elif isinstance(request, Registration):
                if isinstance(request, PinEntry) and self._pool.desks.may_give_pins(self.process):
                    self._side.guard()
                    self._guarded = True
                self._run(self._register(exchange))
            else:
                self._send(self._side.answer(exchange, self._answer(request)))
        except WireError as error:
            if not self._ask_siblings(exchange, error):
                self._send(self._side.refuse(exchange, error))
        except Exception:
            log.exception("fault while serving a request")
            self._send(self._side.refuse(exchange, WireError(ErrorCode.CONNECTION_HANDLER)))

    async def _register(self, exchange: Exchange) -> None:
        """Desks get no answer to their registration unless it is refused."""
        try:
            await self._pool.desks.register(self, exchange)
        except WireError as error:
            self.dismiss(exchange, error)

    def dismiss(self, exchange: Exchange, error: WireError) -> None:
        """Refuse a desk, or end its registration."""
        self._send(self._side.refuse(exchange, error))

    def _answer(self, request: object) -> Message:
        """The answer to a request that needs no waiting. Raises WireError."""
        if isinstance(request, Ping):
            return Ping(PRODUCER, request.facilities & _FACILITIES)
        if isinstance(request, SessionCommand):
            return commands.command(self._pool, self, request)
        raise WireError(ErrorCode.COMMAND_NOT_IMPLEMENTED)

    def _ask_siblings(self, exchange: Exchange, error: WireError) -> bool:
        """Whether another worker may know the session that a request names; it is asked then."""
        mesh = self._pool.mesh
        if mesh is None or error.code != ErrorCode.CTLKEY_NOT_FOUND:
            return False
        if self._token is None:
            self._token = mesh.new_token()
        self._run(self._answered_by(exchange, mesh.ask(self._token, exchange.request)))
        return True

    async def _answered_by(self, exchange: Exchange, asking: Coroutine[Any, Any, Message]) -> None:
        try:
            data = self._side.answer(exchange, await asking)
        except WireError as error:
            data = self._side.refuse(exchange, _renegotiation(error, exchange))
        except Exception:
            log.exception("fault while serving a request")
            data = self._side.refuse(exchange, WireError(ErrorCode.CONNECTION_HANDLER))
        self._send(data)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._pool.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _start_tls(self, exchange: Exchange, request: StartTls, descriptor: Descriptor | None) -> None:
        if request.renegotiates:
            self._run(self._renegotiate(exchange, request))
            return
        assert descriptor is not None
        try:
            beginning = self._pool.admit(self, exchange, request, descriptor)
        except WireError:
            descriptor.close()
            raise
        self._starting[beginning] = self._pool.loop.create_task(self._start_session(exchange, beginning))

    async def _start_session(self, exchange: Exchange, beginning: Beginning) -> None:
        session_id.set(beginning.session.id)
        try:
            answer: Message = await beginning.run()
            data = self._side.answer(exchange, answer)
        except WireError as error:
            data = self._side.refuse(exchange, error)
        except Exception:
            log.exception("fault in a session")
            beginning.session.close()
            data = self._side.refuse(exchange, WireError(ErrorCode.CONNECTION_HANDLER))
        finally:
            del self._starting[beginning]
        self._send(data)

    async def _renegotiate(self, exchange: Exchange, request: StartTls) -> None:
        await self._answered_by(exchange, self._renegotiated(request))

    async def _renegotiated(self, request: StartTls) -> Message:
        limit = self._pool.config.limits.handshake_timeout_max
        return await self._here_or_elsewhere(commands.renegotiate(self._pool, self, request), request, limit)

    async def _accounted(self, request: Accounting) -> Message:
        limit = self._pool.config.limits.plugin_timeout * 2
        return await self._here_or_elsewhere(commands.account(self._pool, self, request), request, limit)

    async def _here_or_elsewhere(self, here: Coroutine[Any, Any, Message], request: Message, limit: float) -> Message:
        """The answer of this worker, or of the one that knows the session. Raises WireError."""
        try:
            return await here
        except WireError as error:
            mesh = self._pool.mesh
            if mesh is None or error.code != ErrorCode.CTLKEY_NOT_FOUND:
                raise
            if self._token is None:
                self._token = mesh.new_token()
            return await mesh.ask(self._token, request, limit)


def _renegotiation(error: WireError, exchange: Exchange) -> WireError:
    """RENEGOTIATE has a code of its own for a session that is not there."""
    if error.code == ErrorCode.CTLKEY_NOT_FOUND and isinstance(exchange.request, StartTls):
        return WireError(ErrorCode.RENEGOTIATE_NOT_FOUND)
    return error


def _abandon(future: asyncio.Future[CallbackAnswer]) -> None:
    """Nobody waits any more, though an answer may have come in the same moment."""
    if not future.done():
        future.cancel()
    elif not future.cancelled() and future.exception() is None:
        _drop(future.result())


def _drop(answer: CallbackAnswer) -> None:
    """Close and wipe what nobody waits for."""
    message, descriptor = answer
    if descriptor is not None:
        descriptor.close()
    if isinstance(message, PinEntry):
        message.wipe()
