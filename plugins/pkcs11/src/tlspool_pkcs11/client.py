"""The daemon's end of one worker: requests go out, replies come in, without waiting.

Theory of operation
-------------------
A request is written to the socket at once and its future put at the end of a queue; replies come in the same order.  Nothing
waits for an answer before the next request is sent, so a burst of handshakes keeps the token busy without a round trip between
signatures.

A PIN is handed to the kernel from where it lies; once `send` returns it may be wiped.  If the socket takes no more just then, a copy
waits in locked memory.

The watchdog asks one question: has the request at the head of the queue been there longer than it may?  A slow smart card with
a long queue is no hang; a library that does not return is, and then the worker is killed.  From then on, and likewise when the
worker ends by itself or sends nonsense, every request fails with WorkerGone; what is done about it is for `supervisor`.

Readiness callbacks of the event loop are used rather than streams: the cost of a request is then two system calls on this side.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple, TypeVar

from tlspool_core.secret import Secret
from tlspool_pkcs11 import protocol as wire
from tlspool_pkcs11.faults import Cure, cure, remedy
from tlspool_pkcs11.frames import Frames
from tlspool_pkcs11.settings import ModuleSettings

_RECEIVE: Final = 65536
_MAX_PENDING: Final = 16384
_START_TIMEOUT: Final = 30.0
_REAPING: Final = 1.0  # seconds to wait for a process that was killed, where somebody waits
# what libraries commonly need: where their configuration, their card daemon, or the Python installation is
_ENVIRONMENT: Final = frozenset(
    {"PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "PYTHONPATH"}
    | {"SOFTHSM2_CONF", "OPENSC_CONF", "PCSCLITE_CSOCK_NAME", "P11_KIT_SERVER_ADDRESS", "P11_KIT_STRICT", "NSS_DEFAULT_DB_TYPE"}
)

_M = TypeVar("_M", bound=wire.Message)


class WorkerGone(Exception):
    """The worker process ended, hangs, or speaks nonsense; the text says which."""


class TokenFault(Exception):
    """The token library refused a request; `value` is its return value, 0 if the worker itself objected."""

    def __init__(self, value: int, text: str) -> None:
        super().__init__(text)
        self.value = value

    @property
    def cure(self) -> Cure:
        return cure(self.value) if self.value else Cure.FRESH_WORKER

    @property
    def remedy(self) -> str:
        return remedy(self.value)


class _Pending(NamedTuple):
    number: int
    answer: asyncio.Future[wire.Message]
    limit: float


class WorkerClient:
    """One worker process, started and ready for requests. Used on the event loop that started it."""

    def __init__(self, settings: ModuleSettings, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        self.settings = settings
        self.gone = ""  # why it serves no more
        self.tokens: tuple[wire.TokenRecord, ...] = ()
        self.looked_at = float("-inf")  # when the tokens were listed
        self.logged_in: set[int] = set()
        self.objects: dict[int, tuple[wire.ObjectRecord, ...]] = {}
        self.info: wire.Loaded | None = None
        self._process = process
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._frames = Frames(wire.REPLIES)
        self._buffer = bytearray(_RECEIVE)
        self._unsent: deque[bytes | Secret] = deque()
        self._pending: deque[_Pending] = deque()
        self._number = 0
        self._head_since = 0.0
        self._watch_at = 0.0
        self._watchdog: asyncio.TimerHandle | None = None
        self._ended: asyncio.Task[None] | None = None
        self._loop.add_reader(channel, self._readable)

    @classmethod
    async def start(cls, settings: ModuleSettings) -> WorkerClient:
        """Start a process, let it load the library and look at the tokens. Raises WorkerGone and TokenFault."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            try:
                process = _spawn(settings, theirs)
            except OSError as error:
                ours.close()
                raise WorkerGone(f"the worker process cannot be started: {error.strerror}") from error
        worker = cls(settings, process, ours)
        try:
            limit = max(settings.timeout, _START_TIMEOUT)
            configure = wire.Configure(settings.path, settings.init_string)
            worker.info = await worker.call(configure, wire.Loaded, limit)
            worker.tokens = (await worker.call(wire.ListTokens(), wire.Tokens, limit)).tokens
        except BaseException as error:
            worker.end(f"it did not start: {error}")
            with suppress(TimeoutError):  # a device can keep a killed process for as long as it likes
                await asyncio.wait_for(worker.closed(), _REAPING)
            raise
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def pending(self) -> int:
        """How many requests are waiting."""
        return len(self._pending)

    async def call(self, request: wire.Message, expected: type[_M], limit: float | None = None) -> _M:
        """Send a request and wait for its reply. Raises TokenFault and WorkerGone."""
        return await self.begin(request, expected, limit)

    def begin(self, request: wire.Message, expected: type[_M], limit: float | None = None) -> Awaitable[_M]:
        """The same in two steps: this sends, and raises WorkerGone; the result, to be awaited, waits."""
        return self._reply(self.send(request, limit), type(request).__name__, expected)

    async def _reply(self, answer: asyncio.Future[wire.Message], asked: str, expected: type[_M]) -> _M:
        reply = await answer
        if isinstance(reply, expected):
            return reply
        if isinstance(reply, wire.Failed):
            raise TokenFault(reply.value, reply.text)
        self.end(f"it answered {asked} with {type(reply).__name__}")
        raise WorkerGone(self.gone)

    def send(self, request: wire.Message, limit: float | None = None) -> asyncio.Future[wire.Message]:
        """Send a request; `limit` is how long it may be at the head of the queue, in seconds. Raises WorkerGone."""
        pin = request.pin if isinstance(request, wire.Login | wire.Sign) else None
        return self.send_body(request.KIND, wire.build_body(request), limit or self.settings.timeout, pin)

    def send_body(self, kind: int, body: bytes, limit: float, pin: Secret | None = None) -> asyncio.Future[wire.Message]:
        """Send a request whose body is made already, and its PIN, if it has one. Raises WorkerGone."""
        if self.gone:
            raise WorkerGone(self.gone)
        if len(self._pending) >= _MAX_PENDING:
            raise WorkerGone(f"{_MAX_PENDING} requests are waiting already")
        self._number = number = (self._number + 1) & 0xFFFFFFFF
        frame = wire.build_frame(number, kind, body, len(pin) if pin is not None else 0)
        answer: asyncio.Future[wire.Message] = self._loop.create_future()
        self._pending.append(_Pending(number, answer, limit))
        if len(self._pending) == 1:
            self._head_since = self._loop.time()
            self._watch()
        self._write(frame)
        if pin is not None:
            self._write_pin(pin)
        return answer

    def _write(self, frame: bytes) -> None:
        if self._unsent:
            self._unsent.append(frame)
            return
        sent = self._hand_over(frame)
        if sent < len(frame):
            self._later(frame[sent:])

    def _write_pin(self, pin: Secret) -> None:
        sent = 0 if self._unsent else self._hand_over(pin.used)
        if sent < len(pin) and not self.gone:
            self._later(Secret.of(pin.used[sent:]))

    def _hand_over(self, piece: bytes | memoryview) -> int:
        """To the kernel: how many bytes it took."""
        try:
            return self._channel.send(piece)
        except BlockingIOError:
            return 0
        except OSError as error:
            self.end(f"its socket failed: {error.strerror}")
            return len(piece)

    def _later(self, piece: bytes | Secret) -> None:
        if not self._unsent:
            self._loop.add_writer(self._channel, self._writable)
        self._unsent.append(piece)

    def _writable(self) -> None:
        piece = self._unsent[0]
        secret = isinstance(piece, Secret)
        left = memoryview(piece) if isinstance(piece, bytes) else piece.used
        left = left[self._hand_over(left) :]
        if self.gone:
            return
        if len(left):
            self._unsent[0] = Secret.of(left) if secret else bytes(left)
        else:
            self._unsent.popleft()
        if isinstance(piece, Secret):
            piece.wipe()
        if not self._unsent:
            self._loop.remove_writer(self._channel)

    def _readable(self) -> None:
        try:
            length = self._channel.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError as error:
            self.end(f"its socket failed: {error.strerror}")
            return
        if not length:
            self.end("it ended by itself")
            return
        try:
            for number, reply in self._frames.feed(memoryview(self._buffer)[:length]):
                self._answered(number, reply)
        except wire.ProtocolError as error:
            self.end(f"it does not keep to the protocol: {error}")

    def _answered(self, number: int, reply: wire.Message) -> None:
        if not self._pending or self._pending[0].number != number:
            raise wire.ProtocolError(f"a reply to request {number}, which is not the next one")
        answer = self._pending.popleft().answer
        self._head_since = self._loop.time()
        if self._pending:
            self._watch()
        if not answer.done():
            answer.set_result(reply)

    def _watch(self) -> None:
        """Have the timer run out no later than the head's limit. It may run out earlier, which costs a look and nothing else."""
        due = self._head_since + self._pending[0].limit
        if self._watchdog is not None:
            if self._watch_at <= due:
                return
            self._watchdog.cancel()
        self._watch_at = due
        self._watchdog = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        self._watchdog = None
        if not self._pending:
            return
        limit = self._pending[0].limit
        if self._loop.time() - self._head_since >= limit:
            self.end(f"it gave no answer for {limit:g} seconds")
        else:
            self._watch()

    def end(self, reason: str) -> None:
        """Kill the process and let every request fail with this reason. More than once is as good as once."""
        if self.gone:
            return
        self.gone = reason
        self._loop.remove_reader(self._channel)
        self._loop.remove_writer(self._channel)
        self._channel.close()
        while self._unsent:
            piece = self._unsent.popleft()
            if isinstance(piece, Secret):
                piece.wipe()
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._process.kill()
        self._ended = self._loop.create_task(self._reap())
        while self._pending:
            answer = self._pending.popleft().answer
            if not answer.done():
                answer.set_exception(WorkerGone(reason))

    async def _reap(self) -> None:
        """Wait for the killed process off the event loop: it takes as long as the kernel takes to free its memory."""
        code = await asyncio.to_thread(self._process.wait)
        if code < 0 and -code != signal.SIGKILL:
            self.gone += f" ({signal.Signals(-code).name})"

    async def drained(self, limit: float) -> None:
        """Wait until what has been asked is answered, at most `limit` seconds."""
        if self._pending:
            await asyncio.wait([self._pending[-1].answer], timeout=limit)

    async def closed(self) -> None:
        """Wait until the process is gone for good, after `end`."""
        if self._ended is not None:
            await asyncio.shield(self._ended)


def _spawn(settings: ModuleSettings, channel: socket.socket) -> subprocess.Popen[bytes]:
    """Start the process by exec: nothing is inherited but the socket (as standard input) and a few variables."""
    errors = None if settings.errors_to_log else subprocess.DEVNULL
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "tlspool_pkcs11.worker", str(os.getpid())],
        stdin=channel.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=errors,
        close_fds=True,
        cwd="/",
        env=_environment(os.environ, settings),
        start_new_session=True,
    )


def _environment(ours: Mapping[str, str], settings: ModuleSettings) -> dict[str, str]:
    inherited = _ENVIRONMENT | settings.environment.keys()
    given = {name: value for name, value in settings.environment.items() if value is not None}
    return {name: value for name, value in ours.items() if name in inherited} | given
