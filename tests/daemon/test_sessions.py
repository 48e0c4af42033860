"""Do two applications reach each other through two pools, learn who the other one is, and are all others refused with a reason?"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from conftest import DaemonProcess, both, eventually
from toyplugin import CLIENT, KEYLESS, OTHER, RESERVED, SERVER, STRANGER

from tlspool_core.client import ErrorCode, InfoKind, PoolError, Session, StartTlsFlags

Daemons = Callable[..., DaemonProcess]
FLAGS = StartTlsFlags


@pytest.fixture(scope="module")
def pools(module_daemons: Daemons) -> tuple[DaemonProcess, DaemonProcess]:
    """One pool for the server application, one for the client application."""
    return module_daemons(), module_daemons()


def exchange(pools: tuple[DaemonProcess, DaemonProcess], server: dict[str, Any], client: dict[str, Any]) -> list[Any]:
    return both(pools[0].pool, pools[1].pool, server, client)


def check_data(server: Session, client: Session) -> None:
    with server, client:
        client.plaintext.sendall(b"hello")
        assert server.plaintext.recv(100) == b"hello"
        server.plaintext.sendall(b"welcome")
        assert client.plaintext.recv(100) == b"welcome"
        client.plaintext.shutdown(socket.SHUT_WR)
        assert server.plaintext.recv(100) == b""
        server.plaintext.sendall(b"last")
        server.plaintext.shutdown(socket.SHUT_WR)
        assert client.plaintext.recv(100) == b"last"
        assert client.plaintext.recv(100) == b""


def test_both_learn_who_the_other_one_is(pools: tuple[DaemonProcess, DaemonProcess]) -> None:
    server, client = exchange(pools, {"localid": SERVER}, {"remoteid": SERVER})
    assert (server.localid, server.remoteid) == (SERVER, CLIENT)
    assert (client.localid, client.remoteid) == (CLIENT, SERVER)
    assert (client.version(), client.cipher()) == ("TLSv1.3", "TLS_AES_128_GCM_SHA256")
    assert client.channel_binding() == server.channel_binding() is not None
    assert client.export("EXPERIMENTAL one", b"context") == server.export("EXPERIMENTAL one", b"context")
    assert client.export("EXPERIMENTAL one") != server.export("EXPERIMENTAL two")
    check_data(server, client)


def test_facts_can_be_asked_and_checked(pools: tuple[DaemonProcess, DaemonProcess]) -> None:
    server, client = exchange(pools, {"localid": SERVER, "service": "imap"}, {"remoteid": SERVER, "service": "imap"})
    with server, client:
        assert client.info(InfoKind.PEERCERT_SUBJECT) == SERVER.encode()
        assert client.info(InfoKind.MYCERT_SUBJECT) == CLIENT.encode()
        assert client.check(InfoKind.PEERCERT_SUBJECT, SERVER.encode())
        assert not client.check(InfoKind.PEERCERT_SUBJECT, b"another")
        assert client.info(InfoKind.PEERCERT_ISSUER) is None
        assert client.info(InfoKind.TLS_UNIQUE) is None
        assert client.info(InfoKind.TLS_SERVER_END_POINT) == server.info(InfoKind.TLS_SERVER_END_POINT) is not None
        assert server.text(InfoKind.SERVER_NAME) == SERVER
        assert server.alpn() == client.alpn() == "imap"
        assert server.text(InfoKind.PEER_CREDENTIAL_TYPE) == client.text(InfoKind.LOCAL_CREDENTIAL_TYPE) == "toy"
        identifier = server.text(InfoKind.SESSION_ID)
        eventually(lambda: f"[{identifier}]" in pools[0].text)
        for call, code in (
            (lambda: client.info(0x12345678), ErrorCode.INFO_KIND_UNKNOWN),
            (lambda: client.export("master secret"), ErrorCode.PRNG_LABEL_REFUSED),
        ):
            with pytest.raises(PoolError) as caught:
                call()
            assert caught.value.code == code


def test_a_server_can_do_without_the_clients_identity(pools: tuple[DaemonProcess, DaemonProcess]) -> None:
    for flag in (FLAGS.IGNORE_REMOTEID, FLAGS.IGNORE_REMOTEID | FLAGS.REQUEST_REMOTEID):
        server, client = exchange(pools, {"localid": SERVER, "flags": flag}, {"remoteid": SERVER})
        assert (server.remoteid, client.localid) == ("", "")
        check_data(server, client)
    server, client = exchange(pools, {"localid": OTHER, "flags": FLAGS.REQUEST_REMOTEID}, {"remoteid": OTHER})
    assert (server.remoteid, client.localid) == ("", "")
    check_data(server, client)
    server, client = exchange(pools, {"localid": SERVER, "flags": FLAGS.REQUEST_REMOTEID}, {"remoteid": SERVER})
    assert (server.remoteid, client.localid) == (CLIENT, CLIENT)
    check_data(server, client)


def test_a_client_can_do_without_sni_and_remoteid(pools: tuple[DaemonProcess, DaemonProcess]) -> None:
    server, client = exchange(pools, {"localid": SERVER}, {"remoteid": SERVER, "flags": FLAGS.WITHOUT_SNI})
    with server, client:
        assert server.text(InfoKind.SERVER_NAME) is None
    server, client = exchange(
        pools, {"localid": SERVER, "flags": FLAGS.IGNORE_REMOTEID}, {"localid": CLIENT, "flags": FLAGS.IGNORE_REMOTEID}
    )
    assert client.remoteid == ""
    check_data(server, client)


def test_a_server_without_localid_is_whom_the_client_asks_for(pools: tuple[DaemonProcess, DaemonProcess]) -> None:
    server, client = exchange(pools, {}, {"remoteid": OTHER, "localid": CLIENT})
    assert (server.localid, client.remoteid) == (OTHER, OTHER)
    check_data(server, client)


def test_the_application_is_asked_about_its_identity(pools: tuple[DaemonProcess, DaemonProcess]) -> None:
    proposals = []

    def choose(proposal: Any) -> str:
        proposals.append(proposal.localid)
        return str(proposal.localid)

    asked = {"localid_hook": choose, "localid": SERVER, "flags": FLAGS.IGNORE_REMOTEID}
    server, client = exchange(pools, asked, {"remoteid": OTHER, "localid_hook": choose})
    assert (server.localid, client.localid) == (OTHER, "")
    check_data(server, client)
    proposals.clear()
    server, client = exchange(
        pools, {"localid": SERVER, "localid_hook": lambda proposal: proposal.localid}, {"remoteid": SERVER, "localid_hook": choose}
    )
    assert proposals == [CLIENT]
    check_data(server, client)


@pytest.mark.parametrize(
    ("server_wishes", "client_wishes", "server_code", "client_code"),
    [
        ({"localid": SERVER}, {"remoteid": OTHER}, ErrorCode.LOCALID_NOT_FOUND, ErrorCode.PEER_REFUSED),
        ({"localid": "nobody.example.com"}, {}, ErrorCode.LOCALID_NOT_FOUND, ErrorCode.PEER_REFUSED),
        ({"localid": RESERVED, "flags": FLAGS.IGNORE_REMOTEID}, {}, ErrorCode.LOCALID_NOT_YOURS, ErrorCode.PEER_REFUSED),
        ({"localid": KEYLESS}, {}, ErrorCode.CREDENTIAL_UNAVAILABLE, ErrorCode.PEER_REFUSED),
        ({"localid": "not an identity"}, {}, ErrorCode.LOCALID_NOT_FOUND, ErrorCode.PEER_DISCONNECT),
        ({}, {}, ErrorCode.LOCALID_NOT_FOUND, ErrorCode.PEER_REFUSED),
        ({"localid": SERVER}, {"localid": STRANGER}, ErrorCode.REMOTEID_REFUSED, None),
        ({"localid": SERVER, "flags": FLAGS.REQUEST_REMOTEID}, {"localid": STRANGER}, ErrorCode.REMOTEID_REFUSED, None),
        ({"localid": SERVER, "remoteid": OTHER}, {"localid": CLIENT}, ErrorCode.REMOTEID_REFUSED, None),
        ({"localid": OTHER}, {"remoteid": OTHER}, ErrorCode.REMOTEID_MISSING, None),
        (
            {"localid": SERVER},
            {"remoteid": OTHER, "flags": FLAGS.WITHOUT_SNI},
            ErrorCode.PEER_REFUSED,
            ErrorCode.REMOTEID_REFUSED,
        ),
        ({"localid": SERVER, "service": "imap"}, {"remoteid": SERVER, "service": "ftp"}, ErrorCode.HANDSHAKE_FAILED, None),
        ({"localid_hook": lambda proposal: None}, {"remoteid": SERVER}, ErrorCode.CLIENT_REFUSES_CALLBACK, None),
    ],
)
def test_refusals_have_their_code(
    pools: tuple[DaemonProcess, DaemonProcess],
    server_wishes: dict[str, Any],
    client_wishes: dict[str, Any],
    server_code: ErrorCode,
    client_code: ErrorCode | None,
) -> None:
    server, client = exchange(pools, server_wishes, client_wishes)
    assert isinstance(server, PoolError)
    assert server.code == server_code
    if client_code is not None:
        assert isinstance(client, PoolError)
        assert client.code == client_code
    elif isinstance(client, Session):
        # TLS 1.3: a client is through before the server has judged it; its connection ends at once
        with client:
            assert client.plaintext.recv(1) == b""


def test_the_second_connection_is_resumed_and_judged_again(daemons: Daemons) -> None:
    here, there = daemons(), daemons()
    for resumed in (False, True):
        server, client = both(here.pool, there.pool, {"localid": SERVER}, {"remoteid": SERVER})
        assert (server.remoteid, client.remoteid) == (CLIENT, SERVER)
        check_data(server, client)
        eventually(lambda: there.text.count("ended") > there.text.count("resumed=True"))
        eventually(lambda word=resumed: f"resumed={word}" in here.text)


def test_tls12_has_no_second_authentication(daemons: Daemons) -> None:
    here = daemons("[tls]\nversions = ['1.2']\n")
    server, client = both(here.pool, here.pool, {"localid": SERVER}, {"remoteid": SERVER})
    assert client.version() == "TLSv1.2"
    assert client.info(InfoKind.TLS_UNIQUE) == server.info(InfoKind.TLS_UNIQUE) is not None
    for end in (server, client):
        with pytest.raises(PoolError) as caught:
            end.renegotiate()
        assert caught.value.code == ErrorCode.RENEGOTIATE_INSECURE
    check_data(server, client)


def test_many_at_a_time_over_one_connection(pools: tuple[DaemonProcess, DaemonProcess]) -> None:
    faults: list[object] = []

    def one() -> None:
        try:
            server, client = exchange(pools, {"localid": SERVER}, {"remoteid": SERVER})
            check_data(server, client)
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=one) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
