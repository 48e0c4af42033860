"""Several workers for one pool: starts them, starts those anew that crash, passes on signals and messages, and stops them.

Theory of operation
-------------------
The supervisor is one thread that waits for three things: signals, messages, and the end of a worker.  It loads no plugin and sees
no session, so that there is little in it that could fail.  Workers are forked from it before anything else is started in it; they
share the listening sockets, and the seed of the ticket keys.

A worker that ends before it ever served is a mistake in the configuration, and ends the pool.  One that ends later is replaced,
after a pause that grows while it happens often.  A worker notices the end of the supervisor by a signal of the kernel.

All workers start with the configuration that the supervisor has read.  So whoever becomes ready after a reload is told to reload, too:
a worker that is just starting, whom the signal would end, and one that replaces another.

A message with a PIN is passed on from locked memory, and wiped.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from tlspool_core.pool import notify
from tlspool_core.pool.listeners import Listener
from tlspool_core.pool.logs import say
from tlspool_core.pool.mesh import ALL, ASK, ASKED, FRAME, READY, SUPERVISOR, receive
from tlspool_core.secret import Secret

log = logging.getLogger("tlspool.supervisor")

_PR_SET_PDEATHSIG = 1
_PAUSE = (0.5, 30.0)  # seconds before a crashed worker is replaced: at first, and at most
_CALM = 60.0  # seconds of service after which a crash counts as the first one
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(slots=True)
class Worker:
    """One worker process, or the place where it will be again at the time `due`."""

    number: int
    pid: int = 0
    link: socket.socket | None = None
    ready: bool = False
    started: float = 0.0
    crashes: int = 0
    due: float = 0.0


class Supervisor:
    """Runs `count` workers; `work(number, link)` is called in each, and serves until it is told to stop."""

    def __init__(self, count: int, listeners: Sequence[Listener], work: Callable[[int, socket.socket], None]) -> None:
        self._workers = [Worker(number) for number in range(count)]
        self._listeners = listeners
        self._work = work
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self._failed = False
        self._announced = False
        self._reloaded = False

    def run(self) -> int:
        """Until all workers have ended; the exit status."""
        woken, wakes = socket.socketpair()
        for end in (woken, wakes):
            end.setblocking(False)
        signal.set_wakeup_fd(wakes.fileno())
        for number in (*_PASSED_ON, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self._selector.register(woken, selectors.EVENT_READ, None)
        while not (self._stopping and not any(worker.pid for worker in self._workers)):
            self._start_due()
            for key, _ in self._selector.select(self._patience()):
                if key.data is None:
                    self._signalled(woken.recv(4096))
                elif key.data.link is key.fileobj:  # its worker may have been reaped in this very round
                    self._forward(key.data)
            notify.notify("WATCHDOG=1")
        return 1 if self._failed else 0

    def _patience(self) -> float | None:
        """Seconds until something must be done in any case."""
        waits = [worker.due - time.monotonic() for worker in self._workers if not worker.pid and not self._stopping]
        waits += [interval] if (interval := notify.watchdog_interval()) else []
        return max(0.0, min(waits)) if waits else None

    # --- workers -------------------------------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        for worker in self._workers:
            if not worker.pid and not self._stopping and worker.due <= time.monotonic():
                self._start(worker)

    def _start(self, worker: Worker) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._become(worker.number, theirs)
        theirs.close()
        worker.pid, worker.link, worker.ready, worker.started = pid, ours, False, time.monotonic()
        self._selector.register(ours, selectors.EVENT_READ, worker)

    def _become(self, number: int, link: socket.socket) -> NoReturn:
        """In the new process: leave what is the supervisor's behind, and work."""
        status = 70
        try:
            signal.set_wakeup_fd(-1)
            for one in (*_PASSED_ON, signal.SIGCHLD):
                signal.signal(one, signal.SIG_DFL)
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            for variable in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
                os.environ.pop(variable, None)
            for other in self._workers:
                if other.link is not None:
                    other.link.close()
            self._selector.close()
            self._work(number, link)
            status = 0
        except Exception as error:
            # the texts of expected errors are for the operator; what is a fault was logged where it happened
            print(f"Error: {error}", file=sys.stderr)
            status = 78
        finally:
            logging.shutdown()
            with contextlib.suppress(Exception):
                sys.stderr.flush()
            os._exit(status)

    def _reap(self) -> None:
        for worker in self._workers:
            while worker.pid:
                pid, status = os.waitpid(worker.pid, os.WNOHANG)
                if pid == 0:
                    break
                self._ended(worker, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: Worker, status: int) -> None:
        if worker.link is not None:
            self._selector.unregister(worker.link)
            worker.link.close()
        worker.pid, worker.link = 0, None
        if self._stopping:
            return
        if not worker.ready and not self._announced:
            say(log, logging.ERROR, "worker cannot start", worker=worker.number, status=status)
            self._failed = True
            self._stop(signal.SIGTERM)
            return
        calm = time.monotonic() - worker.started > _CALM
        worker.crashes = 0 if calm else worker.crashes + 1
        pause = min(_PAUSE[0] * 2**worker.crashes, _PAUSE[1])
        worker.due = time.monotonic() + pause
        say(log, logging.ERROR, "worker ended, and will be replaced", worker=worker.number, status=status, seconds=pause)

    # --- signals -------------------------------------------------------------------------------------------------------------

    def _signalled(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGCHLD:
                self._reap()
            elif number == signal.SIGHUP:
                self._reloaded = True
                self._pass_on(number, [worker for worker in self._workers if worker.ready])
            else:
                self._stop(number)

    def _pass_on(self, number: int, workers: Sequence[Worker]) -> None:
        for worker in workers:
            if worker.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, number)

    def _stop(self, number: int) -> None:
        if not self._stopping:
            notify.stopping()
            self._stopping = True
            for listener in self._listeners:
                listener.close()
        self._pass_on(number, self._workers)

    # --- messages ------------------------------------------------------------------------------------------------------------

    def _forward(self, sender: Worker) -> None:
        """One message from a worker: to whom it is for."""
        assert sender.link is not None
        frame: bytes | Secret = b""
        with contextlib.suppress(OSError):
            frame = receive(sender.link)
        if len(frame) < FRAME.size:  # its end is near; SIGCHLD tells
            self._selector.unregister(sender.link)
            sender.link.close()
            sender.link = None
            return
        if isinstance(frame, bytes):
            self._pass_to(sender, frame)
        else:
            with frame:
                self._pass_to(sender, frame.used)

    def _pass_to(self, sender: Worker, frame: bytes | memoryview) -> None:
        kind, _, destination, number = FRAME.unpack_from(frame)
        if kind == READY:
            self._is_ready(sender)
        elif destination == ALL:
            sent = sum(self._deliver(worker, frame) for worker in self._workers if worker is not sender and worker.ready)
            if kind == ASK:
                self._deliver(sender, FRAME.pack(ASKED, SUPERVISOR, sender.number, number) + sent.to_bytes(2))
        elif destination < len(self._workers):
            self._deliver(self._workers[destination], frame)

    def _deliver(self, worker: Worker, frame: bytes | memoryview) -> bool:
        """A worker that does not read loses the message, and nobody waits for it."""
        try:
            return worker.link is not None and worker.link.send(frame) == len(frame)
        except OSError:
            return False

    def _is_ready(self, worker: Worker) -> None:
        worker.ready = True
        if self._reloaded:
            self._pass_on(signal.SIGHUP, [worker])
        if not self._announced and all(one.ready for one in self._workers):
            self._announced = True
            notify.ready()
            say(log, logging.INFO, "all workers serve", workers=len(self._workers))
