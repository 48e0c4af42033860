"""Does a crowd of clients leave the event loop its turns: is one computed for at a time?"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from srptools import SRPContext
from tlspool_srp.attempts import Attempts
from tlspool_srp.exchange import ServerRun, ServerSrp, UserExtension

from tlspool_core.api import DoNAI
from tlspool_core.testing.memory import MemoryBackend

COMPUTATIONS = ("get_server_public", "get_server_premaster_secret", "get_common_password_verifier")


def test_one_thread_at_a_time_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, most, count = 0, 0, threading.Lock()

    def counted(method: Any) -> Any:
        def work(*arguments: Any, **named: Any) -> Any:
            nonlocal inside, most
            with count:
                inside += 1
                most = max(most, inside)
            try:
                return method(*arguments, **named)
            finally:
                threading.Event().wait(0.01)  # time for others to come in
                with count:
                    inside -= 1

        return work

    for name in COMPUTATIONS:
        monkeypatch.setattr(SRPContext, name, counted(getattr(SRPContext, name)))
    server = ServerSrp(UserExtension(), MemoryBackend(), Attempts(), lambda: DoNAI.parse("example.com"), simulated_bits=1024)

    def serve(number: int) -> bytes:
        run = ServerRun(server, f"user{number}@example.com")
        run.peer_parameters(b"\0\1\5")
        return run.premaster()

    with ThreadPoolExecutor(4) as workers:
        assert all(workers.map(serve, range(8)))
    assert most == 1
