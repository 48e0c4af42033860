"""Does each way in which a session can end, or stand still, lose nothing and leave nothing behind?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from tlspool_core.fdpass import Descriptor
from tlspool_core.pool import relay, relay_pace
from tlspool_core.pool.linger import close_lingering
from tlspool_core.pool.relay_commons import SMALL_BATCH, commons_of
from tlspool_core.testing.peers import Answers, answer_all, software_credential
from tlspool_core.tls.settings import ClientSettings

DATA = random.Random(1).randbytes(3 << 20)


def recv_all(sock: socket.socket, size: int = 262144) -> bytes:
    parts = []
    while data := sock.recv(size):
        parts.append(data)
    return b"".join(parts)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_application_ends_first_and_still_receives(bench: Any) -> None:
    case = bench.case()

    async def run() -> None:
        sending = bench.thread(lambda: (case.app.sendall(DATA), case.app.shutdown(socket.SHUT_WR)))
        assert await bench.thread(case.peer.recv_all) == DATA
        assert case.peer.connection.peer_closed
        await sending
        receiving = bench.thread(recv_all, case.app)
        await bench.thread(case.peer.send, DATA)
        case.peer.finish()
        assert await receiving == DATA
        assert await case.ended() == ("closed", len(DATA), len(DATA))

    bench.run(run())
    case.finish()


def test_peer_ends_first_and_still_receives(bench: Any) -> None:
    case = bench.case()

    async def run() -> None:
        sending = bench.thread(lambda: (case.peer.send(DATA), case.peer.finish()))
        assert await bench.thread(recv_all, case.app) == DATA
        await sending
        sending = bench.thread(lambda: (case.app.sendall(DATA), case.app.shutdown(socket.SHUT_WR)))
        # a peer whose own half is closed takes what comes: its engine ignores data after close_notify of the other side only
        assert await bench.thread(case.peer.recv_all) == DATA
        await sending
        assert await case.ended() == ("closed", len(DATA), len(DATA))

    bench.run(run())
    case.finish()


def test_application_leaves_and_its_words_arrive(bench: Any) -> None:
    """Closed at both halves with input unread: what it wrote arrives, and the peer is told of the end."""
    case = bench.case()

    async def run() -> None:
        await bench.thread(case.peer.send, DATA[:100000])
        await asyncio.sleep(0.05)
        sending = bench.thread(lambda: (case.app.sendall(DATA), case.app.close()))
        assert await bench.thread(case.peer.recv_all) == DATA
        assert case.peer.connection.peer_closed
        await sending
        assert (await case.ended())[0] == "closed"

    bench.run(run())
    case.finish()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_last_words_arrive_and_nothing_after_them(bench: Any, kind: int) -> None:
    """The application has left, and another process still holds its socket: what was written arrives, what would follow does not."""
    case = bench.case(*socket.socketpair(type=kind), start=False)
    size = 1000 if kind == socket.SOCK_SEQPACKET else 100000
    case.app.sendall(DATA[:size])

    async def run() -> None:
        case.relay.start()
        case.relay.leave("application gone")
        with pytest.raises(BrokenPipeError):
            case.app.sendall(b"more")
        with contextlib.suppress(BrokenPipeError):  # is read for a while, though no one wants it
            await bench.thread(case.peer.send, DATA)
        assert await bench.thread(case.peer.recv_all) == DATA[:size]
        assert case.peer.connection.peer_closed
        assert await case.ended() == ("application gone", case.closed[0][1], size)
        assert recv_all(case.app) in (b"", DATA[: case.closed[0][1]])
        assert commons_of(bench.loop).held == 0

    bench.run(run())
    case.finish()


def test_last_words_are_not_kept_for_a_peer_that_does_not_listen(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_LAST_WORDS", 0.3)
    case = bench.case()

    async def run() -> None:
        sending = bench.thread(case.app.sendall, DATA * 6)
        done, _ = await asyncio.wait([sending], timeout=0.5)
        assert not done, "the peer's buffers took it all"
        case.relay.leave("application gone")
        case.relay.limit(None, None)  # as when the peer has just answered who it is, at the wish of who has gone
        assert (await case.ended())[0] == "application gone"
        with pytest.raises(BrokenPipeError):
            await sending

    bench.run(run())
    case.finish()


def test_application_that_does_not_read_may_still_write(bench: Any) -> None:
    case = bench.case()

    async def run() -> None:
        case.app.shutdown(socket.SHUT_RD)
        await bench.thread(case.peer.send, DATA)  # is read, though no one wants it
        await bench.thread(case.app.sendall, b"still here")
        assert await bench.thread(case.peer.recv) == b"still here"
        case.app.close()
        assert await bench.thread(case.peer.recv) == b""
        cause, _, octets_out = await case.ended()
        assert (cause, octets_out) == ("closed", 10)

    bench.run(run())
    case.finish()


def test_slow_application_holds_the_peer_back(bench: Any) -> None:
    case = bench.case()
    commons = commons_of(bench.loop)
    data = DATA * 6

    async def run() -> None:
        sending = bench.thread(lambda: (case.peer.send(data), case.peer.finish()))
        done, _ = await asyncio.wait([sending], timeout=0.5)
        assert not done, "nothing held the peer back"
        assert commons.held <= 64 * 1024  # the rest is where it belongs, in the sockets
        assert await bench.thread(recv_all, case.app) == data
        await sending
        case.app.close()
        assert (await case.ended())[0] == "closed"
        assert commons.held == 0

    bench.run(run())
    case.finish()


def test_slow_peer_holds_the_application_back(bench: Any) -> None:
    case = bench.case()
    commons = commons_of(bench.loop)
    data = DATA * 6

    async def run() -> None:
        sending = bench.thread(lambda: (case.app.sendall(data), case.app.shutdown(socket.SHUT_WR)))
        done, _ = await asyncio.wait([sending], timeout=0.5)
        assert not done, "nothing held the application back"
        assert commons.held <= 64 * 1024
        assert await bench.thread(case.peer.recv_all) == data
        await sending
        case.peer.finish()
        assert (await case.ended())[0] == "closed"
        assert commons.held == 0

    bench.run(run())
    case.finish()


def test_batches_shrink_when_memory_is_short(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit a relay reads no more at a time than it needs for a record, and goes on."""
    monkeypatch.setattr(relay_pace, "HELD_LIMIT", 0)
    case = bench.case()
    commons = commons_of(bench.loop)

    async def run() -> None:
        sending = bench.thread(lambda: (case.peer.send(DATA * 6), case.peer.finish()))
        await asyncio.wait([sending], timeout=0.5)
        assert 0 < commons.held <= SMALL_BATCH + 20000
        assert await bench.thread(recv_all, case.app) == DATA * 6
        await sending

    bench.run(run())
    case.relay.close()
    case.finish()


def test_end_without_close_notify_is_told_and_loses_nothing(bench: Any) -> None:
    case = bench.case()

    async def run() -> None:
        sending = bench.thread(lambda: (case.peer.send(DATA), case.peer.close()))
        await asyncio.sleep(0.2)  # a slow reader: the end of TCP is known before the data is delivered
        assert await bench.thread(recv_all, case.app) == DATA
        await sending
        cause, octets_in, _ = await case.ended()
        assert cause.startswith("Truncated")
        assert octets_in == len(DATA)

    bench.run(run())
    case.finish()


def test_reset_in_the_middle(bench: Any) -> None:
    case = bench.case()
    before = open_descriptors()

    async def run() -> None:
        sending = bench.thread(case.app.sendall, DATA * 6)
        await asyncio.sleep(0.1)
        reset(case.peer.sock)
        with pytest.raises(BrokenPipeError):  # the application learns that no one listens
            await sending
        assert (await case.ended())[0].startswith("Truncated")

    bench.run(run())
    assert open_descriptors() == before - 3
    case.finish()


def test_forged_record_ends_with_its_alert(bench: Any) -> None:
    case = bench.case()

    async def run() -> None:
        records = case.peer.connection.records
        good, bad = (records.write_protection.seal(23, data) for data in (b"good", b"bad"))
        case.peer.sock.sendall(good + bad[:-1] + bytes((bad[-1] ^ 1,)))
        assert await bench.thread(recv_all, case.app) == b"good"
        assert await bench.thread(case.peer.recv) == b""
        assert case.peer.connection.failed.received == 20
        assert (await case.ended())[0].startswith("BadRecordMac")
        case.peer.close()

    bench.run(run())
    case.finish()


@pytest.mark.parametrize("raw", [b"\x17\x03\x03\xff\xff", b"GET / HTTP/1.1\r\n\r\n" + bytes(40000), b"\x16\x03\x03\x00\x01\x00"])
def test_what_is_no_record_ends_the_session(bench: Any, raw: bytes) -> None:
    case = bench.case()

    async def run() -> None:
        case.peer.sock.sendall(raw)
        assert await bench.thread(case.app.recv, 10) == b""
        cause, octets_in, _ = await case.ended()
        assert cause != "closed"
        assert octets_in == 0

    bench.run(run())
    case.finish()


def test_close_and_abort(bench: Any) -> None:
    closing, aborted = bench.case(), bench.case()

    async def run() -> None:
        closing.relay.close("policy changed")
        closing.relay.close("again")
        assert await bench.thread(closing.peer.recv_all) == b""
        assert closing.peer.connection.peer_closed
        assert (await closing.ended())[0] == "policy changed"
        aborted.relay.abort("broken")
        assert await bench.thread(aborted.peer.recv_all) == b""
        assert not aborted.peer.connection.peer_closed
        assert (await aborted.ended())[0] == "broken"
        assert closing.app.recv(1) == aborted.app.recv(1) == b""

    bench.run(run())
    closing.finish()
    aborted.finish()


def test_time_limits(bench: Any) -> None:
    idle, busy = bench.case(idle_timeout=0.2), bench.case(idle_timeout=0.2, session_timeout=0.6)

    async def run() -> None:
        for _ in range(4):
            await asyncio.sleep(0.1)
            busy.app.sendall(b"x")
        assert idle.closed == [("idle timeout", 0, 0)]
        assert not busy.closed
        for _ in range(20):
            if busy.closed:
                break
            busy.app.send(b"x")
            await asyncio.sleep(0.1)
        assert busy.closed[0][0] == "session timeout"

    bench.run(run())
    idle.finish()
    busy.finish()


def test_question_after_the_handshake(bench: Any) -> None:
    """A server asks its client, whose end this relay is, for a certificate: reading waits for the answer, nothing is lost."""
    client, server, _ = bench.pair()
    case = bench.case_of(server, client, Answers(credentials=[software_credential()]))
    server_answers = Answers()

    async def run() -> None:
        case.peer.connection.request_client_authentication()
        case.peer.flush()
        await bench.thread(case.peer.send, b"after the request")
        question = await asyncio.wait_for(case.questions.get(), 10)
        assert question is case.connection.question
        await bench.thread(case.app.sendall, b"sending goes on")
        assert await bench.thread(case.peer.recv) == b"sending goes on"
        answer_all(case.connection, case.answers)
        case.relay.resume()
        assert await bench.thread(case.app.recv, 100) == b"after the request"
        case.peer.connection.receive(await bench.thread(case.peer.sock.recv, 65536))
        answer_all(case.peer.connection, server_answers)
        assert case.peer.connection.failed is None
        assert case.peer.connection.peer is not None
        case.relay.close()

    bench.run(run())
    case.finish()


def test_packets_keep_their_boundaries(bench: Any) -> None:
    plain, app = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    case = bench.case(plain, app)
    messages = [random.Random(number).randbytes(size) for number, size in enumerate((1, 16384, 5, 1000) * 200)]

    async def run() -> None:
        def send_all() -> None:
            for message in messages:
                case.peer.send(message)
            case.peer.finish()

        sending = bench.thread(send_all)
        for message in messages:
            assert await bench.thread(app.recv, 1 << 17) == message
        assert await bench.thread(app.recv, 10) == b""
        await sending
        sending = bench.thread(lambda: ([app.send(message) for message in [*messages, DATA[:100000]]], app.close()))
        assert await bench.thread(case.peer.recv_all) == b"".join(messages) + DATA[:100000]
        await sending
        assert (await case.ended())[0] == "closed"

    bench.run(run())
    case.finish()


def test_packets_too_long_for_the_socket(bench: Any) -> None:
    """EMSGSIZE: a record becomes several messages where the socket cannot hold it in one."""
    plain, app = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    case = bench.case(plain, app, start=False)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    case.relay.start()

    async def run() -> None:
        sending = bench.thread(lambda: (case.peer.send(DATA[:100000]), case.peer.finish()))
        assert await bench.thread(recv_all, app) == DATA[:100000]
        await sending
        app.close()
        assert (await case.ended())[0] == "closed"

    bench.run(run())
    case.finish()


def test_packet_that_does_not_fit_ends_the_session(bench: Any) -> None:
    """Rather than being cut without a word."""
    plain, app = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    app.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    case = bench.case(plain, app)

    async def run() -> None:
        await bench.thread(app.send, bytes(700_000))
        assert await case.ended() == ("message too long", 0, 0)
        assert await bench.thread(case.peer.recv) == b""
        assert not case.peer.connection.peer_closed

    bench.run(run())
    case.finish()


def test_pipe_to_write_to(bench: Any) -> None:
    reading, writing = os.pipe()
    case = bench.case(Descriptor(writing), None)
    pipe = os.fdopen(reading, "rb")

    async def run() -> None:
        sending = bench.thread(lambda: (case.peer.send(DATA), case.peer.finish()))
        with pipe:
            assert await bench.thread(pipe.read) == DATA
        await sending
        assert await bench.thread(case.peer.recv) == b""
        assert case.peer.connection.peer_closed
        assert await case.ended() == ("closed", len(DATA), 0)

    bench.run(run())
    case.finish()


def test_pipe_to_read_from(bench: Any) -> None:
    reading, writing = os.pipe()
    case = bench.case(Descriptor(reading), None)
    pipe = os.fdopen(writing, "wb")

    async def run() -> None:
        await bench.thread(case.peer.send, b"nobody can hear this")
        sending = bench.thread(lambda: (pipe.write(DATA), pipe.close()))
        assert await bench.thread(case.peer.recv_all) == DATA
        await sending
        assert (await case.ended())[0] == "closed"

    bench.run(run())
    case.finish()


def test_regular_files(bench: Any, tmp_path: Path) -> None:
    source, sink = tmp_path / "source", tmp_path / "sink"
    source.write_bytes(DATA)
    reader = bench.case(Descriptor(os.open(source, os.O_RDONLY)), None)
    writer = bench.case(Descriptor(os.open(sink, os.O_WRONLY | os.O_CREAT, 0o600)), None)

    async def run() -> None:
        assert await bench.thread(reader.peer.recv_all) == DATA
        await bench.thread(lambda: (writer.peer.send(DATA), writer.peer.finish()))
        assert await writer.ended() == ("closed", len(DATA), 0)
        assert sink.read_bytes() == DATA
        assert (await reader.ended())[2] == len(DATA)

    bench.run(run())
    reader.finish()
    writer.finish()


def test_datagrams_are_refused(bench: Any) -> None:
    plain, app = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    before = open_descriptors()
    with pytest.raises(OSError, match="needs a stream"):
        bench.case(plain, app)
    app.close()
    assert open_descriptors() <= before - 1


def test_two_hundred_sessions_leave_no_descriptor(bench: Any) -> None:
    bench.run(asyncio.sleep(0))
    before = open_descriptors()
    cases = [bench.case(client=ClientSettings()) for _ in range(200)]

    async def run() -> None:
        for number, case in enumerate(cases):
            case.app.sendall(b"hello")
            if number % 4 == 0:
                case.app.close()
            elif number % 4 == 1:
                case.peer.finish()
            elif number % 4 == 2:
                reset(case.peer.sock)
            else:
                case.relay.close()
            if number % 4 == 1:
                case.app.close()
            elif number % 4 == 0:
                case.peer.finish()
        for case in cases:
            await asyncio.wait_for(case.end.wait(), 20)
        assert [len(case.closed) for case in cases] == [1] * 200

    bench.run(run())
    for case in cases:
        case.finish()
    close_lingering()
    assert open_descriptors() == before
