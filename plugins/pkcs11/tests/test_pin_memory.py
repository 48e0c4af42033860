"""Does a PIN lie nowhere but in locked memory on its way into the process of a token library, and nowhere at all once it has served?

What passes through the daemon is searched for in `tests/desks/test_pin_memory.py`, with a whole pool.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from tlspool_pkcs11 import protocol as wire
from tlspool_pkcs11.client import WorkerClient
from tlspool_pkcs11.frames import Frames
from tlspool_pkcs11.settings import ModuleSettings

from tlspool_core.api import Secret
from tlspool_core.testing.keystore import Typist
from tlspool_core.testing.traces import may_look, traces

PIN = "Rk-9347+Skua"
needs_root = pytest.mark.skipif(not may_look(), reason="only root may look into the memory of a process that forbids debuggers")


@needs_root
def test_a_login_for_each_signature_leaves_nothing_behind(hsm: Any) -> None:
    """CKA_ALWAYS_AUTHENTICATE: the PIN goes between C_SignInit and C_Sign."""
    module = hsm.module()["path"]
    hsm.run("softhsm2-util", "--init-token", "--free", "--label", "Own", "--pin", PIN, "--so-pin", "87654321")
    hsm.run(sys.executable, str(Path(__file__).with_name("fill_token.py")), module, "Own", PIN)

    async def work(store: Any) -> None:
        key = await store.find("pkcs11:token=Own;object=careful")
        for _ in range(3):
            assert await key.sign(0x0403, b"content")
        assert traces(hsm.inner(store).present.pid, PIN) == []

    hsm.use(work, ask=Typist(PIN), pin_file=None)


class Process:
    """A worker that does not read."""

    pid = 0

    def kill(self) -> None:
        pass

    def wait(self) -> int:
        return 0


def stuck() -> tuple[WorkerClient, socket.socket]:
    """A worker whose socket takes no more; to be made on an event loop."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    worker = WorkerClient(ModuleSettings("/fake.so", "fake"), Process(), ours)  # type: ignore[arg-type]
    while not worker._unsent:
        worker.send(wire.Sign(1, 0x1041, 0, (), bytes(100_000))).cancel()
    return worker, theirs


def test_a_pin_that_has_to_wait_waits_in_locked_memory() -> None:
    async def main() -> None:
        worker, theirs = stuck()
        for number in range(3):
            with Secret.of(f"{PIN}{number}".encode()) as pin:
                worker.send(wire.Sign(2, 0x1041, 1, (), b"data", pin)).cancel()
        waiting = list(worker._unsent)
        assert sum(isinstance(piece, Secret) for piece in waiting) == 3
        assert not any(PIN.encode() in piece for piece in waiting if isinstance(piece, bytes))
        frames, received = Frames(wire.REQUESTS), []
        while len(received) < 3:
            data = await asyncio.get_running_loop().sock_recv(theirs, 30_000)
            received += [message for _, message in frames.feed(data) if isinstance(message, wire.Sign) and message.pin]
        assert [message.pin.text() for message in received] == [f"{PIN}{number}" for number in range(3)]
        assert not any(piece for piece in waiting if isinstance(piece, Secret)), "what has left is wiped"
        assert not worker._unsent
        worker.end("it is enough")
        theirs.close()
        await worker.closed()

    asyncio.run(main())


def test_a_pin_that_never_leaves_is_wiped_with_its_worker() -> None:
    async def main() -> None:
        worker, theirs = stuck()
        with Secret.of(PIN.encode()) as pin:
            answer = worker.send(wire.Login(7, 0, pin))
        waiting = [piece for piece in worker._unsent if isinstance(piece, Secret)]
        assert len(waiting) == 1
        worker.end("it was killed")
        assert not any(waiting)
        assert answer.exception()
        theirs.close()
        await worker.closed()

    asyncio.run(main())


def test_a_request_that_comes_in_parts_is_put_together_in_locked_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with Secret.of(PIN.encode()) as pin:
        body = wire.build_body(wire.Sign(1, 0x1041, 1, (), bytes(100_000), pin))
        frame = wire.build_frame(7, wire.Sign.KIND, body, len(pin)) + bytes(pin.used)
    frames, received = Frames(wire.REQUESTS), []
    for at in range(0, len(frame), 30_001):
        piece = bytearray(frame[at : at + 30_001])
        received += list(frames.feed(memoryview(piece)))
        assert not any(piece), "the buffer that it came in is overwritten"
    ((number, message),) = received
    assert number == 7
    assert isinstance(message, wire.Sign)
    assert message.pin is not None
    assert message.pin.text() == PIN
