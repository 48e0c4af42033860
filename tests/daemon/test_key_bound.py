"""Does pulling a token end the sessions under its keys, and those only, and is nothing to be had until it is back?"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import threading
import weakref
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import DaemonProcess, both, eventually
from test_openssl import CLIENT, NEEDED, SERVER, World

from tlspool_core.client import ErrorCode, PoolError, Session, StartTlsFlags
from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import (
    CredentialType,
    KeyStoreError,
    LocalCredential,
    LocalIdentity,
    Role,
    SessionContext,
    SessionParts,
)
from tlspool_core.pool.config import PoolConfig
from tlspool_core.pool.engine import Engine
from tlspool_core.pool.key_watch import CAUSE, KeyWatch
from tlspool_core.testing.keys import SoftwareKeys
from tlspool_core.testing.memory import MemoryBackend

BOUND = StartTlsFlags.KEY_BOUND
AS_SERVER = {"localid": SERVER, "service": "http"}
AS_CLIENT = {"remoteid": SERVER, "service": "http"}


class Token:
    """The token of a world, to be pulled and plugged in."""

    def __init__(self, home: Path) -> None:
        self._slots, self._drawer = home / "tokens", home / "drawer"
        self._drawer.mkdir(exist_ok=True)

    def pull(self) -> None:
        self._move(self._slots, self._drawer)

    def plug(self) -> None:
        self._move(self._drawer, self._slots)

    @staticmethod
    def _move(source: Path, target: Path) -> None:
        for one in [*source.iterdir()]:
            one.rename(target / one.name)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, module_daemons: Callable[..., DaemonProcess]) -> World:
    if NEEDED:
        pytest.skip(f"not installed: {', '.join(NEEDED)}")
    return World(tmp_path_factory.mktemp("world"), module_daemons)


@pytest.fixture
def token(world: World) -> Iterator[Token]:
    token = Token(world.home)
    yield token
    token.plug()
    with contextlib.closing(Sessions(world)) as sessions:
        eventually(lambda: all(isinstance(each, Session) for each in sessions.start(BOUND, BOUND)), 30)


class Sessions:
    """Both ends of sessions within one pool."""

    def __init__(self, world: World) -> None:
        self._pool = world.daemon.pool
        self._open = contextlib.ExitStack()

    def start(self, server: StartTlsFlags = StartTlsFlags.NONE, client: StartTlsFlags = StartTlsFlags.NONE) -> list[Any]:
        """Server's and client's end, or why there is none."""
        outcomes = both(self._pool, self._pool, AS_SERVER | {"flags": server}, AS_CLIENT | {"flags": client})
        for each in outcomes:
            if isinstance(each, Session):
                self._open.enter_context(each)
        return outcomes

    def close(self) -> None:
        self._open.close()


@pytest.fixture
def start(world: World) -> Iterator[Callable[..., list[Any]]]:
    with contextlib.closing(Sessions(world)) as sessions:
        yield sessions.start


def ended(session: Session) -> bool:
    session.plaintext.settimeout(0.01)
    with contextlib.suppress(TimeoutError):
        return session.plaintext.recv(1) == b""
    return False


@pytest.mark.parametrize("flags", [(BOUND, StartTlsFlags.NONE), (StartTlsFlags.NONE, BOUND)])
def test_who_is_bound_ends_and_who_is_not_goes_on(
    world: World, start: Callable[..., list[Any]], token: Token, flags: tuple[StartTlsFlags, StartTlsFlags]
) -> None:
    free, bound = start(), start(*flags)
    assert all(isinstance(each, Session) for each in (*free, *bound)), (free, bound)
    token.pull()
    eventually(lambda: all(ended(each) for each in bound))
    eventually(lambda: f'cause="{CAUSE}"' in world.daemon.text)
    free[0].plaintext.sendall(b"still here")
    assert free[1].plaintext.recv(100) == b"still here"


def test_new_sessions_are_refused_at_once_and_work_again(start: Callable[..., list[Any]], token: Token) -> None:
    first = start(client=BOUND)
    assert isinstance(first[1], Session)
    token.pull()
    eventually(lambda: ended(first[1]))
    _, refused = start(client=BOUND)
    assert isinstance(refused, PoolError)
    token.plug()
    eventually(lambda: isinstance(start(client=BOUND)[1], Session), 30)


@pytest.fixture
def asking(world: World) -> Iterator[Callable[[], socket.socket]]:
    """Connections to a server, not of the pool, that wants a client certificate and offers resumption."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(world.home / "ca.pem"))
    context.load_cert_chain(*world.pair("server.example.com", Role.SERVER, "asking"))
    context.verify_mode = ssl.CERT_REQUIRED

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
                    secured.sendall(b"resumed" if secured.session_reused else b"full")
                    secured.recv(1)

    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve)
    thread.start()
    yield lambda: socket.create_connection(listening.getsockname())
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(10)


def visit(world: World, sock: socket.socket, flags: StartTlsFlags) -> str:
    """How the session came about; it is over then."""
    with world.daemon.pool.starttls_client(sock, remoteid="server.example.com", localid=CLIENT, flags=flags) as session:
        return session.plaintext.recv(100).decode()


@pytest.mark.parametrize("resumable", [False, True])
def test_the_reason_is_told(world: World, token: Token, asking: Callable[[], socket.socket], resumable: bool) -> None:
    if resumable:
        assert visit(world, asking(), BOUND)
        eventually(lambda: visit(world, asking(), BOUND) == "resumed")
    token.pull()
    eventually(lambda: refusal(world, asking()))
    refused = refusal(world, asking())
    assert refused is not None and refused.code == ErrorCode.CREDENTIAL_UNAVAILABLE
    assert "token 'pool' is not there, plug it in" in str(refused)


def refusal(world: World, sock: socket.socket) -> PoolError | None:
    try:
        visit(world, sock, BOUND)
    except PoolError as error:
        return error
    return None


# --- the books -----------------------------------------------------------------------------------------------------------------


class Fake:
    """A session that remembers why it was closed."""

    def __init__(self, watch: KeyWatch, *uris: str) -> None:
        self.why = ""
        self._watch, self._uris = watch, uris
        watch.add(self, uris)

    def close(self, reason: str) -> None:
        self.why = reason
        self._watch.discard(self, self._uris)


class Failing(SoftwareKeys):
    """A store that cannot tell."""

    async def departure(self, uris: Collection[str]) -> Collection[str]:
        raise RuntimeError("a fault of the plugin")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


def test_a_key_without_a_store_keeps_no_other_from_being_watched() -> None:
    async def main() -> None:
        stores = {"one": SoftwareKeys()}

        def store_of(uri: str) -> SoftwareKeys:
            try:
                return stores[uri.partition(":")[0]]
            except KeyError:
                raise KeyStoreError("no such store") from None

        watch = KeyWatch(asyncio.get_running_loop(), store_of, lambda: None)
        nowhere, here = Fake(watch, "none:x"), Fake(watch, "one:a")
        await until(lambda: nowhere.why)
        assert not here.why
        stores["one"].missing.add("one:a")
        await until(lambda: here.why)
        watch.close()

    asyncio.run(main())


def test_each_key_ends_its_own_sessions_and_stores_are_watched_apart() -> None:
    async def main() -> None:
        stores = {"one": SoftwareKeys(), "two": SoftwareKeys(), "bad": Failing()}
        forgotten: list[int] = []
        watch = KeyWatch(asyncio.get_running_loop(), lambda uri: stores[uri.partition(":")[0]], lambda: forgotten.append(1))
        both_keys, first, second = Fake(watch, "one:a", "two:b"), Fake(watch, "one:a"), Fake(watch, "two:b")
        other = Fake(watch, "one:c")
        stores["one"].missing.add("one:a")
        await until(lambda: first.why and both_keys.why)
        assert (second.why, other.why, len(forgotten)) == ("", "", 1)
        stores["two"].missing.add("two:b")
        await until(lambda: second.why)
        stores["one"].missing.clear()
        again = Fake(watch, "one:a")
        broken = Fake(watch, "bad:x")
        await until(lambda: broken.why)
        assert (again.why, other.why) == ("", "")
        for each in (again, other):
            each.close("done")
        await until(lambda: len(asyncio.all_tasks()) == 1)
        Fake(watch, "one:a")
        await asyncio.sleep(0)
        watch.close()
        await until(lambda: len(asyncio.all_tasks()) == 1)

    asyncio.run(main())


class Keeper(CredentialType):
    """Keeps what it is given for a session, as one does that renews tickets by a password in a token."""

    name = "keeper"

    def __init__(self) -> None:
        self.kept: list[SessionContext] = []

    async def load(self, local: LocalCredential, find_key: Any) -> None:
        return None

    def begin(self, context: SessionContext) -> SessionParts:
        self.kept.append(context)
        return SessionParts()


class Named:
    """Of a session, what an engine makes settings of."""

    role, peer_address = "server", ""
    request = SimpleNamespace(service="http")


def test_what_a_plugin_keeps_of_a_session_is_not_the_session() -> None:
    local = DoNAI.parse(SERVER)
    entry = LocalIdentity(local, (LocalCredential(local, "keeper", Role.SERVER, "software:password", b""),))
    keys = SoftwareKeys()
    keys.add_secret("password", b"secret")
    pool: Any = SimpleNamespace(
        backend=MemoryBackend(),
        credentials=SimpleNamespace(identity=lambda _: entry),
        read_secret_blocking=lambda uri: asyncio.run(keys.read_secret(uri)),
        agree_blocking=None,
        ask_password_blocking=None,
    )
    keeper, rests_on, session = Keeper(), set[str](), Named()
    Engine(pool, PoolConfig("test", ()), [keeper]).settings(session, local, None, None, rests_on)  # type: ignore[arg-type]
    gone = weakref.ref(session)
    del session
    gc.collect()
    assert gone() is None
    keeper.kept[0].rests_on("software:other")
    assert keeper.kept[0].read_secret("software:password") == b"secret"
    assert rests_on == {"software:password", "software:other"}
