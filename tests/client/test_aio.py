"""Does the asynchronous client hold the same dialogues, on every event loop that anyio knows, and survive cancellation?"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Any

import anyio
import pytest

from tlspool_core.client import (
    ErrorCode,
    InfoKind,
    PoolError,
    PoolTimeout,
    PoolUnreachable,
    PoolVanished,
    Refused,
    StartTlsFlags,
    aio,
    options,
)
from tlspool_core.client.aio_link import Link
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
    PrngOutput,
    StartTlsLocalid,
    Success,
)

pytestmark = pytest.mark.anyio
Wire = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def wait_for_end(connection: Any) -> None:
    with pytest.raises(EOFError):
        connection.read()


async def test_the_lines_of_the_docstring(scripted: Any, wire: Wire) -> None:
    def script(connection: Any) -> None:
        with connection.serve_starttls() as plain:
            assert plain.recv(100) == b"question"
            plain.sendall(b"answer")
        wait_for_end(connection)

    scripted.play(script)
    async with aio.Pool(scripted.path) as pool, await pool.starttls_client(wire[0], remoteid="you@there") as session:
        assert (session.localid, session.remoteid) == ("me@here", "you@there")
        async with await session.stream() as stream:
            await stream.send(b"question")
            assert await stream.receive() == b"answer"


@pytest.mark.parametrize(("role", "flags"), [("starttls_client", 9), ("starttls_server", 6), ("starttls_peer", 15)])
async def test_roles_and_refusals(scripted: Any, wire: Wire, role: str, flags: int) -> None:
    def script(connection: Any) -> None:
        reqid, request, _ = connection.starttls()
        assert request.flags == flags | StartTlsFlags.REQUEST_REMOTEID
        connection.send(reqid, Error.of(ErrorCode.REMOTEID_REFUSED, "x509: no"))

    scripted.play(script)
    async with aio.Pool(scripted.path) as pool:
        with pytest.raises(Refused, match="x509: no") as caught:
            await getattr(pool, role)(wire[0], flags=StartTlsFlags.REQUEST_REMOTEID)
        assert caught.value.code == ErrorCode.REMOTEID_REFUSED
    assert wire[0].fileno() == -1


@pytest.mark.parametrize("kind", ["plain", "async", "refusing"])
async def test_localid_hook(scripted: Any, wire: Wire, kind: str) -> None:
    def script(connection: Any) -> None:
        reqid, request, _ = connection.starttls()
        connection.send(reqid, request.ask_localid(localid="me@proposed"), 5)
        packet, _ = connection.read()
        if isinstance(packet.message, Error):
            connection.send(reqid, packet.message)
            return
        connection.plaintext(reqid, request, 6, localid=packet.message.localid).close()
        connection.send(reqid, request.echo(localid=packet.message.localid))

    def plain(proposal: StartTlsLocalid) -> str:
        return f"plain-{proposal.localid}"

    async def waiting(proposal: StartTlsLocalid) -> str:
        await anyio.sleep(0.01)
        return f"async-{proposal.localid}"

    async def refusing(proposal: StartTlsLocalid) -> None:
        return None

    hooks: dict[str, aio.AsyncLocalidHook] = {"plain": plain, "async": waiting, "refusing": refusing}
    scripted.play(script)
    async with aio.Pool(scripted.path) as pool:
        if kind == "refusing":
            with pytest.raises(Refused):
                await pool.starttls_server(wire[0], localid_hook=hooks[kind])
        else:
            async with await pool.starttls_server(wire[0], localid_hook=hooks[kind]) as session:
                assert session.localid == f"{kind}-me@proposed"


async def test_localid_hook_fails(scripted: Any, wire: Wire) -> None:
    answers: list[Message] = []

    def script(connection: Any) -> None:
        reqid, request, _ = connection.starttls()
        connection.send(reqid, request.ask_localid(localid="me@proposed"), 5)
        answers.append(connection.read()[0].message)

    def hook(proposal: StartTlsLocalid) -> str:
        raise LookupError(proposal.localid)

    scripted.play(script)
    async with aio.Pool(scripted.path) as pool:
        with pytest.raises(LookupError):
            await pool.starttls_server(wire[0], localid_hook=hook)
    await anyio.to_thread.run_sync(scripted.finish)
    assert isinstance(answers[0], Error)


@pytest.mark.parametrize("step", range(4))
async def test_the_pool_vanishes_at_each_step(scripted: Any, wire: Wire, step: int) -> None:
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
    async with aio.Pool(scripted.path) as pool:
        with pytest.raises(PoolVanished):
            await pool.starttls_client(wire[0])


@pytest.mark.parametrize("lie", ["key", "command", "garbage"])
async def test_lies_are_not_believed(scripted: Any, wire: Wire, lie: str) -> None:
    def script(connection: Any) -> None:
        reqid, request, _ = connection.starttls()
        if lie == "garbage":
            connection.sock.sendall(b"\xff" * 388)
        else:
            connection.send(reqid, request.ask_plaintext(ctlkey=bytes(16)) if lie == "key" else Success(), int(lie == "key"))
        wait_for_end(connection)

    scripted.play(script)
    async with aio.Pool(scripted.path) as pool:
        with pytest.raises(PoolError):
            await pool.starttls_client(wire[0])


async def test_silence_ends_in_a_timeout(scripted: Any, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "GRACE", 0.05)
    late = threading.Event()

    def script(connection: Any) -> None:
        reqid, request, _ = connection.starttls()
        late.wait(10)
        connection.send(reqid, request.ask_plaintext(), 1)
        packet, _ = connection.read()
        reply, _ = connection.read()
        assert isinstance(packet.message, Ping)
        assert isinstance(reply.message, Error)
        connection.send(packet.reqid, Ping("20261123me@here", 1))
        wait_for_end(connection)

    scripted.play(script)
    async with aio.Pool(scripted.path) as pool:
        with pytest.raises(PoolTimeout):
            await pool.starttls_client(wire[0], timeout=0.05)
        late.set()
        assert (await pool.ping()).identity == "20261123me@here"


async def test_a_cancelled_task_hands_on_the_lead(scripted: Any) -> None:
    go = threading.Event()

    def script(connection: Any) -> None:
        first, _ = connection.read()
        second, _ = connection.read()
        go.wait(10)
        connection.send(first.reqid, Ping("20261123late@here", 1))
        connection.send(second.reqid, Ping("20261123second@here", 1))
        wait_for_end(connection)

    scripted.play(script)
    heard: list[Message] = []
    async with aio.Pool(scripted.path) as pool:
        link = await pool.link()

        async def ask() -> None:
            heard.append(await link.ask(Ping()))

        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                with anyio.move_on_after(0.1):
                    group.start_soon(ask)
                    await link.ask(Ping())
                go.set()
    assert heard == [Ping("20261123second@here", 1)]


async def test_a_request_that_is_called_off_before_it_went_leaves_its_number_free() -> None:
    """A pool that does not read would use up the numbers of a server otherwise, and for good."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        with suppress(BlockingIOError):
            while True:
                ours.send(bytes(388))  # which nobody reads, until the buffers are full
        link = Link(ours)
        for _ in range(3):
            with anyio.move_on_after(0.01) as limit:
                await link.begin(Ping())
            assert limit.cancelled_caught
        assert (link._talks, link._books._abandoned) == ({}, set())
        link.close()


async def test_many_tasks_share_one_connection(scripted: Any) -> None:
    def script(connection: Any) -> None:
        for _ in range(20):
            packets = [connection.read()[0] for _ in range(8)]
            for packet in reversed(packets):
                connection.send(packet.reqid, Info(bytes(16), packet.message.kind, b"%d" % packet.message.kind))
        wait_for_end(connection)

    scripted.play(script)
    async with aio.Pool(scripted.path) as pool:
        control = await pool.control(bytes(16))

        async def ask(kind: int) -> None:
            for _ in range(20):
                assert await control.info(kind) == b"%d" % kind

        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                for kind in range(8):
                    group.start_soon(ask, kind)
    assert scripted.connections == 1


async def test_closing_wakes_those_that_wait(scripted: Any) -> None:
    scripted.play(wait_for_pings_without_answer)
    pool = aio.Pool(scripted.path)
    link = await pool.link()

    async def ask() -> None:
        with pytest.raises(PoolVanished):
            await link.ask(Ping())

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            group.start_soon(ask)
            await anyio.sleep(0.05)
            pool.close()
    with pytest.raises(PoolVanished):
        await link.ask(Ping())


def wait_for_pings_without_answer(connection: Any) -> None:
    while True:
        connection.read()


def answer_pings(connection: Any) -> None:
    while True:
        packet, _ = connection.read()
        connection.send(packet.reqid, Ping("20261123pool@here", 1))


def answer_one_ping(connection: Any) -> None:
    packet, _ = connection.read()
    connection.send(packet.reqid, Ping("20261123old@here", 1))


async def test_a_restarted_pool_is_found_again(scripted: Any) -> None:
    scripted.play(answer_one_ping, answer_pings)
    async with aio.Pool(scripted.path) as pool:
        assert (await pool.ping()).identity == "20261123old@here"
        scripted.stop()
        timer = threading.Timer(0.2, scripted.play, [answer_pings, answer_pings, answer_pings])
        timer.start()
        assert (await pool.ping()).identity == "20261123pool@here"
        timer.join()


async def test_no_pool(no_leak: None, tmp_path: Any, wire: Wire) -> None:
    async with aio.Pool(tmp_path / "none") as pool:
        with pytest.raises(PoolUnreachable):
            await pool.starttls_client(wire[0])
    assert wire[1].recv(1) == b""


async def test_what_a_session_can_be_asked(scripted: Any, wire: Wire) -> None:
    key = bytes(16)
    answers: list[Message] = [
        PrngOutput(b"x" * 32),
        Info(key, InfoKind.TLS_EXPORTER, b"binding"),
        Info(key, InfoKind.ALPN, b"h2"),
        Info(key, InfoKind.VERSION, b"TLSv1.3"),
        Error.of(ErrorCode.INFO_NOT_FOUND),
        Info(key, 1, b"v"),
        Error.of(ErrorCode.INFO_NOT_FOUND),
        Success(),
        Success(),
        AccountingStart(started=5_000_000),
        AccountingInterim(),
        AccountingStop(),
    ]
    asked: list[Message] = []

    def script(connection: Any) -> None:
        with connection.serve_starttls():
            for answer in answers:
                packet, _ = connection.read()
                asked.append(packet.message)
                connection.send(packet.reqid, answer)
            packet, _ = connection.read()
            connection.send(packet.reqid, packet.message.echo(remoteid="john@there"))
            wait_for_end(connection)

    scripted.play(script)
    async with aio.Pool(scripted.path) as pool, await pool.starttls_client(wire[0]) as session:
        assert await session.export("EXPERIMENTAL-x") == b"x" * 32
        assert await session.channel_binding() == b"binding"
        assert await session.alpn() == "h2"
        assert await session.version() == "TLSv1.3"
        assert await session.cipher() is None
        assert await session.check(1, b"v")
        assert not await session.check(1, b"w")
        await session.detach("a")
        await session.reattach("b")
        account = await session.account_this("pages", "printer-1")
        await account.interim(1)
        await account.stop(2)
        await session.renegotiate()
        assert session.remoteid == "john@there"
        key = session.ctlkey
    assert asked[7:] == [
        ControlDetach(0, key, "a"),
        ControlReattach(0, key, "b"),
        AccountingStart(key, "pages", "printer-1", "me@here", "you@there"),
        AccountingInterim(key, "pages", "printer-1", "me@here", "you@there", 5_000_000, None, 1),
        AccountingStop(key, "pages", "printer-1", "me@here", "you@there", 5_000_000, None, 2),
    ]


async def test_the_loop_has_a_pool_of_its_own(scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted.play(answer_pings)
    monkeypatch.setenv("TLSPOOL_SOCKET", str(scripted.path))
    assert (await aio.ping()).facilities == 1
    assert (await aio.ping()).facilities == 1
    assert scripted.connections == 1
    aio.shared().close()
