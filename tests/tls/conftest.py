"""What the tests of the engine share: pairs in memory, and a socket driver for programs of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tlspool_core.testing.lies import lying
from tlspool_core.testing.peers import Answers, Pair, TicketBox, software_credential
from tlspool_core.testing.programs import Link, Programs
from tlspool_core.tls import TlsConnection
from tlspool_core.tls.settings import TLS13, ClientSettings, ServerSettings


class Maker:
    """Makes pairs; what is not given is the ordinary case of TLS 1.3 with an ECDSA server."""

    def __init__(self) -> None:
        self.tickets = TicketBox()

    def client(self, **changes: Any) -> ClientSettings:
        return ClientSettings(**{"versions": (TLS13,), "server_name": "testserver", **changes})

    def server(self, **changes: Any) -> ServerSettings:
        return ServerSettings(**{"versions": (TLS13,), **changes})

    def answers(self, kind: str = "ecdsa-p256", **changes: Any) -> Answers:
        return Answers(**{"credentials": (software_credential(kind),), "tickets": self.tickets, **changes})

    def pair(
        self,
        client: ClientSettings | None = None,
        server: ServerSettings | None = None,
        client_answers: Answers | None = None,
        server_answers: Answers | None = None,
    ) -> Pair:
        return Pair(
            TlsConnection(client or self.client()),
            TlsConnection(server or self.server()),
            client_answers or Answers(),
            server_answers or self.answers(),
        )

    def established(self, **parts: Any) -> Pair:
        pair = self.pair(**parts)
        pair.run()
        assert pair.complete, (pair.client.failed, pair.server.failed)
        return pair


@pytest.fixture
def make() -> Maker:
    return Maker()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    started = Programs(tmp_path)
    yield started
    started.end()


@pytest.fixture
def link() -> type[Link]:
    return Link


@pytest.fixture
def tampering() -> Callable[[Any, Callable[[bytes], list[bytes]]], TlsConnection]:
    """Makes a connection from settings and a function from each of its messages to what is sent instead."""
    return lying
