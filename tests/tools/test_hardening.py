"""Do the units forbid what the programs do not need, and nothing that they do?

The rest of a unit's restrictions needs systemd as the first process; what was tried there by hand is in the how-to of the service.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import DaemonProcess, eventually  # type: ignore[attr-defined]
from test_openssl import CLIENT, NEEDED, SERVER, World

from tests.tools.conftest import ROOT
from tlspool_core.client import Pool

UNITS = ROOT / "packaging" / "systemd"
SYSTEM = ("tlspool.service", "tlspool-tunnel@.service")
SERVING = ("tlspool.service", "tlspool-user.service")
CONFINED = (sys.executable, str(Path(__file__).with_name("confined.py")))
MOST_EXPOSED = 20  # tenths, of 100: what is left is the network, devices, and the users of the machine

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd, which knows the calls, is not installed")


@pytest.mark.parametrize("unit", SYSTEM)
def test_systemd_finds_a_unit_little_exposed(unit: str) -> None:
    command = ("systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSED}", str(UNITS / unit))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-300:]


@pytest.mark.parametrize("unit", sorted(path.name for path in UNITS.glob("*.service")))
@pytest.mark.parametrize(
    ("what", "call"),
    [
        ("another root", "os.chroot('/')"),
        ("a priority", "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))"),
        ("code that is written", "mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)"),
        ("another's memory", "ptrace(16, os.getppid(), 0, 0)"),
        ("raw packets", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)"),
    ],
)
def test_what_is_not_needed_fails(unit: str, what: str, call: str) -> None:
    """Which says, too, that the tests below run under a filter."""
    program = f"""
import ctypes, mmap, os, socket
def ptrace(*arguments):
    if ctypes.CDLL(None, use_errno=True).ptrace(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")
try:
    {call}
except PermissionError:
    print("refused")
"""
    command = (*CONFINED, str(UNITS / unit), sys.executable, "-c", program)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"


@pytest.mark.parametrize("unit", ["tlspool-proxy.service", "tlspool-tunnel@.service"])
def test_the_kernel_tells_whose_a_connection_is(unit: str) -> None:
    """By a netlink socket, which a filter of address families might forbid: then nobody would be served."""
    program = """
import os, socket
from tlspool_core.tools.whose import owner
with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as client:
    with listening.accept()[0] as accepted:
        print(owner(accepted) == os.geteuid())
"""
    done = subprocess.run(
        (*CONFINED, str(UNITS / unit), sys.executable, "-c", program), capture_output=True, text=True, check=False
    )
    assert done.stdout == "True\n", done.stderr


def processes_of(daemon: DaemonProcess) -> list[int]:
    """The daemon and all that it has started."""
    found = [daemon.process.pid]
    for process in found:
        for thread in Path(f"/proc/{process}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found


def session(daemon: DaemonProcess) -> None:
    """Over TCP, both ends in the pool, each proven by a key in the token; data one way, then the end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    with Pool(daemon.path) as other:
        served: list[bytes] = []

        def serve() -> None:
            with daemon.pool.starttls_server(ours, localid=SERVER, timeout=20) as server:
                assert server.remoteid == CLIENT
                while data := server.plaintext.recv(65536):
                    served.append(data)

        thread = threading.Thread(target=serve)
        thread.start()
        with other.starttls_client(theirs, remoteid=SERVER, timeout=20) as client:
            assert client.remoteid == SERVER
            assert len(client.export("EXPERIMENTAL", length=32)) == 32
            client.plaintext.sendall(bytes(1 << 20))
            client.plaintext.shutdown(socket.SHUT_WR)
            assert client.plaintext.recv(1) == b""
        thread.join(20)
    assert sum(map(len, served)) == 1 << 20


@pytest.mark.skipif(bool(NEEDED), reason=f"not installed: {', '.join(NEEDED)}")
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("unit", SERVING)
def test_a_pool_does_all_its_work_under_the_filter(tmp_path: Path, unit: str, workers: int) -> None:
    daemons: list[DaemonProcess] = []

    def start(extra: str, *, real: bool) -> DaemonProcess:
        (tmp_path / "pool").mkdir()
        configuration = f'workers = {workers}\n---\n{extra}\n[status]\npath = "{tmp_path}/status"\ngroup = "{os.getegid()}"\n'
        daemons.append(DaemonProcess(tmp_path / "pool", configuration, real=real, within=(*CONFINED, str(UNITS / unit))))
        daemons[0].wait_until_it_serves()
        return daemons[0]

    try:
        daemon = World(tmp_path, start).daemon
        session(daemon)
        processes = processes_of(daemon)
        assert len(processes) >= 1 + workers, "serving processes, and those of the token"
        for process in processes:
            status = Path(f"/proc/{process}/status").read_text()
            assert "Seccomp:\t2\n" in status
            assert "NoNewPrivs:\t1\n" in status
        daemon.signal(signal.SIGHUP)
        eventually(lambda: daemon.text.count("configuration read anew") == workers)
        session(daemon)
    finally:
        for daemon in daemons:
            assert daemon.stop() == 0, daemon.text
            assert "Operation not permitted" not in daemon.text
