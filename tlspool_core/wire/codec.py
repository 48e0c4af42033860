"""Bytes to messages and back.

Theory of operation
-------------------
Every packet is 388 bytes in host byte order, its fields packed to two bytes.  A layout is a list of fields, each at its offset in
the packet, so that this module reads like the table in docs/reference/socket-protocol.md; of each, one `struct` is made that reads or
writes a packet at once.  Only PRNG and INFO carry variable parts and have functions of their own.

Decoding is strict: text must be UTF-8 and end with a NUL inside of its field (`service` alone may fill it), lengths must fit their
buffer, a command must be known.  Whatever follows a NUL is the sender's stale memory and is ignored.  The only exception that
leaves `decode` is MalformedPacket.  PRNG's request and answer share a command and differ in layout, so the caller says which way
the packet travels.

What `struct` reads and `encode` writes are copies that cannot be wiped.  So a PIN is none of `struct`'s values: it goes from a packet
right into a `Secret`, and a packet with a PIN is written by `seal` into a Secret of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import lru_cache
from operator import attrgetter
from struct import Struct
from typing import Any, Final

from tlspool_core.secret import Secret
from tlspool_core.wire.errors import ErrorCode, MalformedPacket
from tlspool_core.wire.fields import Fault, Field, Hidden, Number, Optional64, Raw, Text
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
        Hidden("pin", 20, 128),
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


class _Form:
    """One kind of packet as one `struct`: the header, the fields, and zero bytes where there is neither."""

    __slots__ = ("_builders", "_kind", "_order", "_parsers", "_struct", "_values")

    def __init__(self, kind: type[Any], layout: Sequence[Field]) -> None:
        """`layout` in the order of offsets, without overlaps, and all of the message's fields; what is hidden is left to `_PinForm`."""
        letters = _HEADER.format
        for entry in layout:
            letters += f"{entry.offset - Struct(letters).size}x{entry.form}"
        self._struct = Struct(f"{letters}{PACKET_SIZE - Struct(letters).size}x")
        layout = [entry for entry in layout if not isinstance(entry, Hidden)]
        names = ["reqid", "cbid", "command", *(entry.name for entry in layout)]
        self._kind = kind
        self._order = [names.index(each.name) for each in fields(kind) if each.name in names]
        self._values = [attrgetter(name) for name in names[3:]]
        self._parsers = [(at, parse) for at, entry in enumerate(layout, 3) if (parse := _parser(entry)) is not None]
        self._builders = [(at, entry.build) for at, entry in enumerate(layout) if not isinstance(entry, Number | Hidden)]

    def read(self, packet: bytes | memoryview) -> Packet:
        """The whole packet. Raises Fault."""
        values = list(self._struct.unpack(packet))
        for at, parse in self._parsers:
            values[at] = parse(values[at])
        return Packet(values[0], values[1], self._kind(*[values[at] for at in self._order]))

    def write(self, packet: Packet) -> bytes:
        """All 388 bytes. Raises ValueError or struct.error for a value that does not fit."""
        message = packet.message
        values = [value(message) for value in self._values]
        for at, build in self._builders:
            values[at] = build(values[at])
        return self._struct.pack(packet.reqid, packet.cbid, message.command, *values)


class _PinForm(_Form):
    """PINENTRY: what it hides is read and written beside the `struct`."""

    __slots__ = ("_hidden",)

    def __init__(self, kind: type[PinEntry], layout: Sequence[Field]) -> None:
        super().__init__(kind, layout)
        (self._hidden,) = (entry for entry in layout if isinstance(entry, Hidden))

    def read(self, packet: bytes | memoryview) -> Packet:
        read = super().read(packet)
        pin = self._hidden.parse(packet)
        assert isinstance(read.message, PinEntry)
        return read if pin is None else replace(read, message=replace(read.message, pin=pin))

    def write(self, packet: Packet) -> bytes:
        if isinstance(packet.message, PinEntry) and packet.message.pin is not None:
            raise ValueError("a packet with a PIN is sealed, not encoded")
        return super().write(packet)

    def seal(self, packet: Packet, message: PinEntry, pin: Secret) -> Secret:
        """All 388 bytes, the PIN among them. Raises ValueError."""
        sealed = Secret.of(encode(replace(packet, message=replace(message, pin=None))))
        self._hidden.build(sealed.view, pin)
        return sealed


def _parser(entry: Field) -> Callable[[Any], Any] | None:
    """What makes a value of what `struct` reads; None if that is the value."""
    match entry:
        case Number(flags=flags):
            # an enumeration's constructor takes longer than all the rest of a packet
            return None if flags is None else lru_cache(maxsize=256)(flags)
        case Raw() | Hidden():
            return None
    return entry.parse


_PINS: Final = _PinForm(PinEntry, LAYOUTS[PinEntry])
_FORMS: Final = {kind: _Form(kind, layout) for kind, layout in LAYOUTS.items()} | {PinEntry: _PINS}
_FORM_OF_COMMAND: Final = {int(kind.command): form for kind, form in _FORMS.items()}


# --- PRNG and INFO: a header and a variable part -------------------------------------------------------------------------------


def _parse_prng(packet: bytes) -> Prng:
    in1, in2, length, ctlkey = _PRNG.unpack_from(packet, 8)
    if in1 < 0:
        raise Fault("PRNG has no label")
    if in1 + max(in2, 0) > MAX_PRNG_INPUT:
        raise Fault(f"PRNG has more than {MAX_PRNG_INPUT} bytes of input")
    if not 0 < length <= MAX_PRNG:
        raise Fault(f"PRNG wants {length} bytes, not 1 to {MAX_PRNG}")
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
        raise Fault(f"PRNG answers {length} bytes")
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
        raise Fault(f"INFO has {length} bytes, more than {MAX_INFO}")
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

    Raises ValueError if a value does not fit its field, or for a PIN: the caller's mistake, as values come from callers and not
    from a peer.
    """
    message = packet.message
    form = _FORMS.get(type(message))
    try:
        return form.write(packet) if form is not None else _encode_variable(packet)
    except Exception as fault:
        raise ValueError(f"{message.command.name}: {fault}") from None


def seal(packet: Packet) -> Secret:
    """The 388 bytes of a PINENTRY with a PIN; the caller wipes them once they are sent. Raises ValueError like `encode`."""
    message = packet.message
    if not isinstance(message, PinEntry) or message.pin is None:
        raise ValueError(f"{message.command.name} has no PIN to seal")
    return _PINS.seal(packet, message, message.pin)


def _encode_variable(packet: Packet) -> bytes:
    """PRNG and INFO."""
    message = packet.message
    out = bytearray(PACKET_SIZE)
    _HEADER.pack_into(out, 0, packet.reqid, packet.cbid, message.command)
    match message:
        case Prng():
            _build_prng(out, message)
        case PrngOutput():
            _build_prng_output(out, message)
        case Info():
            _build_info(out, message)
    return bytes(out)


def decode(packet: bytes | memoryview, *, answer: bool = False) -> Packet:
    """Read one packet; `answer` says that it travels from pool to application. Raises MalformedPacket.

    A PIN is copied into a Secret, which is the caller's to wipe, as are the bytes that were read.
    """
    if len(packet) != PACKET_SIZE:
        raise MalformedPacket(ErrorCode.MALFORMED_PACKET, f"A packet has {PACKET_SIZE} bytes, not {len(packet)}")
    reqid, cbid, command = _HEADER.unpack_from(packet)
    form = _FORM_OF_COMMAND.get(command)
    try:
        return form.read(packet) if form is not None else Packet(reqid, cbid, _decode_variable(bytes(packet), command, answer))
    except Fault as fault:
        name = Command(command).name
        raise MalformedPacket(ErrorCode.MALFORMED_PACKET, f"Malformed {name}: {fault}", reqid, cbid, command) from None
    except LookupError:
        raise MalformedPacket(
            ErrorCode.COMMAND_UNKNOWN, f"The TLS Pool does not know command {command:#x}", reqid, cbid, command
        ) from None


def _decode_variable(packet: bytes, command: int, answer: bool) -> Message:
    """PRNG or INFO. Raises LookupError for any other command."""
    if command == Command.PRNG:
        return _parse_prng_output(packet) if answer else _parse_prng(packet)
    if command == Command.INFO:
        return _parse_info(packet)
    raise LookupError(command)
