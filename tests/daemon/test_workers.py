"""Do several processes serve as one pool: sessions anywhere, control keys and tickets everywhere, crashes mended?"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import DaemonProcess, both, eventually
from toyplugin import SERVER

from tlspool_core.cli.status import ask, total
from tlspool_core.client import ErrorCode, Pool, PoolError, StartTlsFlags
from tlspool_core.pool.config import SocketConfig
from tlspool_core.pool.listeners import listen

WORKERS = "workers = 3\n---\n"


@pytest.fixture
def daemon(daemons: Callable[..., DaemonProcess]) -> DaemonProcess:
    started = daemons(WORKERS)
    eventually(lambda: "all workers serve" in started.text)
    return started


def workers(daemon: DaemonProcess) -> list[int]:
    pid = daemon.process.pid
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def spread(daemon: DaemonProcess, count: int = 24) -> list[Pool]:
    """Applications whose connections lie in various workers."""
    pools = [Pool(daemon.path) for _ in range(count)]
    for pool in pools:
        pool.ping()
    return pools


def test_control_and_tickets_work_whichever_process_one_lands_in(daemon: DaemonProcess) -> None:
    applications = spread(daemon)
    maker = applications.pop()
    server, client = both(daemon.pool, maker, {"localid": SERVER}, {"remoteid": SERVER})
    with server, client:
        exported = client.export("EXPERIMENTAL")
        for application in applications:
            control = application.control(client.ctlkey)
            with pytest.raises(PoolError) as caught:
                control.export("EXPERIMENTAL")
            assert caught.value.code == ErrorCode.CTLKEY_NOT_YOURS
        client.detach()
        for application in applications:
            control = application.control(client.ctlkey)
            control.reattach()
            assert control.export("EXPERIMENTAL") == exported
            assert control.version() == "TLSv1.3"
            with pytest.raises(PoolError) as caught:
                client.export("EXPERIMENTAL")
            assert caught.value.code == ErrorCode.CTLKEY_NOT_YOURS
            application.close()  # what it controlled is detached then, wherever it is
            eventually(lambda: _reattached(client))
            client.detach()
    maker.close()
    unknown = daemon.pool.control(b"?" * 16)
    with pytest.raises(PoolError) as caught:
        unknown.detach()
    assert caught.value.code == ErrorCode.CTLKEY_NOT_FOUND


def _reattached(client: object) -> bool:
    try:
        client.reattach()  # type: ignore[attr-defined]
    except PoolError as error:
        assert error.code == ErrorCode.CTLKEY_ALREADY_ATTACHED
        return False
    return True


def test_renegotiation_reaches_the_session_too(daemon: DaemonProcess) -> None:
    flags = StartTlsFlags.FORK
    with Pool(daemon.path) as maker:
        server, client = both(daemon.pool, maker, {"localid": SERVER}, {"remoteid": SERVER, "flags": flags})
        client.detach()
        for application in spread(daemon, 6):
            control = application.control(client.ctlkey)
            control.reattach()
            control.detach()
            application.close()
        client.reattach()
        client.renegotiate()
        server.close()
        client.close()


def test_tickets_are_good_in_all_processes(daemon: DaemonProcess, daemons: Callable[..., DaemonProcess]) -> None:
    there = daemons()
    servers = spread(daemon, 12)
    for server_pool in servers:
        server, client = both(server_pool, there.pool, {"localid": SERVER}, {"remoteid": SERVER})
        server.close()
        client.close()
        eventually(lambda: there.text.count("] established") == there.text.count("] ended"))
        server_pool.close()
    eventually(lambda: there.text.count("resumed=True") == len(servers) - 1)
    eventually(lambda: daemon.text.count("] established") == len(servers))
    assert len({line.split("[")[1].split("-")[0] for line in daemon.text.splitlines() if "] established" in line}) > 1


def test_the_status_is_of_all(daemon: DaemonProcess) -> None:
    for application in spread(daemon, 6):
        for end in both(application, application, {"localid": SERVER}, {"remoteid": SERVER}):
            end.close()
        application.close()
    found = ask(f"{daemon.path}.status")
    assert sorted(worker["pid"] for worker in found["workers"]) == sorted(workers(daemon))
    assert (total(found["workers"], "established"), found["workers"][0]["stopping"]) == (12, False)


def test_a_crashed_worker_is_replaced(daemon: DaemonProcess) -> None:
    before = workers(daemon)
    assert len(before) == 3
    os.kill(before[0], signal.SIGKILL)
    eventually(lambda: "worker ended, and will be replaced" in daemon.text)
    eventually(lambda: len(workers(daemon)) == 3)
    assert before[0] not in workers(daemon)
    for pool in spread(daemon, 6):
        pool.close()


@pytest.mark.parametrize("when", ["in the midst of the start", "before a worker is replaced"])
def test_a_worker_that_starts_serves_by_the_configuration_of_now(daemons: Callable[..., DaemonProcess], when: str) -> None:
    daemon = daemons(WORKERS)  # of which one serves already
    if when == "before a worker is replaced":
        eventually(lambda: "all workers serve" in daemon.text)
    daemon.configure("workers = 3\n---\n[tls]\nversions = ['1.2']\n")
    daemon.signal(signal.SIGHUP)
    eventually(lambda: daemon.text.count("configuration read anew") == 3)
    if when == "before a worker is replaced":
        os.kill(workers(daemon)[0], signal.SIGKILL)
        eventually(lambda: daemon.text.count("configuration read anew") == 4)
    assert len(workers(daemon)) == 3
    for application in spread(daemon, 12):
        server, client = both(application, application, {"localid": SERVER}, {"remoteid": SERVER})
        assert client.version() == "TLSv1.2"
        server.close()
        client.close()
        application.close()


def test_reload_reaches_all(daemon: DaemonProcess) -> None:
    daemon.configure("workers = 3\n---\n[tls]\nversions = ['1.2']\n")
    daemon.signal(signal.SIGHUP)
    eventually(lambda: daemon.text.count("configuration read anew") == 3)
    server, client = both(daemon.pool, daemon.pool, {"localid": SERVER}, {"remoteid": SERVER})
    assert client.version() == "TLSv1.2"
    server.close()
    client.close()


def test_stopping_ends_all_and_frees_the_path(daemon: DaemonProcess) -> None:
    children = workers(daemon)
    server, client = both(daemon.pool, daemon.pool, {"localid": SERVER}, {"remoteid": SERVER})
    daemon.signal(signal.SIGTERM)
    eventually(lambda: daemon.text.count("stopping sessions") == 3)
    assert daemon.process.poll() is None
    server.close()
    client.close()
    assert daemon.process.wait(10) == 0
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    listen(SocketConfig(daemon.path)).close()


def test_workers_end_with_the_supervisor(daemon: DaemonProcess) -> None:
    children = workers(daemon)
    daemon.process.kill()
    daemon.process.wait()
    eventually(lambda: not [pid for pid in children if Path(f"/proc/{pid}").exists()])


def test_a_mistake_ends_the_pool_at_once(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path, "workers = 2\n---\n[aaa]\nauthorization = ['radios']\n")
    assert daemon.process.wait(15) != 0
    assert "'radios' is not installed" in daemon.text
    daemon.stop()
