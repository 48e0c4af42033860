"""A pool with services and users of the test realms, as `tlspool` sets it up, for tests that go through all of it."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key

from demo.authority import Authority
from tlspool_core.client import Pool, PoolError

WEB, MAIL, JOHN, MARY = "web.kdh.example", "mail.kdh.example", "john@kdh.example", "mary@kdh.example"
FAR, OLGA, ANNA, DEAD = "web.other.example", "olga@other.example", "anna@kdh.example", "mary@dead.example"
CARL, BOTH = "carl@kdh.example", "both.kdh.example"
PIN = "123456"
SOFTHSM = next(
    (path for path in map(Path, ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so")) if path.exists()), None
)
needs_token = pytest.mark.skipif(
    SOFTHSM is None or not shutil.which("pkcs11-tool"), reason="SoftHSM or pkcs11-tool is not installed"
)
_RUN = "import sys, pathlib; from tlspool_core.pool.daemon import serve; sys.exit(serve(pathlib.Path(sys.argv[1])))"

REALMS = """
"KDH.EXAMPLE" = "kdh.example"
"OTHER.EXAMPLE" = "other.example"
"DEAD.EXAMPLE" = "dead.example"
"""
PKCS11 = """[[keystore.pkcs11.modules]]
path = "{module}"
pin_file = "{home}/pin"
environment = {{SOFTHSM2_CONF = "{home}/softhsm.conf"}}
"""


class World:
    """Databases, a token with a password, and a pool over them, set up with the commands of the documentation.

    A second pool can use the databases and the token of a first one.
    """

    def __init__(
        self, home: Path, realm: Any, extra: str = "", like: World | None = None, known: str = REALMS, kerberos: str = ""
    ) -> None:
        self.home, self.socket, self.config = home, home / "s", home / "pool.toml"
        self.base = base = like.base if like is not None else home
        self.config.write_text(
            f'{extra}\n[[socket]]\npath = "{self.socket}"\n[config]\nbackend = "lmdb"\npath = "{base}/db"\n'
            f'[credential.kerberos]\nreplay_cache = "{base}/replay"\n{kerberos}\n[credential.kerberos.realms]\n{known}'
            + (PKCS11.format(home=base, module=SOFTHSM) if SOFTHSM is not None else "")
        )
        self.environment = realm.environment | {"TLSPOOL_CONFIG": str(self.config), "TLSPOOL_SOCKET": str(self.socket)}
        self.environment["SOFTHSM2_CONF"] = f"{base}/softhsm.conf"
        if like is None:
            self._fill(realm)
        with (home / "log").open("wb") as log:
            self.process = subprocess.Popen([sys.executable, "-c", _RUN, str(self.config)], stderr=log, env=self.environment)
        self.pool = Pool(self.socket, patience=15)
        self.pool.ping()

    def _fill(self, realm: Any) -> None:
        if SOFTHSM is not None:
            self._fill_token()
            self._certify()
        for service, role in ((WEB, "both"), (MAIL, "server"), (FAR, "both"), (BOTH, "server")):
            self.local(service, role, keytab=realm.services)
        self.local(JOHN, "both", principal="john@KDH.EXAMPLE", keytab=realm.users)
        self.local(ANNA, "both", expression="TI&Qq&&", keytab=realm.users)
        self.local(OLGA, "both", keytab=realm.users)
        realm.kinit(f"FILE:{self.home}/ccache", "carl", "cache")
        self.local(CARL, "client", expression="TI&Qq&&", ccache=f"FILE:{self.home}/ccache")
        for mary in (MARY, DEAD):
            self.local(mary, "both", key="pkcs11:token=realm;object=kerberos;type=data")

    def _fill_token(self) -> None:
        (self.home / "tokens").mkdir()
        (self.home / "softhsm.conf").write_text(f"directories.tokendir = {self.home}/tokens\n")
        (self.home / "pin").write_text(PIN)
        (self.home / "pin").chmod(0o600)
        self._run("softhsm2-util", "--init-token", "--free", "--label", "realm", "--pin", PIN, "--so-pin", "12345678")
        (self.home / "password").write_bytes(b"sesame")
        tool = ("pkcs11-tool", "--module", str(SOFTHSM), "--token-label", "realm", "--login", "--pin", PIN)
        self._run(*tool, "--write-object", f"{self.home}/password", "--type", "data", "--private", "--label", "kerberos")

    def _certify(self) -> None:
        """A certificate for one of the services, whose key is in the token."""
        tool = ("pkcs11-tool", "--module", str(SOFTHSM), "--token-label", "realm", "--login", "--pin", PIN)
        self._run(*tool, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "both", "--id", "01")
        self._run(*tool, "--read-object", "--type", "pubkey", "--id", "01", "--output-file", f"{self.home}/key.der")
        self.authority = authority = Authority("tests of TLS-KDH")
        public = load_der_public_key((self.home / "key.der").read_bytes())
        (self.home / "both.crt").write_bytes(authority.certify(BOTH, public, "server"))
        self.tlspool("trust", "add", "--type", "x509", str(authority.write(self.home / "authority.crt")))
        key = ("--key", "pkcs11:token=realm;id=%01;type=private")
        self.tlspool("localid", "add", BOTH, "--type", "x509", "--role", "server", *key, f"{self.home}/both.crt")

    def _run(self, *command: str) -> None:
        subprocess.run(command, env=self.environment, check=True, capture_output=True)

    def tlspool(self, *arguments: str, stdin: bytes = b"", ok: bool = True) -> str:
        command = [sys.executable, "-c", "from tlspool_core.cli import main; main()", *arguments]
        done = subprocess.run(command, env=self.environment, input=stdin, capture_output=True, check=False)
        assert (done.returncode == 0) is ok, (done.stdout + done.stderr).decode()
        return done.stdout.decode()

    def local(self, identity: str, role: str, key: str = "", expression: str = "", uid: str = "", **account: str) -> None:
        more = {"--key": key, "--expression": expression, "--uid": uid}
        options = ("--role", role, *(word for name, value in more.items() if value for word in (name, value)))
        self.tlspool("localid", "add", identity, "--type", "kerberos", *options, "-", stdin=json.dumps(account).encode())

    def both(self, server: dict[str, Any], client: dict[str, Any], ends: Any = None) -> list[Any]:
        """STARTTLS at both ends of one connection; each outcome is a session or an error."""
        ends = ends or socket.socketpair()

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
