"""uvicorn behind the pool: TLS is the pool's, and the application finds who is connected in its scope.

    uvicorn --http tlspool_core.client.asgi:PoolProtocol shop:app --port 443

    async def app(scope, receive, send):
        who = scope["extensions"]["tlspool"]["remoteid"]

Theory of operation
-------------------
uvicorn takes the class of its HTTP protocol from its configuration; this one comes before the one that speaks HTTP.  When a
connection is made it takes the socket out of uvicorn's transport, before anything was read, has the entrance (see `web`) make plaintext of
it in a task, and connects the real protocol to that.  So workers, reloading, WebSockets and time limits are uvicorn's as ever.

A connection that waits or shakes hands is held among the server's connections: it counts for its limit of concurrency, and ends with it.
No more than `web.HANDSHAKES` go on at a time, and no more than `WAITING` wait for their turn.
"""

from __future__ import annotations

import asyncio
import copy
import errno
import os
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, ClassVar, Final, cast
from weakref import WeakKeyDictionary

from uvicorn.config import Config
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.server import ServerState

from tlspool_core.client import web

WAITING: Final = 1024  # connections that wait for others' handshakes

Scope = MutableMapping[str, Any]
Application = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


class PoolProtocol(asyncio.Protocol):
    """What uvicorn makes for each connection. Set `entrance` in a class of your own to say whom to be and whom to let in."""

    entrance: ClassVar[web.Entrance] = web.ByPool()
    http_protocol: ClassVar[Callable[..., asyncio.Protocol]] = AutoHTTPProtocol  # which speaks HTTP

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._config = config
        self._state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket; uvicorn's transport reads nothing of it."""
        transport = cast(asyncio.Transport, transport)  # uvloop's are none by their class
        turns = _turns(self._loop)
        try:
            if self._config.is_ssl:
                raise PermissionError("TLS is the pool's: leave out uvicorn's options that begin with --ssl")
            if turns.waiting >= WAITING:
                raise OSError(errno.ENOBUFS, f"{WAITING} connections wait for others' handshakes")
            sock = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        except OSError as fault:
            web.log_refusal(fault)
            return
        finally:
            transport.abort()  # closes its descriptor, and leaves the connection alone
        self._connections.add(self)
        self._task = self._loop.create_task(self._enter(sock, turns))

    def shutdown(self) -> None:
        """uvicorn ends."""
        if self._task is not None:
            self._task.cancel()

    @property
    def _connections(self) -> set[Any]:
        return self._state.connections

    async def _enter(self, sock: socket.socket, turns: _Turns) -> None:
        """From TLS to HTTP."""
        try:
            async with turns:
                arrival = await self.entrance.admit(sock)
            await self._serve(arrival)
        except Exception as fault:
            web.log_refusal(fault)
        finally:
            sock.close()
            self._connections.discard(self)

    async def _serve(self, arrival: web.Arrival) -> None:
        """Connect the protocol that speaks HTTP, with an application that is told who is there."""
        with arrival.socket as plain:
            config = copy.copy(self._config)
            config.loaded_app = _Identified(self._config.loaded_app, arrival.proven)
            http = self.http_protocol(config=config, server_state=self._state, app_state=self._app_state, _loop=self._loop)
            plain.setblocking(False)
            await self._loop.create_connection(lambda: _Introduction(http, arrival), sock=socket.socket(fileno=plain.detach()))


class _Turns:
    """Whose turn it is to shake hands."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(web.HANDSHAKES)
        self.waiting = 0

    async def __aenter__(self) -> None:
        self.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self.waiting -= 1

    async def __aexit__(self, *failure: object) -> None:
        self._slots.release()


_all_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()


def _turns(loop: asyncio.AbstractEventLoop) -> _Turns:
    return _all_turns.setdefault(loop, _Turns())


class _Introduction(asyncio.Protocol):
    """Stands in until the connection is made, then leaves its place to the protocol that speaks HTTP."""

    def __init__(self, http: asyncio.Protocol, arrival: web.Arrival) -> None:
        self._http = http
        self._arrival = arrival

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)
        transport.set_protocol(self._http)
        self._http.connection_made(_Transport(transport, self._arrival))  # type: ignore[arg-type] # has all that is used of one


class _Transport:
    """The transport of the plaintext, with the addresses of the connection that TLS runs over."""

    def __init__(self, transport: asyncio.Transport, arrival: web.Arrival) -> None:
        self._transport = transport
        self._extra = {
            "socket": None,
            "peername": _host_and_port(arrival.client),
            "sockname": _host_and_port(arrival.server),
            "sslcontext": arrival.proven,  # is true if there is TLS
        }

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As asyncio's."""
        return self._extra[name] if name in self._extra else self._transport.get_extra_info(name, default)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _host_and_port(address: Any) -> Any:
    """Of IPv6 without flow and scope."""
    return address[:2] if isinstance(address, tuple) else address


class _Identified:
    """An application that finds in its scope what was proven."""

    def __init__(self, application: Application, proven: web.Proven | None) -> None:
        self._application = application
        self._extensions = proven.extensions() if proven is not None else {}

    async def __call__(self, scope: Scope, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        told = {name: value for name, value in scope.get("extensions", {}).items() if name not in ("tls", "tlspool")}
        scope["extensions"] = told | copy.deepcopy(self._extensions)
        await self._application(scope, receive, send)
