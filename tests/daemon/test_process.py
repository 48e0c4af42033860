"""Does the process start, reload, refuse, and stop as an operator and a service manager expect?"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import DEFAULTS, HERE, ROOT, DaemonProcess, both, eventually
from toyplugin import CLIENT, SERVER

from tlspool_core.cli.status import ask
from tlspool_core.client import ErrorCode, Pool, PoolError
from tlspool_core.pool.config import SocketConfig
from tlspool_core.pool.daemon import Daemon
from tlspool_core.pool.listeners import ListenError, listen

Daemons = Callable[..., DaemonProcess]


def session(daemon: DaemonProcess) -> list[Any]:
    return both(daemon.pool, daemon.pool, {"localid": SERVER}, {"remoteid": SERVER})


# --- sockets -----------------------------------------------------------------------------------------------------------------------


def test_a_socket_has_its_mode_and_a_stale_one_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "pool.sock"
    listener = listen(SocketConfig(path, mode=0o640))
    assert path.stat().st_mode & 0o777 == 0o640
    with pytest.raises(ListenError, match="another pool serves"):
        listen(SocketConfig(path))
    listener.close()
    assert list(path.parent.iterdir()) == []
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    assert path.exists()
    listen(SocketConfig(path)).close()


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("dear")
    with pytest.raises(ListenError, match="no socket"):
        listen(SocketConfig(path))
    assert path.read_text() == "dear"
    with socket.socket(socket.AF_UNIX) as other:
        path = tmp_path / "other.sock"
        other.bind(str(path))
        other.listen()
        with pytest.raises(ListenError, match="another program serves"):
            listen(SocketConfig(path))
        assert path.exists()


def test_several_sockets(daemons: Daemons, tmp_path: Path) -> None:
    second = tmp_path / "second.sock"
    daemon = daemons(f'[[socket]]\npath = "{second}"\nmode = "0600"\n')
    for path in (daemon.path, second):
        with Pool(path) as pool:
            assert pool.ping().facilities == 1
    assert second.stat().st_mode & 0o777 == 0o600
    assert daemon.stop() == 0
    assert not second.exists() and not daemon.path.exists()
    assert not daemon.path.with_name("tlspool.sock.status").exists()


def test_socket_activation(tmp_path: Path) -> None:
    path = tmp_path / "activated.sock"
    config = tmp_path / "tlspool.toml"
    config.write_text(DEFAULTS)
    notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notified.bind(str(tmp_path / "notify"))
    notified.settimeout(15)
    code = (
        "import os, pathlib, sys; os.dup2(int(sys.argv[2]), 3); os.environ['LISTEN_PID'] = str(os.getpid());"
        "from tlspool_core.pool.daemon import serve; serve(pathlib.Path(sys.argv[1]))"
    )
    with notified, socket.socket(socket.AF_UNIX) as listening, Pool(path) as pool:
        listening.bind(str(path))
        listening.listen()
        listening.set_inheritable(True)
        environment = os.environ | {
            "LISTEN_FDS": "1",
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "200000",
            "PYTHONPATH": os.pathsep.join((str(HERE), str(ROOT))),
        }
        arguments = [sys.executable, "-c", code, str(config), str(listening.fileno())]
        process = subprocess.Popen(arguments, pass_fds=[listening.fileno()], env=environment, stderr=subprocess.DEVNULL)
        try:
            assert b"READY=1" in notified.recv(1000)
            assert pool.ping().facilities == 1
            assert notified.recv(1000) == b"WATCHDOG=1"
            process.send_signal(signal.SIGHUP)
            told = b""
            while b"READY=1" not in told:
                told += notified.recv(1000) + b"\n"
            assert b"RELOADING=1\nMONOTONIC_USEC=" in told
        finally:
            process.terminate()
            assert process.wait(10) == 0
        assert path.exists()  # it belongs to the service manager


# --- limits ------------------------------------------------------------------------------------------------------------------------


def test_limits_of_clients(daemons: Daemons) -> None:
    daemon = daemons("[limits]\nclients = 2\n")
    second = Pool(daemon.path)
    second.ping()
    with pytest.raises(PoolError), Pool(daemon.path) as third:
        third.ping()
    assert "limit=limits.clients" in daemon.text
    second.close()
    with Pool(daemon.path, patience=5) as fourth:
        eventually(lambda: _pings(fourth))


def _pings(pool: Pool) -> bool:
    try:
        return bool(pool.ping())
    except PoolError:
        return False


def test_limits_of_sessions(daemons: Daemons) -> None:
    daemon = daemons("[limits]\nsessions = 2\n")
    for ended in (2, 4):
        server, client = session(daemon)
        with server, client:
            ours, theirs = socket.socketpair()
            with theirs, pytest.raises(PoolError) as caught:
                daemon.pool.starttls_server(ours, localid=SERVER)
            assert caught.value.code == ErrorCode.LIMIT_REACHED
        eventually(lambda ended=ended: daemon.text.count("ended") >= ended)


# --- status ------------------------------------------------------------------------------------------------------------------------


def test_the_status_counts(daemons: Daemons) -> None:
    daemon = daemons()
    path = Path(f"{daemon.path}.status")
    assert path.stat().st_mode & 0o777 == 0o600
    server, client = session(daemon)
    with server, client:
        client.plaintext.sendall(b"five!")
        assert server.plaintext.recv(10) == b"five!"
        assert ask(str(path))["workers"][0]["sessions"] == 2
    assert isinstance(both(daemon.pool, daemon.pool, {"localid": "x.example"}, {})[0], PoolError)
    eventually(lambda: ask(str(path))["workers"][0]["ended"] == 2)
    (worker,) = ask(str(path))["workers"]
    assert (worker["sessions"], worker["established"]) == (0, {"server": 1, "client": 1})
    assert (worker["octets_in"], worker["octets_out"]) == (5, 5)
    assert worker["refused"] == {"localid_not_found": 1, "peer_refused": 1}
    assert worker["key_stores"]["software"]["missing"] == 1
    run = "from tlspool_core.cli import main; main()"
    environment = os.environ | {"TLSPOOL_CONFIG": str(daemon.config), "PYTHONPATH": os.pathsep.join((str(HERE), str(ROOT)))}
    shown = subprocess.run([sys.executable, "-c", run, "status"], env=environment, capture_output=True, text=True, check=True)
    assert "refused: localid not found  1" in shown.stdout
    assert "key store software" in shown.stdout


# --- reload ------------------------------------------------------------------------------------------------------------------------


def test_a_file_that_a_person_writes_after_the_start_is_read(tmp_path: Path) -> None:
    # short names: the path of a socket has 107 bytes at most, and the first part of this one is long
    directories = {f"XDG_{what}": str(tmp_path / what[0]) for what in ("CONFIG_HOME", "STATE_HOME", "RUNTIME_DIR")}
    log = tmp_path / "log"
    with log.open("wb") as errors:
        run = "from tlspool_core.cli import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", run, "serve"], stderr=errors, env=os.environ | directories | {"HOME": str(tmp_path)}
        )
    try:
        eventually(lambda: "serving" in log.read_text())
        file = tmp_path / "C" / "tlspool" / "tlspool.toml"
        file.parent.mkdir(parents=True)
        file.write_text("[limits]\nsessions = 5\n")
        process.send_signal(signal.SIGHUP)
        eventually(lambda: f"configuration read anew file={file}" in log.read_text())
    finally:
        process.terminate()
        process.wait(20)


def test_reload_applies_what_is_good_and_keeps_the_old_otherwise(daemons: Daemons) -> None:
    daemon = daemons()
    server, client = session(daemon)
    with server, client:
        daemon.configure("[tls]\nversions = ['1.3']\ngroups = ['P-999']\n")
        daemon.signal(signal.SIGHUP)
        eventually(lambda: "configuration not changed" in daemon.text)
        assert "'P-999' is not known" in daemon.text
        daemon.configure("[limit]\n")
        daemon.signal(signal.SIGHUP)
        eventually(lambda: "did you mean 'limits'" in daemon.text)
        for end in session(daemon):
            end.close()
        daemon.configure("[tls]\ngroups = ['P-384']\n[log]\nformat = 'json'\n")
        daemon.signal(signal.SIGHUP)
        eventually(lambda: "configuration read anew" in daemon.text)
        client.plaintext.sendall(b"still here")
        assert server.plaintext.recv(100) == b"still here"
        again = session(daemon)
        assert again[1].text(0x84460002) == "P-384"
        for end in again:
            end.close()
        eventually(lambda: '"established"' in daemon.text)
    lines = [json.loads(line) for line in daemon.text.splitlines() if line.startswith("{")]
    assert {line["event"] for line in lines} >= {"configuration read anew", "established"}
    established = next(line for line in lines if line["event"] == "established")
    assert established["session"] and established["remote"] in (CLIENT, SERVER)
    daemon.configure(f"workers = 7\n---\n[[socket]]\npath = '{daemon.path}2'\n[keystore.software]\nmodules = ['new']\n")
    daemon.signal(signal.SIGHUP)
    eventually(lambda: "some changes need a restart" in daemon.text)
    assert "sections=keystore.software,sockets,workers" in daemon.text


def test_credentials_are_made_anew_once_the_tokens_were_looked_at() -> None:
    # a handshake during the rescan may have made one with the key of before; only the order of the two steps shows that it is not kept
    steps: list[str] = []

    async def rescan() -> None:
        await asyncio.sleep(0)
        steps.append("rescan")

    daemon = Daemon.__new__(Daemon)
    parts = {
        "_plugins": SimpleNamespace(rescan=rescan),
        "_pool": SimpleNamespace(credentials=SimpleNamespace(forget=lambda: steps.append("forget"))),
    }
    for name, part in parts.items():
        setattr(daemon, name, part)
    asyncio.run(daemon._rescan())
    assert steps == ["rescan", "forget"]


# --- stopping ----------------------------------------------------------------------------------------------------------------------


def test_a_pool_that_is_told_to_stop_lets_sessions_finish(daemons: Daemons) -> None:
    daemon = daemons()
    server, client = session(daemon)
    daemon.signal(signal.SIGTERM)
    eventually(lambda: "stopping" in daemon.text)
    with pytest.raises(PoolError), Pool(daemon.path) as late:
        late.ping()
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(PoolError) as caught:
        daemon.pool.starttls_server(ours, localid=SERVER)
    assert caught.value.code == ErrorCode.POOL_STOPPING
    with server, client:
        client.plaintext.sendall(b"wait for me")
        assert server.plaintext.recv(100) == b"wait for me"
        assert daemon.process.poll() is None
    assert daemon.process.wait(10) == 0


@pytest.mark.parametrize("way", ["limit", "signal"])
def test_a_pool_does_not_wait_for_ever(daemons: Daemons, way: str) -> None:
    daemon = daemons(f"[limits]\ndrain_timeout = {0.3 if way == 'limit' else 100}\n")
    server, client = session(daemon)
    with server, client:
        daemon.signal(signal.SIGTERM)
        eventually(lambda: "stopping" in daemon.text)
        if way == "signal":
            daemon.signal(signal.SIGTERM)
        assert daemon.process.wait(10) == 0
        assert client.plaintext.recv(1) == b""
    assert "Traceback" not in daemon.text


# --- starting --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "complaint"),
    [
        ("[aaa]\nauthorization = ['radios']\n", "aaa.authorization: 'radios' is not installed"),
        ("[credential.tyo]\n", "credential: 'tyo' is not installed; did you mean 'toy'?"),
        ("[tls]\ncipher_suites = ['RC4']\n", "tls.cipher_suites: 'RC4' is not known"),
        ("user = 'nobody-here'\n---\n", "there is no user 'nobody-here'"),
        ("[tls]\nkey_log = '/nonexistent/keys'\n", "tls.key_log: /nonexistent/keys: No such file"),
        ("[policy]\ndefault = 'TI'\n", "policy.default: 'TI': 2 expressions stand side by side"),
    ],
)
def test_what_cannot_work_is_said_at_once(tmp_path: Path, extra: str, complaint: str) -> None:
    daemon = DaemonProcess(tmp_path, extra)
    assert daemon.process.wait(15) != 0
    assert complaint in daemon.text
    assert not daemon.path.exists()
    daemon.stop()


def test_secrets_are_logged_only_when_asked_and_with_an_audit_line(daemons: Daemons, tmp_path: Path) -> None:
    path = tmp_path / "keys.log"
    daemon = daemons(f"[tls]\nkey_log = '{path}'\n")
    assert "audit: session secrets are written" in daemon.text
    for end in session(daemon):
        end.close()
    lines = path.read_text().split()
    assert "CLIENT_TRAFFIC_SECRET_0" in lines
    assert path.stat().st_mode & 0o777 == 0o600
    assert not {word for word in lines if len(word) > 60 and word in daemon.text}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_privileges_are_dropped_for_good(daemons: Daemons) -> None:
    daemon = daemons("user = 'nobody'\n---\n")
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    for field in ("Uid", "Gid"):
        numbers = status.split(f"\n{field}:")[1].split("\n")[0].split()
        assert set(numbers) == {"65534"}
    assert status.split("\nGroups:")[1].split("\n")[0].split() in ([], ["65534"])
    assert "NoNewPrivs:\t1" in status
    limits = Path(f"/proc/{daemon.process.pid}/limits").read_text()
    assert re.search(r"Max core file size +0 +0 ", limits)
    for end in session(daemon):
        end.close()
