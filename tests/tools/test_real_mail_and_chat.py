"""Do tunnels get on with Postfix and Prosody, in front of them and on the way to them?"""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_openssl import SERVER, World, eventually

from tests.tools.conftest import Tool, free_port, s_client
from tests.tools.test_real_services import Service, account, copied, home, run, tunnels
from tests.tools.test_tunnel import configure
from tlspool_core.interfaces import Role

__all__ = ["home", "tunnels"]  # fixtures

POSTFIX, PROSODY = Path("/usr/sbin/postfix"), Path("/usr/bin/prosody")
POSTFIX_SERVICES = """\
127.0.0.1:{smtp} inet n - n - - smtpd
127.0.0.1:{proxied} inet n - n - - smtpd -o smtpd_upstream_proxy_protocol=haproxy -o smtpd_tls_security_level=none
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
tlsmgr unix - - n 1000? 1 tlsmgr
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


@pytest.fixture(scope="module")
def postfix(home: Path) -> Iterator[Service]:
    if not POSTFIX.exists() or not account("postfix") or not account("nobody"):
        pytest.skip("Postfix is not installed, or we are not root, as it wants us to be")
    own, ports = copied(home, "postfix", None), {name: free_port() for name in ("smtp", "proxied")}
    for name, user in (("spool", None), ("data", "postfix"), ("mail", "nobody")):
        (own / name).mkdir()
        if user:
            shutil.chown(own / name, user)
    (own / "master.cf").write_text(POSTFIX_SERVICES.format(**ports))
    (own / "main.cf").write_text(f"""\
compatibility_level = 3.7
queue_directory = {own}/spool
data_directory = {own}/data
maillog_file = /dev/stdout
maillog_file_prefixes = /dev
myhostname = {SERVER}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mydestination =
mynetworks = 127.0.0.0/8
alias_maps =
virtual_mailbox_domains = example.com
virtual_mailbox_base = {own}/mail
virtual_mailbox_maps = static:box
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
smtpd_tls_security_level = may
smtpd_tls_cert_file = {own}/server.crt
smtpd_tls_key_file = {own}/server.key
""")
    service = Service(own, ports["smtp"], [str(POSTFIX), "-c", str(own), "start-fg"])
    service.ports.update(ports)
    master = int((own / "spool" / "pid" / "master.pid").read_text())  # a session of its own, below the script that we have started
    yield service
    os.kill(master, signal.SIGTERM)  # ends all that it has started
    service.process.wait(20)
    service.stop()


def send(home: Path, subject: str, *arguments: str) -> None:
    letter = home / "letter"
    letter.write_text(f"Subject: {subject}\r\n\r\nhello\r\n")
    ends = ("--mail-from", "mary@example.com", "--mail-rcpt", "john@example.com", "--upload-file", str(letter))
    run("curl", "--silent", "--show-error", "--max-time", "30", *ends, *arguments)


def delivered(postfix: Service, subject: str) -> str:
    """The letter as it arrived."""
    box = postfix.home / "mail" / "box"
    eventually(lambda: box.exists() and f"Subject: {subject}" in box.read_text(), 20)
    letters = re.split(r"^From ", box.read_text(), flags=re.MULTILINE)
    return next(letter for letter in letters if f"Subject: {subject}" in letter)


def test_postfix(postfix: Service, tunnels: Callable[..., tuple[int, int]], home: Path) -> None:
    secure, plain = tunnels("smtp", postfix.port)
    there = ("--ssl-reqd", "--cacert", str(home / "ca.pem"), "--resolve", f"{SERVER}:{secure}:127.0.0.1")
    send(home, "to the tunnel", *there, f"smtp://{SERVER}:{secure}")
    assert "with ESMTPS" not in delivered(postfix, "to the tunnel"), "Postfix gets plaintext"
    send(home, "through the tunnel", f"smtp://127.0.0.1:{plain}")
    assert "with ESMTPS" in delivered(postfix, "through the tunnel"), "Postfix gets TLS"


def test_postfix_reads_who_connects(world: World, postfix: Service, tool: Callable[..., Tool], home: Path, tmp_path: Path) -> None:
    """The address of the header counts, as the tunnel's own is always the same."""
    port = free_port()
    one = {"listen": f"127.0.0.1:{port}", "connect": f"127.0.0.1:{postfix.ports['proxied']}", "localid": SERVER, "starttls": "smtp"}
    tool("tunnel", configure(tmp_path, one | {"proxy_protocol": True, "remote_identity": "requested"})).reaches(port)
    there = ("--ssl-reqd", "--cacert", str(home / "ca.pem"), "--resolve", f"{SERVER}:{port}:127.0.0.1")
    certificate, key = world.pair("mary@example.com", Role.CLIENT, "mary")
    send(home, "proxied", *there, "--interface", "127.0.0.9", "--cert", certificate, "--key", key, f"smtp://{SERVER}:{port}")
    assert "[127.0.0.9]" in delivered(postfix, "proxied")


@pytest.fixture(scope="module")
def prosody(home: Path) -> Iterator[Service]:
    if not PROSODY.exists():
        pytest.skip("Prosody is not installed")
    user, port = account("prosody"), free_port()
    own = copied(home, "prosody", user)
    (own / "prosody.cfg.lua").write_text(f"""\
data_path = "{own}"
pidfile = "{own}/pid"
run_as_root = {"false" if user else "true"}
modules_enabled = {{ "saslauth", "tls", "posix" }}
modules_disabled = {{ "s2s" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {port} }}
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
ssl = {{ certificate = "{own}/server.crt"; key = "{own}/server.key" }}
log = {{ {{ levels = {{ min = "info" }}; to = "console" }} }}
VirtualHost "{SERVER}"
""")
    command = [str(PROSODY), "--config", str(own / "prosody.cfg.lua")]
    register = ["prosodyctl", "--config", str(own / "prosody.cfg.lua"), "register", "mary", SERVER, "secret"]
    subprocess.run(register, check=True, capture_output=True, cwd=own)
    service = Service(own, port, [*command, "-F"], user)
    yield service
    service.stop()


OPENING = (
    f"<stream:stream to='{SERVER}' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>".encode()
)
LOGIN = b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>%s</auth>" % base64.b64encode(b"\0mary\0secret")


def test_prosody(world: World, prosody: Service, tunnels: Callable[..., tuple[int, int]]) -> None:
    secure, plain = tunnels("xmpp-client", prosody.port)
    with socket.create_connection(("127.0.0.1", plain), timeout=20) as application, application.makefile("rwb", 0) as stream:
        stream.write(OPENING)
        heard = b""
        while b"</stream:features>" not in heard:
            heard += stream.read(4096) or pytest.fail(str(heard))
        assert b"<starttls" not in heard, "it is in TLS"
        stream.write(LOGIN)
        assert stream.read(4096).startswith(b"<success")
    done = s_client(world, secure, "-starttls", "xmpp", "-xmpphost", SERVER, data=OPENING + LOGIN + b"</stream:stream>")
    assert b"<success" in done.stdout, done.stderr
