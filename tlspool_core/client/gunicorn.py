"""gunicorn behind the pool: TLS is the pool's, and the application finds who is connected in its environ.

    gunicorn -k tlspool_core.client.gunicorn.PoolWorker -b :443 shop:app

    def app(environ, start_response):
        who = environ.get("REMOTE_USER")

Theory of operation
-------------------
The worker is gunicorn's own with threads.  Between accepting and the first request an entrance (see `web`) makes plaintext of the
connection, on an event loop in a thread of its own: a slow handshake holds up neither the accepting nor a thread that serves requests.
There are `web.HANDSHAKES` of them at a time and no more; meanwhile connections wait in the kernel's queue.  They wait there, too, when there
are no descriptors left: each connection takes up to three of them while it shakes hands, and one later.

What was proven hangs on the plaintext socket, which gunicorn hands to the application's wrapper with each request.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
import time
from concurrent.futures import Future
from typing import Any, ClassVar, Final

from gunicorn.errors import ConfigError
from gunicorn.workers.gthread import TConn, ThreadWorker

from tlspool_core.client import web

_NOT_NOW: Final = (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK)
_NOWHERE: Final = ("", 0)  # gunicorn would take a client without address for a proxy of ours, and believe its headers
_PAUSE: Final = 0.5  # seconds without accepting, when descriptors run out


class PlaintextSocket(socket.socket):
    """A connection, and what was proven of it."""

    proven: web.Proven | None = None

    @classmethod
    def of(cls, arrival: web.Arrival) -> PlaintextSocket:
        """Becomes the owner of the arrival's socket."""
        made = cls(fileno=arrival.socket.detach())
        made.proven = arrival.proven
        return made


class PoolWorker(ThreadWorker):  # type: ignore[misc] # no type information is published with gunicorn
    """The worker. Set `entrance` in a class of your own to say whom to be and whom to let in."""

    entrance: ClassVar[web.Entrance] = web.ByPool()
    wsgi: Any

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Before anything is started. Raises ConfigError if gunicorn is to do TLS as well."""
        super().check_config(cfg, log)
        if cfg.is_ssl:
            raise ConfigError("TLS is the pool's: leave out certfile and keyfile")

    def init_process(self) -> None:
        """In the worker's process: start the event loop, then serve."""
        self._entering = 0
        self._resume = 0.0  # when descriptors are looked for again, by the monotonic clock
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="entrance", daemon=True).start()
        super().init_process()

    def load_wsgi(self) -> None:
        """Wrap the application, which gunicorn also loads anew."""
        super().load_wsgi()
        application = self.wsgi

        def identified(environ: dict[str, Any], start_response: Any) -> Any:
            web.tell_wsgi(environ, getattr(environ.get("gunicorn.socket"), "proven", None))
            return application(environ, start_response)

        self.wsgi = identified

    def set_accept_enabled(self, enabled: bool) -> None:
        """Not while there are as many handshakes as there may be, or no descriptors."""
        super().set_accept_enabled(enabled and self._entering < web.HANDSHAKES and time.monotonic() >= self._resume)

    def accept(self, listener: Any) -> None:
        """Take a connection, and have it made plaintext."""
        try:
            sock, _ = listener.accept()
        except OSError as fault:
            if fault.errno in web.EXHAUSTED:
                web.log_refusal(fault)
                self._resume = time.monotonic() + _PAUSE
                self.set_accept_enabled(False)
            elif fault.errno not in _NOT_NOW:
                raise
            return
        self.nr_conns += 1
        self._entering += 1
        if self._entering >= web.HANDSHAKES:
            self.set_accept_enabled(False)
        future = asyncio.run_coroutine_threadsafe(self.entrance.admit(sock), self._loop)
        future.add_done_callback(lambda done: self.method_queue.defer(self._entered, done))

    def _entered(self, done: Future[web.Arrival]) -> None:
        """On the main thread: the connection gets its first request read, or is gone."""
        self._entering -= 1
        try:
            arrival = done.result()
        except Exception as fault:
            self.nr_conns -= 1
            web.log_refusal(fault)
            return
        client = arrival.client if isinstance(arrival.client, tuple) else _NOWHERE
        self.enqueue_req(TConn(self.cfg, PlaintextSocket.of(arrival), client, arrival.server))
