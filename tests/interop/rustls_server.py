"""A web server whose TLS is rustls: PORT CERTIFICATE KEY [AUTHORITY-OF-CLIENTS]; in one process, so that its end is the end of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from granian.constants import Interfaces, SSLProtocols
from granian.server.embed import Server


async def application(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """Says the same to everybody."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello from rustls\n"})


if __name__ == "__main__":
    server = Server(
        application,
        address="127.0.0.1",
        port=int(sys.argv[1]),
        interface=Interfaces.ASGI,
        ssl_cert=Path(sys.argv[2]),
        ssl_key=Path(sys.argv[3]),
        ssl_protocol_min=SSLProtocols.tls12,
        ssl_ca=Path(sys.argv[4]) if len(sys.argv) > 4 else None,
        ssl_client_verify=len(sys.argv) > 4,
    )
    asyncio.run(server.serve())
