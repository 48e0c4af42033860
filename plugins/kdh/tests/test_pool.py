"""Do applications reach each other through a real pool by Kerberos alone, and learn in words why not if they do not?"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from kdh_helpers import service_key, source
from kdh_kerberos import SessionKey
from kdh_peer import AlertCame, Client, Server
from kdh_pool import ANNA, BOTH, CARL, DEAD, FAR, JOHN, MAIL, MARY, OLGA, WEB, World, needs_token
from tlspool_kdh.mit import keytab_keys
from tlspool_kdh.tickets import Principal, Service
from tlspool_kdh.wallet import Tickets

from tlspool_core.client import ErrorCode, InfoKind, PoolError


def agreed(outcomes: list[Any], local: str, remote: str) -> list[Any]:
    """Both ends know each other; data passes. `local` is the server's identity, `remote` the client's."""
    server, client = outcomes
    assert not isinstance(server, PoolError) and not isinstance(client, PoolError), (server, client)
    assert (server.localid, server.remoteid) == (local, remote)
    assert (client.localid, client.remoteid) == (remote, local)
    client.plaintext.sendall(b"hello")
    assert server.plaintext.recv(10) == b"hello"
    return outcomes


def test_a_ticket_is_all_that_is_needed(world: World) -> None:
    server, client = agreed(world.both({"localid": WEB}, {"localid": JOHN, "remoteid": WEB}), WEB, JOHN)
    with server, client:
        assert client.version() == "TLSv1.3"
        assert client.info(InfoKind.PEERCERT_SUBJECT) == f"http/{WEB}@KDH.EXAMPLE".encode()


def test_the_realm_of_a_service_may_be_another(world: World) -> None:
    server, client = agreed(world.both({"localid": FAR}, {"localid": JOHN, "remoteid": FAR}), FAR, JOHN)
    with server, client:
        assert server.info(InfoKind.PEERCERT_SUBJECT) == b"john@KDH.EXAMPLE"


@pytest.mark.parametrize("identity", [ANNA, OLGA, CARL, pytest.param(MARY, marks=needs_token)])
def test_clients_by_names_that_are_tried(world: World, identity: str) -> None:
    """By an enterprise name, a plain one, out of a cache, and by a password in a token; none of them names a principal."""
    server, client = agreed(world.both({"localid": WEB}, {"localid": identity, "remoteid": WEB}), WEB, identity)
    with server, client:
        pass


@pytest.mark.parametrize(("one", "other"), [(JOHN, ANNA), (OLGA, JOHN), pytest.param(MARY, JOHN, marks=needs_token)])
def test_users_meet_as_client_and_server(world: World, one: str, other: str) -> None:
    """The server has no key that lasts: the KDC encrypts in the session key of a ticket-granting ticket."""
    server, client = agreed(world.both({"localid": one}, {"localid": other, "remoteid": one}), one, other)
    with server, client:
        assert client.version() == "TLSv1.3"


def test_users_meet_whoever_is_the_client(world: World) -> None:
    """Symmetric TLS: which of the two has to show what is found out on the way."""
    ends = socket.socketpair()
    with ThreadPoolExecutor(2) as workers:
        calls = [
            workers.submit(world.pool.starttls_peer, end, localid=local, remoteid=remote, service="http", timeout=20)
            for end, local, remote in ((ends[0], JOHN, ANNA), (ends[1], ANNA, JOHN))
        ]
        john, anna = (call.result(30) for call in calls)
    with john, anna:
        assert (john.remoteid, anna.remoteid) == (ANNA, JOHN)
        john.plaintext.sendall(b"hello")
        assert anna.plaintext.recv(10) == b"hello"


@pytest.mark.parametrize(
    ("one", "other"),
    [(WEB, JOHN), (FAR, JOHN), (JOHN, ANNA), (OLGA, JOHN), (WEB, CARL), pytest.param(JOHN, MARY, marks=needs_token)],
)
def test_tls12_with_tickets_alone(older: World, one: str, other: str) -> None:
    server, client = agreed(older.both({"localid": one}, {"localid": other, "remoteid": one}), one, other)
    with server, client:
        assert (client.version(), client.cipher()) == ("TLSv1.2", "TLS_ECDHE_KRB_WITH_AES_256_GCM_SHA384")


@needs_token
def test_quantum_relief_beside_certificates(world: World) -> None:
    """One of the server, and one of the client, which is a ticket."""
    server, client = agreed(world.both({"localid": BOTH}, {"localid": JOHN, "remoteid": BOTH}), BOTH, JOHN)
    with server, client:
        assert (client.version(), server.info(InfoKind.PEERCERT_SUBJECT)) == ("TLSv1.3", b"john@KDH.EXAMPLE")


# --- another implementation of TLS 1.2 at the other end -------------------------------------------------------------------------


@contextmanager
def application(call: Any, **wishes: Any) -> Iterator[tuple[socket.socket, Future[Any]]]:
    """One end of a connection, at whose other end an application has the pool speak TLS."""
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    with ThreadPoolExecutor(1) as worker, ours:
        yield ours, worker.submit(call, theirs, timeout=20, service="http", **wishes)


def hello_from(session: Any, peer: Client | Server) -> None:
    with session:
        session.plaintext.sendall(b"hello")
        assert peer.read_record() == (23, b"hello")


def their_key(held: Any) -> SessionKey:
    return SessionKey(held.session_key.enctype, held.session_key.value)


@pytest.mark.parametrize("suite", [0xFFA1, 0xFFA2])
@pytest.mark.parametrize("local", [WEB, ANNA])
def test_their_client_meets_the_pool(world: World, realm: Any, local: str, suite: int) -> None:
    """Of a service, and of a user: then the ticket is had by what the server shows."""
    john, tickets = source("john@KDH.EXAMPLE", keytab=realm.users), Tickets()
    wanted = Principal.parse(f"http/{WEB}@KDH.EXAMPLE" if local == WEB else "anna\\@kdh.example@KDH.EXAMPLE")

    def fetch(granting: bytes) -> tuple[bytes, SessionKey]:
        assert bool(granting) is (local != WEB)
        held = tickets.get(john, (wanted,), granting)
        return held.ticket, their_key(held)

    with application(world.pool.starttls_server, localid=local) as (sock, outcome):
        peer = Client(sock, suite, realm="KDH.EXAMPLE", names=("john",), server_name=local.rpartition("@")[2], fetch=fetch)
        peer.run()
        assert outcome.result(20).remoteid == JOHN
        hello_from(outcome.result(), peer)


@pytest.mark.parametrize("suite", [0xFFA1, 0xFFA2])
@pytest.mark.parametrize("remote", [WEB, OLGA])
def test_the_pool_meets_their_server(world: World, realm: Any, remote: str, suite: int) -> None:
    if remote == WEB:
        more = {"key": service_key(realm)}
    else:
        olgas = Tickets().granting(source("olga@OTHER.EXAMPLE", keytab=realm.users))
        more = {"key": their_key(olgas), "tgt": olgas.ticket}
    with application(world.pool.starttls_client, localid=JOHN, remoteid=remote) as (sock, outcome):
        peer = Server(sock, suite, **more)
        peer.run()
        assert peer.client == "john@KDH.EXAMPLE"
        assert outcome.result(20).remoteid == remote
        hello_from(outcome.result(), peer)


@needs_token
def test_their_client_shows_a_ticket_to_the_pools_certificate(world: World, realm: Any) -> None:
    held = Tickets().get(source("john@KDH.EXAMPLE", keytab=realm.users), (Principal.parse(f"http/{BOTH}@KDH.EXAMPLE"),))
    certificate = x509.load_pem_x509_certificate((world.home / "both.crt").read_bytes())
    shown: dict[str, Any] = {"ticket": held.ticket, "key": their_key(held), "server_types": b""}
    with application(world.pool.starttls_server, localid=BOTH) as (sock, outcome):
        peer = Client(sock, 0xC02B, realm="KDH.EXAMPLE", names=("john",), server_name=BOTH, **shown)
        peer.run(certificate)
        assert outcome.result(20).remoteid == JOHN
        hello_from(outcome.result(), peer)


@needs_token
def test_the_pool_shows_a_ticket_to_their_certificate(world: World, realm: Any) -> None:
    certificate, key = world.authority.software_identity(world.home, "their", WEB, "server")
    shown = x509.load_pem_x509_certificate(certificate.read_bytes()).public_bytes(Encoding.DER)
    sign_key = load_pem_private_key(key.read_bytes(), None)
    with application(world.pool.starttls_client, localid=JOHN, remoteid=WEB) as (sock, outcome):
        peer = Server(sock, 0xC02B, key=service_key(realm), certificate=shown, sign_key=sign_key)
        peer.run()
        assert peer.client == "john@KDH.EXAMPLE"
        assert outcome.result(20).remoteid == WEB
        hello_from(outcome.result(), peer)


def test_the_pool_asks_no_kdc_with_what_grants_no_tickets(older: World, realm: Any) -> None:
    held = Tickets().get(source("john@KDH.EXAMPLE", keytab=realm.users), (Principal.parse(f"http/{WEB}@KDH.EXAMPLE"),))
    for wrong in (held.ticket, b"nonsense"):
        with application(older.pool.starttls_client, localid=JOHN, remoteid=OLGA) as (sock, outcome):
            with pytest.raises(AlertCame) as came:
                Server(sock, 0xFFA2, key=their_key(held), tgt=wrong).run()
            assert came.value.args[0] == b"\2\x31"  # access_denied
            with pytest.raises(PoolError, match=r"grants no tickets|malformed"):
                outcome.result(20)


# --- addresses in tickets -------------------------------------------------------------------------------------------------------


@contextmanager
def connection(host: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's end, and the client's, whose address is that of the host, too."""
    with socket.create_server((host, 0)) as listening, socket.create_connection(listening.getsockname(), 10) as client:
        server, _ = listening.accept()
        with server:
            client.settimeout(None)
            yield server, client


def test_a_ticket_is_good_from_the_addresses_in_it(world: World, realm: Any, tmp_path: Path) -> None:
    """As somebody wants it who says `kinit -a`: those of the host but loopback."""
    cache, nina = f"FILE:{tmp_path}/cache", "nina@kdh.example"
    realm.add("nina")
    realm.kinit(cache, "nina", "sesame", "-a", "-S", f"http/{WEB}")
    world.local(nina, "client", ccache=cache)
    held = Tickets().get(source(ccache=cache), (Principal.parse(f"http/{WEB}@KDH.EXAMPLE"),))
    addresses = Service(keytab_keys(realm.services)).open(held.ticket).addresses
    wishes = {"localid": WEB}, {"localid": nina, "remoteid": WEB}
    with connection("127.0.0.1") as ends:
        server, client = world.both(*wishes, ends)
        assert isinstance(server, PoolError) and "good from certain addresses only, and not from 127.0.0.1" in str(server)
        if not isinstance(client, PoolError):
            client.close()
    for host in [str(ip_address(value)) for kind, value in addresses if kind == 2][:1]:  # where the host has any
        with connection(host) as ends:
            for session in agreed(world.both(*wishes, ends), WEB, nina):
                session.close()
    lax = World(tmp_path, realm, like=world, kerberos='addresses = "ignore"')
    try:
        with connection("127.0.0.1") as ends:
            for session in agreed(lax.both(*wishes, ends), WEB, nina):
                session.close()
    finally:
        lax.stop()
        world.tlspool("localid", "remove", nina)


# --- what is refused ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["world", "older"])
def test_a_user_that_is_another_than_wanted(which: str, request: pytest.FixtureRequest) -> None:
    pool: World = request.getfixturevalue(which)
    server, client = pool.both({"localid": ANNA}, {"localid": JOHN, "remoteid": OLGA})
    assert isinstance(server, PoolError) and isinstance(client, PoolError)


def test_a_client_of_a_realm_that_is_not_known(tmp_path: Path, realm: Any, world: World) -> None:
    """The service's KDC vouches for it, but what it is called here nobody has said."""
    held = Tickets().get(source("john@KDH.EXAMPLE", keytab=realm.users), (Principal.parse(f"http/{FAR}@OTHER.EXAMPLE"),))
    pool = World(tmp_path, realm, like=world, known='"OTHER.EXAMPLE" = "other.example"\n')
    try:
        with application(pool.pool.starttls_server, localid=FAR) as (sock, outcome):
            shown: dict[str, Any] = {"ticket": held.ticket, "key": their_key(held), "server_name": FAR}
            with pytest.raises(AlertCame):
                Client(sock, 0xFFA1, realm="KDH.EXAMPLE", names=("john",), **shown).run()
            with pytest.raises(PoolError, match=r"john@KDH\.EXAMPLE is in no realm that is known here|no identity"):
                outcome.result(20)
    finally:
        pool.stop()


def test_another_service_of_the_same_host(older: World) -> None:
    server, client = older.both({"localid": WEB, "service": "ldap"}, {"localid": JOHN, "remoteid": WEB, "service": "imap"})
    assert isinstance(server, PoolError) and "which is not the service of this session" in str(server)
    assert isinstance(client, PoolError)


@needs_token
def test_who_demands_quantum_relief_of_authentication_takes_no_certificate_of_today(world: World) -> None:
    """Carl demands Q and q, and so does Anna: tickets are enough for both, in either version; a certificate of ECDSA is not for q."""
    _, client = world.both({"localid": BOTH}, {"localid": CARL, "remoteid": BOTH})
    assert isinstance(client, PoolError) and "demands q: authentication would yield to a quantum computer" in str(client)


def test_a_service_that_the_kdc_does_not_know(world: World) -> None:
    _, client = world.both({"localid": MAIL}, {"localid": JOHN, "remoteid": MAIL})
    assert isinstance(client, PoolError) and f"no ticket for http/{MAIL}@KDH.EXAMPLE" in str(client)


def test_a_remote_in_no_known_realm(world: World) -> None:
    _, client = world.both({"localid": WEB}, {"localid": JOHN, "remoteid": "web.elsewhere.example"})
    assert isinstance(client, PoolError) and "web.elsewhere.example lies in no realm" in str(client)


def test_a_client_without_a_key_is_told(world: World, realm: Any) -> None:
    world.local("nobody@kdh.example", "client", keytab=realm.users)
    _, client = world.both({"localid": WEB}, {"localid": "nobody@kdh.example", "remoteid": WEB})
    assert isinstance(client, PoolError) and "Keytab contains no suitable keys" in str(client)
    world.tlspool("localid", "remove", "nobody@kdh.example")


@pytest.mark.parametrize("which", ["world", "older"])
def test_nothing_is_done_in_the_name_of_an_identity_of_another_application(
    which: str, request: pytest.FixtureRequest, realm: Any, tmp_path: Path
) -> None:
    """No ticket is had for a server that would be refused: not by its keytab, and so not by a password in a token."""
    pool: World = request.getfixturevalue(which)
    vera, keytab = f"vera{which}@kdh.example", f"FILE:{tmp_path}/keytab"
    realm.admin("KDH.EXAMPLE", f"addprinc -randkey vera{which}", f"ktadd -k {tmp_path}/keytab vera{which}")
    for uid in ("54321", str(os.getuid())):
        pool.local(vera, "both", uid=uid, keytab=keytab)
        server, client = pool.both({"localid": vera}, {"localid": JOHN, "remoteid": vera})
        asked = f"vera{which}@KDH.EXAMPLE for krbtgt/KDH.EXAMPLE@KDH.EXAMPLE" in (realm.directory / "kdc.log").read_text()
        if uid == "54321":
            assert isinstance(server, PoolError) and server.code == ErrorCode.LOCALID_NOT_YOURS
            assert not asked
            pool.tlspool("localid", "remove", vera)
        else:
            for session in agreed([server, client], vera, JOHN):
                session.close()
            assert asked


def test_lists_say_where_tickets_come_from(world: World) -> None:
    assert "john@KDH.EXAMPLE (FILE:" in world.tlspool("localid", "show", JOHN)


def test_check_tells_what_is_usable(world: World, realm: Any) -> None:
    text = world.tlspool("kdh", "check", "--service", "http", "--remote", WEB)
    assert f"ok  {WEB}: key of http/{WEB}@KDH.EXAMPLE, version 2, aes256-cts-hmac-sha1-96" in text
    assert f"ok  {JOHN}: ticket of john@KDH.EXAMPLE for http/{WEB}@KDH.EXAMPLE until " in text
    assert f"ok  {OLGA}: ticket of olga@OTHER.EXAMPLE for http/{WEB}@KDH.EXAMPLE until " in text
    assert f"ok  {MARY}: mary\\@kdh.example@KDH.EXAMPLE or mary@KDH.EXAMPLE, by a password in the key store" in text
    world.local("nobody@kdh.example", "client", keytab=realm.users)
    text = world.tlspool("kdh", "check", ok=False)
    assert "BAD nobody@kdh.example: no ticket for nobody" in text
    world.tlspool("localid", "remove", "nobody@kdh.example")


# --- a KDC that is silent ---------------------------------------------------------------------------------------------------------


@needs_token
def test_a_silent_kdc_costs_only_those_who_need_it(tmp_path: Path, realm: Any, world: World) -> None:
    """Its realm's sessions wait, or are refused; others go on meanwhile, with tickets that are held and with new ones."""
    silent = socket.create_server(("127.0.0.1", 0), backlog=64)
    config = Path(realm.environment["KRB5_CONFIG"]).read_text()
    address = f"127.0.0.1:{silent.getsockname()[1]}"
    (tmp_path / "krb5.conf").write_text(config.replace("[realms]\n", f"[realms]\n DEAD.EXAMPLE = {{\n  kdc = {address}\n }}\n"))
    there = replace(realm, environment=realm.environment | {"KRB5_CONFIG": str(tmp_path / "krb5.conf")})
    pool = World(tmp_path, there, "", like=world)
    wish = {"localid": DEAD, "remoteid": "web.dead.example", "timeout": 55}
    try:
        with silent, ThreadPoolExecutor(12) as workers:
            waiting = [workers.submit(pool.both, {"localid": WEB, "timeout": 55}, wish) for _ in range(12)]
            for identity in (JOHN, JOHN, OLGA):
                server, client = agreed(pool.both({"localid": WEB}, {"localid": identity, "remoteid": WEB}), WEB, identity)
                with server, client:
                    pass
            silent.close()  # what still waits for it is told now
            refusals = [str(one.result(60)[1]) for one in waiting]
    finally:
        pool.stop()
    words = ("the KDC of DEAD.EXAMPLE is slow", "the KDC of DEAD.EXAMPLE has not answered", "Cannot contact any KDC", " s ago)")
    assert all(any(word in text for word in words) for text in refusals), refusals


@pytest.mark.parametrize("workers", [2])
def test_several_processes_share_what_was_seen(tmp_path: Path, realm: Any, world: World, workers: int) -> None:
    pool = World(tmp_path, realm, f'workers = {workers}\n[tls]\nversions = ["1.2"]', like=world)
    try:
        for _ in range(4):
            server, client = agreed(pool.both({"localid": WEB}, {"localid": JOHN, "remoteid": WEB}), WEB, JOHN)
            with server, client:
                pass
    finally:
        pool.stop()
    assert (world.base / "replay").stat().st_mode & 0o777 == 0o600
