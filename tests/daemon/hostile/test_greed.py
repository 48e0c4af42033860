"""Is somebody served who comes after one application has taken all that it could get?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from tlspool_core.client import Pool, options
from tlspool_core.wire.codec import encode
from tlspool_core.wire.errors import ErrorCode
from tlspool_core.wire.flags import StartTlsFlags
from tlspool_core.wire.messages import Packet, StartTls

FILES = 110
START = StartTls(flags=options.SERVER | StartTlsFlags.IGNORE_REMOTEID, localid="www.example.com")


@pytest.mark.skipif(not shutil.which("prlimit"), reason="there is no prlimit to start a daemon with few open files")
def test_all_sessions(hostile: Any, daemons: Callable[..., Any]) -> None:
    """Those are fewer than the daemon may have files open for; it says so."""
    daemon = daemons(within=("prlimit", f"--nofile={FILES}:{FILES}"))
    greedy = type(hostile)(daemon)
    for number in range(FILES):
        greedy.begin(START.echo(ctlkey=os.urandom(16)), reqid=number)
    refused = greedy.refusal()
    assert refused.tlserrno == ErrorCode.LIMIT_REACHED
    with Pool(daemon.path) as other:
        assert other.ping().facilities == 1
    greedy.vanish()
    daemon.stop()
    assert "fewer sessions than configured" in daemon.text
    assert "Too many open files" not in daemon.text


def test_descriptors_of_a_packet_that_never_ends(hostile: Any) -> None:
    """Each piece of it brings some."""
    before = hostile.daemon.descriptors
    ours, _ = hostile.pair()
    packet = encode(Packet(1, 0, START))
    for byte in packet[:300]:
        hostile.raw(bytes([byte]), [ours.fileno()] * 4)
    hostile.wait_until_read()
    assert hostile.daemon.descriptors <= before + 2 + 4, "the packet's own, the one too many, and those of the last read"
    hostile.raw(packet[300:])
    assert hostile.refusal().tlserrno == ErrorCode.SUPERFLUOUS_SOCKET
