"""A real KDC of MIT Kerberos with two realms that trust each other, on loopback and a free port, for the time of the tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for kdh_helpers and the like

from kdh_pool import World

REALM, OTHER = "KDH.EXAMPLE", "OTHER.EXAMPLE"


@dataclass(frozen=True)
class Realm:
    """Where things lie: configuration and keytabs. Services of both realms are in one keytab, users in another."""

    directory: Path
    environment: dict[str, str]

    @property
    def services(self) -> str:
        return f"FILE:{self.directory}/services.keytab"

    @property
    def users(self) -> str:
        return f"FILE:{self.directory}/users.keytab"

    def admin(self, realm: str, *queries: str) -> None:
        """Run kadmin.local."""
        command = ["/usr/sbin/kadmin.local", "-r", realm]
        text = "\n".join(queries) + "\n"
        done = subprocess.run(command, env=self.environment, input=text, capture_output=True, text=True, check=True)
        assert "while" not in done.stderr, done.stderr

    def add(self, *names: str) -> None:
        """Further users of the first realm, whose password is sesame."""
        self.admin(REALM, *(f"addprinc -pw sesame {name}" for name in names))

    def kinit(self, cache: str, user: str, password: str, *options: str) -> None:
        """Put a ticket-granting ticket into a cache."""
        command = ["kinit", "-c", cache, *options, user]
        subprocess.run(command, input=password.encode() + b"\n", env=self.environment, check=True, capture_output=True)


def _free_port() -> int:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _configure(directory: Path, port: int) -> dict[str, str]:
    realms = "".join(f" {name} = {{\n  kdc = 127.0.0.1:{port}\n }}\n" for name in (REALM, OTHER))
    (directory / "krb5.conf").write_text(
        f"[libdefaults]\n default_realm = {REALM}\n dns_lookup_kdc = false\n dns_lookup_realm = false\n"
        f" dns_canonicalize_hostname = false\n rdns = false\n udp_preference_limit = 1\n[realms]\n{realms}"
    )
    own = "".join(
        f" {name} = {{\n  database_name = {directory}/{name}\n  key_stash_file = {directory}/{name}.stash\n"
        f"  supported_enctypes = aes256-cts:normal aes128-cts:normal\n  max_life = 1h\n  max_renewable_life = 1d\n }}\n"
        for name in (REALM, OTHER)
    )
    (directory / "kdc.conf").write_text(
        f"[kdcdefaults]\n kdc_listen = 127.0.0.1:{port}\n kdc_tcp_listen = 127.0.0.1:{port}\n"
        f"[realms]\n{own}[logging]\n kdc = FILE:{directory}/kdc.log\n"
    )
    kerberos = {"KRB5_CONFIG": f"{directory}/krb5.conf", "KRB5_KDC_PROFILE": f"{directory}/kdc.conf"}
    return {**os.environ, **kerberos, "KRB5CCNAME": f"FILE:{directory}/ccache"}


@pytest.fixture(scope="session")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    """Two realms, with services, users with a key in a keytab, and users with a password."""
    directory, port = tmp_path_factory.mktemp("kdc"), _free_port()
    environment = _configure(directory, port)
    found = Realm(directory, environment)
    for name in (REALM, OTHER):
        create = ["/usr/sbin/kdb5_util", "create", "-s", "-r", name, "-P", "master"]
        subprocess.run(create, env=environment, check=True, capture_output=True)
    trust = (f"addprinc -pw shared krbtgt/{OTHER}@{REALM}", f"addprinc -pw shared krbtgt/{REALM}@{OTHER}")
    found.admin(
        REALM,
        "addprinc -randkey http/web.kdh.example",
        "addprinc -randkey imap/web.kdh.example",
        "addprinc -randkey imap/mail.kdh.example",
        "addprinc -randkey HTTP/old.kdh.example",
        "addprinc -randkey john",
        "addprinc -randkey anna\\@kdh.example",
        "addprinc -pw sesame mary",
        "addprinc -pw cache carl",
        "addprinc -pw sesame -allow_tix locked",
        "addprinc -pw sesame +needchange stale",
        'addprinc -pw sesame -expire "2020-01-01 UTC" gone',
        "addprinc -randkey -allow_svr http/shy.kdh.example",
        "addprinc -randkey http/both.kdh.example",
        f"ktadd -k {directory}/services.keytab http/web.kdh.example imap/web.kdh.example imap/mail.kdh.example",
        f"ktadd -k {directory}/services.keytab HTTP/old.kdh.example http/both.kdh.example",
        f"ktadd -k {directory}/users.keytab john anna\\@kdh.example",
        *trust,
    )
    found.admin(
        OTHER,
        "addprinc -randkey http/web.other.example",
        "addprinc -randkey -allow_svr olga",
        f"ktadd -k {directory}/services.keytab http/web.other.example",
        f"ktadd -k {directory}/users.keytab olga",
        *trust,
    )
    ready = directory / "kdc.log"
    with subprocess.Popen(["/usr/sbin/krb5kdc", "-n", "-r", REALM, "-r", OTHER], env=environment, stderr=subprocess.DEVNULL) as kdc:
        try:
            _wait(ready, kdc)
            with pytest.MonkeyPatch.context() as patch:
                for name in ("KRB5_CONFIG", "KRB5CCNAME"):
                    patch.setenv(name, environment[name])
                yield found
        finally:
            kdc.terminate()
            kdc.wait(10)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, realm: Realm) -> Iterator[World]:
    """A pool that speaks at once if its role is open."""
    made = World(tmp_path_factory.mktemp("pool"), realm, "[symmetric]\nwait = 0")
    yield made
    made.stop()


@pytest.fixture(scope="session")
def older(tmp_path_factory: pytest.TempPathFactory, realm: Realm, world: World) -> Iterator[World]:
    """Another over the same databases, for TLS 1.2."""
    made = World(tmp_path_factory.mktemp("older"), realm, '[tls]\nversions = ["1.2"]\n[symmetric]\nwait = 0', like=world)
    yield made
    made.stop()


def _wait(log: Path, kdc: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        if log.exists() and "commencing operation" in log.read_text():
            return
        assert kdc.poll() is None, log.read_text() if log.exists() else "the KDC ended at once"
        try:
            kdc.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError("the KDC does not begin to serve")
