"""Does every byte arrive, in order and once, in both directions at the same time?"""

from __future__ import annotations

import asyncio
import random
import socket
from typing import Any

import pytest

from tlspool_core.tls.settings import ClientSettings, ServerSettings

SIZE = 6 << 20


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def trickle(send: Any, data: bytes, seed: int) -> None:
    """Send in chunks of random sizes from one byte to beyond a batch."""
    chooser = random.Random(seed)
    start = 0
    while start < len(data):
        size = chooser.choice((1, 7, 64, 1000, 16384, 16385, 70000, 600000))
        send(data[start : start + size])
        start += size


def collect(receive: Any, total: int) -> bytes:
    parts, length = [], 0
    while length < total and (data := receive()):
        parts.append(data)
        length += len(data)
    return b"".join(parts)


@pytest.mark.parametrize("suite", [0x1301, 0x1302, 0x1303])
@pytest.mark.parametrize("limit", [16385, 1000])
def test_both_directions_at_once(bench: Any, suite: int, limit: int) -> None:
    case = bench.case(client=ClientSettings(cipher_suites=(suite,), record_size_limit=limit), server=ServerSettings())
    size = SIZE if limit == 16385 else SIZE // 8
    there, back = noise(1, size), noise(2, size)

    async def run() -> None:
        results = await asyncio.gather(
            bench.thread(trickle, case.peer.send, there, 3),
            bench.thread(trickle, case.app.sendall, back, 4),
            bench.thread(collect, lambda: case.app.recv(100000), size),
            bench.thread(collect, case.peer.recv, size),
        )
        assert results[2] == there
        assert results[3] == back
        case.peer.finish()
        assert await bench.thread(case.app.recv, 1) == b""
        case.app.shutdown(socket.SHUT_WR)
        assert await bench.thread(case.peer.recv) == b""
        assert await case.ended() == ("closed", size, size)

    bench.run(run())
    case.app.close()
    case.peer.close()
