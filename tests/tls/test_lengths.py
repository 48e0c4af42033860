"""Is what no length can tell refused, rather than written into the field beside it?"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tlspool_core.tls.alerts import InternalError
from tlspool_core.tls.codec import vector8, vector16, vector24
from tlspool_core.tls.enums import HandshakeType
from tlspool_core.tls.messages import frame


def certificate(body: bytes) -> bytes:
    return frame(HandshakeType.CERTIFICATE, body)


@pytest.mark.parametrize(
    ("build", "size", "head"),
    [(vector8, 1, b""), (vector16, 2, b""), (vector24, 3, b""), (certificate, 3, bytes([HandshakeType.CERTIFICATE]))],
)
def test_the_longest_is_written_and_one_byte_more_is_refused(build: Callable[[bytes], bytes], size: int, head: bytes) -> None:
    longest = (1 << 8 * size) - 1
    written = build(bytes(longest))
    assert written[: len(head) + size] == head + b"\xff" * size
    assert len(written) == len(head) + size + longest
    with pytest.raises(InternalError, match=f"{longest + 1} bytes do not fit"):
        build(bytes(longest + 1))
