"""What a handshake coroutine works with, in both roles and versions.

Theory of operation
-------------------
`Handshake` is the context that `connect()` and `accept()`, and the coroutines of `tls12` and `tls13` behind them, are given.
It is dropped when the coroutine returns; what must outlive it goes into the `Established` that the coroutine returns.

    hello = await hs.read(ClientHello)           # parsed, order checked, added to the transcript
    answer = await hs.ask(SomeQuestion(...))     # raises what the driver refuses with
    hs.send(ServerHello(...))                    # added to the transcript, sent with the next flush

`read` adds to the transcript at once: whatever is computed over the messages *before* it (the content of CertificateVerify, the
expected Finished) is computed before the read.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

from tlspool_core.tls.alerts import (
    AlertReceived,
    HandshakeMessageTooLong,
    InternalError,
    RenegotiationRefused,
    UnexpectedChangeCipherSpec,
    UnexpectedHandshakeMessage,
    UnexpectedRecordType,
)
from tlspool_core.tls.channel import Channel
from tlspool_core.tls.driver import Wait, ask, more_input
from tlspool_core.tls.enums import ContentType
from tlspool_core.tls.messages import Message, frame, message_name
from tlspool_core.tls.questions import Call, HandshakeFacts, JudgePeer
from tlspool_core.tls.record import CcsRule
from tlspool_core.tls.seams import Credential, PeerCredential, Version
from tlspool_core.tls.settings import TLS13, Settings, StoredSession
from tlspool_core.tls.transcript import Transcript

A = TypeVar("A")
T = TypeVar("T")
M = TypeVar("M", bound=Message)
S = TypeVar("S", bound=Settings)
Turned = TypeVar("Turned", bound=Settings)

MAX_CONTEXT = 8192  # of JudgePeer's answer

_HANDSHAKE: Final = int(ContentType.HANDSHAKE)


def _names(kinds: tuple[type[Message], ...]) -> str:
    return " or ".join(kind.__name__ for kind in kinds)


class Handshake(Generic[S]):
    """Context of one handshake; `role` is "client" or "server"."""

    __slots__ = (
        "_facts",
        "_frozen",
        "_held",
        "_received",
        "channel",
        "context",
        "judged",
        "own",
        "peer",
        "random",
        "raw",
        "role",
        "sessions",
        "settings",
        "transcript",
    )

    def __init__(self, role: str, settings: S, channel: Channel) -> None:
        self.role = role
        self.settings = settings
        self.channel = channel
        self.transcript = Transcript()
        self.random: Callable[[int], bytes] = settings.random or os.urandom
        self.raw = b""  # the last message read, with its header
        self.peer: PeerCredential | None = None
        self.own: Credential | None = None
        self.context = b""  # JudgePeer's answer, to be stored with the session
        self.sessions: list[StoredSession] = []  # client: tickets received on the way
        self.judged = False
        self._facts: dict[str, Any] = {"role": role, "version": 0, "cipher_suite": 0, "cipher_suite_name": ""}
        self._frozen: HandshakeFacts | None = None
        self._received = 0
        self._held: tuple[int, bytes] | None = None  # looked at by `next_type`, not yet read

    def now(self) -> float:
        """Seconds since the epoch."""
        return (self.settings.now or time.time)()

    def turned(self, role: str, settings: Turned) -> Handshake[Turned]:
        """A context in the other role, after the message in `raw`; what was sent so far is no part of it."""
        other = Handshake(role, settings, self.channel)
        other.raw = self.raw
        other._received = self._received
        return other

    # --- waiting -------------------------------------------------------------------------------------------------------------

    def _take(self) -> tuple[int, bytes] | None:
        """The next item of input that is there."""
        held = self._held
        if held is not None:
            self._held = None
            return held
        item = self.channel.next()
        if item is None and self.channel.peer_closed:
            raise AlertReceived(0)
        return item

    async def _next(self) -> tuple[int, bytes]:
        while (item := self._take()) is None:
            await more_input()
        return item

    def _parse(self, item: tuple[int, bytes], kinds: tuple[type[Message], ...], add: bool) -> Message:
        """A message out of an item that must be one of `kinds`."""
        content_type, raw = item
        if content_type != _HANDSHAKE:
            raise UnexpectedRecordType(f"content type {content_type} instead of {_names(kinds)}")
        self._received += len(raw)
        if self._received > self.settings.max_handshake_bytes:
            raise HandshakeMessageTooLong(f"{self._received} bytes of handshake")
        for kind in kinds:
            if kind.handshake_type == raw[0]:
                break
        else:
            raise UnexpectedHandshakeMessage(f"{message_name(raw[0])} instead of {_names(kinds)}")
        message = kind.parse(raw[4:])
        self.raw = raw
        if add:
            self.transcript.add(raw)
        return message

    async def read_any(self, *kinds: type[Message], add: bool = True) -> Message:
        """The next handshake message, which must be one of `kinds`. Raises UnexpectedMessage, DecodeError..."""
        while (item := self._take()) is None:
            await more_input()
        return self._parse(item, kinds, add)

    async def read(self, kind: type[M], *, add: bool = True) -> M:
        """The next handshake message, which must be a `kind`; added to the transcript unless `add` is false."""
        while (item := self._take()) is None:
            await more_input()
        message = self._parse(item, (kind,), add)
        assert isinstance(message, kind)
        return message

    async def next_type(self) -> int:
        """Handshake type of the next message, which stays to be read; -1 for other content."""
        if self._held is None:
            self._held = await self._next()
        content_type, raw = self._held
        return raw[0] if content_type == _HANDSHAKE else -1

    async def read_change_cipher_spec(self) -> None:
        """TLS 1.2: the peer's next record is change_cipher_spec; no handshake bytes may precede it."""
        content_type, content = await self._next()
        if content_type == _HANDSHAKE:
            raise UnexpectedHandshakeMessage(f"{message_name(content[0])} instead of change_cipher_spec")
        if content_type != ContentType.CHANGE_CIPHER_SPEC:
            raise UnexpectedRecordType(f"content type {content_type} instead of change_cipher_spec")
        if content != b"\x01":
            raise UnexpectedChangeCipherSpec("content is not a single 1")

    # put a question to the driver of the connection; raises the TlsError that it refuses with
    ask = staticmethod(ask)

    async def call(self, who: str, work: Callable[[], T], *, quick: bool = False) -> T:
        """Have plugin code run, which may block unless it is `quick`; `who` names it for the log."""
        return await self.ask(Call(who, work, quick))

    async def judge(self, peer: PeerCredential | None, context: bytes = b"") -> None:
        """Ask whether the session may go on with this peer, and remember the peer and the context to store."""
        self.peer = peer
        answer = await self.ask(JudgePeer(peer, self.own, self.facts(), context))
        if not isinstance(answer, bytes) or len(answer) > MAX_CONTEXT:
            raise InternalError(f"JudgePeer is answered with at most {MAX_CONTEXT} bytes")
        self.context = answer
        self.judged = True

    # --- sending -------------------------------------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Add to the transcript and to the next flush."""
        raw = frame(message.handshake_type, message.build())
        self.transcript.add(raw)
        self.channel.queue(raw)

    def send_untracked(self, message: Message) -> None:
        """As `send`, for what is no part of the transcript (NewSessionTicket in TLS 1.3)."""
        self.channel.queue(frame(message.handshake_type, message.build()))

    def send_change_cipher_spec(self) -> None:
        self.channel.write(ContentType.CHANGE_CIPHER_SPEC, b"\x01")

    def start_version(self, version: Version) -> None:
        """The version is negotiated: from here on its rules hold for records and alerts."""
        tls13 = version == TLS13
        self.know(version=version, extended_master_secret=tls13)  # what RFC 7627 brought to TLS 1.2 is always so in TLS 1.3
        self.channel.records.version = version
        if tls13:
            self.channel.strict_alerts = True
            self.channel.records.change_cipher_spec = CcsRule.DROP
            self.channel.records.padding = self.settings.padding

    def key_log(self, client_random: bytes, **secrets: bytes) -> None:
        """NSS key log lines by their labels, only if the settings have a key log."""
        log = self.settings.key_log
        if log is not None:
            for label, secret in secrets.items():
                log(f"{label} {client_random.hex()} {secret.hex()}")

    # --- facts ---------------------------------------------------------------------------------------------------------------

    def know(self, **facts: object) -> None:
        """Note facts, by the field names of HandshakeFacts."""
        self._facts.update(facts)
        self._frozen = None

    def adopt_facts(self, facts: HandshakeFacts) -> None:
        """Start from what is known of an established session."""
        self._facts = {name: getattr(facts, name) for name in facts.__slots__}
        self._frozen = None

    def fact(self, name: str) -> Any:
        """One of them, None if it is not known."""
        return self._facts.get(name)

    def facts(self) -> HandshakeFacts:
        """What is known so far."""
        if self._frozen is None:
            self._frozen = HandshakeFacts(**self._facts)
        return self._frozen


class Established(ABC):
    """What remains of a handshake when its coroutine has returned: one class per version.

    The base does what the versions have in common: nothing, or a refusal.
    """

    __slots__ = ("channel", "facts", "own", "peer", "sessions")

    def __init__(self, hs: Handshake[Any]) -> None:
        self.channel = hs.channel
        self.facts = hs.facts()
        self.peer = hs.peer
        self.own = hs.own
        self.sessions: list[StoredSession] = hs.sessions

    @abstractmethod
    def export(self, label: bytes, context: bytes | None, length: int) -> bytes:
        """Keying material exporter, RFC 5705 or RFC 8446 section 7.5."""

    @abstractmethod
    def channel_binding(self, kind: str) -> bytes | None:
        """Channel binding data by its IANA name, None if this version or role has no such thing."""

    @abstractmethod
    def receive(self, message: bytes) -> Coroutine[Wait, Any, Established | None] | None:
        """A handshake message, with its header, that came after the handshake. Raises a TlsError, which ends the connection.

        What has to ask or read on is returned as a coroutine; if that returns an Established, it takes the place of this one.
        """

    def received_data(self) -> None:  # noqa: B027 - only TLS 1.3 counts
        """Application data came in."""

    def before_sending(self) -> None:  # noqa: B027 - only TLS 1.3 has KeyUpdate
        """Application data is about to go out: time to change keys that are used up."""

    def update_keys(self, request_peer: bool) -> None:
        """Change our sending keys, and ask the peer to change its."""
        raise RenegotiationRefused("this version of TLS has no KeyUpdate")

    def authenticate_client(self) -> None:
        """Start post-handshake authentication."""
        raise RenegotiationRefused("this version of TLS has no post-handshake authentication")
