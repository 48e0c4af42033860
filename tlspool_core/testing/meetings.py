"""Two ends that may both be client or server, in memory: what tests of symmetric TLS are made of.

Theory of operation
-------------------
An `End` says how one side is made; its `fill` is every byte of its tie-break, so a test knows who wins.  `pair_of` makes a `Pair` of
two, and `cross` lets both speak before either hears the other, changing the hellos on their way if asked to.

For tests only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tlspool_core.testing.lies import Lie, lying
from tlspool_core.testing.peers import Answers, Pair, TicketBox, answer_all, software_credential
from tlspool_core.tls import TlsConnection
from tlspool_core.tls.codec import u16
from tlspool_core.tls.enums import SYMMETRY, HandshakeType
from tlspool_core.tls.messages import ClientHello, frame
from tlspool_core.tls.questions import ClientAuth
from tlspool_core.tls.settings import TLS13, ClientSettings, PeerSettings, ServerSettings

LOW: Final = b"\x11"
HIGH: Final = b"\xee"

Tamper = Callable[[bytes], bytes]


@dataclass
class End:
    """One end that wants to speak first unless `listens`; `fill` decides on its tie-break."""

    name: str
    fill: bytes
    version: int = TLS13
    listens: bool = False
    may_serve: bool = True
    lie: Lie = lambda message: [message]
    client: dict[str, Any] = field(default_factory=dict)
    server: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)

    def make(self) -> tuple[TlsConnection, Answers]:
        client = ClientSettings(**{"versions": (self.version,), "random": lambda size: self.fill * size, **self.client})
        server = ServerSettings(**{"versions": (self.version,), **self.server})
        answers = Answers(
            **{
                "credentials": (software_credential("ecdsa-p256", self.name),),
                "client_auth": ClientAuth.REQUIRE,
                "tickets": TicketBox(),
                "as_client": None if self.listens else client,
                "as_server": server,
                **self.answers,
            }
        )
        return lying(PeerSettings(may_serve=self.may_serve), self.lie), answers


def low(**changes: Any) -> End:
    """The one that becomes the server if both speak."""
    return End(**{"name": "low", "fill": LOW, **changes})


def high(**changes: Any) -> End:
    """The one that stays the client."""
    return End(**{"name": "high", "fill": HIGH, **changes})


def pair_of(one: End, other: End) -> Pair:
    """`client` of the pair is the first, whatever role it will have."""
    (first, first_answers), (second, second_answers) = one.make(), other.make()
    return Pair(first, second, first_answers, second_answers)


def cross(pair: Pair, step: int = 0, to_server: Tamper = bytes, to_client: Tamper = bytes) -> Pair:
    """Both ends speak before either hears the other; the functions change the hellos on their way."""
    answer_all(pair.client, pair.client_answers)
    answer_all(pair.server, pair.server_answers)
    first, second = to_server(pair.client.data_to_send()), to_client(pair.server.data_to_send())
    pair.step = step
    for receiver, answers, data in ((pair.server, pair.server_answers, first), (pair.client, pair.client_answers, second)):
        for start in range(0, len(data), step or len(data) or 1):
            receiver.receive(data[start : start + (step or len(data))])
            answer_all(receiver, answers)
    pair.run()
    return pair


def rebuilt(data: bytes, change: Callable[[ClientHello], object]) -> bytes:
    """A record with a ClientHello, changed."""
    hello = ClientHello.parse(data[9:])
    change(hello)
    message = frame(HandshakeType.CLIENT_HELLO, hello.build())
    return data[:3] + u16(len(message)) + message


def with_extension(content: bytes | None) -> Tamper:
    """Puts another content into the extension of a hello, or takes it out."""

    def change(hello: ClientHello) -> None:
        hello.extensions.pop(SYMMETRY)
        if content is not None:
            hello.extensions[SYMMETRY] = content

    return lambda data: rebuilt(data, change)
