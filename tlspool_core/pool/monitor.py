"""Answers monitors over HTTP: metrics, whether the pool is alive, and whether it takes sessions; nowhere unless configured.

Theory of operation
-------------------
    GET /metrics   200, the status for Prometheus (`metrics`)
    GET /healthz   200: the event loop turns
    GET /readyz    200 while new sessions are taken, 503 once the pool was told to stop

One request for a connection, without a body; h11 reads it, within a few kibibytes and seconds.  It is plain HTTP and asks nobody who
he is: whoever reaches the socket may read, so the socket is a UNIX one with owner and mode, or an address that the operator names.
Faults are logged, and a monitor that is slow or talks nonsense costs no application anything; but who holds all connections that there
may be at a time keeps other monitors away until their time is over.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from http import HTTPStatus

import h11

from tlspool_core.pool.inquiries import Inquiries
from tlspool_core.pool.metrics import CONTENT_TYPE, exposition
from tlspool_core.pool.status import pool_status

log = logging.getLogger("tlspool.monitor")

_MAX_HEAD = 8192
_PLAIN = "text/plain; charset=utf-8"


class MonitorServer(Inquiries):
    """Answers on one listening socket."""

    time_limit = 15.0
    log = log

    async def _converse(self, connected: socket.socket) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD)
        try:
            request = await _request(http, self._pool.loop, connected)
        except h11.RemoteProtocolError as error:
            status, kind, body = HTTPStatus(error.error_status_hint), _PLAIN, "this is no request for a monitor\n"
            method = b"GET"
        else:
            if request is None:
                return
            method = request.method
            status, kind, body = await self._answer(method, request.target.partition(b"?")[0])
        await self._pool.loop.sock_sendall(connected, _response(http, status, kind, body.encode(), head=method == b"HEAD"))
        connected.shutdown(socket.SHUT_WR)

    async def _answer(self, method: bytes, path: bytes) -> tuple[HTTPStatus, str, str]:
        if method not in (b"GET", b"HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, _PLAIN, "only GET and HEAD\n"
        match path:
            case b"/metrics":
                return HTTPStatus.OK, CONTENT_TYPE, exposition(await pool_status(self._pool))
            case b"/healthz":
                return HTTPStatus.OK, _PLAIN, "alive\n"
            case b"/readyz" if self._pool.stopping:
                return HTTPStatus.SERVICE_UNAVAILABLE, _PLAIN, "stopping\n"
            case b"/readyz":
                return HTTPStatus.OK, _PLAIN, "ready\n"
        return HTTPStatus.NOT_FOUND, _PLAIN, "there are /metrics, /healthz and /readyz\n"


async def _request(http: h11.Connection, loop: asyncio.AbstractEventLoop, connected: socket.socket) -> h11.Request | None:
    """The request's head; None if the monitor left. Raises h11.RemoteProtocolError."""
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(await loop.sock_recv(connected, 4096))
    return event if isinstance(event, h11.Request) else None


def _response(http: h11.Connection, status: HTTPStatus, kind: str, body: bytes, *, head: bool) -> bytes:
    """In one piece. A request that could not be read is answered like one that could."""
    headers = [
        ("Content-Type", kind),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("Connection", "close"),
    ]
    sent = http.send(h11.Response(status_code=status, headers=headers, reason=status.phrase.encode())) or b""
    return sent + (b"" if head else body)
