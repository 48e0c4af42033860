"""Bytes to messages and back.

Theory of operation
-------------------
Every packet is 388 bytes in host byte order, its fields packed to two bytes.  A layout is a list of fields, each at its offset in
the packet, so that this module reads like the table in docs/reference/socket-protocol.md.  Only PRNG and INFO carry variable parts
and have functions of their own.

Decoding is strict: text must be UTF-8 and end with a NUL inside of its field (`service` alone may fill it), lengths must fit their
buffer, a command must be known.  Whatever follows a NUL is the sender's stale memory and is ignored.  The only exception that
leaves `decode` is MalformedPacket.  PRNG's request and answer share a command and differ in layout, so the caller says which way
the packet travels.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from struct import Struct
from typing import Any, Final, cast

from tlspool_core.wire.errors import ErrorCode, MalformedPacket
from tlspool_core.wire.flags import Command, LidentryFlags, StartTlsFlags
from tlspool_core.wire.messages import (
    MAX_INFO,
    MAX_PRNG,
    MAX_PRNG_INPUT,
    AccountingInterim,
    AccountingStart,
    AccountingStop,
    ControlDetach,
    ControlReattach,
    Error,
    Info,
    LidentryCallback,
    LidentryRegister,
    Message,
    Packet,
    PinEntry,
    Ping,
    PlaintextConnect,
    Prng,
    PrngOutput,
    StartTls,
    StartTlsLocalid,
    Success,
)

PACKET_SIZE: Final = 388
_HEADER: Final = Struct("=HHI")
_NO_INFO: Final = 0xFFFF
_PRNG: Final = Struct("=hhh16s")
_PRNG_LENGTHS: Final = Struct("=hhh")
_PRNG_BUFFER: Final = 14
_INFO: Final = Struct("=16sIH")
_INFO_BUFFER: Final = 30
_ABSENT_U64: Final = 0xFFFFFFFFFFFFFFFF


class _Fault(Exception):
    """What is wrong with a field, in words."""


@dataclass(frozen=True, slots=True)
class Number:
    """An integer field, in `struct`'s letters; `flags` turns it into that enumeration."""

    name: str
    offset: int
    letter: str
    flags: type[IntFlag] | None = None

    def read(self, packet: bytes) -> int:
        value: int = Struct("=" + self.letter).unpack_from(packet, self.offset)[0]
        return value if self.flags is None else self.flags(value)

    def write(self, packet: bytearray, value: int) -> None:
        Struct("=" + self.letter).pack_into(packet, self.offset, value)


@dataclass(frozen=True, slots=True)
class Optional64:
    """A 64-bit count or time; all ones means absent."""

    name: str
    offset: int

    def read(self, packet: bytes) -> int | None:
        value: int = Struct("=Q").unpack_from(packet, self.offset)[0]
        return None if value == _ABSENT_U64 else value

    def write(self, packet: bytearray, value: int | None) -> None:
        Struct("=Q").pack_into(packet, self.offset, _ABSENT_U64 if value is None else value)


@dataclass(frozen=True, slots=True)
class Text:
    """A text field; `full` ones may fill all bytes and then have no NUL."""

    name: str
    offset: int
    size: int
    full: bool = False

    def read(self, packet: bytes) -> str:
        raw = packet[self.offset : self.offset + self.size]
        end = raw.find(b"\0")
        if end < 0 and not self.full:
            raise _Fault(f"{self.name} is not terminated")
        try:
            return (raw if end < 0 else raw[:end]).decode("utf-8")
        except UnicodeDecodeError:
            raise _Fault(f"{self.name} is not UTF-8") from None

    def write(self, packet: bytearray, value: str) -> None:
        raw = value.encode("utf-8")
        if len(raw) > self.size - (not self.full) or b"\0" in raw:
            raise ValueError(f"{self.name} does not fit its {self.size} bytes")
        packet[self.offset : self.offset + len(raw)] = raw


@dataclass(frozen=True, slots=True)
class Raw:
    """A field of bytes, all of them significant."""

    name: str
    offset: int
    size: int

    def read(self, packet: bytes) -> bytes:
        return packet[self.offset : self.offset + self.size]

    def write(self, packet: bytearray, value: bytes) -> None:
        if len(value) != self.size:
            raise ValueError(f"{self.name} has {len(value)} bytes, not {self.size}")
        packet[self.offset : self.offset + self.size] = value


Field = Number | Optional64 | Text | Raw

_STARTTLS: Final[tuple[Field, ...]] = (
    Number("flags", 8, "I", StartTlsFlags),
    Number("local", 12, "I"),
    Number("ipproto", 16, "B"),
    Number("streamid", 18, "H"),
    Text("localid", 20, 128),
    Text("remoteid", 148, 128),
    Raw("ctlkey", 276, 16),
    Text("service", 292, 16, full=True),
    Number("timeout", 308, "I"),
)
_LIDENTRY: Final[tuple[Field, ...]] = (
    Number("flags", 8, "I", LidentryFlags),
    Number("maxlevels", 12, "H"),
    Number("timeout", 14, "I"),
    Text("localid", 18, 128),
    Text("remoteid", 146, 128),
)
_CONTROL: Final[tuple[Field, ...]] = (Number("flags", 8, "I"), Raw("ctlkey", 12, 16), Text("name", 28, 128))
_ACCOUNTING: Final[tuple[Field, ...]] = (
    Number("cause", 8, "I"),
    Raw("ctlkey", 12, 16),
    Text("kind", 28, 32),
    Text("instance", 60, 48),
    Text("localid", 108, 128),
    Text("remoteid", 236, 128),
    Optional64("started", 364),
    Optional64("ended", 372),
    Optional64("count", 380),
)

LAYOUTS: Final[dict[type[Any], tuple[Field, ...]]] = {
    Success: (),
    Error: (Number("tlserrno", 8, "i"), Text("text", 12, 128)),
    Ping: (Text("identity", 8, 136), Number("facilities", 144, "I")),
    StartTls: _STARTTLS,
    StartTlsLocalid: _STARTTLS,
    PlaintextConnect: _STARTTLS,
    PinEntry: (
        Number("flags", 8, "I"),
        Number("attempt", 12, "I"),
        Number("timeout", 16, "I"),
        Text("pin", 20, 128),
        Text("prompt", 148, 128),
        Text("token_manufacturer", 276, 36),
        Text("token_model", 312, 20),
        Text("token_serial", 332, 20),
        Text("token_label", 352, 36),
    ),
    LidentryRegister: _LIDENTRY,
    LidentryCallback: _LIDENTRY,
    ControlDetach: _CONTROL,
    ControlReattach: _CONTROL,
    AccountingStart: _ACCOUNTING,
    AccountingInterim: _ACCOUNTING,
    AccountingStop: _ACCOUNTING,
}
_BY_COMMAND: Final[dict[int, type[Any]]] = {kind.command: kind for kind in LAYOUTS}


# --- PRNG and INFO: a header and a variable part -------------------------------------------------------------------------------


def _parse_prng(packet: bytes) -> Prng:
    in1, in2, length, ctlkey = _PRNG.unpack_from(packet, 8)
    if in1 < 0:
        raise _Fault("PRNG has no label")
    if in1 + max(in2, 0) > MAX_PRNG_INPUT:
        raise _Fault(f"PRNG has more than {MAX_PRNG_INPUT} bytes of input")
    if not 0 < length <= MAX_PRNG:
        raise _Fault(f"PRNG wants {length} bytes, not 1 to {MAX_PRNG}")
    start = 8 + _PRNG.size
    label = packet[start : start + in1]
    return Prng(ctlkey, label, packet[start + in1 : start + in1 + in2] if in2 >= 0 else None, length)


def _build_prng(packet: bytearray, message: Prng) -> None:
    context = message.context or b""
    if len(message.label) + len(context) > MAX_PRNG_INPUT or not 0 < message.length <= MAX_PRNG or len(message.ctlkey) != 16:
        raise ValueError("PRNG does not fit its packet")
    in2 = -1 if message.context is None else len(context)
    _PRNG.pack_into(packet, 8, len(message.label), in2, message.length, message.ctlkey)
    start = 8 + _PRNG.size
    packet[start : start + len(message.label) + len(context)] = message.label + context


def _parse_prng_output(packet: bytes) -> PrngOutput:
    length = _PRNG_LENGTHS.unpack_from(packet, 8)[2]
    if not 0 <= length <= MAX_PRNG:
        raise _Fault(f"PRNG answers {length} bytes")
    return PrngOutput(packet[_PRNG_BUFFER : _PRNG_BUFFER + length])


def _build_prng_output(packet: bytearray, message: PrngOutput) -> None:
    if len(message.output) > MAX_PRNG:
        raise ValueError("PRNG output does not fit its packet")
    _PRNG_LENGTHS.pack_into(packet, 8, -1, -1, len(message.output))
    packet[_PRNG_BUFFER : _PRNG_BUFFER + len(message.output)] = message.output


def _parse_info(packet: bytes) -> Info:
    ctlkey, kind, length = _INFO.unpack_from(packet, 8)
    if length == _NO_INFO:
        return Info(ctlkey, kind)
    if length > MAX_INFO:
        raise _Fault(f"INFO has {length} bytes, more than {MAX_INFO}")
    return Info(ctlkey, kind, packet[_INFO_BUFFER : _INFO_BUFFER + length])


def _build_info(packet: bytearray, message: Info) -> None:
    value = message.value or b""
    if len(value) > MAX_INFO or len(message.ctlkey) != 16:
        raise ValueError("INFO does not fit its packet")
    _INFO.pack_into(packet, 8, message.ctlkey, message.kind, _NO_INFO if message.value is None else len(value))
    packet[_INFO_BUFFER : _INFO_BUFFER + len(value)] = value


# --- packets -------------------------------------------------------------------------------------------------------------------


def encode(packet: Packet) -> bytes:
    """The 388 bytes of a packet.

    Raises ValueError if a value does not fit its field: the caller's mistake, as values come from callers and not from a peer.
    """
    message = packet.message
    out = bytearray(PACKET_SIZE)
    try:
        _HEADER.pack_into(out, 0, packet.reqid, packet.cbid, message.command)
        match message:
            case Prng():
                _build_prng(out, message)
            case PrngOutput():
                _build_prng_output(out, message)
            case Info():
                _build_info(out, message)
            case _:
                for entry in LAYOUTS[type(message)]:
                    entry.write(out, getattr(message, entry.name))
    except Exception as fault:
        raise ValueError(f"{message.command.name}: {fault}") from None
    return bytes(out)


def decode(packet: bytes, *, answer: bool = False) -> Packet:
    """Read one packet; `answer` says that it travels from pool to application. Raises MalformedPacket."""
    if len(packet) != PACKET_SIZE:
        raise MalformedPacket(ErrorCode.MALFORMED_PACKET, f"A packet has {PACKET_SIZE} bytes, not {len(packet)}")
    reqid, cbid, command = _HEADER.unpack_from(packet)
    try:
        return Packet(reqid, cbid, _decode_message(packet, command, answer))
    except KeyError:
        raise MalformedPacket(
            ErrorCode.COMMAND_UNKNOWN, f"The TLS Pool does not know command {command:#x}", reqid, cbid, command
        ) from None
    except _Fault as fault:
        name = Command(command).name
        raise MalformedPacket(ErrorCode.MALFORMED_PACKET, f"Malformed {name}: {fault}", reqid, cbid, command) from None


def _decode_message(packet: bytes, command: int, answer: bool) -> Message:
    if command == Command.PRNG:
        return _parse_prng_output(packet) if answer else _parse_prng(packet)
    if command == Command.INFO:
        return _parse_info(packet)
    kind = _BY_COMMAND[command]
    return cast(Message, kind(**{entry.name: entry.read(packet) for entry in LAYOUTS[kind]}))
