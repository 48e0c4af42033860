"""Can a monitor read how the pool is, in the form that it expects, and can nobody who asks badly cost the pool anything?"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, DaemonProcess, both, eventually
from toyplugin import CLIENT, SERVER

from tlspool_core.cli.status import lines, problems
from tlspool_core.interfaces import Measurement
from tlspool_core.pool.config import ConfigurationError, parse_config
from tlspool_core.pool.metrics import exposition
from tlspool_core.pool.status import measured

Daemons = Callable[..., DaemonProcess]


def ask(where: Path | tuple[str, int], request: str = "GET /metrics HTTP/1.1\r\nHost: pool\r\n\r\n") -> tuple[str, str]:
    """Status line and body of one answer."""
    family = socket.AF_UNIX if isinstance(where, Path) else socket.AF_INET
    with socket.socket(family) as link:
        link.settimeout(20)
        link.connect(str(where) if isinstance(where, Path) else where)
        link.sendall(request.encode())
        answer = b""
        while data := link.recv(65536):
            answer += data
    head, _, body = answer.decode().partition("\r\n\r\n")
    return head.partition("\r\n")[0], body


def status_of(pool: DaemonProcess) -> str:
    """As an operator sees it, whose configuration file may be spoilt just now."""
    run = "from tlspool_core.cli import main; main()"
    environment = os.environ | {"TLSPOOL_CONFIG": str(pool.config), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", run, "status", "--socket", f"{pool.path}.status"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def samples(page: str) -> dict[str, float]:
    """Each sample by its name with labels, from a page that is checked to be in the format."""
    found: dict[str, float] = {}
    typed: list[str] = []
    for line in page.splitlines():
        if line.startswith("# TYPE "):
            typed.append(line.split()[2])
        elif not line.startswith("# HELP "):
            name, _, value = line.rpartition(" ")
            assert name.partition("{")[0] == typed[-1], "samples of one metric stand together, behind its type"
            assert name not in found
            found[name] = float(value)
    assert len(typed) == len(set(typed))
    return found


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("monitor") / "metrics"


@pytest.fixture(scope="module")
def pool(module_daemons: Daemons, path: Path) -> DaemonProcess:
    return module_daemons(f'[metrics]\npath = "{path}"\n')


def test_sessions_and_refusals_are_counted(pool: DaemonProcess, path: Path) -> None:
    before = samples(ask(path)[1])
    server, client = both(pool.pool, pool.pool, {"localid": SERVER}, {"remoteid": SERVER})
    both(pool.pool, pool.pool, {"localid": "ghost.example.com"}, {"remoteid": "ghost.example.com"})
    with server, client:
        now = samples(ask(path)[1])
        assert now['tlspool_sessions{worker="0"}'] == 2
        assert CLIENT not in ask(path)[1]
    for role in ("client", "server"):
        name = f'tlspool_sessions_established_total{{worker="0",role="{role}"}}'
        assert now[name] == before.get(name, 0) + 1
    refused = 'tlspool_sessions_refused_total{worker="0",reason="localid_not_found"}'
    assert now[refused] == before.get(refused, 0) + 1
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_reload_that_was_refused_shows(pool: DaemonProcess, path: Path) -> None:
    good = pool.config.read_text()
    name = 'tlspool_config_last_reload_successful{worker="0"}'
    assert samples(ask(path)[1])[name] == 1
    pool.config.write_text(good + "[limits]\nclients = 0\n")
    pool.signal(signal.SIGHUP)
    eventually(lambda: samples(ask(path)[1])[name] == 0)
    told = status_of(pool)
    assert "the configuration of before serves, as the newest was refused: " in told
    assert "limits.clients: must lie between 1 and" in told
    pool.config.write_text(good)
    pool.signal(signal.SIGHUP)
    eventually(lambda: samples(ask(path)[1])[name] == 1)
    assert "the newest was refused" not in status_of(pool)


def test_what_is_told_to_a_person_can_be_read() -> None:
    workers = [
        {"pid": 1, "reload_fault": "", "locking_fault": "", "plugins_failed": {"acme": "cannot be imported: no such file"}}
    ] * 2
    assert list(lines({"modules": [{"name": "soft", "tokens": [{"label": "web", "slot": 3, "pin": ""}]}]})) == [
        "modules: name soft; tokens (label web; slot 3)"
    ]
    assert list(problems(workers)) == ["plugin acme cannot be used: it cannot be imported: no such file"]


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        ("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK", "alive\n"),
        ("GET /readyz HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK", "ready\n"),
        ("HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK", ""),
        ("GET /healthz?x=1 HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK", "alive\n"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 404 Not Found", "there are /metrics, /healthz and /readyz\n"),
        (
            "POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 405 Method Not Allowed",
            "only GET and HEAD\n",
        ),
        ("nonsense\r\n\r\n", "HTTP/1.1 400 Bad Request", "this is no request for a monitor\n"),
        (f"GET /{'a' * 9000}", "HTTP/1.1 431 Request Header Fields Too Large", "this is no request for a monitor\n"),
    ],
)
def test_what_is_answered(pool: DaemonProcess, path: Path, request_: str, status: str, body: str) -> None:
    assert ask(path, request_) == (status, body)


def test_monitors_that_say_nothing_cost_themselves(pool: DaemonProcess, path: Path) -> None:
    silent = [socket.socket(socket.AF_UNIX) for _ in range(40)]
    before = pool.descriptors
    try:
        for one in silent:
            one.connect(str(path))
        assert silent[-1].recv(1) == b""  # one too many
        server, client = both(pool.pool, pool.pool, {"localid": SERVER}, {"remoteid": SERVER})
        server.close()
        client.close()
    finally:
        for one in silent:
            one.close()
    eventually(lambda: pool.descriptors <= before)
    assert ask(path)[0] == "HTTP/1.1 200 OK"
    assert "fault" not in pool.text


def processor_seconds(pool: DaemonProcess) -> float:
    fields = Path(f"/proc/{pool.process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_without_descriptors_those_who_ask_are_answered_later(pool: DaemonProcess, path: Path) -> None:
    """And the pool does not look at them without end meanwhile."""
    pool.pool.ping()
    before = resource.prlimit(pool.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pool.process.pid, resource.RLIMIT_NOFILE, (pool.descriptors, before[1]))
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(path))
        link.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        used = processor_seconds(pool)
        time.sleep(1)
        assert processor_seconds(pool) - used < 0.5
        resource.prlimit(pool.process.pid, resource.RLIMIT_NOFILE, before)
        link.settimeout(20)
        assert link.recv(100).startswith(b"HTTP/1.1 200 OK")


def test_while_it_stops_it_is_not_ready(daemons: Daemons, tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    pool = daemons(f'[limits]\ndrain_timeout = 30\n[metrics]\npath = "{path}"\n')
    server, client = both(pool.pool, pool.pool, {"localid": SERVER}, {"remoteid": SERVER})
    with server, client:
        pool.signal(signal.SIGTERM)
        ready = "GET /readyz HTTP/1.0\r\n\r\n"
        eventually(lambda: ask(path, ready) == ("HTTP/1.1 503 Service Unavailable", "stopping\n"))
        assert samples(ask(path)[1])['tlspool_stopping{worker="0"}'] == 1
    pool.process.wait(20)
    assert not path.exists()


def test_all_workers_are_on_the_page_that_one_gives(daemons: Daemons) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        where = free.getsockname()
    pool = daemons(f'workers = 2\n---\n[metrics]\nlisten = "127.0.0.1:{where[1]}"\n')
    for _ in range(4):
        server, client = both(pool.pool, pool.pool, {"localid": SERVER}, {"remoteid": SERVER})
        server.close()
        client.close()

    def established() -> float:
        now = samples(ask(where)[1])
        assert {'tlspool_sessions{worker="0"}', 'tlspool_sessions{worker="1"}'} <= now.keys()
        return sum(value for name, value in now.items() if name.startswith("tlspool_sessions_established_total"))

    eventually(lambda: established() == 8)


def test_nothing_is_told_unless_it_is_configured(daemon: DaemonProcess) -> None:
    assert parse_config("").metrics.socket is None
    assert parse_config("").metrics.address is None
    assert {each.name for each in daemon.directory.iterdir() if each.is_socket()} == {"tlspool.sock", "tlspool.sock.status"}


@pytest.mark.parametrize("address", ["localhost:9464", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", "::1:x", ":9464"])
def test_an_address_is_one(address: str) -> None:
    with pytest.raises(ConfigurationError, match=r"metrics\.listen: must be an address and a port"):
        parse_config(f'[metrics]\nlisten = "{address}"\n')
    assert parse_config('[metrics]\nlisten = "[::1]:9464"\n').metrics.address == ("::1", 9464)


# --- what plugins measure ---------------------------------------------------------------------------------------------------------


class Offer:
    """Something of a plugin."""

    def __init__(self, *measured: Measurement | Exception) -> None:
        self._measured = measured

    def measurements(self) -> list[Any]:
        for one in self._measured:
            if isinstance(one, Exception):
                raise one
        return list(self._measured)


def page_with(**offers: Any) -> str:
    worker = dict.fromkeys(("sessions", "resumed", "ended", "stopping", "started", "reloaded", "octets_in", "octets_out"), 0)
    named = {"number": 0, "established": {}, "refused": {}, "plugins_failed": {"bad": "why"}, "reload_fault": ""}
    return exposition({"version": "1", "workers": [worker | named | {"measurements": measured(offers.items())}]})


def test_plugins_measure_under_their_names() -> None:
    page = page_with(
        acme_store=Offer(
            Measurement("tokens", 2, "Tokens that are there.", {"module": 'a "quoted"\n\\ name'}),
            Measurement("restarts_total", 1.5, "Restarts."),
        )
    )
    assert (
        '# TYPE tlspool_acme_store_tokens gauge\ntlspool_acme_store_tokens{worker="0",module="a \\"quoted\\"\\n\\\\ name"} 2\n'
        in page
    )
    assert '# TYPE tlspool_acme_store_restarts_total counter\ntlspool_acme_store_restarts_total{worker="0"} 1.5\n' in page
    assert 'tlspool_plugins_failed{worker="0"} 1\n' in page


@pytest.mark.parametrize(
    "bad",
    [
        RuntimeError("a fault"),
        Measurement("not a name", 1, ""),
        Measurement("x\n", 1, ""),
        Measurement("nan", float("nan"), ""),
        Measurement("labels", 1, "", {"worker": "9", 'x="': "y"}),
    ],
)
def test_what_a_plugin_measures_badly_spoils_no_page(bad: Any) -> None:
    page = page_with(bad=Offer(bad), good=Offer(Measurement("things", 1, "Things.")))
    assert 'tlspool_good_things{worker="0"} 1\n' in page
    assert samples(page).keys() - samples(page_with(good=Offer(Measurement("things", 1, "Things.")))).keys() <= {
        'tlspool_bad_labels{worker="0"}'
    }
