"""Does a pool log in with a password that lies in a token, and with one that only a key in the token can compute (SRP#11)?

Everything is set up with the commands of docs/srp11.md; both ends of each connection are the same pool.
Skipped only where SoftHSM or pkcs11-tool is not installed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from tlspool_srp.bound import bind, decode_point, derive_password, encode_point
from tlspool_srp.secrets import ClientAccount

from tlspool_core.api import DoNAI
from tlspool_core.client import Pool, PoolError, StartTlsFlags
from tlspool_core.client.desks import PinDesk

PIN = "123456"
SOFTHSM = next(
    (str(path) for path in map(Path, ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so")) if path.exists()), ""
)
NEEDED = [name for name in ("softhsm2-util", "pkcs11-tool") if not shutil.which(name)] + ([] if SOFTHSM else ["SoftHSM"])
needs_token = pytest.mark.skipif(bool(NEEDED), reason=f"not installed: {', '.join(NEEDED)}")

SERVER = "imap.example.org"
KEPT, BOUND, LOST, ASKED = "kept@example.org", "bound@example.org", "lost@example.org", "asked@example.org"


def spki(key: Any) -> bytes:
    made: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return made


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_the_holder_of_the_key_computes_the_password_that_was_bound(curve: ec.EllipticCurve) -> None:
    token = ec.generate_private_key(curve)
    point, password = bind(spki(token), "john", "imap.example.org")
    public = load_der_public_key(decode_point(encode_point(point)))
    assert isinstance(public, ec.EllipticCurvePublicKey)
    secret = token.exchange(ec.ECDH(), public)
    assert derive_password(secret, "john", "imap.example.org") == password
    assert len(password) == 43
    others = {derive_password(secret, *names) for names in (("john", "imap.example.com"), ("johni", "map.example.org"), ("", ""))}
    assert password not in others and len(others) == 3


def test_the_derivation_does_not_change() -> None:
    # computed with HMAC by hand, after RFC 5869: accounts that exist must stay usable
    assert derive_password(bytes(32), "john", "imap.example.org") == "bO_kV62XH9WAARbLkidVAwk6mIo-4qBjjAkaJHckfKA"


def test_each_binding_is_another_password() -> None:
    token = spki(ec.generate_private_key(ec.SECP256R1()))
    assert len({bind(token, "john", "x.example.org") for _ in range(3)}) == 3


def test_an_account_keeps_its_point_and_takes_no_other() -> None:
    point, _ = bind(spki(ec.generate_private_key(ec.SECP256R1())), "john", SERVER)
    account = ClientAccount("john", DoNAI.parse(SERVER), point=point)
    assert ClientAccount.decode(account.encode()) == account
    broken = point[:-1] + bytes([point[-1] ^ 1])
    for wrong in ("#", "", encode_point(broken), encode_point(spki(ed25519.Ed25519PrivateKey.generate()))):
        with pytest.raises(ValueError, match=r"point|curve"):
            ClientAccount.decode(json.dumps({"user": "john", "server": SERVER, "point": wrong}).encode())


class World:
    """A token with a password and a key, three accounts, and a pool."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "tokens").mkdir()
        (home / "hsm.conf").write_text(f"directories.tokendir = {home}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n")
        (home / "pin").write_text(PIN)
        (home / "pin").chmod(0o600)
        (home / "pool.toml").write_text(
            f'[[socket]]\npath = "{home}/s"\n[config]\nbackend = "lmdb"\npath = "{home}/db"\n'
            f'[[keystore.pkcs11.modules]]\npath = "{SOFTHSM}"\npin_file = "{home}/pin"\n'
            f'environment = {{SOFTHSM2_CONF = "{home}/hsm.conf"}}\n'
        )
        self.environment = os.environ | {"SOFTHSM2_CONF": f"{home}/hsm.conf", "TLSPOOL_CONFIG": f"{home}/pool.toml"}
        self.run("softhsm2-util", "--init-token", "--free", "--label", "pool", "--pin", PIN, "--so-pin", "12345678")
        self._fill_token()
        self._fill_databases()

    def run(self, *command: str, stdin: str = "") -> str:
        done = subprocess.run(command, env=self.environment, input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def tlspool(self, *arguments: str, stdin: str = "") -> str:
        return self.run(sys.executable, "-c", "from tlspool_core.cli import main; main()", *arguments, stdin=stdin)

    def _fill_token(self) -> None:
        tool = ("pkcs11-tool", "--module", SOFTHSM, "--token-label", "pool", "--login", "--pin", PIN)
        (self.home / "password").write_bytes(b"correct horse")
        self.run(*tool, "--write-object", f"{self.home}/password", "--type", "data", "--private", "--label", "imap")
        self.run(*tool, "--keypairgen", "--key-type", "EC:prime256v1", "--usage-derive", "--label", "srp11", "--id", "11")
        self.run(*tool, "--read-object", "--type", "pubkey", "--id", "11", "--output-file", f"{self.home}/key.der")

    def _fill_databases(self) -> None:
        self.tlspool("localid", "add", SERVER, "--type", "srp", "--role", "server")
        account = self.home / "kept.json"
        account.write_text(json.dumps({"user": KEPT, "server": SERVER}))
        self.tlspool("srp", "add", KEPT, stdin="correct horse\n")
        self._local(KEPT, account, "pkcs11:token=pool;object=imap;type=data")
        account.write_text(json.dumps({"user": ASKED, "server": SERVER}))
        self.tlspool("srp", "add", ASKED, stdin="in my head\n")
        self.tlspool("localid", "add", ASKED, "--type", "srp", "--role", "client", str(account))
        for name, uri in ((BOUND, "pkcs11:token=pool;id=%11;type=private"), (LOST, "pkcs11:token=pool;id=%12;type=private")):
            account = self.home / f"{name}.json"
            password = self.tlspool("srp", "bind", name, str(account), "--server", SERVER, "--public", f"{self.home}/key.der")
            assert password.strip() not in account.read_text()
            self.tlspool("srp", "add", name, stdin=password)
            self._local(name, account, uri)

    def _local(self, name: str, account: Path, uri: str) -> None:
        self.tlspool("localid", "add", name, "--type", "srp", "--role", "client", "--key", uri, str(account))

    def start(self) -> None:
        with (self.home / "log").open("wb") as log:
            run = "import sys, pathlib; from tlspool_core.pool.daemon import serve; sys.exit(serve(pathlib.Path(sys.argv[1])))"
            command = [sys.executable, "-c", run, str(self.home / "pool.toml")]
            self.process = subprocess.Popen(command, stderr=log, env=self.environment)
        self.pool = Pool(self.home / "s", patience=15)
        self.pool.ping()

    def stop(self) -> None:
        self.pool.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(15)
        print((self.home / "log").read_text())

    def connect(self, name: str, flags: StartTlsFlags = StartTlsFlags.NONE) -> list[Any]:
        """STARTTLS at both ends of one connection; each outcome is a session or an error: server's, then client's."""
        ends = socket.socketpair()
        outcomes: list[Any] = [None, None]

        def serve() -> None:
            try:
                outcomes[0] = self.pool.starttls_server(ends[0], localid=SERVER, timeout=15)
            except PoolError as error:
                outcomes[0] = error

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            outcomes[1] = self.pool.starttls_client(ends[1], localid=name, remoteid=SERVER, timeout=15, flags=flags)
        except PoolError as error:
            outcomes[1] = error
        thread.join(20)
        return outcomes

    def connected(self, name: str) -> list[bool]:
        """Whether there were sessions at both ends, which are over."""
        outcomes = self.connect(name)
        for one in outcomes:
            if not isinstance(one, PoolError):
                one.close()
        return [not isinstance(one, PoolError) for one in outcomes]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("w"))
    made.start()
    yield made
    made.stop()


@needs_token
@pytest.mark.parametrize("name", [KEPT, BOUND])
def test_the_token_is_enough_to_log_in(world: World, name: str) -> None:
    server, client = world.connect(name)
    with server, client:
        assert (server.remoteid, client.remoteid) == (name, SERVER)
        assert server.version() == "TLSv1.2"
        client.plaintext.sendall(b"hello")
        assert server.plaintext.recv(100) == b"hello"


@needs_token
@pytest.mark.parametrize("name", [KEPT, BOUND])
def test_a_session_can_be_bound_to_the_token(world: World, name: str) -> None:
    """Whether the password lies in it, or is computed by it: it ends when the token is pulled."""
    server, client = world.connect(name, StartTlsFlags.KEY_BOUND)
    slots, drawer = world.home / "tokens", world.home / "drawer"
    with server, client:
        slots.rename(drawer)
        slots.mkdir()
        try:
            client.plaintext.settimeout(30)
            assert client.plaintext.recv(1) == b""
        finally:
            slots.rmdir()
            drawer.rename(slots)
    deadline = time.monotonic() + 60
    while not all(world.connected(name)):
        assert time.monotonic() < deadline, "the token is not seen again"


@needs_token
def test_without_the_key_there_is_no_password_and_no_session(world: World) -> None:
    server, client = world.connect(LOST)
    assert isinstance(server, PoolError)
    assert isinstance(client, PoolError)
    assert "names no private key" in client.text
    assert "Traceback" not in (world.home / "log").read_text()


@needs_token
def test_a_person_at_the_desk_is_asked(world: World) -> None:
    prompts: list[str] = []
    with PinDesk(world.home / "s", patience=15) as desk:
        desk.register()

        def answer() -> None:
            request = next(iter(desk))
            prompts.append(request.prompt)
            request.answer("in my head")

        person = threading.Thread(target=answer)
        person.start()
        server, client = world.connect(ASKED)
        person.join(20)
        with server, client:
            assert (server.remoteid, client.remoteid) == (ASKED, SERVER)
    assert prompts == [f"SRP password of {ASKED} at {SERVER}"]


@needs_token
def test_without_a_desk_nobody_is_asked(world: World) -> None:
    _, client = world.connect(ASKED)
    assert isinstance(client, PoolError)
    assert "none was given" in client.text


@needs_token
def test_binding_overwrites_no_account(world: World, tmp_path: Path) -> None:
    there = tmp_path / "account.json"
    there.write_text("precious")
    with pytest.raises(AssertionError, match="exists"):
        world.tlspool("srp", "bind", BOUND, str(there), "--server", SERVER, "--public", f"{world.home}/key.der")
    assert there.read_text() == "precious"
