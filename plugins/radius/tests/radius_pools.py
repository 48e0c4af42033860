"""Real pools whose site rules are RADIUS, and sessions through them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from radius_toys import WEB

from tlspool_core.client import Pool, PoolError

HERE = Path(__file__).parent
_RUN = "import sys, pathlib; from tlspool_core.pool.daemon import serve; sys.exit(serve(pathlib.Path(sys.argv[1])))"
_OTHERS = ["x509", "pkcs11", "lmdb", "srp", "openpgp", "kdh", "rawkey"]
_PATIENCE = 15.0  # seconds


def toml(value: Any) -> str:
    """A value as TOML, tables inline."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')


class PoolProcess:
    """A daemon with the toy credentials; `radius` is [aaa.radius], `aaa` what else stands in [aaa]."""

    def __init__(self, home: Path, radius: Mapping[str, Any] | None = None, *, top: str = "", **aaa: Any) -> None:
        home.mkdir(exist_ok=True)
        self.home, self.path, self.outcome, self._log = home, home / "sock", home / "outcome", home / "log"
        self._configuration = home / "tlspool.toml"
        rules = "".join(f"{key} = {toml(value)}\n" for key, value in aaa.items())
        if radius is not None:
            rules += f"radius = {toml({'queue': str(home / 'queue'), **radius})}\n"
        self._configuration.write_text(
            f'{top}\nsocket = [{{path = "{self.path}"}}]\nplugins = {{load = ["radius_toys"], disabled = {toml(_OTHERS)}}}\n'
            f'config = {{backend = "memory"}}\nservice.slow.expression = "TIR&&"\n[aaa]\n{rules}'
        )
        self.start()

    def start(self) -> None:
        environment = os.environ | {"PYTHONPATH": str(HERE), "RADIUS_TOYS_OUTCOME": str(self.outcome), "PYTHONWARNINGS": "error"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([sys.executable, "-c", _RUN, str(self._configuration)], stderr=log, env=environment)
        self.pool = Pool(self.path, patience=_PATIENCE)
        try:
            self.pool.ping()
        except PoolError:
            self.stop(kill=True)
            raise AssertionError(self.text) from None

    def stop(self, *, kill: bool = False) -> None:
        self.pool.close()
        if self._process.poll() is None:
            (self._process.kill if kill else self._process.terminate)()
        self._process.wait(_PATIENCE)

    @property
    def text(self) -> str:
        return self._log.read_text()

    @property
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))


Pools = Callable[..., PoolProcess]  # starts one


class Meeting:
    """STARTTLS at both ends of one connection; `server` and `client` are a session or an error, once they are known."""

    def __init__(self, server: Pool, client: Pool, user: str, service: str = "http") -> None:
        self.server: Any = None
        self.client: Any = None
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            ends = (listener.accept()[0], near)
        self.client_address = f"127.0.0.1:{near.getsockname()[1]}"
        wishes = {"service": service, "timeout": _PATIENCE}
        localid = f"{user}@example.com"
        calls: list[tuple[str, Callable[[], object]]] = [
            ("server", lambda: server.starttls_server(ends[0], localid=WEB, **wishes)),
            ("client", lambda: client.starttls_client(ends[1], localid=localid, remoteid=WEB, **wishes)),
        ]
        self._threads = [threading.Thread(target=self._run, args=call) for call in calls]
        for thread in self._threads:
            thread.start()

    def _run(self, name: str, call: Callable[[], object]) -> None:
        try:
            setattr(self, name, call())
        except PoolError as error:
            setattr(self, name, error)

    def done(self) -> Meeting:
        """Wait for both."""
        for thread in self._threads:
            thread.join(2 * _PATIENCE)
        return self

    def close(self) -> None:
        for one in (self.done().client, self.server):
            if not isinstance(one, PoolError):
                one.close()

    def __enter__(self) -> Meeting:
        return self.done()

    def __exit__(self, *exception: object) -> None:
        self.close()


def eventually(condition: Callable[[], object], limit: float = 30.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


def works(asking: PoolProcess, clients: PoolProcess, user: str = "john") -> None:
    with Meeting(asking.pool, clients.pool, user) as met:
        met.client.plaintext.sendall(b"hello")
        assert met.server.plaintext.recv(10) == b"hello"
