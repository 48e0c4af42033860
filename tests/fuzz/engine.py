"""Targets for the engine, in both roles and versions: whatever comes, it waits, goes on, or ends with a reason and its alert.

Theory of operation
-------------------
Three kinds of peer are played: one that sends raw bytes, one that sends records of its choice, and one that conducts an honest
handshake but for one message, which it replaces (`lying`), so that what the fuzzer makes up comes in under the right keys.  After
the handshake, the fuzzer writes the contents of encrypted records.  `settle` is the rule that holds for all of them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache, partial
from typing import Any

from tests.fuzz.target import Target, pieces
from tlspool_core.testing.lies import lying
from tlspool_core.testing.peers import Answers, Pair, TicketBox, answer_all, software_credential
from tlspool_core.tls import TlsConnection, alerts
from tlspool_core.tls.questions import ClientAuth
from tlspool_core.tls.settings import TLS12, TLS13, ClientSettings, PeerSettings, ServerSettings, StoredSession

CLIENT = ClientSettings(server_name="testserver", alpn=(b"a",), want_scts=True, certificate_compression=True)
SERVER = ServerSettings(certificate_compression=True)
BOX = TicketBox()  # holds the one session of `stored_session`, and what the targets add until `settle` empties it
EXPECTED_MAX = 1 << 20  # bytes that nobody may be made to send in answer to one input


def client_answers() -> Answers:
    return Answers(credentials=(software_credential("ed25519", "client"),))


def server_answers(**changes: Any) -> Answers:
    return Answers(
        **{"credentials": (software_credential(),), "tickets": BOX, "alpn": (b"a",), "client_auth": ClientAuth.REQUIRE, **changes}
    )


@cache
def stored_session(version: int) -> tuple[StoredSession, bytes, bytes]:
    """A session that the server would resume: what the client keeps, and the ticket with its state."""
    box = TicketBox()
    pair = Pair(
        TlsConnection(replace(CLIENT, versions=(version,))), TlsConnection(SERVER), client_answers(), server_answers(tickets=box)
    )
    pair.run()
    (session, *_) = pair.client.take_sessions()
    return session, session.ticket, box.states[session.ticket]


def settle(connection: TlsConnection) -> None:
    """The rule: no fault of ours, and no more sent than makes sense."""
    BOX.states.clear()
    failed = connection.failed
    if isinstance(failed, alerts.InternalError):
        raise failed.__cause__ or failed
    assert failed is None or failed.alert is not None or isinstance(failed, alerts.AlertReceived | alerts.Truncated)
    assert len(connection.data_to_send()) < EXPECTED_MAX


# --- raw bytes ---------------------------------------------------------------------------------------------------------------------


def _feed(connection: TlsConnection, answers: Answers, data: bytes) -> None:
    answer_all(connection, answers)
    connection.receive(data)
    answer_all(connection, answers)
    assert not connection.handshake_complete
    connection.receive_eof()
    settle(connection)


def server_bytes(data: bytes) -> None:
    _feed(TlsConnection(SERVER), server_answers(), data)


def client_bytes(data: bytes) -> None:
    _feed(TlsConnection(CLIENT), client_answers(), data)


def server_records(data: bytes) -> None:
    """Pieces, each a content type and the content of one record in the clear."""
    records = [bytes((piece[0], 3, 3)) + struct.pack(">H", len(piece) - 1) + piece[1:] for piece in pieces(data)]
    server_bytes(b"".join(records))


def peer_bytes(data: bytes) -> None:
    """First byte: whether a peer has spoken already, and whether it may serve; the rest comes in."""
    speaks, may_serve = bool(data[0] & 1), not data[0] & 2
    answers = server_answers(as_client=CLIENT if speaks or not may_serve else None, as_server=SERVER)
    _feed(TlsConnection(PeerSettings(may_serve=may_serve)), answers, data[1:])


def peer_hello(**changes: Any) -> bytes:
    peer = TlsConnection(PeerSettings(**changes))
    answer_all(peer, Answers(as_client=CLIENT))
    return peer.data_to_send()


def peer_bytes_seeds() -> Iterable[bytes]:
    hellos = (peer_hello(), peer_hello(may_serve=False), client_hello(TLS13), server_hello(TLS12), server_hello(TLS13))
    yield from (bytes((first,)) + hello for first in range(4) for hello in hellos)
    yield b"\1" + peer_hello() + server_hello(TLS13)


def client_hello(version: int, **changes: Any) -> bytes:
    return TlsConnection(replace(CLIENT, versions=(version,), **changes)).data_to_send()


def server_hello(version: int) -> bytes:
    server = TlsConnection(SERVER)
    server.receive(client_hello(version))
    answer_all(server, server_answers())
    return server.data_to_send()


def server_bytes_seeds() -> Iterable[bytes]:
    yield from (client_hello(version) for version in (TLS12, TLS13))
    yield client_hello(TLS13, session=stored_session(TLS13)[0])
    yield client_hello(TLS12, session=stored_session(TLS12)[0])
    yield client_hello(TLS13, groups=(0x19,))


def server_records_seeds() -> Iterable[bytes]:
    for hello in server_bytes_seeds():
        content = b"\x16" + hello[5:]
        yield struct.pack(">H", len(content)) + content
        yield struct.pack(">H", 21) + content[:21] + struct.pack(">H", len(content) - 20) + b"\x16" + content[21:] + b"\0\3\x15\1\0"


# --- one false message -------------------------------------------------------------------------------------------------------------


def false_message(liar: str, version: int, data: bytes) -> None:
    """First byte: which message is replaced, and whether a session is resumed; the rest is its body, or a whole message."""
    number, resumed, as_body = data[0] & 7, bool(data[0] & 8), not data[0] & 16
    client_settings = replace(CLIENT, versions=(version,))
    if resumed:
        session, ticket, state = stored_session(version)
        BOX.states[ticket] = state
        client_settings = replace(client_settings, session=session)
    seen, told = [0], [False]

    def lie(message: bytes) -> list[bytes]:
        seen[0] += 1
        if seen[0] != number + 1:
            return [message]
        said = message[:1] + struct.pack(">I", len(data) - 1)[1:] + data[1:] if as_body else data[1:]
        told.append(said != message)
        return [said]

    client = lying(client_settings, lie) if liar == "client" else TlsConnection(client_settings)
    server = lying(SERVER, lie) if liar == "server" else TlsConnection(SERVER)
    pair = Pair(client, server, client_answers(), server_answers())
    pair.run()
    believer = server if liar == "client" else client
    settle(believer)
    settle(client if liar == "client" else server)
    # tickets come after all that Finished vouches for: a false one is taken as it is
    assert not (pair.complete and told[-1] and not (liar == "server" and _after_finished(version, resumed, number)))


def _after_finished(version: int, resumed: bool, number: int) -> bool:
    return version == TLS13 and number >= (3 if resumed else 6)


def false_message_seeds(liar: str, version: int) -> Iterable[bytes]:
    """The true messages of a handshake that is like the one they will be put into."""
    for resumed in (False, True):
        messages: list[bytes] = []
        keep = partial(_keep, messages)
        settings = replace(CLIENT, versions=(version,))
        if resumed:
            session, ticket, state = stored_session(version)
            BOX.states[ticket] = state
            settings = replace(settings, session=session)
        client = lying(settings, keep) if liar == "client" else TlsConnection(settings)
        server = lying(SERVER, keep) if liar == "server" else TlsConnection(SERVER)
        Pair(client, server, client_answers(), server_answers()).run()
        BOX.states.clear()
        for number, message in enumerate(messages[:7]):
            yield bytes((number | 8 * resumed,)) + message[4:]
            yield bytes((number | 8 * resumed | 16,)) + message


def _keep(messages: list[bytes], message: bytes) -> list[bytes]:
    messages.append(message)
    return [message]


# --- after the handshake -------------------------------------------------------------------------------------------------------------


def after_handshake(sender: str, version: int, data: bytes) -> None:
    """Pieces, each a content type and the content of one record under the keys of the session."""
    client = TlsConnection(replace(CLIENT, versions=(version,)))
    pair = Pair(client, TlsConnection(SERVER), client_answers(), server_answers(client_auth=ClientAuth.NONE))
    pair.run()
    assert pair.complete
    if sender == "client" and version == TLS13 and data[0] & 1:
        pair.server.request_client_authentication()
    receiver, answers = (pair.server, pair.server_answers) if sender == "client" else (client, pair.client_answers)
    protection = (client if sender == "client" else pair.server).records.write_protection
    for piece in pieces(data[1:]):
        receiver.receive(protection.seal(piece[0], piece[1:]))
        answer_all(receiver, answers)
    assert sum(map(len, pieces(data[1:]))) >= len(receiver.take_plaintext())
    assert receiver.peer is None or sender == "server", "nobody has proven anything"
    settle(receiver)


def after_handshake_seeds() -> Iterable[bytes]:
    contents = (
        b"\x17hello", b"\x15\1\0", b"\x15\2\x50", b"\x16\x18\0\0\1\0", b"\x16\x18\0\0\1\1", b"\x14\1", b"\x16\0\0\0\0",
        b"\x16\4\0\0\x15\0\0\x1c\x20\0\0\0\1\1\0\0\x08" + bytes(8) + b"\0\0", b"\x16\x0d\0\0\x0b\1x\0\x08\0\x0d\0\4\0\2\4\3",
        b"\x16\x0b\0\0\4\0\0\0\0", b"\x16" + client_hello(TLS12)[5:],
    )  # fmt: skip
    for content in contents:
        yield b"\0" + struct.pack(">H", len(content)) + content
    yield b"\1" + b"".join(struct.pack(">H", len(content)) + content for content in contents)


def _role_and_version(name: str, run: Callable[..., None], seeds: Callable[..., Iterable[bytes]], cost: int) -> list[Target]:
    return [
        Target(f"{name}_{role}{version & 0xFF}", partial(run, role, version), partial(seeds, role, version), cost)
        for role in ("client", "server")
        for version in (TLS12, TLS13)
    ]


TARGETS = (
    Target("server_bytes", server_bytes, server_bytes_seeds, 4),
    Target("client_bytes", client_bytes, lambda: [server_hello(TLS12), server_hello(TLS13)], 4),
    Target("peer_bytes", peer_bytes, peer_bytes_seeds, 4),
    Target("server_records", server_records, server_records_seeds, 4),
    *_role_and_version("false_message", false_message, false_message_seeds, 25),
    *_role_and_version("after_handshake", after_handshake, lambda role, version: after_handshake_seeds(), 25),
)
