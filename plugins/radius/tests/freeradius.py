"""A FreeRADIUS server of the tests' own: configuration in a temporary directory, loopback, free ports."""

from __future__ import annotations

import datetime
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

SECRET = "a shared secret of the tests"

RECORDS = [
    "Acct-Status-Type",
    "Acct-Session-Id",
    "User-Name",
    "Acct-Output-Octets",
    "Acct-Delay-Time",
    "Connect-Info",
    "Class[*]",
    "Acct-Input-Octets",
    "Acct-Session-Time",
    "Acct-Terminate-Cause",
    "Acct-Multi-Session-Id",
    "Called-Station-Id",
]
REQUESTS = [
    "User-Name",
    "Service-Type",
    "Called-Station-Id",
    "Calling-Station-Id",
    "NAS-Port-Id",
    "Connect-Info",
    "Acct-Multi-Session-Id",
]

CONFIGURATION = """
prefix = /usr
libdir = /usr/lib/freeradius
name = tests
logdir = {home}
run_dir = {home}
pidfile = {home}/pid
max_request_time = 5
cleanup_delay = 5
max_requests = 16384
hostname_lookups = no
log {{ destination = stdout }}
security {{ status_server = yes
 reject_delay = 0 }}
client loopback {{ ipaddr = 127.0.0.1
 secret = "{secret}"
 require_message_authenticator = yes }}
modules {{
 always handled {{ rcode = handled }}
 always fail {{ rcode = fail }}
 linelog records {{ filename = {home}/records
  format = "{records}" }}
 linelog requests {{ filename = {home}/requests
  format = "{requests}" }}
}}
server default {{
 listen {{ type = auth
  ipaddr = 127.0.0.1
  port = {port} }}
 listen {{ type = acct
  ipaddr = 127.0.0.1
  port = {accounting_port} }}
 {radsec}
 authorize {{
  update control {{ Auth-Type := Accept }}
  update reply {{ Message-Authenticator := 0x00 }}
  requests
  if (&User-Name =~ /^eve@/) {{
   update reply {{ Reply-Message := "the library is closed to you" }}
   update control {{ Auth-Type := Reject }}
  }}
  if (&User-Name =~ /^ann@/) {{
   update reply {{ Reply-Message := "what is your mother's name?" }}
   update control {{ Response-Packet-Type := Access-Challenge }}
   handled
  }}
 }}
 post-auth {{
  if (&User-Name =~ /^mute@/) {{
   update control {{ Response-Packet-Type := Do-Not-Respond }}
  }}
  if (&User-Name =~ /^naked@/) {{
   update reply {{ Message-Authenticator !* ANY }}
  }}
  if (&User-Name =~ /^guest@/) {{
   update reply {{ Service-Type := Framed-User }}
  }}
  update reply {{ Session-Timeout := 3600
   Idle-Timeout := 120
   Class := "gold"
   Class += "night" }}
  if (&User-Name =~ /^short@/) {{
   update reply {{ Session-Timeout := 1 }}
  }}
  if (&User-Name =~ /^idle@/) {{
   update reply {{ Idle-Timeout := 1 }}
  }}
 }}
 preacct {{
 }}
 accounting {{
  if (&User-Name =~ /^poison@/) {{
   fail
  }}
  records
 }}
}}
"""

RADSEC = """
 listen {{ type = auth+acct
  proto = tcp
  ipaddr = 127.0.0.1
  port = {port}
  clients = radsec
  tls {{ private_key_file = {home}/server.pem
   certificate_file = {home}/server.pem
   ca_file = {home}/ca.pem
   require_client_cert = yes
   tls_min_version = "1.2"
   tls_max_version = "1.2"
   cipher_list = "DEFAULT" }} }}
"""
RADSEC_CLIENTS = """
thread pool { start_servers = 1
 max_servers = 2
 min_spare_servers = 1
 max_spare_servers = 2
 max_requests_per_server = 0 }
clients radsec { client loopback_tls { ipaddr = 127.0.0.1
 proto = tls
 secret = radsec
 limit { max_connections = 0 } } }
"""


def write_private(path: Path, content: bytes) -> None:
    """A file for its owner alone."""
    path.touch(0o600)
    path.write_bytes(content)


def free_port() -> int:
    """One that is free for UDP and for TCP."""
    while True:
        with socket.socket(type=socket.SOCK_DGRAM) as datagrams, socket.socket() as stream:
            datagrams.bind(("127.0.0.1", 0))
            port: int = datagrams.getsockname()[1]
            with suppress(OSError):
                stream.bind(("127.0.0.1", port))
                return port


def starts(server: FreeRadius) -> list[str]:
    """Whose start it noted; what is still open when a plugin ends is stopped by the next."""
    return [line.split("|")[1] for line in server.lines("records") if line.startswith("Start|")]


class FreeRadius:
    """One server, which can be stopped and started."""

    def __init__(self, home: Path, *, radsec: bool = False) -> None:
        home.mkdir(exist_ok=True)
        self.home = home
        self._radsec = radsec  # which takes threads
        self.port, self.accounting_port, self.radsec_port = free_port(), free_port(), free_port()
        self.secret = home / "secret"
        write_private(self.secret, SECRET.encode() + b"\n")
        if radsec:
            certificates(home)
        listen = RADSEC.format(home=home, port=self.radsec_port) if radsec else ""
        records, requests = ("|".join(f"%{{{name}}}" for name in names) for names in (RECORDS, REQUESTS))
        ports = {"port": self.port, "accounting_port": self.accounting_port, "radsec": listen}
        text = CONFIGURATION.format(home=home, secret=SECRET, records=records, requests=requests, **ports)
        (home / "radiusd.conf").write_text((RADSEC_CLIENTS if radsec else "") + text)
        (home / "dictionary").touch()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = self.home / "log"
        with log.open("wb") as output:
            command = ["/usr/sbin/freeradius", "-f", *([] if self._radsec else ["-s"]), "-l", "stdout", "-d", str(self.home)]
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        end = time.monotonic() + 20
        while b"Ready to process" not in log.read_bytes():
            assert self._process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.02)

    def stop(self, *, kill: bool = False) -> None:
        process, self._process = self._process, None
        if process is not None:
            (process.kill if kill else process.terminate)()
            process.wait(10)

    def change(self, old: str, new: str) -> None:
        """Start again, with something else in the configuration."""
        self.stop()
        file = self.home / "radiusd.conf"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))
        self.start()

    def lines(self, name: str) -> list[str]:
        path = self.home / name
        return path.read_text().splitlines() if path.exists() else []

    def section(self, **more: object) -> dict[str, object]:
        """[aaa.radius.server.NAME] for it."""
        return {
            "address": "127.0.0.1",
            "port": self.port,
            "accounting_port": self.accounting_port,
            "secret_file": str(self.secret),
        } | more

    def radsec_section(self, **more: object) -> dict[str, object]:
        return {
            "address": "127.0.0.1",
            "transport": "tls",
            "port": self.radsec_port,
            "ca_file": str(self.home / "ca.pem"),
            "certificate_file": str(self.home / "client.pem"),
            "server_name": "radius.example.com",
        } | more


def certificates(home: Path, names: Sequence[str] = ("server", "client")) -> None:
    """An authority and what it signs, with their keys."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of the tests")])
    now = datetime.datetime.now(datetime.UTC)

    def certify(name: x509.Name, public: ec.EllipticCurvePublicKey, authority: bool) -> x509.Certificate:
        alternative = x509.SubjectAlternativeName([x509.DNSName("radius.example.com"), x509.IPAddress(IPv4Address("127.0.0.1"))])
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(public)
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(authority, None), critical=True)
        return builder.add_extension(alternative, critical=False).sign(key, hashes.SHA256())

    (home / "ca.pem").write_bytes(certify(issuer, key.public_key(), True).public_bytes(Encoding.PEM))
    for name in names:
        own = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        content = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_private(home / f"{name}.pem", content + certify(subject, own.public_key(), False).public_bytes(Encoding.PEM))
