"""Do tunnels get on with the programs that they are for: PostgreSQL, OpenLDAP, Dovecot, and their clients?"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_openssl import SERVER, World, eventually

from tests.tools.conftest import Tool, free_port, listens
from tests.tools.test_tunnel import configure
from tlspool_core.interfaces import Role

POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/nonexistent"))
SLAPD, DOVECOT = Path("/usr/sbin/slapd"), Path("/usr/sbin/dovecot")


def account(name: str) -> str | None:
    """Whom a service runs as: its own user if that can be had, else our own."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return None
    return name if os.geteuid() == 0 else None


class Service:
    """A server in the foreground, with a certificate of its own for the tests that want one."""

    def __init__(self, home: Path, port: int, command: list[str], user: str | None = None) -> None:
        self.home = home
        self.port = port
        self.ports: dict[str, int] = {}  # of one that has many
        self.log = home / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, user=user, cwd=home)
        eventually(lambda: self.process.poll() is not None or listens(port), 30)
        assert self.process.poll() is None, self.log.read_text()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        print(self.log.read_text())


@pytest.fixture(scope="module")
def home(world: World) -> Iterator[Path]:
    """A directory that other users reach, with a certificate."""
    path = Path(tempfile.mkdtemp(prefix="tlspool-services-"))
    path.chmod(0o755)
    for suffix, source in zip(("crt", "key"), world.pair(SERVER, Role.SERVER, "service"), strict=True):
        shutil.copy(source, path / f"server.{suffix}")
    shutil.copy(world.home / "ca.pem", path)
    yield path
    shutil.rmtree(path)


def copied(home: Path, name: str, user: str | None) -> Path:
    """A directory for a service, with its own copy of the key."""
    own = home / name
    own.mkdir()
    for each in ("server.crt", "server.key"):
        shutil.copy(home / each, own)
        (own / each).chmod(0o600)
    if user:
        for path in (own, *own.iterdir()):
            shutil.chown(path, user)
    return own


@pytest.fixture(scope="module")
def postgres(home: Path) -> Iterator[Service]:
    if not POSTGRES.exists():
        pytest.skip("PostgreSQL is not installed")
    user, port = account("postgres"), free_port()
    own = copied(home, "postgres", user)
    init = [str(POSTGRES / "initdb"), "--no-sync", "--auth=trust", "--username=mary", "--no-locale", "--pgdata", str(own / "data")]
    subprocess.run(init, check=True, capture_output=True, user=user, cwd=own)
    settings = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": own,
        "fsync": "off",
        "ssl": "on",
        "ssl_cert_file": own / "server.crt",
        "ssl_key_file": own / "server.key",
    }
    command = [str(POSTGRES / "postgres"), "-D", str(own / "data")]
    service = Service(own, port, command + [word for key, value in settings.items() for word in ("-c", f"{key}={value}")], user)
    yield service
    service.stop()


@pytest.fixture(scope="module")
def slapd(home: Path) -> Iterator[Service]:
    if not SLAPD.exists() or not shutil.which("ldapwhoami"):
        pytest.skip("OpenLDAP is not installed")
    own, port = copied(home, "slapd", None), free_port()
    (own / "slapd.conf").write_text(f"TLSCertificateFile {own}/server.crt\nTLSCertificateKeyFile {own}/server.key\n")
    service = Service(own, port, [str(SLAPD), "-h", f"ldap://127.0.0.1:{port}", "-f", str(own / "slapd.conf"), "-d", "0"])
    yield service
    service.stop()


@pytest.fixture(scope="module")
def dovecot(home: Path) -> Iterator[Service]:
    if not DOVECOT.exists() or not account("dovecot") or not account("nobody"):
        pytest.skip("Dovecot is not installed, or we are not root, as it wants us to be")
    own, ports = copied(home, "dovecot", None), {name: free_port() for name in ("imap", "pop3", "sieve")}
    (own / "mail").mkdir()
    shutil.chown(own / "mail", "nobody")
    logins = "".join(
        f"service {'managesieve' if name == 'sieve' else name}-login {{\n"
        f"inet_listener {name} {{\naddress = 127.0.0.1\nport = {port}\n}}\ninet_listener {name}s {{\nport = 0\n}}\n}}\n"
        for name, port in ports.items()
    )
    (own / "dovecot.conf").write_text(f"""
protocols = imap pop3 sieve
base_dir = {own}/run
log_path = /dev/stderr
ssl = yes
ssl_cert = <{own}/server.crt
ssl_key = <{own}/server.key
disable_plaintext_auth = no
mail_location = maildir:{own}/mail/%u
first_valid_uid = 0
passdb {{
driver = static
args = password=secret
}}
userdb {{
driver = static
args = uid=nobody gid=nogroup home={own}/mail
}}
{logins}""")
    service = Service(own, ports["imap"], [str(DOVECOT), "-F", "-c", str(own / "dovecot.conf")])
    service.ports.update(ports)
    yield service
    service.stop()


@pytest.fixture
def tunnels(tool: Callable[..., Tool], tmp_path: Path) -> Callable[[str, int], tuple[int, int]]:
    """Ports of two tunnels to a service: one gives it TLS, and one takes it away."""

    def start(starttls: str, port: int) -> tuple[int, int]:
        secure, plain = free_port(), free_port()
        both: dict[str, object] = {"connect": f"127.0.0.1:{port}", "starttls": starttls, "remote_identity": "requested"}
        server = both | {"name": "server", "listen": f"127.0.0.1:{secure}", "localid": SERVER}
        client = both | {"name": "client", "listen": f"127.0.0.1:{plain}", "remoteid": SERVER, "role": "client"}
        tool("tunnel", configure(tmp_path, server, client)).reaches(secure, plain)
        return secure, plain

    return start


def run(*command: str, **variables: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=os.environ | variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_postgresql(postgres: Service, tunnels: Callable[..., tuple[int, int]], home: Path) -> None:
    secure, plain = tunnels("postgresql", postgres.port)
    asked = "SELECT length(repeat('x', 9000000)), ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    question = ("--no-psqlrc", "--tuples-only", "--no-align", "--command", asked)
    base = "user=mary dbname=postgres connect_timeout=20"
    verified = f"host={SERVER} hostaddr=127.0.0.1 port={secure} sslmode=verify-full sslrootcert={home}/ca.pem"
    assert run("psql", f"{base} {verified}", *question) == "9000000|f\n", "the backend gets plaintext"
    assert run("psql", f"{base} host=127.0.0.1 port={plain} sslmode=disable", *question) == "9000000|t\n", "the server gets TLS"


def test_openldap(slapd: Service, tunnels: Callable[..., tuple[int, int]], home: Path) -> None:
    secure, plain = tunnels("ldap", slapd.port)
    # the name in the URI is not that of the certificate, which is not what is asked here
    trust = {"LDAPTLS_CACERT": str(home / "ca.pem"), "LDAPTLS_REQCERT": "never"}
    assert run("ldapwhoami", "-x", "-ZZ", "-H", f"ldap://127.0.0.1:{secure}", **trust) == "anonymous\n"
    assert run("ldapwhoami", "-x", "-H", f"ldap://127.0.0.1:{plain}") == "anonymous\n"


def curl(*arguments: str) -> str:
    return run("curl", "--silent", "--show-error", "--max-time", "30", "--user", "mary:secret", *arguments)


def test_dovecot_and_curl(dovecot: Service, tunnels: Callable[..., tuple[int, int]], home: Path) -> None:
    letter, trust = home / "letter", ("--ssl-reqd", "--cacert", str(home / "ca.pem"))
    letter.write_bytes(b"Subject: hello\r\n\r\nthere\r\n")
    secure, plain = tunnels("imap", dovecot.ports["imap"])
    there = ("--resolve", f"{SERVER}:{secure}:127.0.0.1")
    curl(*trust, *there, "--upload-file", str(letter), f"imap://{SERVER}:{secure}/INBOX")
    assert "hello" in curl(f"imap://127.0.0.1:{plain}/INBOX;MAILINDEX=1")
    secure, plain = tunnels("pop3", dovecot.ports["pop3"])
    there = ("--resolve", f"{SERVER}:{secure}:127.0.0.1")
    listed = curl(*trust, *there, f"pop3://{SERVER}:{secure}/")
    assert listed.startswith("1 ")
    assert curl(f"pop3://127.0.0.1:{plain}/") == listed


def test_dovecot_and_openssl(dovecot: Service, tunnels: Callable[..., tuple[int, int]], home: Path) -> None:
    secure, _ = tunnels("managesieve", dovecot.ports["sieve"])
    login = b'AUTHENTICATE "PLAIN" "AG1hcnkAc2VjcmV0"\r\nLOGOUT\r\n'
    command = ["openssl", "s_client", "-starttls", "sieve", "-connect", f"127.0.0.1:{secure}", "-servername", SERVER, "-quiet"]
    command += ["-CAfile", str(home / "ca.pem"), "-verify_return_error", "-ign_eof"]
    done = subprocess.run(command, input=login, capture_output=True, timeout=30, check=False)
    assert b"OK" in done.stdout, done.stderr
    assert b"Logged in" in done.stdout
