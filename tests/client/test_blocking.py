"""Does the blocking client do what the protocol says, and get over a pool that refuses, lies, is late or vanishes?"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from typing import Any

import pytest

from tlspool_core.client import (
    ErrorCode,
    InfoKind,
    Pool,
    PoolError,
    PoolTimeout,
    PoolUnreachable,
    PoolVanished,
    Refused,
    StartTlsFlags,
    options,
)
from tlspool_core.wire.flags import TIMEOUT_INFINITE
from tlspool_core.wire.messages import (
    AccountingInterim,
    AccountingStart,
    AccountingStop,
    ControlDetach,
    ControlReattach,
    Error,
    Info,
    Message,
    Ping,
    Prng,
    PrngOutput,
    StartTls,
    StartTlsLocalid,
    Success,
)

Wire = tuple[socket.socket, socket.socket]


def wait_for_end(connection: Any) -> None:
    """The application hangs up."""
    with pytest.raises(EOFError):
        connection.read()


def test_three_lines(scripted: Any, wire: Wire) -> None:
    def script(connection: Any) -> None:
        with connection.serve_starttls() as plain:
            assert plain.recv(100) == b"question"
            plain.sendall(b"answer")
        wait_for_end(connection)

    scripted.play(script)
    with Pool(scripted.path) as pool, pool.starttls_client(wire[0], remoteid="you@there", service="http") as session:
        session.plaintext.sendall(b"question")
        assert session.plaintext.recv(100) == b"answer"
        assert (session.localid, session.remoteid, session.service) == ("me@here", "you@there", "http")
        assert "you@there" in repr(session)


def test_what_the_pool_is_asked(scripted: Any, wire: Wire) -> None:
    seen: list[StartTls] = []

    def script(connection: Any) -> None:
        reqid, request, crypt = connection.starttls()
        seen.append(request)
        with crypt.socket() as tls:
            tls.sendall(b"from the pool")
        connection.send(reqid, Error.of(ErrorCode.HANDSHAKE_FAILED))

    scripted.play(script)
    with Pool(scripted.path) as pool, pytest.raises(Refused):
        pool.starttls_server(wire[0], localid="a", remoteid="b", service="c", flags=StartTlsFlags.REQUEST_REMOTEID, timeout=1.5)
    assert wire[1].recv(100) == b"from the pool"
    assert wire[1].recv(100) == b"", "our own descriptor was closed, so the peer sees the end"
    assert wire[0].fileno() == -1
    (request,) = seen
    assert request.flags == StartTlsFlags.LOCALROLE_SERVER | StartTlsFlags.REMOTEROLE_CLIENT | StartTlsFlags.REQUEST_REMOTEID
    assert (request.localid, request.remoteid, request.service, request.timeout, request.ipproto) == ("a", "b", "c", 1500, 6)
    assert len(set(request.ctlkey)) > 4


@pytest.mark.parametrize("role", ["starttls_client", "starttls_server", "starttls_peer"])
def test_roles(scripted: Any, wire: Wire, role: str) -> None:
    flags: list[int] = []

    def script(connection: Any) -> None:
        reqid, request, _ = connection.starttls()
        flags.append(request.flags)
        connection.send(reqid, Error.of(ErrorCode.HANDSHAKE_FAILED))

    scripted.play(script)
    with Pool(scripted.path) as pool, pytest.raises(Refused):
        getattr(pool, role)(wire[0])
    assert flags == [{"starttls_client": 9, "starttls_server": 6, "starttls_peer": 15}[role]]


@pytest.mark.parametrize(("kind", "ipproto"), [(socket.SOCK_STREAM, 6), (socket.SOCK_DGRAM, 17)])
def test_the_plaintext_socket_fits_the_transport(scripted: Any, kind: socket.SocketKind, ipproto: int) -> None:
    def script(connection: Any) -> None:
        reqid, request, _ = connection.starttls()
        assert request.ipproto == ipproto
        with connection.plaintext(reqid, request) as plain:
            assert plain.type == kind
            connection.send(reqid, request)
        wait_for_end(connection)

    scripted.play(script)
    ours, peer = socket.socketpair(type=kind)
    with peer, Pool(scripted.path) as pool, pool.starttls_client(ours) as session:
        assert session.plaintext.type == kind


def test_a_plaintext_socket_of_the_callers(scripted: Any, wire: Wire) -> None:
    def script(connection: Any) -> None:
        with connection.serve_starttls() as plain:
            plain.sendall(b"here")

    scripted.play(script)
    ours, theirs = socket.socketpair()
    with ours, theirs, Pool(scripted.path) as pool:
        with pool.starttls_client(wire[0], plaintext=theirs) as session, pytest.raises(ValueError, match="you passed"):
            _ = session.plaintext
        assert ours.recv(10) == b"here"
        assert theirs.fileno() >= 0, "it stays the caller's"


def test_take_hands_over_the_plaintext_socket(scripted: Any, wire: Wire) -> None:
    scripted.play(lambda connection: connection.serve_starttls().close())
    with Pool(scripted.path) as pool:
        with pool.starttls_client(wire[0]) as session:
            plain = session.take()
        assert plain.recv(1) == b""
        plain.close()


# --- the LOCALID callback --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("decision", "used"), [("me@proposed", "me@proposed"), ("other@here", "other@here")])
def test_localid_hook_approves_or_changes(scripted: Any, wire: Wire, decision: str, used: str) -> None:
    def script(connection: Any) -> None:
        reqid, request, _ = connection.starttls()
        assert request.flags & StartTlsFlags.LOCALID_CHECK
        connection.send(reqid, request.ask_localid(localid="me@proposed", remoteid="sni"), 5)
        packet, descriptor = connection.read()
        assert descriptor is None
        assert packet.message == request.ask_localid(localid=used, remoteid="sni")
        connection.plaintext(reqid, request, 6, localid=used).close()
        connection.send(reqid, request.echo(localid=used))

    asked: list[StartTlsLocalid] = []

    def hook(proposal: StartTlsLocalid) -> str:
        asked.append(proposal)
        return decision

    scripted.play(script)
    with Pool(scripted.path) as pool, pool.starttls_server(wire[0], localid_hook=hook) as session:
        assert session.localid == used
    assert [proposal.localid for proposal in asked] == ["me@proposed"]


@pytest.mark.parametrize("decision", [None, ""])
def test_localid_hook_refuses(scripted: Any, wire: Wire, decision: str | None) -> None:
    def script(connection: Any) -> None:
        reqid, request, _ = connection.starttls()
        connection.send(reqid, request.ask_localid(localid="me@proposed"), 5)
        packet, _ = connection.read()
        assert isinstance(packet.message, Error)
        connection.send(reqid, Error.of(ErrorCode.CLIENT_REFUSES_CALLBACK))

    scripted.play(script)
    with Pool(scripted.path) as pool, pytest.raises(Refused) as caught:
        pool.starttls_server(wire[0], localid_hook=lambda proposal: decision)
    assert caught.value.code == ErrorCode.CLIENT_REFUSES_CALLBACK


def test_localid_hook_fails(scripted: Any, wire: Wire) -> None:
    answers: list[Message] = []

    def script(connection: Any) -> None:
        reqid, request, _ = connection.starttls()
        connection.send(reqid, request.ask_localid(localid="me@proposed"), 5)
        answers.append(connection.read()[0].message)

    def hook(proposal: StartTlsLocalid) -> str:
        raise LookupError(proposal.localid)

    scripted.play(script)
    with Pool(scripted.path) as pool, pytest.raises(LookupError, match="me@proposed"):
        pool.starttls_server(wire[0], localid_hook=hook)
    scripted.finish()
    assert isinstance(answers[0], Error)


# --- refusals, lies, silence -----------------------------------------------------------------------------------------------------


def test_a_refusal_carries_code_text_and_advice(scripted: Any, wire: Wire) -> None:
    def script(connection: Any) -> None:
        reqid, _, _ = connection.starttls()
        connection.send(reqid, Error.of(ErrorCode.REMOTEID_REFUSED, "x509: the chain ends in no trust anchor"))

    scripted.play(script)
    with Pool(scripted.path) as pool, pytest.raises(Refused) as caught:
        pool.starttls_client(wire[0])
    assert caught.value.code == ErrorCode.REMOTEID_REFUSED
    assert caught.value.text == "x509: the chain ends in no trust anchor"
    assert "tlspool explain" in caught.value.advice
    assert caught.value.advice in str(caught.value)
    assert isinstance(caught.value, OSError)


@pytest.mark.parametrize(
    "lie", ["key in callback", "key in answer", "unasked localid", "other command", "callback as answer", "garbage"]
)
def test_lies_are_not_believed(scripted: Any, wire: Wire, lie: str) -> None:
    def script(connection: Any) -> None:
        reqid, request, _ = connection.starttls()
        match lie:
            case "key in callback":
                connection.send(reqid, request.ask_plaintext(ctlkey=bytes(16)), 1)
            case "key in answer":
                connection.send(reqid, request.echo(ctlkey=bytes(16)))
            case "unasked localid":
                connection.send(reqid, request.ask_localid(), 1)
            case "other command":
                connection.send(reqid, Success())
            case "callback as answer":
                connection.send(reqid, request.ask_plaintext())
            case "garbage":
                connection.sock.sendall(b"\xff" * 388)
        wait_for_end(connection)

    scripted.play(script)
    pool = Pool(scripted.path)
    with pool, pytest.raises(PoolError):
        try:
            pool.starttls_client(wire[0])
        finally:
            pool.close()


@pytest.mark.parametrize("step", range(4))
def test_the_pool_vanishes_at_each_step(scripted: Any, wire: Wire, step: int) -> None:
    def script(connection: Any) -> None:
        if step == 0:
            return
        reqid, request, _ = connection.starttls()
        if step == 2:
            connection.send(reqid, request.ask_plaintext(), 1)
        if step == 3:
            connection.plaintext(reqid, request).close()
            connection.sock.sendall(b"half a packet")

    scripted.play(script)
    with Pool(scripted.path) as pool, pytest.raises(PoolVanished) as caught:
        pool.starttls_client(wire[0])
    assert caught.value.code == ErrorCode.CLIENT_DISCONNECT
    assert isinstance(caught.value, ConnectionError)


def test_silence_ends_in_a_timeout_and_the_late_answer_harms_nobody(
    scripted: Any, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "GRACE", 0.05)
    late = threading.Event()

    def script(connection: Any) -> None:
        reqid, request, _ = connection.starttls()
        late.wait(10)
        connection.send(reqid, request.ask_plaintext(), 1)
        packet, _ = connection.read()
        assert isinstance(packet.message, Ping)
        reply, _ = connection.read()
        assert isinstance(reply.message, Error)
        assert (reply.reqid, reply.cbid) == (reqid, 1)
        connection.send(reqid, reply.message)
        connection.send(packet.reqid, Ping("20261123me@here", 1))
        wait_for_end(connection)

    scripted.play(script)
    with Pool(scripted.path) as pool:
        with pytest.raises(PoolTimeout):
            pool.starttls_client(wire[0], timeout=0.05)
        late.set()
        assert pool.ping().identity == "20261123me@here"


@pytest.mark.parametrize(("timeout", "wire_value"), [(None, 0), (math.inf, TIMEOUT_INFINITE), (0.0001, 1), (30, 30_000)])
def test_timeouts_on_the_wire(timeout: float | None, wire_value: int) -> None:
    assert options.limits(timeout).wire == wire_value


@pytest.mark.parametrize("timeout", [0, -1, 5e6, -math.inf])
def test_timeouts_that_make_no_sense(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        options.limits(timeout)


# --- connecting ------------------------------------------------------------------------------------------------------------------


def test_no_pool(no_leak: None, tmp_path: Any) -> None:
    with Pool(tmp_path / "none") as pool, pytest.raises(PoolUnreachable) as caught:
        pool.ping()
    assert str(tmp_path / "none") in str(caught.value)
    assert "tlspool serve" in caught.value.advice


def test_the_socket_is_closed_even_if_there_is_no_pool(no_leak: None, tmp_path: Any, wire: Wire) -> None:
    with Pool(tmp_path / "none") as pool, pytest.raises(PoolUnreachable):
        pool.starttls_client(wire[0])
    assert wire[1].recv(1) == b""


@pytest.mark.parametrize(
    ("explicit", "environ", "expected"),
    [
        ("/x", {"TLSPOOL_SOCKET": "/y"}, ["/x"]),
        (None, {"TLSPOOL_SOCKET": "/y", "XDG_RUNTIME_DIR": "/z"}, ["/y"]),
        (None, {"XDG_RUNTIME_DIR": "/z"}, ["/z/tlspool/tlspool.sock", "/run/tlspool.sock", "/var/run/tlspool.sock"]),
        (None, {}, ["/run/tlspool.sock", "/var/run/tlspool.sock"]),
    ],
)
def test_where_the_pool_is_looked_for(explicit: str | None, environ: dict[str, str], expected: list[str]) -> None:
    assert [str(path) for path in options.socket_paths(explicit, environ)] == expected


def answer_pings(connection: Any) -> None:
    while True:
        packet, _ = connection.read()
        connection.send(packet.reqid, Ping("20261123pool@here", 1))


def answer_one_ping(connection: Any) -> None:
    packet, _ = connection.read()
    connection.send(packet.reqid, Ping("20261123old@here", 1))


def test_a_restarted_pool_is_found_again(scripted: Any) -> None:
    scripted.play(answer_one_ping, answer_pings)
    with Pool(scripted.path) as pool:
        assert pool.ping().identity == "20261123old@here"
        scripted.stop()
        timer = threading.Timer(0.3, scripted.play, [answer_pings, answer_pings, answer_pings])
        timer.start()
        assert pool.ping().identity == "20261123pool@here"
        timer.join()


def test_patience_for_a_pool_that_is_being_started(scripted: Any) -> None:
    timer = threading.Timer(0.2, scripted.play, [answer_pings])
    timer.start()
    with Pool(scripted.path, patience=10) as pool:
        assert pool.ping().facilities == 1
    timer.join()


def test_many_threads_share_one_connection(scripted: Any) -> None:
    """Each gets its own answer, though answers come in another order."""

    def script(connection: Any) -> None:
        for _ in range(20):
            packets = [connection.read()[0] for _ in range(8)]
            for packet in reversed(packets):
                connection.send(packet.reqid, Info(bytes(16), packet.message.kind, b"%d" % packet.message.kind))
        wait_for_end(connection)

    scripted.play(script)
    wrong: list[int] = []
    with Pool(scripted.path) as pool:
        control = pool.control(bytes(16))

        def ask(kind: int) -> None:
            wrong.extend(kind for _ in range(20) if control.info(kind) != b"%d" % kind)

        threads = [threading.Thread(target=ask, args=(kind,)) for kind in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        assert scripted.connections == 1
    assert wrong == []


def test_all_threads_hear_that_the_pool_vanished(scripted: Any) -> None:
    scripted.play(lambda connection: [connection.read() for _ in range(5)] and None)
    heard: list[type[Exception]] = []
    with Pool(scripted.path) as pool:
        control = pool.control(bytes(16))

        def ask() -> None:
            try:
                control.info(1)
            except PoolVanished as fault:
                heard.append(type(fault))

        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
    assert heard == [PoolVanished] * 5


def test_one_that_times_out_hands_on_the_lead(scripted: Any) -> None:
    def script(connection: Any) -> None:
        connection.read()
        packet, _ = connection.read()
        time.sleep(0.2)
        connection.send(packet.reqid, Ping())
        wait_for_end(connection)

    scripted.play(script)
    with Pool(scripted.path) as pool:
        link = pool.link()
        outcome: list[Message] = []

        def impatient() -> None:
            with pytest.raises(PoolTimeout):
                link.ask(Ping(), 0.1)

        first = threading.Thread(target=impatient)
        first.start()
        time.sleep(0.02)
        second = threading.Thread(target=lambda: outcome.append(link.ask(Ping(), 5)))
        second.start()
        first.join(10)
        second.join(10)
    assert outcome == [Ping()]


def test_a_child_process_gets_a_connection_of_its_own(scripted: Any) -> None:
    scripted.play(answer_pings)
    with Pool(scripted.path) as pool:
        pool.ping()
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if pool.ping().facilities == 1 else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        pool.ping()
        assert scripted.connections == 2


# --- what a session can be asked -------------------------------------------------------------------------------------------------


def conversation(*answers: Message) -> tuple[Any, list[Message]]:
    """A script that sets up a session and then gives these answers; and what it was asked."""
    asked: list[Message] = []

    def script(connection: Any) -> None:
        with connection.serve_starttls():
            for answer in answers:
                packet, _ = connection.read()
                asked.append(packet.message)
                connection.send(packet.reqid, answer)
            wait_for_end(connection)

    return script, asked


def test_export_and_facts(scripted: Any, wire: Wire) -> None:
    key = bytes(16)
    script, asked = conversation(
        PrngOutput(b"x" * 20),
        Info(key, InfoKind.TLS_EXPORTER, b"binding"),
        Info(key, InfoKind.ALPN, b"h2"),
        Error.of(ErrorCode.INFO_NOT_FOUND),
        Info(key, InfoKind.CIPHER_SUITE, b"TLS_AES_128_GCM_SHA256"),
        Info(key, 1, b"v"),
        Error.of(ErrorCode.INFO_NOT_FOUND),
        Error.of(ErrorCode.INFO_KIND_UNKNOWN),
        PrngOutput(b"short"),
    )
    scripted.play(script)
    with Pool(scripted.path) as pool, pool.starttls_client(wire[0]) as session:
        assert session.export("EXPERIMENTAL-x", b"context", 20) == b"x" * 20
        assert session.channel_binding() == b"binding"
        assert session.alpn() == "h2"
        assert session.version() is None
        assert session.cipher() == "TLS_AES_128_GCM_SHA256"
        assert session.check(1, b"v")
        assert not session.check(1, b"w")
        with pytest.raises(Refused):
            session.info(99)
        with pytest.raises(PoolVanished):
            session.export("EXPERIMENTAL-x")
        with pytest.raises(ValueError, match="tls-server-end-point"):
            session.channel_binding("tls-nonsense")
        own = session.ctlkey
    assert asked[0] == Prng(own, b"EXPERIMENTAL-x", b"context", 20)
    assert asked[5] == Info(own, 1, b"v")


def test_detach_and_reattach(scripted: Any, wire: Wire) -> None:
    script, asked = conversation(Success(), Success())
    scripted.play(script)
    with Pool(scripted.path) as pool, pool.starttls_client(wire[0]) as session:
        session.detach("first")
        session.reattach("second")
        assert asked == [ControlDetach(0, session.ctlkey, "first"), ControlReattach(0, session.ctlkey, "second")]


def test_renegotiation_brings_identities_up_to_date(scripted: Any, wire: Wire) -> None:
    asked: list[StartTls] = []

    def script(connection: Any) -> None:
        with connection.serve_starttls(remoteid=""):
            packet, descriptor = connection.read()
            assert descriptor is None
            asked.append(packet.message)
            connection.send(packet.reqid, packet.message.echo(remoteid="john@there"))
            wait_for_end(connection)

    scripted.play(script)
    with Pool(scripted.path) as pool, pool.starttls_server(wire[0], flags=StartTlsFlags.IGNORE_REMOTEID) as session:
        assert session.remoteid == ""
        session.renegotiate()
        assert session.remoteid == "john@there"
        assert asked[0].ctlkey == session.ctlkey
    assert asked[0].flags == StartTlsFlags.LOCALROLE_SERVER | StartTlsFlags.REMOTEROLE_CLIENT | StartTlsFlags.RENEGOTIATE


def test_accounting(scripted: Any, wire: Wire) -> None:
    script, asked = conversation(
        AccountingStart(started=5_000_000), AccountingInterim(), AccountingStop(), Error.of(ErrorCode.ACCOUNTING_UNKNOWN)
    )
    scripted.play(script)
    with Pool(scripted.path) as pool, pool.starttls_client(wire[0]) as session:
        account = session.account_this("pages", "printer-1", count=0)
        account.interim(3)
        account.stop(7, ended=6.5, cause=1)
        with pytest.raises(Refused):
            account.stop(7)
        key = session.ctlkey
    assert asked[0] == AccountingStart(key, "pages", "printer-1", "me@here", "you@there", None, None, 0)
    assert asked[1] == AccountingInterim(key, "pages", "printer-1", "me@here", "you@there", 5_000_000, None, 3)
    assert asked[2] == AccountingStop(key, "pages", "printer-1", "me@here", "you@there", 5_000_000, 6_500_000, 7, 1)
    assert key not in repr(account).encode()


def test_sessions_on_one_connection_are_independent(scripted: Any) -> None:
    def script(connection: Any) -> None:
        plains = [connection.serve_starttls(remoteid=f"peer{number}") for number in range(5)]
        for number, plain in enumerate(plains):
            with plain:
                plain.sendall(b"%d" % number)

    scripted.play(script)
    with Pool(scripted.path) as pool:
        sessions = []
        for number in range(5):
            ours, peer = socket.socketpair()
            peer.close()
            sessions.append(pool.starttls_client(ours))
            assert sessions[-1].remoteid == f"peer{number}"
        for number, session in enumerate(sessions):
            with session:
                assert session.plaintext.recv(10) == b"%d" % number
