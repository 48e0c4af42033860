"""Do two pools' clients know each other by OpenPGP keys that gpg made and that were imported into a token, as the documentation says?

Skipped only where gpg or SoftHSM is not installed.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tlspool_openpgp.packets import packets

from tlspool_core.client import ErrorCode, InfoKind, Pool, PoolError, StartTlsFlags

PIN = "123456"
SOFTHSM = next(
    (str(path) for path in map(Path, ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so")) if path.exists()), ""
)
NEEDED = [name for name in ("gpg", "softhsm2-util") if not shutil.which(name)] + ([] if SOFTHSM else ["SoftHSM"])
pytestmark = pytest.mark.skipif(bool(NEEDED), reason=f"not installed: {', '.join(NEEDED)}")

WEB, JOHN, MARY = "www.example.org", "john@example.org", "mary@example.org"


class World:
    """A token, databases, and a pool over them; all set up with the commands of the documentation."""

    def __init__(self, home: Path, gpg: Any) -> None:
        self.home, self.gpg = home, gpg
        self.socket = home / "s"
        (home / "tokens").mkdir()
        (home / "softhsm2.conf").write_text(
            f"directories.tokendir = {home}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        (home / "pin").write_text(PIN)
        (home / "pin").chmod(0o600)
        (home / "pool.toml").write_text(self._configuration(self.socket))
        self.environment = os.environ | {
            "SOFTHSM2_CONF": str(home / "softhsm2.conf"),
            "TLSPOOL_CONFIG": str(home / "pool.toml"),
            "TLSPOOL_SOCKET": str(self.socket),
        }
        self.softhsm("--init-token", "--free", "--label", "pool", "--pin", PIN, "--so-pin", "12345678")
        self.numbers = 0
        self.processes: list[subprocess.Popen[bytes]] = []
        self.pools: list[Pool] = []

    def _configuration(self, path: Path) -> str:
        return f"""
[[socket]]
path = "{path}"

[config]
backend = "lmdb"
path = "{self.home}/db"

[[keystore.pkcs11.modules]]
path = "{SOFTHSM}"
name = "soft"
pin_file = "{self.home}/pin"
environment = {{SOFTHSM2_CONF = "{self.home}/softhsm2.conf"}}
"""

    def softhsm(self, *arguments: str) -> None:
        subprocess.run(["softhsm2-util", *arguments], env=self.environment, check=True, capture_output=True)

    def tlspool(self, *arguments: str, stdin: bytes = b"", ok: bool = True) -> str:
        command = [sys.executable, "-c", "from tlspool_core.cli import main; main()", *arguments]
        done = subprocess.run(command, env=self.environment, input=stdin, capture_output=True, check=False)
        text = (done.stdout + done.stderr).decode()
        assert (done.returncode == 0) is ok, text
        return text

    def import_key(self, signing: str, label: str) -> str:
        """URI of a private key of gpg's, now in the token."""
        self.numbers += 1
        pem = self.home / f"{label}.pem"
        pem.touch(0o600)
        pem.write_bytes(self.gpg.pkcs8(signing))
        self.softhsm("--import", str(pem), "--token", "pool", "--label", label, "--id", f"{self.numbers:02x}", "--pin", PIN)
        pem.unlink()
        return f"pkcs11:token=pool;id=%{self.numbers:02x};type=private"

    def local(self, identity: str, holder: Any, role: str, label: str) -> None:
        uri = self.import_key(holder.signing, label)
        armored = self.gpg("--armor", "--export", holder.fingerprint)
        self.tlspool("localid", "add", identity, "--type", "openpgp", "--role", role, "--key", uri, "-", stdin=armored)

    def start(self, name: str = "pool", extra: str = "", **environment: str) -> Pool:
        """Another pool over the same databases and token."""
        config, path = self.home / f"{name}.toml", self.home / f"{name}.sock"
        config.write_text(self._configuration(path) + extra)
        run = "import sys, pathlib; from tlspool_core.pool.daemon import serve; sys.exit(serve(pathlib.Path(sys.argv[1])))"
        with (self.home / "log").open("ab") as log:
            command = [sys.executable, "-c", run, str(config)]
            self.processes.append(subprocess.Popen(command, stderr=log, env=self.environment | environment))
        self.pools.append(Pool(path, patience=15))
        self.pools[-1].ping()
        return self.pools[-1]

    def stop(self) -> None:
        for pool in self.pools:
            pool.close()
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait(15)
        print((self.home / "log").read_text())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, gpg: Any, web: Any, john: Any, mary: Any) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("w"), gpg)
    made.local(WEB, web, "server", "web")
    made.local(JOHN, john, "client", "john")
    made.local(MARY, mary, "client", "mary")
    made.tlspool("trust", "add", "--type", "openpgp", "--role", "server", "-", stdin=web.public)
    made.tlspool("trust", "add", "--openpgp", "--role", "client", "-", stdin=john.public)
    made.tlspool("disclose", "add", ".example.org", JOHN, MARY)
    made.start()
    yield made
    made.stop()


def both(world: World, server_wishes: dict[str, Any], client_wishes: dict[str, Any], server: Pool | None = None) -> list[Any]:
    """STARTTLS at both ends of one connection; each outcome is a session or an error: server's, then client's."""
    ends = socket.socketpair()
    outcomes: list[Any] = [None, None]

    def run(index: int, call: Callable[..., Any], wishes: dict[str, Any]) -> None:
        try:
            outcomes[index] = call(ends[index], **({"timeout": 15} | wishes))
        except PoolError as error:
            outcomes[index] = error

    calls = ((0, (server or world.pools[0]).starttls_server, server_wishes), (1, world.pools[0].starttls_client, client_wishes))
    threads = [threading.Thread(target=run, args=one) for one in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return outcomes


def test_both_are_known_by_their_keys(world: World, web: Any, john: Any) -> None:
    server, client = both(world, {"localid": WEB}, {"remoteid": WEB, "localid": JOHN})
    with server, client:
        assert (server.remoteid, client.remoteid, client.localid) == (JOHN, WEB, JOHN)
        assert server.version() == "TLSv1.2"
        assert server.check(InfoKind.PEERCERT_SUBJECT, john.fingerprint.encode())
        client.plaintext.sendall(b"by a key of gpg")
        assert server.plaintext.recv(100) == b"by a key of gpg"


def test_a_resumed_session_is_judged_again(world: World) -> None:
    """The same twice; then a client whose key is not trusted any more."""
    wishes: tuple[dict[str, Any], dict[str, Any]] = ({"localid": WEB}, {"remoteid": WEB, "localid": JOHN, "service": "again"})
    for _ in range(2):
        server, client = both(world, *wishes)
        with server, client:
            assert server.remoteid == JOHN
            server.plaintext.sendall(b"x")
            client.plaintext.recv(1)


def test_one_who_is_not_trusted(world: World) -> None:
    """Her key is good, but nobody here certified it."""
    server, _ = both(world, {"localid": WEB}, {"remoteid": WEB, "localid": MARY})
    assert isinstance(server, PoolError) and server.code == ErrorCode.REMOTEID_REFUSED
    assert "certifies mary@example.org" in server.text


def test_the_wrong_name(world: World) -> None:
    _, client = both(
        world, {"localid": WEB}, {"remoteid": "other.example.org", "localid": JOHN, "flags": StartTlsFlags.WITHOUT_SNI}
    )
    assert isinstance(client, PoolError) and client.code == ErrorCode.REMOTEID_REFUSED


def test_the_application_chooses_among_keys(world: World) -> None:
    """LOCALID: the pool proposes mary, the application decides for john."""
    asked: list[Any] = []

    def choose(*proposed: Any) -> str:
        asked.append(proposed)
        return JOHN

    server, client = both(world, {"localid": WEB}, {"remoteid": WEB, "localid": MARY, "localid_hook": choose})
    with server, client:
        assert asked and MARY in str(asked[0]) and (client.localid, server.remoteid) == (JOHN, JOHN)


def test_the_command_line_shows_them(world: World, web: Any, john: Any) -> None:
    assert web.fingerprint in world.tlspool("trust", "list") and "<@www.example.org>" in world.tlspool("trust", "list")
    assert john.fingerprint in world.tlspool("localid", "show", JOHN)


def test_a_private_key_is_refused(world: World, gpg: Any, john: Any) -> None:
    secret = gpg("--armor", "--export-secret-keys", john.fingerprint)
    assert "private key" in world.tlspool("trust", "add", "--type", "openpgp", "-", stdin=secret, ok=False)
    assert "no private half" in world.tlspool("openpgp", "pkcs8", "00" * 20, stdin=secret, ok=False)
    assert "40 hexadecimal" in world.tlspool("openpgp", "pkcs8", "abc", stdin=secret, ok=False)


def test_a_key_that_is_marked_as_revoked(world: World, john: Any) -> None:
    """From then on it proves nothing, in sessions that would be resumed too."""
    wishes: tuple[dict[str, Any], dict[str, Any]] = ({"localid": WEB}, {"remoteid": WEB, "localid": JOHN, "service": "again"})
    world.tlspool("trust", "set", john.fingerprint, "--type", "openpgp", "--revoked")
    server, _ = both(world, *wishes)
    assert isinstance(server, PoolError) and "revoked" in server.text
    world.tlspool("trust", "set", john.fingerprint, "--type", "openpgp", "--not-revoked")
    server, client = both(world, *wishes)
    with server, client:
        assert server.remoteid == JOHN


HANGING = """
import sys, time
if "tlspool_openpgp.worker" in sys.orig_argv:
    import pgpy.packet
    read = pgpy.packet.Packet
    def hang(data):
        if bytes.fromhex("MARKER") in bytes(data):
            time.sleep(60)
        return read(data)
    pgpy.packet.Packet = hang
"""


def test_pgpy_hangs_on_a_peers_key(world: World, john: Any) -> None:
    """The peer is refused in bounded time, the pool goes on meanwhile, and others are served afterwards."""
    directory = world.home / "hanging"
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(HANGING.replace("MARKER", packets(john.public)[0].body.hex()))
    extra = "\n[credential.openpgp]\ntime_limit = 0.5\n"
    pool = world.start("hanging", extra, PYTHONPATH=os.pathsep.join((str(directory), os.environ.get("PYTHONPATH", ""))))
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(both, world, {"localid": WEB}, {"remoteid": WEB, "localid": JOHN, "service": "hang"}, pool)
        while not waiting.done():
            pool.ping()
            time.sleep(0.05)
    server, client = waiting.result()
    assert isinstance(server, PoolError) and "in time" in server.text, server
    assert isinstance(client, PoolError) and "certificate_unknown" in client.text
    server, _ = both(world, {"localid": WEB}, {"remoteid": WEB, "localid": MARY, "service": "next"}, pool)
    assert isinstance(server, PoolError) and "certifies mary@example.org" in server.text


def test_tls13_is_not_negotiated_by_who_prefers_openpgp(world: World) -> None:
    """A client of TLS 1.3 alone, without OpenPGP, is told so by an alert; the pool does not show the key to it."""
    if not shutil.which("openssl"):
        pytest.skip("not installed: openssl")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{listening.getsockname()[1]}", "-tls1_3", "-servername", WEB]
        with ThreadPoolExecutor() as threads:
            client = threads.submit(subprocess.run, command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=20)
            connected, _ = listening.accept()
            with pytest.raises(PoolError):
                world.pools[0].starttls_server(connected, localid=WEB, timeout=10)
            done = client.result()
    assert done.returncode and b"protocol version" in done.stderr, done.stderr
