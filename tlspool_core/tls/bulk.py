"""Application data by the batch: many records between two system calls, in memory that is used again and again.

Theory of operation
-------------------
`TlsConnection.send` and `receive` are right for every record and make four copies of each.  A relay has one need only, over and
over: seal what was read from one descriptor, open what was read from the other.  These functions do just that, straight from one
buffer into another, with the protection objects of the connection's `RecordLayer`, so that both ways can be mixed freely.

Sealing.  TLS 1.3 encrypts the content type behind the data.  The byte behind a fragment is the first one of the next fragment, so
it is put aside, replaced by the type, and put back once the fragment is encrypted.  Every header is written anew.  Nothing in the
buffers is relied on from an earlier batch.  CBC, and records that are to be padded, have no fast way and are sealed one by one.

Opening.  Records are decrypted one behind the other; in TLS 1.3 the content type that ends each of them is overwritten by
the next.  Whatever is not plain application data in a full and unpadded record is left alone, sequence number included: another
content type, padding, an empty or oversized fragment, a wrong tag.  The caller hands such a record to the connection, which opens it
again and has the one set of rules for it.

Measured (AES-128-GCM, 16 KiB records): scatter reads into slots with a byte between them, and decryption in place with a gathering
write, are no faster than this, within 3 %.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag

from tlspool_core.tls.enums import ContentType
from tlspool_core.tls.protection import (
    EXPLICIT_NONCE_LENGTH,
    HEADER_LENGTH,
    MAX_SEQUENCE,
    TAG_LENGTH,
    AeadProtection,
    Explicit12,
    XorNonce13,
)
from tlspool_core.tls.record import MAX_EXPANSION_12, MAX_PLAINTEXT, RecordLayer

_DATA: Final = int(ContentType.APPLICATION_DATA)
_PREFIX: Final = b"\x17\x03\x03"


class Opened(NamedTuple):
    """How far `open_batch` came: offsets into the input and the output, and the record that it leaves to the connection.

    `odd` is the length in bytes of that record, header included, which begins at `position`; 0 if there is none, or it
    is not complete yet, or `full` says that `most` records were opened.
    """

    position: int
    filled: int
    full: bool
    odd: int


def sealed_capacity(records: RecordLayer, room: int) -> int:
    """Most plaintext, in bytes, that `seal_batch` fits into `room` bytes of output."""
    step = records.max_fragment
    return room // (step + HEADER_LENGTH + records.write_protection.overhead) * step


def seal_batch(records: RecordLayer, plain: memoryview, length: int, out: memoryview) -> int:
    """Seal the first `length` bytes of `plain` into records in `out`; how many bytes of `out` they fill.

    `plain` is writable and has at least one byte more than `length`; it is the same afterwards.  `out` has room by
    `sealed_capacity`.  Raises InternalError if the key's sequence numbers are used up.
    """
    protection = records.write_protection
    if records.padding is not None and records.padding.data:
        return _seal_each(records, plain, length, out)
    if isinstance(protection, XorNonce13):
        return _seal13(protection, plain, length, out, records.max_fragment)
    if isinstance(protection, AeadProtection):
        return _seal12(protection, plain, length, out, records.max_fragment)
    return _seal_each(records, plain, length, out)


def _seal_each(records: RecordLayer, plain: memoryview, length: int, out: memoryview) -> int:
    """What has no fast way: CBC, and padding."""
    filled = 0
    for start in range(0, length, records.max_fragment):
        record = records.seal(_DATA, plain[start : min(start + records.max_fragment, length)])
        out[filled : filled + len(record)] = record
        filled += len(record)
    return filled


def _seal13(protection: XorNonce13, plain: memoryview, length: int, out: memoryview, step: int) -> int:
    sequence = protection.take_sequences(-(-length // step))
    encrypt = protection.aead.encrypt_into
    iv = protection.iv
    header = _PREFIX + (step + 1 + TAG_LENGTH).to_bytes(2, "big")
    filled = start = 0
    while start < length:
        end = start + step
        if end > length:
            end = length
            header = _PREFIX + (end - start + 1 + TAG_LENGTH).to_bytes(2, "big")
        body = filled + HEADER_LENGTH
        out[filled:body] = header
        filled = body + end - start + 1 + TAG_LENGTH
        behind = plain[end]
        plain[end] = _DATA
        encrypt((iv ^ sequence).to_bytes(12, "big"), plain[start : end + 1], header, out[body:filled])
        plain[end] = behind
        sequence += 1
        start = end
    return filled


def _seal12(protection: AeadProtection, plain: memoryview, length: int, out: memoryview, step: int) -> int:
    sequence = protection.take_sequences(-(-length // step))
    encrypt = protection.aead.encrypt_into
    iv = protection.iv
    explicit = EXPLICIT_NONCE_LENGTH if isinstance(protection, Explicit12) else 0
    filled = start = 0
    while start < length:
        size = min(step, length - start)
        nonce = (iv ^ sequence).to_bytes(12, "big")
        body = filled + HEADER_LENGTH + explicit
        out[filled:body] = _PREFIX + (explicit + size + TAG_LENGTH).to_bytes(2, "big") + nonce[12 - explicit :]
        filled = body + size + TAG_LENGTH
        associated = sequence.to_bytes(8, "big") + _PREFIX + size.to_bytes(2, "big")
        encrypt(nonce, plain[start : start + size], associated, out[body:filled])
        sequence += 1
        start += size
    return filled


def open_batch(records: RecordLayer, wire: memoryview, start: int, end: int, out: memoryview, filled: int, most: int) -> Opened:
    """Open up to `most` records of `wire[start:end]` into `out` from offset `filled` on.

    `out` has room for `end - start` bytes more.  Stops before the first record that is incomplete or odd (see `Opened`);
    never raises on what a peer sent.
    """
    protection = records.read_protection
    if isinstance(protection, XorNonce13):
        return _open13(protection, wire, start, end, out, filled, records.receive_limit, most)
    if isinstance(protection, AeadProtection):
        return _open12(protection, wire, start, end, out, filled, min(records.receive_limit, MAX_PLAINTEXT), most)
    return Opened(start, filled, False, complete_record(wire, start, end))


def complete_record(wire: memoryview, start: int, end: int) -> int:
    """Length in bytes, header included, of the record at `start`.

    0 if it is incomplete; all there is if it is too long ever to be a record, for the connection to complain about.
    """
    if end - start < HEADER_LENGTH:
        return 0
    length = HEADER_LENGTH + (wire[start + 3] << 8 | wire[start + 4])
    if start + length <= end:
        return length
    return end - start if length > HEADER_LENGTH + MAX_PLAINTEXT + MAX_EXPANSION_12 else 0


def _open13(
    protection: XorNonce13, wire: memoryview, position: int, end: int, out: memoryview, filled: int, limit: int, most: int
) -> Opened:
    sequence = protection.sequence
    last = min(sequence + most, MAX_SEQUENCE)
    decrypt = protection.aead.decrypt_into
    iv = protection.iv
    while end - position > HEADER_LENGTH and sequence < last:
        body = position + HEADER_LENGTH
        header = bytes(wire[position:body])
        stop = body + (header[3] << 8 | header[4])
        size = stop - body - TAG_LENGTH
        if stop > end or header[0] != _DATA or not 1 < size <= limit:
            break
        try:
            decrypt((iv ^ sequence).to_bytes(12, "big"), wire[body:stop], header, out[filled : filled + size])
        except InvalidTag:
            break
        if out[filled + size - 1] != _DATA:
            break
        filled += size - 1
        sequence += 1
        position = stop
    protection.sequence = sequence
    return _opened(wire, position, end, filled, sequence == last)


def _open12(
    protection: AeadProtection, wire: memoryview, position: int, end: int, out: memoryview, filled: int, limit: int, most: int
) -> Opened:
    sequence = protection.sequence
    last = min(sequence + most, MAX_SEQUENCE)
    decrypt = protection.aead.decrypt_into
    iv = protection.iv
    explicit = EXPLICIT_NONCE_LENGTH if isinstance(protection, Explicit12) else 0
    salt = iv.to_bytes(12, "big")[:4]
    while end - position > HEADER_LENGTH and sequence < last:
        body = position + HEADER_LENGTH + explicit
        header = bytes(wire[position:body])
        stop = position + HEADER_LENGTH + (header[3] << 8 | header[4])
        size = stop - body - TAG_LENGTH
        if stop > end or header[:3] != _PREFIX or not 0 < size <= limit:
            break
        nonce = salt + header[HEADER_LENGTH:] if explicit else (iv ^ sequence).to_bytes(12, "big")
        associated = sequence.to_bytes(8, "big") + _PREFIX + size.to_bytes(2, "big")
        try:
            decrypt(nonce, wire[body:stop], associated, out[filled : filled + size])
        except InvalidTag:
            break
        filled += size
        sequence += 1
        position = stop
    protection.sequence = sequence
    return _opened(wire, position, end, filled, sequence == last)


def _opened(wire: memoryview, position: int, end: int, filled: int, full: bool) -> Opened:
    """Look at what made the loop stop, if anything did."""
    if full or position == end:
        return Opened(position, filled, full, 0)
    return Opened(position, filled, False, complete_record(wire, position, end))
