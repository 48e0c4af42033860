"""Do connections of tools say where they failed, and notice when the other side vanishes?"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from tlspool_core.tools.endpoints import Acceptor, Endpoint, connect, listen


def watched(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))


def test_both_ends_are_watched() -> None:
    async def main() -> list[bool]:
        found: list[bool] = []
        (listening,) = listen(Endpoint("127.0.0.1", 0))
        handled = asyncio.Event()

        async def handle(sock: socket.socket) -> None:
            found.append(watched(sock))
            handled.set()

        accepting = asyncio.ensure_future(Acceptor("test", [listening], handle, 1).run())
        with await connect(Endpoint("127.0.0.1", listening.getsockname()[1])) as sock:
            found.append(watched(sock))
            await handled.wait()
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)
        return found

    assert asyncio.run(main()) == [True, True]


def test_faults_name_the_endpoint(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        nobody = Endpoint("127.0.0.1", listening.getsockname()[1])
    with pytest.raises(ConnectionRefusedError, match=rf"Connection refused: '{nobody}'"):
        asyncio.run(connect(nobody))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        asyncio.run(connect(Endpoint(path=str(tmp_path / "nowhere"))))
    with pytest.raises(socket.gaierror, match=r"nohost\.invalid"):
        asyncio.run(connect(Endpoint("nohost.invalid", 1)))
