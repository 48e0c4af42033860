"""What is a peer called in logs and to plugins, whatever kind of address its socket has?"""

from __future__ import annotations

import pytest

from tlspool_core.pool.beginning import name_text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (("127.0.0.1", 443), "127.0.0.1:443"),
        (("::1", 443, 0, 0), "[::1]:443"),
        (("fe80::1%eth0", 443, 0, 2), "[fe80::1%eth0]:443"),
        ("/run/peer.sock", ""),
        (b"\0abstract", ""),
        ("", ""),
        ((3, 1024), ""),  # AF_VSOCK
        ((1, 2, 3, 4, 5), ""),  # AF_TIPC
        (("can0",), ""),  # AF_CAN
        (None, ""),
    ],
)
def test_a_name_is_an_internet_address_or_none(name: object, text: str) -> None:
    assert name_text(name) == text
