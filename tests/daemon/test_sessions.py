"""Do two applications reach each other through two pools, and learn who the other one is?"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

from toyplugin import CLIENT, SERVER

from tlspool_core.client import PoolError, Session


def both(server: Any, client: Any, server_wishes: dict[str, Any], client_wishes: dict[str, Any]) -> list[Session | PoolError]:
    """STARTTLS at both ends of one connection; each outcome is a session or an error: server's, then client's."""
    ends = socket.socketpair()
    outcomes: list[Any] = [None, None]

    def run(index: int, call: Callable[..., Session], wishes: dict[str, Any]) -> None:
        try:
            outcomes[index] = call(ends[index], timeout=10, **wishes)
        except PoolError as error:
            outcomes[index] = error

    calls = [(0, server.starttls_server, server_wishes), (1, client.starttls_client, client_wishes)]
    threads = [threading.Thread(target=run, args=one) for one in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return outcomes


def test_both_roles(daemons: Callable[..., Any]) -> None:
    here, there = daemons(), daemons()
    server, client = both(here.pool, there.pool, {"localid": SERVER}, {"remoteid": SERVER})
    assert isinstance(server, Session) and isinstance(client, Session)
    with server, client:
        assert (server.localid, server.remoteid) == (SERVER, CLIENT)
        assert (client.localid, client.remoteid) == (CLIENT, SERVER)
        client.plaintext.sendall(b"hello")
        assert server.plaintext.recv(100) == b"hello"
        server.plaintext.sendall(b"welcome")
        assert client.plaintext.recv(100) == b"welcome"
