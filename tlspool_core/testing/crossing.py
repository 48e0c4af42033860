"""Two ends that both speak at once over sockets: what tests of symmetric TLS through pools are made of.

For tests only.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from typing import Any

from tlspool_core.client import PoolError, Session

Call = Callable[..., Session]


def meet(one: Call, other: Call, wishes: dict[str, Any], others: dict[str, Any], ends: Any = None) -> list[Any]:
    """STARTTLS at both ends of a connection: two sessions or errors."""
    sockets = ends or socket.socketpair()
    outcomes: list[Any] = [None, None]

    def run(index: int, call: Call, wish: dict[str, Any]) -> None:
        try:
            outcomes[index] = call(sockets[index], **({"timeout": 10} | wish))
        except PoolError as error:
            outcomes[index] = error

    threads = [threading.Thread(target=run, args=each) for each in ((0, one, wishes), (1, other, others))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return outcomes


class Crossing:
    """A connection that holds back what either end says first until both have spoken."""

    def __init__(self) -> None:
        (one, self._one), (other, self._other) = socket.socketpair(), socket.socketpair()
        self.ends = (one, other)
        self.crossed = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for end in (self._one, self._other):
            end.settimeout(10)
        first, second = self._one.recv(65536), self._other.recv(65536)
        self.crossed = first[:1] == second[:1] == b"\x16" and first[5:6] == second[5:6] == b"\1"
        self._one.sendall(second)
        self._other.sendall(first)
        way = {self._one: self._other, self._other: self._one}
        while way:
            for source in select.select(list(way), [], [], 10)[0]:
                data = source.recv(65536)
                if not data:
                    way.pop(source).shutdown(socket.SHUT_WR)
                else:
                    way[source].sendall(data)

    def close(self) -> None:
        """When both ends have left."""
        self._thread.join(10)
        self._one.close()
        self._other.close()
