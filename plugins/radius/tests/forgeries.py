"""Replies that must not be believed, and a server that sends them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from os import urandom
from socket import AF_INET, SOCK_DGRAM, socket
from threading import Thread
from typing import Any

from tlspool_radius.packets import ACCESS_ACCEPT, ACCOUNTING_RESPONSE

SECRET = b"a shared secret"
VENDOR = bytes([26, 12]) + (9).to_bytes(4, "big") + bytes([1, 6]) + b"four"
PROXY_STATE = bytes([33, 4]) + b"ab"


def answer(
    request: bytes, attributes: bytes = b"", code: int = ACCESS_ACCEPT, secret: bytes = SECRET, *, sign: str = "right"
) -> bytes:
    """A reply with a right Response Authenticator; `sign` is what becomes of the Message-Authenticator."""
    count = {"right": 1, "wrong": 1, "none": 0, "two": 2}[sign]
    length = (20 + 18 * count + len(attributes)).to_bytes(2, "big")
    start = bytes([code, request[1]]) + length
    body = bytes([80, 18]) + bytes(16)
    digest = hmac.digest(secret, start + request[4:20] + body * count + attributes, "md5")
    signed = bytes([80, 18]) + (bytes(16) if sign == "wrong" else digest)
    content = signed * count + attributes
    return start + hashlib.md5(start + request[4:20] + content + secret).digest() + content


BAD = {
    "no Message-Authenticator": lambda raw: answer(raw, sign="none"),
    "a forged Message-Authenticator": lambda raw: answer(raw, sign="wrong"),
    "two Message-Authenticators": lambda raw: answer(raw, sign="two"),
    "another secret": lambda raw: answer(raw, secret=b"another secret"),
    "another identifier": lambda raw: answer(bytes([raw[0], raw[1] ^ 1]) + raw[2:]),
    "another request": lambda raw: answer(raw[:4] + bytes(16)),
    "a code that answers something else": lambda raw: answer(raw, code=ACCOUNTING_RESPONSE),
    "a Proxy-State that was not sent": lambda raw: answer(raw, PROXY_STATE),
    "vendor length 0": lambda raw: answer(raw, VENDOR[:7] + bytes([0]) + VENDOR[8:]),
    "vendor length 1": lambda raw: answer(raw, VENDOR[:7] + bytes([1]) + VENDOR[8:]),
    "vendor length beyond": lambda raw: answer(raw, VENDOR[:7] + bytes([7]) + VENDOR[8:]),
    "vendor without attribute": lambda raw: answer(raw, bytes([26, 6]) + bytes(4)),
    "attribute length 0": lambda raw: answer(raw, bytes([18, 0])),
    "attribute length 1": lambda raw: answer(raw, bytes([18, 1])),
    "attribute length beyond": lambda raw: answer(raw, bytes([18, 9, 0])),
    "half an attribute": lambda raw: answer(raw, bytes([18])),
    "a short Message-Authenticator": lambda raw: answer(raw, bytes([80, 2])),
    "cut": lambda raw: answer(raw)[:-1],
    "nothing": lambda raw: b"",
    "a header's half": lambda raw: answer(raw)[:10],
    "noise": lambda raw: bytes([ACCESS_ACCEPT, raw[1], 0, 200]) + urandom(196),
    "huge": lambda raw: answer(raw)[:2] + (60_000).to_bytes(2, "big") + answer(raw)[4:] + bytes(60_000),
    "too long": lambda raw: answer(raw, (bytes([18, 255]) + bytes(253)) * 17),
}


@contextmanager
def liar(replies: Callable[[bytes], list[bytes]] | Callable[[bytes, Any], list[bytes]]) -> Iterator[int]:
    """A server on loopback that sends what it is told for every request; `replies` may ask for the sender's address, too."""
    wants_sender = len(signature(replies).parameters) == 2
    with socket(AF_INET, SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                raw, sender = bound.recvfrom(5000)
                if raw == b"end":
                    return
                for reply in replies(raw, sender) if wants_sender else replies(raw):
                    bound.sendto(reply, sender)

        thread = Thread(target=serve)
        thread.start()
        try:
            yield bound.getsockname()[1]
        finally:
            with socket(AF_INET, SOCK_DGRAM) as last:
                last.sendto(b"end", bound.getsockname())
            thread.join(10)
