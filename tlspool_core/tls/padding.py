"""How much padding the records of TLS 1.3 get (RFC 8446 section 5.4).

Theory of operation
-------------------
Whoever watches a connection sees the lengths of its records.  In the handshake they tell certificates apart, and so the people that
they name; afterwards they tell pages, queries and passwords apart.  A rule makes lengths up to a step of a ladder: every multiple of a
number, or every power of two, so that all lengths between two steps look alike.  Multiples are for messages of about one size, powers
for sizes that differ greatly, at the cost of up to twice the bytes.  Padding never makes a record longer than the peer takes.

It hides lengths of records only: their number and their timing remain, and so do lengths above one record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tlspool_core.tls.enums import ContentType

POWERS: Final = -1  # a rule: powers of two
SMALLEST_POWER: Final = 64
MAX_MULTIPLE: Final = 16384  # a full record
_HANDSHAKE: Final = int(ContentType.HANDSHAKE)


@dataclass(frozen=True, slots=True)
class Padding:
    """Rules for handshake messages and for everything else: 0 for none, POWERS, or the number of bytes to be a multiple of.

    Raises ValueError for other numbers.
    """

    handshake: int = 0
    data: int = 0

    def __post_init__(self) -> None:
        for rule in (self.handshake, self.data):
            if rule != POWERS and not 0 <= rule <= MAX_MULTIPLE:
                raise ValueError(f"padding to {rule} bytes: it is a number of bytes up to {MAX_MULTIPLE}, or powers of two")

    def zeros(self, content_type: int, length: int, limit: int) -> int:
        """Bytes to add to an inner plaintext of `length` bytes, its content type included, of which the peer takes `limit`."""
        rule = self.handshake if content_type == _HANDSHAKE else self.data
        if not rule:
            return 0
        padded = max(SMALLEST_POWER, 1 << (length - 1).bit_length()) if rule == POWERS else -(-length // rule) * rule
        return max(0, min(padded, limit) - length)
