"""The servers that are compared: each is started on one core, and listens with an ECDSA and with an RSA key.

Theory of operation
-------------------
A contender is a name, one port for each kind of key, and the processes whose CPU and memory count.  haproxy and stunnel decrypt and
connect to a plain backend; behind the pool the backend accepts the connections itself and hands them over, as applications do.
Backend and load generator share the other core.  The proxies keep their keys in files; the pool's are in SoftHSM, and its token
worker counts as part of it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from bench.cpu import family
from demo.authority import Authority
from demo.stage import BIN, Stage, free_port

_cores = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = _cores[0], _cores[-1]
KEYS = ("ecdsa", "rsa")
NAME = "bench.tlspool.example"
TOKEN = "bench"

HAPROXY = """\
global
  nbthread 1
  maxconn 9900
  ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
  mode tcp
  timeout connect 10s
  timeout client 1h
  timeout server 1h
{frontends}
backend plain
  server plain 127.0.0.1:{backend}
"""
HAPROXY_FRONTEND = """\
frontend {key}
  bind 127.0.0.1:{port} ssl crt {pem}
  default_backend plain
"""
STUNNEL = """\
foreground = yes
pid =
debug = 3
sslVersionMin = TLSv1.2
{services}
"""
STUNNEL_SERVICE = """\
[{key}]
accept = 127.0.0.1:{port}
connect = 127.0.0.1:{backend}
cert = {pem}
"""
POOL = """\
[keystore.pkcs11]
modules = [{{ path = "{module}", pin_file = "{pin_file}" }}]

[log]
level = "warning"
"""


@dataclass
class Contender:
    """One server under test."""

    name: str
    stage: Stage
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def pids(self) -> list[int]:
        """The processes that count."""
        root = next(process.pid for name, process in self.stage.processes if name == self.name)
        return family(root)


class Site:
    """A stage with all contenders on it."""

    def __init__(self, stage: Stage, profile: Path | None = None) -> None:
        """`profile`: run the pool under cProfile, which writes there when it ends; figures are then worthless, proportions not."""
        self.stage = stage
        self._profile = profile
        self._authority = Authority("TLS Pool benchmark authority")
        self._backend = 0

    def start(self, name: str) -> Contender | None:
        """Start one; None if its program is not installed."""
        contender = Contender(name, self.stage)
        if name != "pool" and self._program(name) is None:
            return None
        if not self._backend and name != "pool":
            self._backend = self._start_backend("backend", "plain")
        getattr(self, f"_start_{name}")(contender)
        for port in contender.ports.values():
            self.stage.wait_port(port)
        return contender

    # --- programs ------------------------------------------------------------------------------------------------------------------

    def _program(self, name: str) -> str | None:
        return shutil.which({"stunnel": "stunnel4"}.get(name, name), path=self.stage.environment["PATH"])

    def _start(self, name: str, core: int, *command: str) -> None:
        self.stage.start(name, ["taskset", "-c", str(core), *command])

    def _start_backend(self, name: str, *arguments: str) -> int:
        mode, *rest = arguments
        port = free_port()
        self._start(name, LOAD_CORE, sys.executable, "-m", "bench.backend", mode, str(port), *rest)
        self.stage.wait_port(port)
        return port

    def _start_haproxy(self, contender: Contender) -> None:
        frontends = ""
        for key in KEYS:
            port = contender.ports[key] = free_port()
            frontends += HAPROXY_FRONTEND.format(key=key, port=port, pem=self._pem(key))
        config = self.stage.home / "haproxy.cfg"
        config.write_text(HAPROXY.format(frontends=frontends, backend=self._backend))
        self._start(contender.name, SERVER_CORE, str(self._program("haproxy")), "-db", "-f", str(config))

    def _start_stunnel(self, contender: Contender) -> None:
        services = ""
        for key in KEYS:
            port = contender.ports[key] = free_port()
            services += STUNNEL_SERVICE.format(key=key, port=port, backend=self._backend, pem=self._pem(key))
        config = self.stage.home / "stunnel.conf"
        config.write_text(STUNNEL.format(services=services))
        self._start(contender.name, SERVER_CORE, str(self._program("stunnel")), str(config))

    def _pem(self, key: str) -> Path:
        """Certificate and private key in one file."""
        path = self.stage.home / f"{key}.pem"
        if not path.exists():
            private = rsa.generate_private_key(65537, 2048) if key == "rsa" else ec.generate_private_key(ec.SECP256R1())
            form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            path.touch(mode=0o600)
            path.write_bytes(self._authority.certify(NAME, private.public_key(), "server") + private.private_bytes(*form))
        return path

    # --- the pool ------------------------------------------------------------------------------------------------------------------

    def _start_pool(self, contender: Contender) -> None:
        pin, pin_file = secrets.token_hex(8), self.stage.home / "pin"
        tokens = self.stage.home / "tokens"
        tokens.mkdir(mode=0o700)
        Path(self.stage.environment["SOFTHSM2_CONF"]).write_text(
            f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        pin_file.touch(mode=0o600)
        pin_file.write_text(pin)
        command = ["softhsm2-util", "--init-token", "--free", "--label", TOKEN, "--pin", pin, "--so-pin", secrets.token_hex(8)]
        self.stage.command(command, quiet=True)
        self.stage.config.write_text(POOL.format(module=self.stage.module, pin_file=pin_file))
        names = {key: f"{key}.{NAME}" for key in KEYS}
        for number, key in enumerate(KEYS, 1):
            self._make_identity(pin, key, names[key], f"{number:02x}")
        profiled = (sys.executable, "-m", "bench.profiled", str(self._profile))
        program = (str(BIN / "tlspool"),) if self._profile is None else profiled
        self._start(contender.name, SERVER_CORE, *program, "serve")
        self.stage.wait_for("the pool answers", self.stage.socket.exists)
        for key in KEYS:
            contender.ports[key] = self._start_backend(f"pool-backend-{key}", "pool", names[key])

    def _make_identity(self, pin: str, key: str, name: str, number: str) -> None:
        kind = "rsa" if key == "rsa" else "ec"
        program = [sys.executable, "-m", "bench.token", self.stage.module, TOKEN, pin, kind, number]
        public = load_pem_public_key(self.stage.command(program, quiet=True).encode())
        certificate = self.stage.home / f"{key}.crt"
        certificate.write_bytes(self._authority.certify(name, public, "server"))  # type: ignore[arg-type]
        uri = f"pkcs11:token={TOKEN};id=%{number};type=private"
        add = ("localid", "add", name, "--type", "x509", "--role", "server", "--key", uri, str(certificate))
        self.stage.tlspool(*add, quiet=True)
