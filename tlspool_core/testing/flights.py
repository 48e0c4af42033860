"""An editor for what two ends of TLS 1.2 say to each other while it is still in the clear.

Theory of operation
-------------------
Up to change_cipher_spec the messages of TLS 1.2 can be read and changed on their way, which is how a test plays the peer that
misbehaves.  `parse` and `build` turn the records of one flight into items and back; the `edit` functions make tamper functions
for a `Pair`.  That the two sides' transcripts then differ is found out by Finished at the latest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tlspool_core.tls.messages import ClientHello, ServerHello

CHANGE_CIPHER_SPEC: Final = 20
HANDSHAKE: Final = 22

# content type, with one handshake message in the clear, or else the content of a record
Item = tuple[int, bytes]
Tamper = Callable[[bytes], bytes]


def parse(data: bytes) -> list[Item]:
    """The records of a flight, which must be complete; handshake messages one by one as far as they are in the clear."""
    found: list[Item] = []
    handshake, clear = b"", True
    while data:
        kind, end = data[0], 5 + int.from_bytes(data[3:5], "big")
        content, data = data[5:end], data[end:]
        if kind != HANDSHAKE or not clear:
            found.append((kind, content))
            clear = clear and kind != CHANGE_CIPHER_SPEC
            continue
        handshake += content
        while len(handshake) >= 4 and len(handshake) >= (size := 4 + int.from_bytes(handshake[1:4], "big")):
            found.append((HANDSHAKE, handshake[:size]))
            handshake = handshake[size:]
    return found


def build(items: list[Item]) -> bytes:
    """Records out of items; a long handshake message is cut into several."""
    records = []
    for kind, content in items:
        for start in range(0, max(len(content), 1), 16384):
            part = content[start : start + 16384] if kind == HANDSHAKE else content
            records.append(bytes((kind, 3, 3)) + len(part).to_bytes(2, "big") + part)
            if kind != HANDSHAKE:
                break
    return b"".join(records)


def message(handshake_type: int, body: bytes) -> Item:
    """One handshake message."""
    return HANDSHAKE, bytes((handshake_type,)) + len(body).to_bytes(3, "big") + body


def edit(change: Callable[[list[Item]], list[Item]]) -> Tamper:
    """Changes flights as lists of items."""
    return lambda data: build(change(parse(data)))


def edit_message(handshake_type: int, change: Callable[[bytes], bytes]) -> Tamper:
    """Changes the body of messages of one type that are in the clear."""

    def each(items: list[Item]) -> list[Item]:
        changed, clear = [], True
        for kind, content in items:
            clear = clear and kind != CHANGE_CIPHER_SPEC
            wanted = clear and kind == HANDSHAKE and content[0] == handshake_type
            changed.append(message(handshake_type, change(content[4:])) if wanted else (kind, content))
        return changed

    return edit(each)


def edit_hello(kind: type[ClientHello] | type[ServerHello], change: Callable[[Any], object]) -> Tamper:
    """Changes fields of ClientHello or ServerHello."""

    def body(raw: bytes) -> bytes:
        hello = kind.parse(raw)
        change(hello)
        return hello.build()

    return edit_message(kind.handshake_type, body)
