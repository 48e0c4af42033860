"""Does a program that knows standard input and output only become a TLS service, and does it learn who is there?"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from test_openssl import CLIENT, SERVER, World, eventually

from tests.tools.conftest import Tool, free_port, s_client
from tlspool_core.interfaces import Role

TELL = "import json, os, sys; print(json.dumps(dict(os.environ, line=sys.stdin.readline()))); sys.stdout.flush()"


def test_identities_are_in_the_environment(world: World, tool: Callable[..., Tool]) -> None:
    port = free_port()
    spoofed = {"TLSPOOL_REMOTEID": "root@example.com"}
    arguments = ("--listen", f"127.0.0.1:{port}", "--remote-identity", "requested", "--", sys.executable, "-c", TELL)
    tool("run", *arguments, env=spoofed).reaches(port)
    told = json.loads(s_client(world, port, data=b"hello\n").stdout)
    assert "TLSPOOL_REMOTEID" not in told, "inherited, and nobody's"
    assert (told["TLSPOOL_LOCALID"], told["line"], told["TCPREMOTEIP"]) == (SERVER, "hello\n", "127.0.0.1")
    certificate, key = world.pair("mary@example.com", Role.CLIENT, "mary")
    told = json.loads(s_client(world, port, "-cert", certificate, "-key", key, data=b"hello\n").stdout)
    assert told["TLSPOOL_REMOTEID"] == "mary@example.com"
    assert told["TLSPOOL_VERSION"] == "TLSv1.3"


def test_who_must_show_an_identity_and_does_not_starts_nothing(world: World, tool: Callable[..., Tool]) -> None:
    port = free_port()
    started = tool("run", "--listen", f"127.0.0.1:{port}", "--", "echo", "secret").reaches(port)
    assert b"secret" not in s_client(world, port, data=b"hello\n").stdout
    assert started.process.poll() is None
    eventually(lambda: "identity" in started.log.read_text())


@pytest.mark.parametrize("status", [0, 7])
def test_inetd_starts_it(world: World, tool: Callable[..., Tool], status: int) -> None:
    ours, theirs = socket.socketpair()
    program = f"import sys; print(sys.stdin.readline().upper()); sys.exit({status})"
    with theirs:  # all three descriptors are the connection, as inetd has it
        started = tool("run", "--", sys.executable, "-c", program, stdin=theirs, stdout=theirs, stderr=theirs)
    with world.daemon.pool.starttls_client(ours, remoteid=SERVER) as session:
        session.plaintext.sendall(b"hello\n")
        assert session.plaintext.makefile("rb").read() == b"HELLO\n\n"
        assert session.localid == CLIENT
    assert started.process.wait(10) == status


def test_the_last_words_arrive_whole(world: World, tool: Callable[..., Tool]) -> None:
    """The program ends with much still on its way to a slow reader."""
    ours, theirs = socket.socketpair()
    with theirs:
        started = tool("run", "--", sys.executable, "-c", "print('x' * 8_000_000, end='')", stdin=theirs, stdout=theirs)
    with world.daemon.pool.starttls_client(ours, remoteid=SERVER) as session:
        size = 0
        while data := session.plaintext.recv(65536):
            size += len(data)
            time.sleep(0.005)
    assert size == 8_000_000
    assert started.process.wait(10) == 0


def test_a_failed_handshake_says_nothing_in_clear(world: World, tool: Callable[..., Tool]) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        started = tool("run", "--", "echo", "secret", stdin=theirs, stdout=theirs, stderr=theirs)
    with ours:
        ours.sendall(b"GET / HTTP/1.0\r\n\r\n")
        heard = b""
        while data := ours.recv(1000):
            heard += data
    assert heard[:1] in (b"\x15", b"")  # an alert record, no words
    assert len(heard) <= 7
    assert started.process.wait(10) == 1


def test_it_is_a_client_too(world: World, tool: Callable[..., Tool]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        target = f"127.0.0.1:{listening.getsockname()[1]}"
        asking = "import os; print('I am', os.environ['TLSPOOL_LOCALID'], 'you are', os.environ['TLSPOOL_REMOTEID'])"
        started = tool("run", "--connect", target, "--remoteid", SERVER, "--", sys.executable, "-c", asking)
        connection, _ = listening.accept()
    with world.daemon.pool.starttls_server(connection, localid=SERVER) as session:
        assert session.plaintext.makefile("rb").read() == f"I am {CLIENT} you are {SERVER}\n".encode()
    assert started.process.wait(10) == 0


def test_wrong_use_is_explained(world: World, tool: Callable[..., Tool]) -> None:
    for arguments, words in (
        (("--listen", "nonsense", "--", "true"), "neither HOST:PORT"),
        (("--listen", ":1", "--connect", "a:1", "--", "true"), "do not go together"),
        (("--", "true"), "standard input is no connection"),
    ):
        started = tool("run", *arguments, stdin=subprocess.DEVNULL)
        assert started.process.wait(10) == 2
        assert words in started.log.read_text()
