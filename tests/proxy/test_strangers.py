"""Does the proxy work for its owner alone, although all users of a machine reach loopback?"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import eventually

from tests.proxy.conftest import Inside, RawSite, drain
from tests.proxy.test_requests import OK, answering
from tlspool_core.cli.proxy import proxy as command
from tlspool_core.tools import whose
from tlspool_core.tools.endpoints import Endpoint, EndpointError, listen
from tlspool_core.tools.http_proxy import conversation

NOBODY = 65534
as_another = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


def curl(url: str, *arguments: str, user: int = NOBODY) -> str:
    """What another user sees."""
    command = ["curl", "-sS", "-i", "--max-time", "20", *arguments, url]
    return subprocess.run(command, user=user, capture_output=True, text=True, timeout=30, check=False).stdout


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_the_kernel_tells(family: socket.AddressFamily, address: str) -> None:
    with socket.create_server((address, 0), family=family) as listening:
        client = socket.create_connection(listening.getsockname()[:2])
        accepted, _ = listening.accept()
        with accepted:
            with client:
                assert whose.owner(accepted) == os.geteuid()
                assert not whose.refusal(accepted, ())
                client.shutdown(socket.SHUT_WR)
                assert whose.owner(accepted) == os.geteuid()
            assert whose.owner(accepted) is None, "a socket that was closed is nobody's, whatever number the kernel gives it"
            assert "has gone" in whose.refusal(accepted, ())


def test_a_reset_connection_is_nobodys() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
        with accepted:
            ends = accepted.getpeername(), accepted.getsockname()
            question = whose._question(accepted)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as kernel:
                kernel.sendto(question, (0, 0))
                assert whose._answer(kernel.recv(8192)) is None, ends


def test_a_port_that_another_has_taken_over_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent before the reset could be read as if the owner of the new connection had sent it."""
    question = whose._question
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as later:
        client = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
        client.sendall(b"GET / HTTP/1.1\r\n")
        later.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def asked_too_late(sock: socket.socket) -> bytes:
            made = question(sock)
            port = client.getsockname()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            later.bind(port)
            later.connect(listening.getsockname())
            return made

        monkeypatch.setattr(whose, "_question", asked_too_late)
        with accepted:
            assert whose.refusal(accepted, ())
            assert accepted.recv(100).startswith(b"GET"), "or this is no danger"


@as_another
def test_the_kernel_tells_of_another() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with subprocess.Popen(["curl", "-s", f"http://127.0.0.1:{port}/"], user=NOBODY, stdout=subprocess.DEVNULL) as process:
            accepted, _ = listening.accept()
            with accepted:
                assert whose.owner(accepted) == NOBODY
                assert whose.refusal(accepted, ()) in ("user nobody has connected", f"user number {NOBODY} has connected")
                assert not whose.refusal(accepted, {NOBODY})
            process.wait(20)


def test_a_kernel_that_does_not_tell(
    inside: Callable[..., Inside], raw: Callable[..., RawSite], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(sock: socket.socket) -> int:
        raise PermissionError(1, "no such thing here")

    monkeypatch.setattr(whose, "owner", fails)
    site = raw(answering(OK))
    heard = inside(site.port).ask(b"GET %s/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % site.url)
    assert heard.startswith(b"HTTP/1.1 403 ") and b"no such thing here" in heard
    assert not site.heard


@as_another
def test_another_user_gets_nothing(inside: Callable[..., Inside], raw: Callable[..., RawSite], tmp_path: Path) -> None:
    site = raw(answering(OK))
    login = tmp_path / "login"
    login.write_text("john:secret\n")
    login.chmod(0o600)
    url = site.url.decode()
    proxy = inside(site.port)
    for target, more in ((url, ("-x", f"http://127.0.0.1:{proxy.port}")), (f"http://127.0.0.1:{proxy.port}/proxy.pac", ())):
        said = curl(target, *more)
        assert said.startswith("HTTP/1.1 403 ") and "works for another user" in said
        assert "Connection: close" in said, "it holds none of our connections"
    tunnelled = curl(url.replace("http:", "https:"), "-p", "-x", f"http://127.0.0.1:{proxy.port}")
    assert " 403 " in tunnelled and "200" not in tunnelled
    assert not site.heard
    assert curl(url, "-x", f"http://127.0.0.1:{inside(site.port, users=frozenset((NOBODY,))).port}").endswith("ok")
    logged_in = ("-x", f"http://john:secret@127.0.0.1:{inside(site.port, login_file=login).port}")
    assert curl(url, *logged_in).endswith("ok"), "who logs in may be anybody"


@as_another
def test_another_users_connections_do_not_stay(inside: Callable[..., Inside], raw: Callable[..., RawSite]) -> None:
    """A silent one of theirs does not keep one of the few places."""
    site = raw(answering(OK))
    proxy = inside(site.port, limit=1)
    silent = ["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{proxy.port}; cat <&3; exec sleep 60"]
    with subprocess.Popen(silent, user=NOBODY, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"HTTP/1.1 403 ")
        assert proxy.ask(b"GET %s/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % site.url).endswith(b"ok")
        process.kill()


def test_a_path_that_is_served_already(inside: Callable[..., Inside], tmp_path: Path) -> None:
    path = str(tmp_path / "proxy.sock")
    for sock in listen(Endpoint(path=path)):
        with closing(sock), pytest.raises(EndpointError, match="in use"):
            listen(Endpoint(path=path))
    for sock in listen(Endpoint(path=path)):  # what an earlier process left is replaced
        sock.close()


def test_users_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "proxy.toml"
    file.write_text('users = ["root", "65534"]\n[[destination]]\nmatch = ["*.example.com"]\n')
    assert CliRunner().invoke(command, ["--check", str(file)]).exit_code == 0
    file.write_text('users = ["no-such-user"]\n[[destination]]\nmatch = ["*.example.com"]\n')
    assert "there is no user 'no-such-user'" in CliRunner().invoke(command, ["--check", str(file)]).output


def test_on_a_unix_socket(inside: Callable[..., Inside], raw: Callable[..., RawSite], tmp_path: Path) -> None:
    path = tmp_path / "proxy.sock"
    site = raw(answering(OK))
    inside(site.port, listen=Endpoint(path=str(path)))
    eventually(path.exists)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert whose.owner(client) == os.geteuid()
        client.sendall(b"GET %s/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % site.url)
        assert drain(client).endswith(b"ok")


def test_guessing_a_login_takes_its_time(
    inside: Callable[..., Inside], raw: Callable[..., RawSite], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "GUESS_TIME", 3600.0)
    login = tmp_path / "login"
    login.write_text("john:secret\n")
    login.chmod(0o600)
    site = raw(answering(OK))
    proxy = inside(site.port, login_file=login)
    request = b"GET %s/ HTTP/1.1\r\nHost: x\r\n%sConnection: close\r\n\r\n"
    with proxy.connect() as guessing:
        guessing.sendall(request % (site.url, b"Proxy-Authorization: Basic eDp4\r\n"))
        assert b" 407 " in proxy.ask(request % (site.url, b"")), "who has not tried yet is told at once"
        assert proxy.ask(request % (site.url, b"Proxy-Authorization: Basic am9objpzZWNyZXQ=\r\n")).endswith(b"ok")
        guessing.settimeout(0.2)
        with pytest.raises(TimeoutError):
            guessing.recv(1)
