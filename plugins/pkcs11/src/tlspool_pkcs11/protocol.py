"""Frames between the daemon and a worker: strict on both sides.

Theory of operation
-------------------
A frame is a head of nine bytes - length of what follows the length field, kind of message, number of the request - and a body
whose fields lie one behind the other in the order of the message's `LAYOUT`, one letter for each:

    B H I Q   unsigned number of 1, 2, 4, 8 bytes, network byte order
    b         bytes, behind a 4-byte length
    s         likewise, in locked memory: a PIN, or none if it is empty
    t         text in UTF-8, likewise
    q         list of Q, behind a 4-byte count
    a class   list of records of that class, behind a 4-byte count

The worker answers requests in the order in which they came, with the same number.  Neither side believes the other: the worker
may have been taken over by a token library, and a daemon that sends nonsense is a fault worth noticing.  Anything malformed -
an unknown kind, a kind in the wrong direction, a length beyond its limit, a byte left over - is a ProtocolError, upon which the
connection ends.

A PIN is the last field of its message.  The daemon sends it from where it lies, behind the rest of the frame; the worker
reads requests into locked memory (`frames`), from there the PIN into a `Secret`, and overwrites it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from tlspool_core.secret import Secret

HEAD = struct.Struct("!IBI")
_LENGTH = struct.Struct("!I")
_NUMBERS = {letter: struct.Struct(f"!{letter}") for letter in "BHIQ"}

# a certificate list of a large smart card stays far below; a sign request carries a few hundred bytes
MAX_FRAME = 4 * 1024 * 1024
MAX_LIST = 4096

_NO_BYTES = _LENGTH.pack(0)
# the first fields of Sign, and the count of its parameters
_SIGN = struct.Struct("!IQBI")


class ProtocolError(Exception):
    """The other end of the socket pair sent something that is not the protocol."""


class Message:
    """One kind of message. `KIND` is its number on the wire; odd kinds go to the worker, even ones to the daemon."""

    KIND: ClassVar[int]
    LAYOUT: ClassVar[tuple[Any, ...]]
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Configure(Message):
    """First request: which library to load and how. Answered by Loaded."""

    KIND: ClassVar[int] = 1
    LAYOUT: ClassVar[tuple[Any, ...]] = ("t", "t")
    path: str
    init_string: str = ""


@dataclass(frozen=True, slots=True)
class Loaded(Message):
    """The library is there, and what it says about itself."""

    KIND: ClassVar[int] = 2
    LAYOUT: ClassVar[tuple[Any, ...]] = ("t", "t", "B", "B", "t")
    manufacturer: str
    description: str
    version_major: int
    version_minor: int
    locking_fault: str = ""  # why the worker's memory for PINs may be swapped


@dataclass(frozen=True, slots=True)
class ListTokens(Message):
    """Which tokens are there? Answered by Tokens."""

    KIND: ClassVar[int] = 3
    LAYOUT: ClassVar[tuple[Any, ...]] = ()


@dataclass(frozen=True, slots=True)
class TokenRecord(Message):
    """A token in a slot. `mechanisms` are those that can sign (CKF_SIGN)."""

    KIND: ClassVar[int] = 0
    LAYOUT: ClassVar[tuple[Any, ...]] = ("Q", "t", "t", "t", "t", "t", "t", "Q", "q")
    slot: int
    label: str
    manufacturer: str
    model: str
    serial: str
    slot_description: str
    slot_manufacturer: str
    flags: int
    mechanisms: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tokens(Message):
    """The initialised tokens that the library shows."""

    KIND: ClassVar[int] = 4
    LAYOUT: ClassVar[tuple[Any, ...]] = (TokenRecord,)
    tokens: tuple[TokenRecord, ...]


@dataclass(frozen=True, slots=True)
class Login(Message):
    """Log in as the user. `protected` means that the token asks for the PIN itself. Answered by Done."""

    KIND: ClassVar[int] = 5
    LAYOUT: ClassVar[tuple[Any, ...]] = ("Q", "B", "s")
    slot: int
    protected: int
    pin: Secret | None = None


@dataclass(frozen=True, slots=True)
class Done(Message):
    """It worked, and there is nothing to tell."""

    KIND: ClassVar[int] = 6
    LAYOUT: ClassVar[tuple[Any, ...]] = ()


@dataclass(frozen=True, slots=True)
class ListObjects(Message):
    """Which objects does the token show in its present state of login? Answered by Objects."""

    KIND: ClassVar[int] = 7
    LAYOUT: ClassVar[tuple[Any, ...]] = ("Q",)
    slot: int


@dataclass(frozen=True, slots=True)
class ObjectRecord(Message):
    """An object. `reference` names it in later requests to the same worker; empty bytes stand for an absent attribute.

    `material_first` and `_second` are its public attributes, as the token holds them: modulus and exponent for RSA,
    CKA_EC_PARAMS and CKA_EC_POINT for curves, the parameter set and CKA_VALUE for ML-DSA; for a certificate its DER and nothing.
    """

    KIND: ClassVar[int] = 0
    LAYOUT: ClassVar[tuple[Any, ...]] = ("I", "B", "Q", "b", "t", "B", "b", "b", "b", "q")
    reference: int
    object_class: int
    key_type: int
    id: bytes
    label: str
    flags: int
    material_first: bytes = field(repr=False)
    material_second: bytes = field(repr=False)
    public_key_info: bytes = field(repr=False)
    allowed_mechanisms: tuple[int, ...] = ()


OBJECT_SIGNS = 1
OBJECT_ALWAYS_AUTHENTICATE = 2
OBJECT_READABLE = 4
OBJECT_EXTRACTABLE = 8
OBJECT_DERIVES = 16


@dataclass(frozen=True, slots=True)
class Objects(Message):
    """The objects of a token."""

    KIND: ClassVar[int] = 8
    LAYOUT: ClassVar[tuple[Any, ...]] = (ObjectRecord,)
    objects: tuple[ObjectRecord, ...]


@dataclass(frozen=True, slots=True)
class Sign(Message):
    """Sign `data` with a mechanism whose parameter block is the CK_ULONGs of `parameters`. Answered by Value.

    `authenticate` is 1 where the key wants a login for each signature (CKA_ALWAYS_AUTHENTICATE), otherwise 0.
    """

    KIND: ClassVar[int] = 9
    LAYOUT: ClassVar[tuple[Any, ...]] = ("I", "Q", "B", "q", "b", "s")
    reference: int
    mechanism: int
    authenticate: int
    parameters: tuple[int, ...]
    data: bytes
    pin: Secret | None = None


@dataclass(frozen=True, slots=True)
class Value(Message):
    """Bytes: a signature, or the value of a secret object, hence never shown."""

    KIND: ClassVar[int] = 10
    LAYOUT: ClassVar[tuple[Any, ...]] = ("b",)
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReadValue(Message):
    """The value (CKA_VALUE) of a secret or data object. Answered by Value."""

    KIND: ClassVar[int] = 11
    LAYOUT: ClassVar[tuple[Any, ...]] = ("I",)
    reference: int


@dataclass(frozen=True, slots=True)
class Agree(Message):
    """The secret of `length` octets that a private key shares with a public point. Answered by Value."""

    KIND: ClassVar[int] = 13
    LAYOUT: ClassVar[tuple[Any, ...]] = ("I", "b", "H")
    reference: int
    public: bytes
    length: int


@dataclass(frozen=True, slots=True)
class Failed(Message):
    """The request failed. `value` is the CKR_ number, or 0 if no function of the library was to blame; `text` says the rest."""

    KIND: ClassVar[int] = 12
    LAYOUT: ClassVar[tuple[Any, ...]] = ("Q", "t")
    value: int
    text: str


_TO_WORKER = (Configure, ListTokens, Login, ListObjects, Sign, ReadValue, Agree)
REQUESTS: dict[int, type[Message]] = {kind.KIND: kind for kind in _TO_WORKER}
REPLIES: dict[int, type[Message]] = {kind.KIND: kind for kind in (Loaded, Tokens, Done, Objects, Value, Failed)}

_M = TypeVar("_M", bound=Message)


_PLANS: dict[type[Message], tuple[tuple[str, Any], ...]] = {}


def _plan(kind: type[Message]) -> tuple[tuple[str, Any], ...]:
    plan = _PLANS.get(kind)
    if plan is None:
        names = [part.name for part in fields(kind)]  # type: ignore[arg-type]
        plan = _PLANS[kind] = tuple(zip(names, kind.LAYOUT, strict=True))
    return plan


def _build_fields(message: Message, out: list[bytes]) -> None:
    for name, letter in _plan(type(message)):
        value = getattr(message, name)
        if letter == "b":
            out.append(_LENGTH.pack(len(value)))
            out.append(value)
        elif letter == "s":
            # the PIN itself follows the frame
            out.append(_LENGTH.pack(0 if value is None else len(value)))
        elif letter == "t":
            encoded = value.encode()
            out.append(_LENGTH.pack(len(encoded)))
            out.append(encoded)
        elif letter == "q":
            out.append(struct.pack(f"!I{len(value)}Q", len(value), *value))
        elif isinstance(letter, str):
            out.append(_NUMBERS[letter].pack(value))
        else:
            out.append(_LENGTH.pack(len(value)))
            for record in value:
                _build_fields(record, out)


def build_body(message: Message) -> bytes:
    """The fields of a message, without a head, and without its PIN: only the length of that."""
    out: list[bytes] = []
    _build_fields(message, out)
    return b"".join(out)


def build_frame(number: int, kind: int, body: bytes, pin: int = 0) -> bytes:
    """A frame around a body; its PIN, of that many bytes, is to follow. Raises ProtocolError if it is longer than the other side accepts."""
    length = HEAD.size - 4 + len(body) + pin
    if length > MAX_FRAME:
        raise ProtocolError(f"a message of {length} bytes is too long")
    return HEAD.pack(length, kind, number) + body


def build(number: int, message: Message) -> bytes:
    """The frame of a message. Raises ProtocolError if it would be longer than the other side accepts."""
    return build_frame(number, message.KIND, build_body(message))


class SignTemplate:
    """The body of `Sign` for one key and mechanism, in which only the data differs from one signature to the next."""

    __slots__ = ("_before",)

    def __init__(self, reference: int, mechanism: int, parameters: tuple[int, ...]) -> None:
        # without the lengths of data and PIN, which are empty here
        self._before = build_body(Sign(reference, mechanism, 0, parameters, b""))[: -2 * _LENGTH.size]

    def body(self, data: bytes) -> bytes:
        """The same as `build_body(Sign(...))` with this data."""
        return b"".join((self._before, _LENGTH.pack(len(data)), data, _NO_BYTES))


class _Reader:
    """Reads fields out of one body; every step checks that it stays inside."""

    __slots__ = ("at", "body")

    def __init__(self, body: memoryview) -> None:
        self.body = body
        self.at = 0

    def take(self, length: int) -> memoryview:
        end = self.at + length
        if end > len(self.body):
            raise ProtocolError("a field reaches beyond its frame")
        piece = self.body[self.at : end]
        self.at = end
        return piece

    def number(self, layout: struct.Struct) -> int:
        value: int = layout.unpack(self.take(layout.size))[0]
        return value

    def count(self) -> int:
        count = self.number(_LENGTH)
        if count > MAX_LIST:
            raise ProtocolError(f"a list of {count} elements is too long")
        return count

    def text(self) -> str:
        try:
            return str(self.take(self.number(_LENGTH)), "utf-8")
        except UnicodeDecodeError as error:
            raise ProtocolError("a text is not UTF-8") from error

    def value(self, letter: Any) -> Any:
        if letter == "b":
            return bytes(self.take(self.number(_LENGTH)))
        if letter == "s":
            return _secret(self.take(self.number(_LENGTH)))
        if letter == "t":
            return self.text()
        if letter == "q":
            count = self.count()
            return struct.unpack(f"!{count}Q", self.take(8 * count))
        if isinstance(letter, str):
            return self.number(_NUMBERS[letter])
        return tuple(self.record(letter) for _ in range(self.count()))

    def record(self, kind: type[_M]) -> _M:
        return kind(*[self.value(letter) for letter in kind.LAYOUT])


def _secret(field: memoryview) -> Secret | None:
    """A PIN; it is overwritten where it was read."""
    if not field:
        return None
    secret = Secret.of(field)
    overwrite(field)
    return secret


def overwrite(received: memoryview) -> None:
    """What was read may have been a PIN, or a part of one."""
    if not received.readonly:
        received[:] = bytes(len(received))


def _parse_sign(body: memoryview) -> Sign:
    """`Sign` in one go, as it is parsed for each signature."""
    try:
        reference, mechanism, authenticate, count = _SIGN.unpack_from(body)
        if count > MAX_LIST:
            raise ProtocolError(f"a list of {count} elements is too long")
        parameters = struct.unpack_from(f"!{count}Q", body, _SIGN.size) if count else ()
        at = _SIGN.size + 8 * count
        end = at + 4 + _LENGTH.unpack_from(body, at)[0]
        pin = body[end + 4 :]
        if _LENGTH.unpack_from(body, end)[0] != len(pin):
            raise ProtocolError("Sign is longer or shorter than its fields")
    except struct.error as error:
        raise ProtocolError("a field reaches beyond its frame") from error
    return Sign(reference, mechanism, authenticate, parameters, bytes(body[at + 4 : end]), _secret(pin) if pin else None)


def _parse_value(body: memoryview) -> Value:
    """`Value` in one go, as it comes with each signature."""
    if len(body) < _LENGTH.size or len(body) - _LENGTH.size != _LENGTH.unpack_from(body)[0]:
        raise ProtocolError("Value is longer or shorter than its field")
    return Value(bytes(body[_LENGTH.size :]))


def parse(body: bytes | memoryview, kind: type[_M]) -> _M:
    """One message out of exactly the bytes of its body. Raises ProtocolError."""
    reader = _Reader(memoryview(body))
    message = reader.record(kind)
    if reader.at != len(body):
        raise ProtocolError(f"{len(body) - reader.at} bytes left over in {kind.__name__}")
    return message


def parse_kind(kind: int, body: memoryview, direction: dict[int, type[Message]]) -> Message:
    """The message of a frame; a PIN is overwritten where it was read. Raises ProtocolError."""
    if kind not in direction:
        raise ProtocolError(f"message kind {kind} is unknown in this direction")
    quick = _QUICK.get(kind)
    return quick(body) if quick is not None else parse(body, direction[kind])


_QUICK: dict[int, Callable[[memoryview], Message]] = {Sign.KIND: _parse_sign, Value.KIND: _parse_value}
