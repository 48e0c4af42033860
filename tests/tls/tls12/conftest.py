"""What the tests of TLS 1.2 share: the engine's makers set to that version, and an editor of flights in the clear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tlspool_core.tls.messages import ClientHello, ServerHello
from tlspool_core.tls.settings import TLS12

CCS, HANDSHAKE = 20, 22
Item = tuple[int, bytes]  # content type with: one handshake message in the clear, or the content of any other record


@pytest.fixture
def make(make: Any) -> Any:
    class Maker12(type(make)):  # type: ignore[misc]
        def client(self, **changes: Any) -> Any:
            return super().client(**{"versions": (TLS12,), **changes})

        def server(self, **changes: Any) -> Any:
            return super().server(**{"versions": (TLS12,), **changes})

    return Maker12()


class Flight:
    """Takes the records of one flight apart into messages, as far as they are in the clear, and puts them together again."""

    @staticmethod
    def parse(data: bytes) -> list[Item]:
        found: list[Item] = []
        handshake, clear = b"", True
        while data:
            kind, length = data[0], int.from_bytes(data[3:5])
            content, data = data[5 : 5 + length], data[5 + length :]
            if kind != HANDSHAKE or not clear:
                found.append((kind, content))
                clear = clear and kind != CCS
                continue
            handshake += content
            while len(handshake) >= 4 and len(handshake) >= (end := 4 + int.from_bytes(handshake[1:4])):
                found.append((HANDSHAKE, handshake[:end]))
                handshake = handshake[end:]
        return found

    @staticmethod
    def build(items: list[Item]) -> bytes:
        return b"".join([bytes((kind, 3, 3)) + len(content).to_bytes(2, "big") + content for kind, content in items])

    @classmethod
    def edit(cls, change: Callable[[list[Item]], list[Item]]) -> Callable[[bytes], bytes]:
        """A tamper function for a Pair."""
        return lambda data: cls.build(change(cls.parse(data)))

    @classmethod
    def edit_message(cls, handshake_type: int, change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
        """Changes the body of messages of one type."""

        def each(item: Item) -> Item:
            kind, content = item
            if kind != HANDSHAKE or content[0] != handshake_type:
                return item
            body = change(content[4:])
            return kind, content[:1] + len(body).to_bytes(3, "big") + body

        return cls.edit(lambda items: [each(item) if len(item[1]) >= 4 else item for item in items])

    @classmethod
    def edit_hello(cls, kind: type[ClientHello] | type[ServerHello], change: Callable[[Any], None]) -> Callable[[bytes], bytes]:
        """Changes fields of a parsed ClientHello or ServerHello."""

        def body(raw: bytes) -> bytes:
            hello = kind.parse(raw)
            change(hello)
            return hello.build()

        return cls.edit_message(kind.handshake_type, body)


@pytest.fixture
def flight() -> type[Flight]:
    return Flight
