"""Asks the worker process, in bounded time.

Theory of operation
-------------------
pgpy is not trusted to come to an end, and a thread cannot be killed; a process can.  One worker is started when the first key is to be
read, and kept.  If it does not answer in time it is killed and the key refused; the next request starts another.  Requests wait for
each other, but never longer than the limit.  What was read is kept for a while by the octets of the key: facts do not age, and only
the judgement on them does (see `standing`).

Everything here blocks: it is called in threads, where the pool's own limit holds as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from tlspool_openpgp.facts import KeyFacts, SignatureFacts, certifications_from, key_from
from tlspool_openpgp.packets import MAX_KEY, Malformed, Unsupported, Weak

TIME_LIMIT = 3.0  # seconds for one request, once the worker is ready
START_LIMIT = 8.0  # seconds until a new worker is
READY = b"ready\n"
MAX_ANSWER = 4_000_000  # bytes
_MAX_KEPT = 256
_ERRORS: dict[str, type[ValueError]] = {"malformed": Malformed, "unsupported": Unsupported, "weak": Weak}
COMMAND = (sys.executable, "-P", "-W", "ignore", "-m", "tlspool_openpgp.worker")


class NoAnswer(Exception):
    """The key could not be read in time; says so."""


class _Process:
    """One worker."""

    def __init__(self, command: tuple[str, ...]) -> None:
        environment = {name: os.environ[name] for name in ("PYTHONPATH", "PATH", "LANG", "HOME") if name in os.environ}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment,
            start_new_session=True,
            bufsize=0,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        self.owner = os.getpid()
        self.end = weakref.finalize(self, _end, self._process, self.owner)

    def wait_ready(self, deadline: float) -> None:
        """Until it has loaded what it needs. Raises NoAnswer."""
        if self.ask(b"", deadline) != READY:
            raise NoAnswer("reading OpenPGP keys failed to start")

    def _ready(self, limit: float, *, writing: bool) -> set[int]:
        """Descriptors on which there is something to do. Not by select(), which takes no high ones, and a busy pool has many."""
        poll = select.poll()
        poll.register(self._from, select.POLLIN)
        if writing:
            poll.register(self._to, select.POLLOUT)
        return {descriptor for descriptor, _ in poll.poll(limit * 1000)}

    def ask(self, request: bytes, deadline: float) -> bytes:
        """One line for one line. Raises NoAnswer; the worker is of no use then."""
        received = b""
        while not received.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or len(received) > MAX_ANSWER:
                raise NoAnswer("the OpenPGP key could not be read in time")
            ready = self._ready(left, writing=bool(request))
            try:
                if self._to in ready:
                    request = request[os.write(self._to, request[:65536]) :]
                if self._from in ready:
                    piece = os.read(self._from, 65536)
                    if not piece:
                        raise NoAnswer("reading the OpenPGP key failed")
                    received += piece
            except (BrokenPipeError, ConnectionResetError):
                raise NoAnswer("reading the OpenPGP key failed") from None
        return received


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    """Kill a worker, unless it is a parent's."""
    if owner == os.getpid():
        process.kill()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            pipe.close()  # type: ignore[union-attr] # both are pipes
    if owner == os.getpid():
        process.wait()


def _understood(line: bytes, parse: Callable[[Any], Any]) -> Any:
    """What a line of the worker says. Raises Malformed, Unsupported, Weak, and NoAnswer for what makes no sense."""
    try:
        answer = json.loads(line)
        if "error" not in answer:
            return parse(answer["facts"])
        fault = _ERRORS[answer["error"]](answer["text"])
    except (ValueError, TypeError, KeyError, AttributeError):
        raise NoAnswer("reading the OpenPGP key failed") from None
    raise fault


class Reader:
    """Reads keys; `time_limit` in seconds."""

    def __init__(self, time_limit: float = TIME_LIMIT, command: tuple[str, ...] = COMMAND) -> None:
        self.time_limit = time_limit
        self._command = command
        self._lock = threading.Lock()
        self._process: _Process | None = None
        self._kept: OrderedDict[bytes, Any] = OrderedDict()

    def read(self, key: bytes) -> KeyFacts:
        """Facts about a transferable public key. Raises Malformed, Unsupported, Weak, NoAnswer."""
        facts: KeyFacts = self._known(sha256(key).digest(), {"key": key}, key_from)
        return facts

    def certifications(self, key: bytes, by: bytes) -> dict[str, tuple[SignatureFacts, ...]]:
        """By user id, what another key certified or took back. Raises as `read` does."""
        name = sha256(sha256(key).digest() + sha256(by).digest()).digest()
        found: dict[str, tuple[SignatureFacts, ...]] = self._known(name, {"key": key, "by": by}, certifications_from)
        return found

    def _known(self, name: bytes, request: dict[str, bytes], parse: Callable[[Any], Any]) -> Any:
        with contextlib.suppress(KeyError):
            return self._kept[name]
        for data in request.values():
            if not data or len(data) > MAX_KEY:
                raise Malformed(f"{len(data)} bytes; a key has 1 to {MAX_KEY}")
        line = self._ask(json.dumps({what: data.hex() for what, data in request.items()}).encode() + b"\n")
        found = self._kept[name] = _understood(line, parse)
        while len(self._kept) > _MAX_KEPT:
            with contextlib.suppress(KeyError):
                self._kept.popitem(last=False)
        return found

    def _ask(self, request: bytes) -> bytes:
        if not self._lock.acquire(timeout=self.time_limit + START_LIMIT):
            raise NoAnswer("too many OpenPGP keys are being read")
        try:
            return self._running().ask(request, time.monotonic() + self.time_limit)
        except OSError:
            self._end()
            raise NoAnswer("reading the OpenPGP key failed") from None
        except NoAnswer:
            self._end()
            raise
        finally:
            self._lock.release()

    def _running(self) -> _Process:
        if self._process is not None and self._process.owner != os.getpid():
            self._end()
        if self._process is None:
            self._process = _Process(self._command)
            self._process.wait_ready(time.monotonic() + START_LIMIT)
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end()

    def close(self) -> None:
        """End the worker; the next request starts another."""
        with self._lock:
            self._end()
