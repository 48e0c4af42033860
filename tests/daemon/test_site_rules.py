"""Do site rules decide after policy, with their reason told, their limits kept, and every failure a refusal?"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import DaemonProcess, both, eventually
from toyplugin import CLIENT, SERVER

from tlspool_core.client import ErrorCode, PoolError, Session, StartTlsFlags
from tlspool_core.interfaces import AaaDecision
from tlspool_core.pool.aaa import combine

RULES = """
[limits]
plugin_timeout = 0.3
[aaa]
authentication = ["site"]
authorization = ["site"]
"""


@pytest.fixture(scope="module")
def daemon(module_daemons: Callable[..., DaemonProcess]) -> DaemonProcess:
    return module_daemons(RULES)


@pytest.mark.parametrize(
    ("service", "reason"),
    [
        ("closed", f"authentication by site: closed to {CLIENT} of type toy"),
        ("broken", "authentication by site: the plugin failed"),
        ("silent", "authentication by site: no answer in time"),
    ],
)
def test_refusals_reach_the_application_and_the_peer(daemon: DaemonProcess, service: str, reason: str) -> None:
    wishes = {"remoteid": SERVER, "flags": StartTlsFlags.NONE}
    server, client = both(daemon.pool, daemon.pool, {"localid": SERVER, "service": service}, wishes)
    assert isinstance(server, PoolError)
    assert (server.code, server.text) == (ErrorCode.SITE_REFUSED, reason)
    if isinstance(client, Session):
        with client:
            assert client.plaintext.recv(1) == b""
    eventually(lambda: reason in daemon.text)


@pytest.mark.parametrize(("service", "cause"), [("short", "session timeout"), ("idle", "idle timeout")])
def test_limits_are_kept(daemon: DaemonProcess, service: str, cause: str) -> None:
    server, client = both(daemon.pool, daemon.pool, {"localid": SERVER, "service": service}, {"remoteid": SERVER})
    with server, client:
        assert client.plaintext.recv(1) == b""
    eventually(lambda: f'cause="{cause}"' in daemon.text)


def test_without_objection_a_session_goes_on(daemon: DaemonProcess) -> None:
    server, client = both(daemon.pool, daemon.pool, {"localid": SERVER}, {"remoteid": SERVER})
    with server, client:
        client.plaintext.sendall(b"hello")
        assert server.plaintext.recv(10) == b"hello"


def test_the_strictest_limit_holds() -> None:
    first, second = AaaDecision(10, None, (b"a",)), AaaDecision(20, 5, (b"b",))
    assert combine(first, second) == AaaDecision(10, 5, (b"a", b"b"))
