"""Applications that tell what they are told, for web servers under test."""

from __future__ import annotations

import json
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from tlspool_core.client import asgi, gunicorn, web

NAMES = ("REMOTE_USER", "AUTH_TYPE", "wsgi.url_scheme", "REMOTE_ADDR", "TLSPOOL_LOCALID", "TLSPOOL_REMOTEID", "TLSPOOL_VERSION")


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the scope; a WebSocket gets it once, then its own words back."""
    if scope["type"] == "lifespan":
        return
    told = {name: scope[name] for name in ("scheme", "client", "extensions")} if "extensions" in scope else {}
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": json.dumps(told)})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    body = json.dumps(told).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    """Answers with what the environ has of names that matter."""
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({name: environ[name] for name in NAMES if name in environ}).encode()]


BIG = 16_000_000  # more than all buffers on the way


async def last_words(scope: Any, receive: Any, send: Any) -> None:
    """Much at once."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(BIG).encode())]})
        await send({"type": "http.response.body", "body": b"x" * BIG})


def last_wsgi_words(environ: Any, start_response: Any) -> list[bytes]:
    """The same."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(BIG))])
    return [b"x" * BIG]


OPEN = web.ByPool(localid="www.example.com", remote_identity="requested", timeout=2)


class Open(asgi.PoolProtocol):
    entrance = OPEN


class Plain(Open):
    """By what uvicorn has of its own."""

    http_protocol = H11Protocol


class OpenWorker(gunicorn.PoolWorker):
    entrance = OPEN


class Tunnelled(asgi.PoolProtocol):
    entrance = web.ByTunnel(timeout=2)


class TunnelledFromHere(asgi.PoolProtocol):
    entrance = web.ByTunnel(peers=("127.0.0.0/8",), timeout=2)


class TunnelledWorker(gunicorn.PoolWorker):
    entrance = web.ByTunnel(timeout=2)
