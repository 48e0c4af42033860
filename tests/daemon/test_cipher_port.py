"""Does a handshake's way to its peer hear and send everything, and leave nothing watched when it is released or called off?"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from tlspool_core.pool.cipher_port import CipherPort
from tlspool_core.pool.readiness import PoolLoop

MUCH = bytes(16 << 20)  # more than a socket's buffers hold
Wait = Callable[[CipherPort], Awaitable[object]]


def run(work: Callable[[CipherPort, socket.socket, socket.socket], Awaitable[None]]) -> None:
    """With a port on one of two connected sockets, which come behind it."""

    async def inside() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for end in (ours, theirs):
                end.setblocking(False)
            async with asyncio.timeout(30):
                await work(CipherPort(asyncio.get_running_loop(), ours), ours, theirs)

    with asyncio.Runner(loop_factory=PoolLoop) as runner:
        runner.run(inside())


def still_watched(sock: socket.socket) -> bool:
    """Whether the loop had a callback for it, which it has no more."""
    loop = asyncio.get_running_loop()
    return any([loop.remove_reader(sock), loop.remove_writer(sock)])


WAITS: dict[str, Wait] = {
    "receive": lambda port: port.receive(),
    "send": lambda port: port.send(MUCH),
    "heard": lambda port: port.heard(30),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_nothing_is_watched_once_it_is_released(wait: Wait) -> None:
    """At once, and not when whoever waits has been called off: the socket may be closed in between."""

    async def work(port: CipherPort, ours: socket.socket, theirs: socket.socket) -> None:
        waiting = asyncio.ensure_future(wait(port))
        await asyncio.sleep(0)
        waiting.cancel()
        port.release()
        assert not still_watched(ours)
        with suppress(asyncio.CancelledError):
            await waiting
        assert not still_watched(ours)

    run(work)


def test_what_was_sent_comes_whole_while_the_peer_speaks() -> None:
    """Bytes that come while nobody receives must not take the writer away."""

    async def work(port: CipherPort, ours: socket.socket, theirs: socket.socket) -> None:
        receiving = asyncio.ensure_future(port.receive())
        await asyncio.sleep(0)
        theirs.send(b"1")
        assert await receiving == b"1"
        sending = asyncio.ensure_future(port.send(MUCH))
        await asyncio.sleep(0)
        theirs.send(b"2")
        await asyncio.sleep(0.01)
        left, loop = len(MUCH), asyncio.get_running_loop()
        while left:
            left -= len(await loop.sock_recv(theirs, 1 << 20))
        await sending
        assert await port.receive() == b"2"
        port.release()
        assert not still_watched(ours)

    run(work)


@pytest.mark.parametrize("ending", [False, True])
def test_what_was_heard_is_left_for_whoever_receives(ending: bool) -> None:
    async def work(port: CipherPort, ours: socket.socket, theirs: socket.socket) -> None:
        assert not await port.heard(0.001)
        hearing = asyncio.ensure_future(port.heard(30))
        await asyncio.sleep(0)
        if ending:
            theirs.close()
        else:
            theirs.send(b"hello")
        assert await hearing
        assert not still_watched(ours)
        assert await port.heard(30)
        assert await port.receive() == (b"" if ending else b"hello")

    run(work)
