"""Do two pools find out who is client and who is server, do they get on with others, and is nobody taken for their peer who is not?"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from conftest import DaemonProcess, eventually
from toyplugin import CLIENT, OTHER, SERVER

from tlspool_core.client import ErrorCode, InfoKind, Pool, PoolError, Session, StartTlsFlags
from tlspool_core.identity import DoNAI
from tlspool_core.pool.peer_roles import refuse_ourselves
from tlspool_core.pool.refusal import Refusal
from tlspool_core.testing.crossing import Call, Crossing, meet
from tlspool_core.testing.policy import Peer, peer_context
from tlspool_core.tls.seams import CertificateEntry
from tlspool_core.wire.messages import StartTls

Daemons = Callable[..., DaemonProcess]
FLAGS = StartTlsFlags
AS_CLIENT = FLAGS.LOCALROLE_CLIENT | FLAGS.REMOTEROLE_SERVER
AS_SERVER = FLAGS.LOCALROLE_SERVER | FLAGS.REMOTEROLE_CLIENT
ROLES = FLAGS.LOCALROLE_PEER | FLAGS.REMOTEROLE_PEER
ONE, TWO = {"localid": SERVER, "remoteid": CLIENT}, {"localid": CLIENT, "remoteid": SERVER}


@pytest.fixture(scope="module")
def eager(module_daemons: Daemons) -> DaemonProcess:
    """A pool that speaks at once if nothing is there to be heard."""
    return module_daemons("[symmetric]\nwait = 0\n")


@pytest.fixture(scope="module")
def patient(module_daemons: Daemons) -> DaemonProcess:
    """A pool that listens for as long as a test takes."""
    return module_daemons("[symmetric]\nwait = 10\n")


def with_flags(pool: Pool, flags: StartTlsFlags) -> Call:
    """STARTTLS with other roles than those that have a function of their own."""
    return lambda sock, **wishes: pool._starttls(flags, sock, wishes)  # type: ignore[arg-type]


def check(one: Session, other: Session) -> tuple[str, str]:
    """Data goes both ways; the roles."""
    assert not isinstance(one, Exception) and not isinstance(other, Exception), (one, other)
    with one, other:
        one.plaintext.sendall(b"ping")
        other.plaintext.sendall(b"pong")
        assert (one.plaintext.recv(10), other.plaintext.recv(10)) == (b"pong", b"ping")
        assert one.export("EXPERIMENTAL peers") == other.export("EXPERIMENTAL peers")
        assert {one.flags & ROLES, other.flags & ROLES} == {AS_CLIENT, AS_SERVER}
        return one.role, other.role


# --- two pools -----------------------------------------------------------------------------------------------------------------------


def test_whoever_speaks_first_is_the_client(eager: DaemonProcess, patient: DaemonProcess) -> None:
    one, other = meet(eager.pool.starttls_peer, patient.pool.starttls_peer, ONE, TWO)
    assert (one.localid, one.remoteid, other.localid, other.remoteid) == (SERVER, CLIENT, CLIENT, SERVER)
    assert other.text(InfoKind.SERVER_NAME) == "example.com"
    assert check(one, other) == ("client", "server")


@pytest.mark.parametrize("versions", ['["1.3", "1.2"]', '["1.2"]'])
def test_both_speak_at_once(daemons: Daemons, eager: DaemonProcess, versions: str) -> None:
    """The lot decides, so try until it has decided either way; each time both ends prove who they are."""
    pool = daemons(f"[tls]\nversions = {versions}\n[symmetric]\nwait = 0\n").pool
    seen = set()
    for _ in range(40):
        crossing = Crossing()
        one, other = meet(pool.starttls_peer, eager.pool.starttls_peer, ONE, TWO, crossing.ends)
        assert (one.localid, one.remoteid, other.localid, other.remoteid) == (SERVER, CLIENT, CLIENT, SERVER)
        assert one.version() == ("TLSv1.3" if "1.3" in versions else "TLSv1.2")
        seen.add(check(one, other))
        crossing.close()
        assert crossing.crossed
        if len(seen) == 2:
            return
    pytest.fail(f"40 lots, all of them {seen}")


def test_the_second_session_is_resumed(eager: DaemonProcess, patient: DaemonProcess) -> None:
    again = {"service": "again"}
    for resumed in (False, True):
        ended = eager.text.count("ended")
        one, other = meet(eager.pool.starttls_peer, patient.pool.starttls_peer, ONE | again, TWO | again)
        assert (one.remoteid, other.remoteid) == (CLIENT, SERVER)
        assert check(one, other) == ("client", "server")
        eventually(lambda before=ended: eager.text.count("ended") > before)  # tickets are kept then
        line = next(line for line in reversed(eager.text.splitlines()) if "established" in line)
        assert f"resumed={resumed}" in line


def test_the_application_approves_its_identity_in_either_role(eager: DaemonProcess, patient: DaemonProcess) -> None:
    asked: list[tuple[str, str]] = []

    def hook(name: str) -> Callable[[Any], str]:
        def approve(proposal: Any) -> str:
            asked.append((name, proposal.localid))
            return str(proposal.localid)

        return approve

    wishes, others = ONE | {"localid_hook": hook("one")}, TWO | {"localid_hook": hook("other")}
    assert check(*meet(eager.pool.starttls_peer, patient.pool.starttls_peer, wishes, others)) == ("client", "server")
    assert sorted(asked) == [("one", SERVER), ("other", CLIENT)]


def test_the_server_of_the_two_may_ask_again(eager: DaemonProcess, patient: DaemonProcess) -> None:
    full = {"service": "asked-again"}  # the first of its kind, so not resumed
    one, other = meet(eager.pool.starttls_peer, patient.pool.starttls_peer, ONE | full, TWO | full)
    with one, other:
        other.renegotiate()
        assert (other.role, other.remoteid) == ("server", SERVER)


# --- others --------------------------------------------------------------------------------------------------------------------------


def test_plain_roles(eager: DaemonProcess, patient: DaemonProcess) -> None:
    pool = eager.pool
    assert check(*meet(eager.pool.starttls_peer, pool.starttls_server, ONE, TWO)) == ("client", "server")
    assert check(*meet(patient.pool.starttls_peer, pool.starttls_client, ONE, TWO)) == ("server", "client")


@pytest.mark.parametrize(
    ("flags", "role"),
    [
        (FLAGS.LOCALROLE_CLIENT | FLAGS.REMOTEROLE_PEER, "client"),
        (FLAGS.LOCALROLE_PEER | FLAGS.REMOTEROLE_SERVER, "client"),
        (FLAGS.LOCALROLE_SERVER | FLAGS.REMOTEROLE_PEER, "server"),
        (FLAGS.LOCALROLE_PEER | FLAGS.REMOTEROLE_CLIENT, "server"),
    ],
)
def test_roles_of_which_only_one_is_possible(eager: DaemonProcess, patient: DaemonProcess, flags: StartTlsFlags, role: str) -> None:
    peer = patient.pool if role == "client" else eager.pool
    one, other = meet(with_flags(eager.pool, flags), peer.starttls_peer, ONE, TWO)
    assert check(one, other)[0] == role


def test_who_can_only_be_the_client_is_when_both_speak_at_once(eager: DaemonProcess) -> None:
    crossing = Crossing()
    only = with_flags(eager.pool, FLAGS.LOCALROLE_CLIENT | FLAGS.REMOTEROLE_PEER)
    assert check(*meet(only, eager.pool.starttls_peer, ONE, TWO, crossing.ends)) == ("client", "server")
    crossing.close()
    assert crossing.crossed


# --- the command ---------------------------------------------------------------------------------------------------------------------


def command(daemon: DaemonProcess, *arguments: str) -> subprocess.Popen[bytes]:
    run = "from tlspool_core.cli.connect import connect; connect()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", run, *arguments, "--socket", str(daemon.path)], **pipes)  # type: ignore[call-overload,no-any-return]


def test_two_people_talk(eager: DaemonProcess, patient: DaemonProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    waiting = command(patient, address, "--peer", "--listen", "--localid", CLIENT)
    assert waiting.stderr is not None and b"listening" in waiting.stderr.readline()
    calling = command(eager, address, "--peer", "--localid", SERVER, "--remoteid", CLIENT)
    with waiting, calling:
        for speaker, hearer, words in ((calling, waiting, b"good morning\n"), (waiting, calling, b"good evening\n")):
            assert speaker.stdin is not None and hearer.stdout is not None
            speaker.stdin.write(words)
            speaker.stdin.flush()
            assert hearer.stdout.readline() == words
        facts, their_facts = calling.communicate(timeout=20)[1], waiting.communicate(timeout=20)[1]
    assert b"role:            client" in facts and b"remote identity: " + CLIENT.encode() in facts
    assert b"role:            server" in their_facts and b"remote identity: " + SERVER.encode() in their_facts


def test_to_listen_is_for_peers(eager: DaemonProcess) -> None:
    with command(eager, "127.0.0.1:1", "--listen") as refused:
        assert b"--listen is for --peer" in refused.communicate(timeout=20)[1]
    assert refused.returncode == 2


# --- nobody, or ourselves --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crossed", [False, True])
def test_two_connections_of_ours_joined_by_someone_else(eager: DaemonProcess, patient: DaemonProcess, crossed: bool) -> None:
    """The application expects anybody; it gets itself (the Selfie attack). Either end is enough to refuse."""
    crossing = Crossing() if crossed else None
    other = eager if crossed else patient
    anybody = {"localid": SERVER, "service": "selfie"}
    ends = crossing.ends if crossing else None
    outcomes = meet(eager.pool.starttls_peer, other.pool.starttls_peer, anybody, anybody, ends)
    assert all(isinstance(outcome, PoolError) for outcome in outcomes)
    assert ErrorCode.REMOTEID_REFUSED in {outcome.code for outcome in outcomes}
    assert any("our own identity" in str(outcome) for outcome in outcomes)
    if crossing:
        crossing.close()


@pytest.mark.parametrize(
    ("local", "remote", "wanted", "shown", "refused"),
    [
        (SERVER, SERVER, None, "another", True),
        (SERVER, SERVER, OTHER, "another", True),
        (SERVER, SERVER, SERVER, "another", False),
        (SERVER, OTHER, OTHER, "the same", True),  # one credential names both
        (SERVER, OTHER, None, "the same", True),
        (SERVER, SERVER, SERVER, "the same", False),
        (SERVER, OTHER, OTHER, "another", False),
        (SERVER, OTHER, OTHER, "", False),
        (None, OTHER, None, "another", False),
    ],
)
def test_who_is_taken_for_ourselves(local: str | None, remote: str, wanted: str | None, shown: str, refused: bool) -> None:
    def identity(name: str | None) -> DoNAI | None:
        return None if name is None else DoNAI.parse(name)

    own, entries = Peer(entries=(CertificateEntry(b"the same"),)), (CertificateEntry(shown.encode()),) if shown else ()
    context = peer_context(own=own, peer=Peer(entries=entries), wanted=identity(wanted))
    with pytest.raises(Refusal) if refused else nullcontext() as caught:
        refuse_ourselves(context, identity(local), identity(remote))
    if caught is not None:
        assert caught.value.error.code == ErrorCode.REMOTEID_REFUSED and "our own" in caught.value.error.text


def test_the_server_does_not_believe_itself_either(eager: DaemonProcess, patient: DaemonProcess) -> None:
    careless = {"localid": SERVER, "remoteid": SERVER, "flags": FLAGS.IGNORE_REMOTEID}
    client, server = meet(eager.pool.starttls_peer, patient.pool.starttls_peer, careless, {"localid": SERVER})
    assert isinstance(server, PoolError) and server.code == ErrorCode.REMOTEID_REFUSED and "our own identity" in str(server)
    if isinstance(client, Session):
        client.close()


def test_an_application_may_want_its_own_identity(eager: DaemonProcess, patient: DaemonProcess) -> None:
    twin = {"localid": SERVER, "remoteid": SERVER}
    check(*meet(eager.pool.starttls_peer, patient.pool.starttls_peer, twin, twin))


def test_another_one_than_was_wanted(eager: DaemonProcess, patient: DaemonProcess) -> None:
    false = {"localid": OTHER, "remoteid": CLIENT}
    as_client, as_server = {"service": "false client"}, {"service": "false server"}
    liar, deceived = meet(eager.pool.starttls_peer, patient.pool.starttls_peer, false | as_client, TWO | as_client)
    assert isinstance(deceived, PoolError) and deceived.code == ErrorCode.REMOTEID_REFUSED
    if isinstance(liar, Session):  # a client of TLS 1.3 is done before the server has judged it
        with liar:
            assert liar.plaintext.recv(1) == b""
    unnamed = {"flags": FLAGS.WITHOUT_SNI}  # or else the server would refuse a name that is not its own
    _, deceived = meet(patient.pool.starttls_peer, eager.pool.starttls_peer, false | as_server, TWO | as_server | unnamed)
    assert isinstance(deceived, PoolError) and deceived.code == ErrorCode.REMOTEID_REFUSED


def refused(pool: Pool, remote: Callable[[socket.socket], object], **wishes: Any) -> PoolError:
    """The error that an application gets when the other end does as the function says."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    thread = threading.Thread(target=remote, args=(theirs,))
    thread.start()
    with pytest.raises(PoolError) as caught:
        pool.starttls_peer(ours, **({"timeout": 10} | ONE | wishes))
    thread.join(10)
    theirs.close()
    return caught.value


def test_our_own_bytes_come_back(eager: DaemonProcess) -> None:
    answer: list[bytes] = []

    def mirror(sock: socket.socket) -> None:
        sock.sendall(sock.recv(65536))
        answer.append(sock.recv(65536))

    error = refused(eager.pool, mirror)
    assert error.code == ErrorCode.HANDSHAKE_FAILED and "Reflected" in str(error)
    assert answer == [b"\x15\3\3\0\2\2\x2f"]


def test_time_is_left_to_speak(patient: DaemonProcess, eager: DaemonProcess) -> None:
    """However long the pool would listen, an application that gives it less time than that gets a session."""
    short = {"timeout": 3}
    assert check(*meet(patient.pool.starttls_peer, eager.pool.starttls_server, ONE | short, TWO)) == ("client", "server")


@pytest.mark.parametrize("which", ["eager", "patient"])
def test_a_remote_that_leaves(request: pytest.FixtureRequest, which: str) -> None:
    daemon = request.getfixturevalue(which)
    before = daemon.descriptors
    assert refused(daemon.pool, lambda sock: sock.close()).code == ErrorCode.PEER_DISCONNECT
    eventually(lambda: daemon.descriptors <= before)


@pytest.mark.parametrize("which", ["eager", "patient"])
def test_a_remote_that_says_nothing(request: pytest.FixtureRequest, which: str) -> None:
    daemon = request.getfixturevalue(which)
    before = daemon.descriptors
    assert refused(daemon.pool, lambda sock: None, timeout=0.2).code == ErrorCode.HANDSHAKE_TIMEOUT
    eventually(lambda: daemon.descriptors <= before)


def test_an_application_that_leaves_while_we_listen(daemons: Daemons) -> None:
    patient = daemons("[symmetric]\nwait = 10\n")  # with nothing else going on in it
    before = patient.descriptors
    ours, theirs = socket.socketpair()
    with ours, theirs, Pool(patient.path) as pool:
        asked = StartTls(flags=FLAGS.LOCALROLE_PEER | FLAGS.REMOTEROLE_PEER, ctlkey=bytes(range(16)), localid=SERVER)
        with pool.link().begin(asked, ours.fileno()):
            ours.close()
            eventually(lambda: patient.descriptors > before + 1)
        pool.close()
        theirs.settimeout(10)
        assert theirs.recv(100) in (b"", b"\x15\3\3\0\2\1\0"), "no hello to nobody"
    eventually(lambda: patient.descriptors <= before)
    assert "Traceback" not in patient.text
    check(*meet(patient.pool.starttls_peer, patient.pool.starttls_client, ONE, TWO))


def test_a_connection_that_is_reset_while_we_listen(patient: DaemonProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    threading.Timer(0.1, theirs.close).start()
    with pytest.raises(PoolError) as caught:
        patient.pool.starttls_peer(ours, **ONE, timeout=10)
    assert caught.value.code in (ErrorCode.PEER_DISCONNECT, ErrorCode.CONNECTION_DRIVER)
    assert "Traceback" not in patient.text
