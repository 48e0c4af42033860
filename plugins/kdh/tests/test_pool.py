"""Do applications reach each other through a real pool by Kerberos alone, and learn in words why not if they do not?"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tlspool_core.client import InfoKind, Pool, PoolError

WEB, MAIL, JOHN, MARY = "web.kdh.example", "mail.kdh.example", "john@kdh.example", "mary@kdh.example"
_RUN = "import sys, pathlib; from tlspool_core.pool.daemon import serve; sys.exit(serve(pathlib.Path(sys.argv[1])))"


class World:
    """Databases, and a pool over them, set up with the commands of the documentation."""

    def __init__(self, home: Path, realm: Any, extra: str = "") -> None:
        self.home, self.socket, self.config = home, home / "s", home / "pool.toml"
        self.config.write_text(
            f'[[socket]]\npath = "{self.socket}"\n[config]\nbackend = "lmdb"\npath = "{home}/db"\n'
            f'[credential.kerberos.realms]\n"KDH.EXAMPLE" = "kdh.example"\n{extra}'
        )
        self.environment = realm.environment | {"TLSPOOL_CONFIG": str(self.config), "TLSPOOL_SOCKET": str(self.socket)}
        self.local(WEB, "server", keytab=realm.services)
        self.local(MAIL, "server", keytab=realm.services)
        self.local(JOHN, "client", principal="john@KDH.EXAMPLE", keytab=realm.users)
        self.local(MARY, "client", principal="mary@KDH.EXAMPLE", keytab=realm.users)
        with (home / "log").open("wb") as log:
            self.process = subprocess.Popen([sys.executable, "-c", _RUN, str(self.config)], stderr=log, env=self.environment)
        self.pool = Pool(self.socket, patience=15)
        self.pool.ping()

    def tlspool(self, *arguments: str, stdin: bytes = b"", ok: bool = True) -> str:
        command = [sys.executable, "-c", "from tlspool_core.cli import main; main()", *arguments]
        done = subprocess.run(command, env=self.environment, input=stdin, capture_output=True, check=False)
        assert (done.returncode == 0) is ok, (done.stdout + done.stderr).decode()
        return done.stdout.decode()

    def local(self, identity: str, role: str, **account: str) -> None:
        self.tlspool("localid", "add", identity, "--type", "kerberos", "--role", role, "-", stdin=json.dumps(account).encode())

    def both(self, server: dict[str, Any], client: dict[str, Any]) -> list[Any]:
        """STARTTLS at both ends of one connection; each outcome is a session or an error."""
        ends = socket.socketpair()

        def run(call: Any, end: socket.socket, wishes: dict[str, Any]) -> Any:
            try:
                return call(end, **({"timeout": 10, "service": "http"} | wishes))
            except PoolError as error:
                return error

        with ThreadPoolExecutor(2) as workers:
            calls = [
                workers.submit(run, self.pool.starttls_server, ends[0], server),
                workers.submit(run, self.pool.starttls_client, ends[1], client),
            ]
            return [call.result(30) for call in calls]

    def stop(self) -> None:
        self.pool.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(15)
        print((self.home / "log").read_text())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, realm: Any) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("pool"), realm)
    yield made
    made.stop()


def test_a_ticket_is_all_that_is_needed(world: World) -> None:
    server, client = world.both({"localid": WEB}, {"localid": JOHN, "remoteid": WEB})
    assert not isinstance(server, PoolError) and not isinstance(client, PoolError), (server, client)
    with server, client:
        assert (server.localid, server.remoteid) == (WEB, JOHN)
        assert (client.localid, client.remoteid) == (JOHN, WEB)
        assert client.info(InfoKind.PEERCERT_SUBJECT) == f"http/{WEB}@KDH.EXAMPLE".encode()
        client.plaintext.sendall(b"hello")
        assert server.plaintext.recv(10) == b"hello"


def test_tls12_with_a_ticket_alone(tmp_path: Path, realm: Any) -> None:
    made = World(tmp_path, realm, '[tls]\nversions = ["1.2"]\n')
    try:
        server, client = made.both({"localid": WEB}, {"localid": JOHN, "remoteid": WEB})
        assert not isinstance(server, PoolError) and not isinstance(client, PoolError), (server, client)
        with server, client:
            assert (server.remoteid, client.remoteid) == (JOHN, WEB)
            assert (client.version(), client.cipher()) == ("TLSv1.2", "TLS_ECDHE_KRB_WITH_AES_256_GCM_SHA384")
    finally:
        made.stop()


def test_a_service_that_the_kdc_does_not_know(world: World) -> None:
    _, client = world.both({"localid": MAIL}, {"localid": JOHN, "remoteid": MAIL})
    assert isinstance(client, PoolError) and f"no ticket for http/{MAIL}@KDH.EXAMPLE" in str(client)


def test_a_client_without_a_key_is_told(world: World) -> None:
    _, client = world.both({"localid": WEB}, {"localid": MARY, "remoteid": WEB})
    assert isinstance(client, PoolError) and "no ticket for" in str(client)


def test_lists_say_where_tickets_come_from(world: World) -> None:
    assert "john@KDH.EXAMPLE (FILE:" in world.tlspool("localid", "show", JOHN)


def test_check_tells_what_is_usable(world: World) -> None:
    text = world.tlspool("kdh", "check", "--service", "http", "--remote", WEB, ok=False)
    assert f"ok  {WEB}: key of http/{WEB}@KDH.EXAMPLE, version 2, aes256-cts-hmac-sha1-96" in text
    assert f"ok  {JOHN}: ticket of john@KDH.EXAMPLE for http/{WEB}@KDH.EXAMPLE until " in text
    assert f"BAD {MARY}: no ticket for mary@KDH.EXAMPLE: Keytab contains no suitable keys" in text
