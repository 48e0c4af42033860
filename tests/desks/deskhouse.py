"""Pools with databases on disk and, where a test wants it, a token; and people at terminals."""

from __future__ import annotations

import datetime
import importlib.util
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import deskplugin
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tlspool_core.client import ErrorCode, PoolError, Session
from tlspool_core.identity import DoNAI
from tlspool_core.registry import Registry
from tlspool_core.testing.toy import toy_identity, toy_key

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "123456"
UNTRUSTED = "eve@example.com"
LATER = "new@example.com"


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_daemons = _load("daemons_under_test", HERE.parent / "daemon" / "conftest.py")
both: Callable[..., list[Any]] = _daemons.both
eventually: Callable[..., None] = _daemons.eventually


class House:
    """Databases, perhaps a token, and a pool over them."""

    def __init__(self, home: Path, *, token: bool = False, issuing: bool = False, extra: str = "") -> None:
        self.home = home
        self.links: list[socket.socket | Session] = []  # to be closed in the end
        self.softhsm = home / "softhsm2.conf"
        self.backend = Registry.load(required=("lmdb",)).config_backends["lmdb"]
        self.backend.open({"path": str(home / "db")})
        if token:
            self._make_token()
        for name in deskplugin.NAMES:
            if name != LATER:
                self.add(name, f"pkcs11:token=pool;object={name};type=private" if token and name == "john@example.com" else "")
        used = ["lmdb"] + ["pkcs11"] * token + ["x509"] * issuing
        disabled = [name for name in _daemons.INSTALLED if name not in used]
        store = (
            f'[[keystore.pkcs11.modules]]\npath = "{SOFTHSM}"\nname = "soft"\nenvironment = {{SOFTHSM2_CONF = "{self.softhsm}"}}\n'
        )
        top, _, rest = extra.rpartition("---\n")
        self.daemon = _daemons.DaemonProcess(
            home,
            f'{top}---\n[plugins]\nload = ["deskplugin"]\ndisabled = {disabled}\n[config]\nbackend = "lmdb"\npath = "{home}/db"\n'
            f"{store if token else ''}{self._issuing() if issuing else ''}{rest}",
            real=True,
            path=[HERE],
        )
        self.daemon.pool.ping()
        self.pool = self.daemon.pool
        self.path = self.daemon.path

    def add(self, name: str, uri: str = "") -> None:
        """A local identity with its toy credential, trusted unless it is the one that nobody trusts."""
        identity, trusted = toy_identity(name, uri)
        with self.backend.write() as databases:
            databases.put_localid(identity)
            if name != UNTRUSTED:
                databases.put_trust(trusted)

    def disclose(self, selector: str, *names: str) -> None:
        with self.backend.write() as databases:
            databases.put_disclose(selector, [DoNAI.parse(name) for name in names])

    def disclosed(self, selector: str) -> list[str] | None:
        """What the database has for a selector now."""
        with self.backend.read() as databases:
            found = databases.disclose(selector)
        return None if found is None else [str(identity) for identity in found]

    def _make_token(self) -> None:
        (self.home / "tokens").mkdir()
        self.softhsm.write_text(f"directories.tokendir = {self.home}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n")
        self._util("--init-token", "--free", "--label", "pool", "--pin", PIN, "--so-pin", "12345678")
        key = self.home / "john.key"
        pem = toy_key("john@example.com").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        key.write_bytes(pem)
        self._util("--import", str(key), "--token", "pool", "--label", "john@example.com", "--id", "01", "--pin", PIN)

    def _issuing(self) -> str:
        """An authority whose key is in a key store; trusted."""
        key = toy_key("issuer.example.com")
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Proxy CA")])
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(
            name,
            name,
            key.public_key(),
            x509.random_serial_number(),
            now - datetime.timedelta(days=1),
            now + datetime.timedelta(days=1),
        )
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(x509.BasicConstraints(True, 0), True).add_extension(usage, True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        path = self.home / "issuer.pem"
        path.write_bytes(builder.sign(key, SHA256()).public_bytes(Encoding.PEM))
        kind = Registry.load(required=("x509",)).credential_types["x509"]
        with self.backend.write() as databases:
            for record in kind.import_trust(path.read_bytes(), pinned=False):
                databases.put_trust(record)
        return f'[credential.x509]\nissuing_key = "software:issuer.example.com"\nissuing_certificate = "{path}"\n'

    def _util(self, *arguments: str) -> None:
        environment = {"SOFTHSM2_CONF": str(self.softhsm), "PATH": "/usr/bin:/bin"}
        subprocess.run(["softhsm2-util", *arguments], env=environment, check=True, capture_output=True)

    def connect(self, client: dict[str, Any] | None = None, server: dict[str, Any] | None = None) -> list[Any]:
        """A session from john's side to www.example.com, both ends by this pool."""
        outcomes = both(
            self.pool, self.pool, {"localid": "www.example.com"} | (server or {}), {"remoteid": "www.example.com"} | (client or {})
        )
        self.links += [outcome for outcome in outcomes if isinstance(outcome, Session)]
        return outcomes

    def as_user(self, uid: int, groups: list[int], work: Callable[[str], None]) -> Callable[[], str]:
        """Have a process of another user work with the pool; gives what waits for its end, and the name of the error that it met."""
        self.path.chmod(0o666)
        self.path.parent.chmod(0o711)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:  # the directories above the pool's are not everybody's, but a working directory needs no way to it
            os.chdir(self.path.parent)
            os.setgroups(groups)
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            try:
                work(self.path.name)
            except PoolError as error:
                os.write(write, ErrorCode(error.code).name.encode())
            finally:
                os._exit(0)
        os.close(write)

        def outcome() -> str:
            os.waitpid(child, 0)
            with os.fdopen(read) as told:
                return told.read()

        return outcome

    def close(self) -> None:
        for link in self.links:
            link.close()
        try:
            self.daemon.stop()
        finally:
            print(self.daemon.text)
            self.backend.close()


class Person:
    """Sits at a terminal where `tlspool` runs a command."""

    def __init__(self, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell has it ignored by what it runs in the background
            variables = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")} | (environment or {})
            program = "from tlspool_core.cli.root import tlspool; tlspool()"
            os.execve(  # noqa: S606 - no shell is wanted
                sys.executable, [sys.executable, "-c", program, *arguments], variables | {"PYTHONPATH": str(ROOT)}
            )
        self.seen = ""
        self._unread = 0
        self.status: int | None = None

    def sees(self, text: str, limit: float = 15.0) -> None:
        """Wait until the terminal shows a text, after those that were waited for before."""
        end = time.monotonic() + limit
        while (at := self.seen.find(text, self._unread)) < 0:
            ready, _, _ = select.select([self.terminal], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"the terminal does not show {text!r} but {self.seen!r}"
            try:
                data = os.read(self.terminal, 4096)
            except OSError:
                data = b""
            assert data, f"the program ended without {text!r}: {self.seen!r}"
            self.seen += data.decode()
        self._unread = at + len(text)

    def types(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def interrupts(self) -> int:
        """Ctrl-C; the exit status."""
        if self.status is None:
            os.kill(self.pid, signal.SIGINT)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def leaves(self) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.terminal)
