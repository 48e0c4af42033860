"""The messages of the socket protocol: one frozen dataclass per command.

Theory of operation
-------------------
A message is what the data union of a packet says; `Packet` adds the header's two numbers.  Fields have Python's types: text is
`str`, raw bytes are `bytes`, absent values are None, and a PIN is a `Secret`.  Units are those of the wire, and named in the comments.

STARTTLS and its callbacks share one structure, and existing applications let every answer overwrite their own copy of it.  So an
answer is never made from nothing: `StartTls.echo()`, `.ask_localid()` and `.ask_plaintext()` copy all fields and change the named
ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from operator import attrgetter
from typing import Any, ClassVar, Self, TypeVar

from tlspool_core.secret import Secret
from tlspool_core.wire.errors import describe
from tlspool_core.wire.flags import (
    ALL_FACILITIES,
    TIMEOUT_DEFAULT,
    Command,
    IpProtocol,
    LidentryFlags,
    StartTlsFlags,
)

NO_CTLKEY = bytes(16)
MAX_IDENTITY = 127  # bytes of UTF-8 of one identity
MAX_PRNG = 350  # bytes of output in one PRNG answer
MAX_PRNG_INPUT = 334  # bytes of label and context together
MAX_INFO = 334  # bytes of one fact
_RENEGOTIATE = int(StartTlsFlags.RENEGOTIATE)


D = TypeVar("D")


@cache
def _names_of(kind: Any) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    """The fields of a kind of message, and what takes their values out of one."""
    names = tuple(each.name for each in fields(kind))
    return names, attrgetter(*names)


def _as(kind: Callable[..., D], data: Any, changes: dict[str, Any]) -> D:
    """The same data, with changes, as a message of a kind that has the same fields."""
    names, values_of = _names_of(kind)
    values = values_of(data)
    return kind(**dict(zip(names, values, strict=True)) | changes) if changes else kind(*values)


@dataclass(frozen=True, slots=True)
class Success:
    """Done, nothing to add."""

    command: ClassVar[Command] = Command.SUCCESS


@dataclass(frozen=True, slots=True)
class Error:
    """A refusal; from the application, in answer to a callback, too."""

    command: ClassVar[Command] = Command.ERROR
    tlserrno: int
    text: str = ""

    @classmethod
    def of(cls, code: int, text: str = "") -> Error:
        """An ERROR with the given text, cut to fit, or with the code's own."""
        return cls(code, clip(text or describe(code)))


@dataclass(frozen=True, slots=True)
class Ping:
    """Who are you, and what can you do? `identity` is YYYYMMDDuser@domain of the API's date and producer."""

    command: ClassVar[Command] = Command.PING
    identity: str = "20151111api@tlspool.arpa2.net"
    facilities: int = ALL_FACILITIES


@dataclass(frozen=True, slots=True)
class StartTlsData:
    """The structure that STARTTLS and its two callbacks share."""

    flags: StartTlsFlags = StartTlsFlags.NONE
    local: int = 0  # bits that a site defined for itself; echoed
    ipproto: int = IpProtocol.TCP
    streamid: int = 0  # of SCTP
    localid: str = ""
    remoteid: str = ""
    ctlkey: bytes = field(default=NO_CTLKEY, repr=False)  # a secret: it controls the session
    service: str = ""
    timeout: int = TIMEOUT_DEFAULT  # milliseconds, TIMEOUT_INFINITE for none

    def echo(self, **changes: Any) -> Self:
        """The same message with the given fields changed: how a final answer, or a callback's answer, is made."""
        return _as(type(self), self, changes)


@dataclass(frozen=True, slots=True)
class StartTlsLocalid(StartTlsData):
    """Callback: is `localid` right? The answer echoes it, changes it, or empties it to refuse."""

    command: ClassVar[Command] = Command.STARTTLS_LOCALID


@dataclass(frozen=True, slots=True)
class PlaintextConnect(StartTlsData):
    """Callback: the handshake is complete, these are the identities; give me the plaintext socket."""

    command: ClassVar[Command] = Command.PLAINTEXT_CONNECT


@dataclass(frozen=True, slots=True)
class StartTls(StartTlsData):
    """Run TLS over the socket that comes along; as an answer: it is running, between these identities."""

    command: ClassVar[Command] = Command.STARTTLS

    @property
    def renegotiates(self) -> bool:
        """It is about a session that is running, so that no descriptor comes along."""
        return bool(int(self.flags) & _RENEGOTIATE)

    def ask_localid(self, **changes: Any) -> StartTlsLocalid:
        """The LOCALID callback of this request."""
        return _as(StartTlsLocalid, self, changes)

    def ask_plaintext(self, **changes: Any) -> PlaintextConnect:
        """The PLAINTEXT_CONNECT callback of this request."""
        return _as(PlaintextConnect, self, changes)


@dataclass(frozen=True, slots=True)
class PinEntry:
    """An offer to answer PIN requests (empty pin), the pool's request, or its answer."""

    command: ClassVar[Command] = Command.PINENTRY
    flags: int = 0
    attempt: int = 0  # 0 for the first
    timeout: int = 0  # microseconds
    prompt: str = ""
    token_manufacturer: str = ""
    token_model: str = ""
    token_serial: str = ""
    token_label: str = ""
    pin: Secret | None = None  # 1 to 127 bytes of UTF-8; whoever has the message wipes it

    def wipe(self) -> None:
        """Wipe the PIN, if there is one."""
        if self.pin is not None:
            self.pin.wipe()


@dataclass(frozen=True, slots=True)
class LidentryData:
    """The structure that both LIDENTRY commands share."""

    flags: LidentryFlags = LidentryFlags.NONE
    maxlevels: int = 0  # how many levels of selectors to offer
    timeout: int = 0  # seconds: of the registration, or for the response
    localid: str = ""
    remoteid: str = ""

    def echo(self, **changes: Any) -> Self:
        """The same message with the given fields changed."""
        return _as(type(self), self, changes)


@dataclass(frozen=True, slots=True)
class LidentryRegister(LidentryData):
    """An offer to choose local identities."""

    command: ClassVar[Command] = Command.LIDENTRY_REGISTER


@dataclass(frozen=True, slots=True)
class LidentryCallback(LidentryData):
    """Callback: an entry of the disclosure database (DBENTRY), or the request to choose; and the answer to either."""

    command: ClassVar[Command] = Command.LIDENTRY_CALLBACK


@dataclass(frozen=True, slots=True)
class ControlData:
    """The structure that both CONTROL commands share."""

    flags: int = 0
    ctlkey: bytes = field(default=NO_CTLKEY, repr=False)
    name: str = ""


@dataclass(frozen=True, slots=True)
class ControlDetach(ControlData):
    """Give up the control of a session."""

    command: ClassVar[Command] = Command.CONTROL_DETACH


@dataclass(frozen=True, slots=True)
class ControlReattach(ControlData):
    """Take control of a detached session."""

    command: ClassVar[Command] = Command.CONTROL_REATTACH


@dataclass(frozen=True, slots=True)
class Prng:
    """Request for exported keying material (RFC 5705; RFC 8446 section 7.5)."""

    command: ClassVar[Command] = Command.PRNG
    ctlkey: bytes = field(repr=False)
    label: bytes
    context: bytes | None
    length: int  # bytes wanted, 1 to MAX_PRNG


@dataclass(frozen=True, slots=True)
class PrngOutput:
    """The answer to Prng."""

    command: ClassVar[Command] = Command.PRNG
    output: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Info:
    """Query (`value` None) or check of one fact of a session; as an answer, the fact."""

    command: ClassVar[Command] = Command.INFO
    ctlkey: bytes = field(repr=False)
    kind: int
    value: bytes | None = None


@dataclass(frozen=True, slots=True)
class AccountingData:
    """The structure that the three accounting commands share. `ctlkey` names the session that proved the identities."""

    ctlkey: bytes = field(default=NO_CTLKEY, repr=False)
    kind: str = ""  # of the thing that is accounted
    instance: str = ""  # of that kind
    localid: str = ""
    remoteid: str = ""
    started: int | None = None  # microseconds since the epoch; None in a request: now, or as started before
    ended: int | None = None  # microseconds since the epoch; None in a stop: now
    count: int | None = None  # number of items
    cause: int = 0  # of a stop: Acct-Terminate-Cause (RFC 2866 section 5.10), 0 for none

    def echo(self, **changes: Any) -> Self:
        """The same message with the given fields changed."""
        return _as(type(self), self, changes)


@dataclass(frozen=True, slots=True)
class AccountingInterim(AccountingData):
    """It goes on; `count` so far."""

    command: ClassVar[Command] = Command.ACCOUNTING_INTERIM


@dataclass(frozen=True, slots=True)
class AccountingStop(AccountingData):
    """It has ended; `count` in all."""

    command: ClassVar[Command] = Command.ACCOUNTING_STOP


@dataclass(frozen=True, slots=True)
class AccountingStart(AccountingData):
    """Something begins to be accounted."""

    command: ClassVar[Command] = Command.ACCOUNTING_START

    def interim(self, count: int | None) -> AccountingInterim:
        """A report on what this began."""
        return AccountingInterim(self.ctlkey, self.kind, self.instance, self.localid, self.remoteid, self.started, None, count)

    def stop(self, count: int | None, ended: int | None, cause: int) -> AccountingStop:
        """The end of what this began."""
        return AccountingStop(self.ctlkey, self.kind, self.instance, self.localid, self.remoteid, self.started, ended, count, cause)


Control = ControlDetach | ControlReattach
Accounting = AccountingStart | AccountingInterim | AccountingStop
StartTlsCallback = StartTlsLocalid | PlaintextConnect
Message = (
    Success
    | Error
    | Ping
    | StartTls
    | StartTlsLocalid
    | PlaintextConnect
    | PinEntry
    | LidentryRegister
    | LidentryCallback
    | ControlDetach
    | ControlReattach
    | Prng
    | PrngOutput
    | Info
    | AccountingStart
    | AccountingInterim
    | AccountingStop
)


@dataclass(frozen=True, slots=True)
class Packet:
    """A message with its header: whose request it belongs to, and which callback (0: none)."""

    reqid: int
    cbid: int
    message: Message


def clip(text: str, size: int = 128) -> str:
    """The longest beginning of a text that fits a field of `size` bytes with its NUL, cut between characters."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text.encode("utf-8", "replace")[: size - 1].decode("utf-8", "ignore")
