"""Can an application make the pool hold the application's own connection, so that its end is never seen?"""

from __future__ import annotations

from typing import Any

from tlspool_core.client import Session, options
from tlspool_core.wire.errors import ErrorCode
from tlspool_core.wire.flags import StartTlsFlags
from tlspool_core.wire.messages import Error, PlaintextConnect, StartTls

START = StartTls(flags=options.SERVER | StartTlsFlags.IGNORE_REMOTEID, localid="www.example.com")


def test_as_the_socket_for_tls(hostile: Any) -> None:
    hostile.send(START, [hostile.sock.fileno()])
    assert hostile.refusal().tlserrno == ErrorCode.CONNECTION_DRIVER


def test_anothers_as_the_socket_for_tls(hostile: Any) -> None:
    other = type(hostile)(hostile.daemon)
    hostile.send(START, [other.sock.fileno()])
    other.vanish()
    assert hostile.refusal().tlserrno == ErrorCode.CONNECTION_DRIVER


def test_as_the_plaintext_socket(hostile: Any) -> None:
    outcome = hostile.with_peer(START)
    packet = hostile.read()
    assert isinstance(packet.message, PlaintextConnect)
    hostile.send(packet.message, [hostile.sock.fileno()], reqid=packet.reqid, cbid=packet.cbid)
    refusal = hostile.read()
    assert isinstance(refusal.message, Error)
    assert refusal.message.tlserrno == ErrorCode.CONNECTION_DRIVER
    result = outcome()
    assert isinstance(result, Session)
    with result:
        assert result.plaintext.recv(100) == b""
