"""What a session can be asked for beyond its identities: requests and how to read their answers, for both kinds of client.

Channel bindings tie what happens inside of a session (SASL's -PLUS mechanisms, tokens) to that session: RFC 5929, RFC 9266.
"""

from __future__ import annotations

from typing import Final

from tlspool_core.client.errors import PoolVanished
from tlspool_core.wire.flags import InfoKind
from tlspool_core.wire.messages import AccountingData, Info, Message, Prng, PrngOutput

CHANNEL_BINDINGS: Final = {
    "tls-unique": InfoKind.TLS_UNIQUE,
    "tls-server-end-point": InfoKind.TLS_SERVER_END_POINT,
    "tls-exporter": InfoKind.TLS_EXPORTER,
}


def binding_kind(name: str) -> InfoKind:
    """The kind of fact for a channel binding's IANA name. Raises ValueError if the protocol has none for it."""
    try:
        return CHANNEL_BINDINGS[name]
    except KeyError:
        raise ValueError(f"{name}: channel bindings are {', '.join(CHANNEL_BINDINGS)}") from None


def prng(ctlkey: bytes, label: str | bytes, context: bytes | None, length: int) -> Prng:
    """The request for keying material."""
    return Prng(ctlkey, label.encode("ascii") if isinstance(label, str) else label, context, length)


def output(answer: Message, length: int) -> bytes:
    """The keying material; short or other answers are the pool's fault."""
    if not isinstance(answer, PrngOutput) or len(answer.output) != length:
        raise unexpected(answer)
    return answer.output


def value(answer: Message) -> bytes:
    """The fact out of the answer to an INFO query."""
    if not isinstance(answer, Info):
        raise unexpected(answer)
    return answer.value or b""


def microseconds(moment: float | None) -> int | None:
    """Seconds since the epoch to the wire's unit; None stays None."""
    return None if moment is None else round(moment * 1_000_000)


def stamped(answer: Message) -> AccountingData:
    """The accounting record as the pool took it over, with the times that it filled in."""
    if not isinstance(answer, AccountingData):
        raise unexpected(answer)
    return answer


def unexpected(message: Message) -> PoolVanished:
    """An answer of another kind than the question's."""
    return PoolVanished(text=f"The TLS Pool gave an answer that does not belong here: {type(message).__name__}")
