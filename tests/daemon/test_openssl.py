"""Do OpenSSL's and curl's ends of TLS get on with a pool whose keys are in a token, and whose databases are LMDB's?

Skipped only where SoftHSM or OpenSSL is not installed.
"""

from __future__ import annotations

import datetime
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import INSTALLED, DaemonProcess, both, eventually
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tlspool_core.client import ErrorCode, InfoKind, PoolError, Session, StartTlsFlags
from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import ConfigBackend, LocalCredential, LocalIdentity, Role
from tlspool_core.registry import Registry

SERVER, CLIENT = "www.example.com", "john@example.com"
PIN = "123456"
SOFTHSM = next(
    (str(path) for path in map(Path, ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so")) if path.exists()), ""
)
NEEDED = [name for name in ("softhsm2-util", "openssl", "curl") if not shutil.which(name)] + ([] if SOFTHSM else ["SoftHSM"])
pytestmark = pytest.mark.skipif(bool(NEEDED), reason=f"not installed: {', '.join(NEEDED)}")
DAY = datetime.timedelta(days=1)


class World:
    """A CA, a token, databases, and a pool over them."""

    def __init__(self, home: Path, start: Callable[..., DaemonProcess]) -> None:
        self.home = home
        self.ca_key = ec.generate_private_key(ec.SECP256R1())
        self.ca = self._certificate("Test CA", self.ca_key, None)
        (home / "ca.pem").write_bytes(self.ca.public_bytes(Encoding.PEM))
        self.registry = Registry.load(required=("x509", "lmdb", "pkcs11"))
        self._make_token()
        self._fill_databases()
        self.daemon = start(self._configuration(), real=True)

    def _certificate(self, name: str, key: ec.EllipticCurvePrivateKey, role: Role | None) -> x509.Certificate:
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(
            issuer, issuer if role is None else x509.Name([]), key.public_key(), x509.random_serial_number(), now - DAY, now + DAY
        )
        usage = [role is not None, False, False, False, False, role is None, role is None, False, False]
        builder = builder.add_extension(x509.BasicConstraints(role is None, None), True).add_extension(x509.KeyUsage(*usage), True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        if role is not None:
            name_in = x509.RFC822Name(name) if "@" in name else x509.DNSName(name)
            purpose = ExtendedKeyUsageOID.SERVER_AUTH if role is Role.SERVER else ExtendedKeyUsageOID.CLIENT_AUTH
            builder = builder.add_extension(x509.SubjectAlternativeName([name_in]), True)
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), False)
            issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca_key.public_key())
            builder = builder.add_extension(issuer_key, False)
        return builder.sign(self.ca_key, hashes.SHA256())

    def pair(self, name: str, role: Role, stem: str) -> tuple[str, str]:
        """Paths of a certificate and its key, for a program that keeps keys in files."""
        key = ec.generate_private_key(ec.SECP256R1())
        paths = self.home / f"{stem}.crt", self.home / f"{stem}.key"
        paths[0].write_bytes(self._certificate(name, key, role).public_bytes(Encoding.PEM))
        paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return str(paths[0]), str(paths[1])

    def _make_token(self) -> None:
        (self.home / "tokens").mkdir()
        self.softhsm = self.home / "softhsm2.conf"
        self.softhsm.write_text(f"directories.tokendir = {self.home}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n")
        self._softhsm("--init-token", "--free", "--label", "pool", "--pin", PIN, "--so-pin", "12345678")
        (self.home / "pin").write_text(PIN)
        (self.home / "pin").chmod(0o600)

    def _softhsm(self, *arguments: str) -> None:
        environment = {"SOFTHSM2_CONF": str(self.softhsm), "PATH": "/usr/bin:/bin"}
        subprocess.run(["softhsm2-util", *arguments], env=environment, check=True, capture_output=True)

    def _fill_databases(self) -> None:
        kind, backend = self.registry.credential_types["x509"], self.registry.config_backends["lmdb"]
        backend.open({"path": str(self.home / "db")})
        with backend.write() as databases:
            for number, (name, role) in enumerate(((SERVER, Role.SERVER), (CLIENT, Role.CLIENT)), 1):
                certificate, key = self.pair(name, role, f"own{number}")
                self._softhsm("--import", key, "--token", "pool", "--label", name, "--id", f"0{number}", "--pin", PIN)
                identity = DoNAI.parse(name)
                uri = f"pkcs11:token=pool;id=%0{number};type=private"
                public = kind.import_local(Path(certificate).read_bytes())
                databases.put_localid(LocalIdentity(identity, (LocalCredential(identity, "x509", role, uri, public),)))
            for record in kind.import_trust((self.home / "ca.pem").read_bytes(), pinned=False):
                databases.put_trust(record)
            databases.put_disclose(".example.com", [DoNAI.parse(CLIENT)])
        backend.close()

    def _configuration(self) -> str:
        return f"""
[config]
backend = "lmdb"
path = "{self.home}/db"

[[keystore.pkcs11.modules]]
path = "{SOFTHSM}"
name = "soft"
pin_file = "{self.home}/pin"
environment = {{SOFTHSM2_CONF = "{self.softhsm}"}}
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, module_daemons: Callable[..., DaemonProcess]) -> World:
    assert set(INSTALLED) >= {"x509", "lmdb", "pkcs11"}
    return World(tmp_path_factory.mktemp("world"), module_daemons)


@contextmanager
def databases_of(world: World) -> Iterator[ConfigBackend]:
    """The pool's databases, opened by this process beside it."""
    backend = world.registry.config_backends["lmdb"]
    backend.open({"path": str(world.home / "db")})
    try:
        yield backend
    finally:
        backend.close()


# --- the pool as server ------------------------------------------------------------------------------------------------------------


class Web:
    """A small HTTP server that holds no key, and says who the client is."""

    def __init__(self, daemon: DaemonProcess, **wishes: Any) -> None:
        self._daemon = daemon
        self._wishes = wishes
        self.errors: list[PoolError] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connected,), daemon=True).start()

    def _serve(self, connected: socket.socket) -> None:
        try:
            with self._daemon.pool.starttls_server(connected, service="http", **self._wishes) as session:
                session.plaintext.recv(10000)
                body = f"{session.localid} greets {session.remoteid or 'you'} {session.version()} {session.alpn()}\n".encode()
                session.plaintext.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        except PoolError as error:
            self.errors.append(error)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture
def web(world: World) -> Iterator[Callable[..., Web]]:
    opened: list[Web] = []

    def open_web(**wishes: Any) -> Web:
        opened.append(Web(world.daemon, **wishes))
        return opened[-1]

    yield open_web
    for one in opened:
        one.close()


def curl(world: World, port: int, *arguments: str, host: str = SERVER) -> tuple[int, str]:
    url = f"https://{host}:{port}/"
    done = subprocess.run(
        ("curl", "-sS", "--cacert", world.home / "ca.pem", "--resolve", f"{host}:{port}:127.0.0.1", *arguments, url),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_change_of_the_databases_counts_for_the_next_handshake(world: World, web: Callable[..., Web]) -> None:
    """The pool keeps what it has read and derived, and must not go by it when another process has changed what it came from."""
    site = web(flags=StartTlsFlags.IGNORE_REMOTEID)
    reached = []

    def put(entry: LocalIdentity | None) -> None:
        with backend.write() as databases:
            databases.put_localid(entry) if entry is not None else databases.delete_localid(before.identity)
        reached.append(curl(world, site.port)[0] == 0)

    with databases_of(world) as backend:
        with backend.read() as reader:
            before = reader.localid(DoNAI.parse(SERVER))
        assert before is not None
        try:
            for _ in range(2):
                put(before)
                put(replace(before, expression="0"))
                put(before)
                put(replace(before, allowed_uids=(54321,)))
                put(None)
                put(replace(before, credentials=()))
        finally:
            put(before)
    assert reached == [True, False, True, False, False, False] * 2 + [True]
    eventually(lambda: len(site.errors) == 8)
    codes = [ErrorCode.REMOTEID_REFUSED, ErrorCode.LOCALID_NOT_YOURS, ErrorCode.LOCALID_NOT_FOUND]
    assert [error.code for error in site.errors[:3]] == codes


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_curl_gets_a_page(world: World, web: Callable[..., Web], version: str) -> None:
    site = web(flags=StartTlsFlags.REQUEST_REMOTEID)
    limits = ("--tlsv1.3",) if version == "1.3" else ("--tls-max", "1.2")
    assert curl(world, site.port, *limits) == (0, f"{SERVER} greets you TLSv{version} http/1.1\n")
    certificate, key = world.pair("mary@example.com", Role.CLIENT, "mary")
    page = f"{SERVER} greets mary@example.com TLSv{version} http/1.1\n"
    assert curl(world, site.port, *limits, "--cert", certificate, "--key", key) == (0, page)
    assert not site.errors


@pytest.mark.parametrize("version", ["1.3", "1.2"])
def test_curl_is_refused_with_a_reason(world: World, web: Callable[..., Web], version: str) -> None:
    limits = ("--tlsv1.3",) if version == "1.3" else ("--tls-max", "1.2")
    site = web()
    code, _ = curl(world, site.port, *limits)
    assert code
    eventually(lambda: site.errors)
    assert site.errors.pop().code == ErrorCode.REMOTEID_MISSING
    certificate, key = world.pair("wrong.example.com", Role.SERVER, "wrong")
    assert curl(world, site.port, *limits, "--cert", certificate, "--key", key)[0]
    eventually(lambda: site.errors)
    error = site.errors.pop()
    assert error.code == ErrorCode.REMOTEID_REFUSED
    assert "T" in error.text
    code, text = curl(world, site.port, *limits, host="other.example.com")
    assert code and "unrecognized name" in text
    eventually(lambda: site.errors)
    assert site.errors.pop().code == ErrorCode.LOCALID_NOT_FOUND


def test_an_identity_that_is_too_long_to_be_told_is_refused(world: World, web: Callable[..., Web]) -> None:
    """The packets of the socket protocol have 127 bytes for it."""
    site = web()
    names = [f"{'u' * (127 - len(rest) + more)}{rest}" for rest in ("@" + "d" * 40 + ".example.com",) for more in (0, 1)]
    pairs = [world.pair(name, Role.CLIENT, f"long{number}") for number, name in enumerate(names)]
    answers = [curl(world, site.port, "--cert", certificate, "--key", key) for certificate, key in pairs]
    assert names[0] in answers[0][1] and answers[1][0]
    eventually(lambda: site.errors)
    error = site.errors.pop()
    assert error.code == ErrorCode.REMOTEID_REFUSED and "has 128 bytes" in error.text
    assert "fault in a session" not in world.daemon.text


def test_a_name_that_is_too_long_to_be_told_is_not_asked_for(world: World, web: Callable[..., Web]) -> None:
    """A client may ask for a server of up to 253 bytes."""
    asked: list[str] = []
    site = web(localid_hook=lambda proposal: asked.append(proposal.localid))
    assert curl(world, site.port, host=f"{'x' * 60}.{'y' * 60}.example.com")[0]
    eventually(lambda: site.errors)
    error = site.errors.pop()
    assert error.code == ErrorCode.LOCALID_NOT_FOUND and "has 133 bytes" in error.text
    assert not asked and "fault while answering" not in world.daemon.text


@pytest.mark.parametrize("version", ["-tls1_3", "-tls1_2"])
def test_openssl_resumes(world: World, web: Callable[..., Web], version: str) -> None:
    site = web(flags=StartTlsFlags.IGNORE_REMOTEID)
    kept = world.home / "session"
    ways = ("-servername", SERVER, "-CAfile", world.home / "ca.pem", "-verify_return_error", "-ign_eof")
    for option, word in (("-sess_out", "New"), ("-sess_in", "Reused")):
        done = subprocess.run(
            ("openssl", "s_client", "-connect", f"127.0.0.1:{site.port}", *ways, version, option, kept),
            input=b"GET / HTTP/1.0\r\n\r\n",
            capture_output=True,
            timeout=20,
            check=False,
        )
        assert b"greets you" in done.stdout
        assert f"{word}, TLSv1." in done.stdout.decode()


# --- the pool as client ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def openssl_server(world: World) -> Iterator[Callable[..., int]]:
    """Start `openssl s_server -www`; returns its port."""
    processes = []

    def start(name: str, *arguments: str) -> int:
        certificate, key = world.pair(name, Role.SERVER, f"server{len(processes)}")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        process = subprocess.Popen(
            ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", certificate, "-key", key, "-www", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        processes.append(process)
        eventually(lambda: _connects(port))
        return port

    yield start
    for process in processes:
        process.kill()
        process.wait()


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def fetch(world: World, port: int, **wishes: Any) -> tuple[Session, bytes]:
    session = world.daemon.pool.starttls_client(socket.create_connection(("127.0.0.1", port)), **wishes)
    with session:
        session.plaintext.sendall(b"GET / HTTP/1.0\r\n\r\n")
        page = b""
        while data := session.plaintext.recv(65536):
            page += data
    return session, page


@pytest.mark.parametrize("version", ["-tls1_3", "-tls1_2"])
def test_reaching_an_openssl_server(world: World, openssl_server: Callable[..., int], version: str) -> None:
    ca = str(world.home / "ca.pem")
    port = openssl_server("server.example.com", version, "-Verify", "1", "-CAfile", ca, "-verify_return_error")
    for word in (b"New", b"Reused"):
        session, page = fetch(world, port, remoteid="server.example.com", service="generic")
        assert (session.localid, session.remoteid) == (CLIENT, "server.example.com")
        assert word + b", TLSv1." in page
        eventually(lambda: world.daemon.text.count("] established") == world.daemon.text.count("] ended"))
    with pytest.raises(PoolError) as caught:
        fetch(world, port, remoteid="other.example.com")
    assert caught.value.code == ErrorCode.REMOTEID_REFUSED
    assert "I" in caught.value.text


def test_the_command_connects(world: World, openssl_server: Callable[..., int]) -> None:
    port = openssl_server("localhost")
    run = "from tlspool_core.cli.connect import connect; connect()"
    done = subprocess.run(
        [sys.executable, "-c", run, f"localhost:{port}", "--socket", str(world.daemon.path)],
        input=b"GET / HTTP/1.0\r\n\r\n",
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert b"remote identity: localhost" in done.stderr, done.stderr
    assert b"TLSv1.3" in done.stderr
    assert b"Reused" in done.stdout or b"New, TLSv1.3" in done.stdout


# --- the pool in either role -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["-tls1_3", "-tls1_2"])
def test_an_openssl_server_does_not_know_of_peers(world: World, openssl_server: Callable[..., int], version: str) -> None:
    """It passes over the extension that it does not know, so we are the client."""
    port = openssl_server("server.example.com", version)
    ours = socket.create_connection(("127.0.0.1", port))
    with world.daemon.pool.starttls_peer(ours, remoteid="server.example.com", service="generic") as session:
        assert (session.role, session.remoteid) == ("client", "server.example.com")
        session.plaintext.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b"TLSv1." in session.plaintext.makefile("rb").read()


@pytest.mark.parametrize("version", ["-tls1_3", "-tls1_2"])
def test_an_openssl_client_does_not_know_of_peers(world: World, version: str) -> None:
    """It speaks first, so we are the server. It is connected before we are asked to begin, as by a program that is slow to accept."""
    certificate, key = world.pair("mary@example.com", Role.CLIENT, "mary")
    shown = ("-cert", certificate, "-key", key)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ways = ("-connect", f"127.0.0.1:{listening.getsockname()[1]}", "-servername", SERVER, "-quiet", version)
        client = subprocess.Popen(["openssl", "s_client", *ways, *shown], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        connected, _ = listening.accept()
    assert connected.recv(1, socket.MSG_PEEK) == b"\x16"
    try:
        with world.daemon.pool.starttls_peer(connected, localid=SERVER, remoteid="mary@example.com") as session:
            assert (session.role, session.remoteid) == ("server", "mary@example.com")
            session.plaintext.sendall(b"hello, mary\n")
            assert client.stdout is not None and client.stdout.readline() == b"hello, mary\n"
    finally:
        client.kill()
        client.communicate()


# --- both ends in the pool -----------------------------------------------------------------------------------------------------------


def test_a_client_is_asked_later_who_it_is(world: World) -> None:
    pool = world.daemon.pool
    server, client = both(pool, pool, {"localid": SERVER, "flags": StartTlsFlags.IGNORE_REMOTEID}, {"remoteid": SERVER})
    with server, client:
        assert (server.remoteid, client.localid) == ("", "")
        before = server.export("EXPERIMENTAL")
        server.renegotiate()
        assert server.remoteid == CLIENT
        assert server.check(InfoKind.PEERCERT_SUBJECTALTNAME, CLIENT.encode())
        assert not server.check(InfoKind.PEERCERT_SUBJECTALTNAME, b"mary@example.com")
        assert server.check(InfoKind.PEERCERT_SUBJECTALTNAME, b"\x81" + bytes([len(CLIENT)]) + CLIENT.encode()), "a GeneralName"
        assert not server.check(InfoKind.PEERCERT_SUBJECTALTNAME, b"\x82" + bytes([len(CLIENT)]) + CLIENT.encode()), "no host"
        assert server.info(InfoKind.PEERCERT_SUBJECT) == b"\x30\x00", "the DER of a name without parts"
        assert server.info(InfoKind.PEERCERT_ISSUER) == world.ca.subject.public_bytes()
        assert server.text(InfoKind.PEERCERT_ISSUER_TEXT) == client.text(InfoKind.MYCERT_ISSUER_TEXT) == "CN=Test CA"
        assert client.check(InfoKind.MYCERT_SUBJECTALTNAME, CLIENT.encode())
        assert server.export("EXPERIMENTAL") == before
        client.renegotiate()  # a client changes keys, and asks nobody
        assert (client.remoteid, client.localid) == (SERVER, CLIENT)
        client.plaintext.sendall(b"still here")
        assert server.plaintext.recv(100) == b"still here"
        with pytest.raises(PoolError) as caught:
            server.renegotiate(remoteid="mary@example.com")
        assert caught.value.code == ErrorCode.REMOTEID_REFUSED
        assert server.plaintext.recv(1) == client.plaintext.recv(1) == b""


def test_changed_key_stores_hold_after_a_reload_and_wrong_ones_change_nothing(world: World) -> None:
    daemon, before = world.daemon, world.daemon.config.read_text()

    def reload(text: str, says: str) -> None:
        told = daemon.text.count(says)
        daemon.config.write_text(text)
        daemon.signal(signal.SIGHUP)
        eventually(lambda: daemon.text.count(says) > told)
        wishes = {"localid": SERVER, "flags": StartTlsFlags.IGNORE_REMOTEID | StartTlsFlags.IGNORE_CACHES}
        for end in both(daemon.pool, daemon.pool, wishes, {"remoteid": SERVER}):
            end.close()

    try:
        reload(before.replace('name = "soft"', "timeout = -1"), 'configuration not changed reason="[keystore.pkcs11]: ')
        # the key store's section is in order, but not what the pool finds wrong after it
        reload(before.replace('name = "soft"', 'name = "odd"') + '\n[tls]\ngroups = ["P-999"]\n', "configuration not changed")
        reload(before.replace('name = "soft"', 'name = "hard"'), "module hard: worker")
    finally:
        reload(before, "module soft: worker")
    assert "module odd" not in daemon.text
    assert "need a restart" not in daemon.text


def test_before_a_client_says_later_who_it_is_the_server_must_be_acceptable_still(world: World) -> None:
    pool = world.daemon.pool
    server, client = both(pool, pool, {"localid": SERVER, "flags": StartTlsFlags.IGNORE_REMOTEID}, {"remoteid": SERVER})
    with server, client, databases_of(world) as backend:
        with backend.read() as reader:
            before = reader.localid(DoNAI.parse(CLIENT))
        assert before is not None
        try:
            with backend.write() as databases:
                databases.put_localid(replace(before, expression="D"))
            with pytest.raises(PoolError):
                server.renegotiate()
            assert client.plaintext.recv(1) == b""
        finally:
            with backend.write() as databases:
                databases.put_localid(before)
    eventually(lambda: "demanded: D of local identity" in world.daemon.text)
    assert server.remoteid == ""


def test_a_client_may_decline_if_the_server_allows(world: World) -> None:
    pool = world.daemon.pool
    wishes = {"remoteid": SERVER, "localid": "", "flags": StartTlsFlags.LOCALID_CHECK}  # nobody can be asked afterwards
    server, client = both(pool, pool, {"localid": SERVER, "flags": StartTlsFlags.IGNORE_REMOTEID}, wishes)
    with server, client:
        server.renegotiate(flags=StartTlsFlags.REQUEST_REMOTEID)
        assert (server.remoteid, client.localid) == ("", "")
        with pytest.raises(PoolError) as caught:
            server.renegotiate()
        assert caught.value.code == ErrorCode.REMOTEID_MISSING
