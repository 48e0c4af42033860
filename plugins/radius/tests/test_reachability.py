"""Do names that do not resolve, connections that died, and troubles of our own cost no more than they must?"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from forgeries import SECRET, answer, liar
from freeradius import FreeRadius, write_private
from radius_helpers import plugin, request
from tlspool_radius import names
from tlspool_radius import servers as servers_module
from tlspool_radius.aaa import RadiusAaa
from tlspool_radius.names import Address
from tlspool_radius.servers import NoAnswer, Servers
from tlspool_radius.settings import Function, Server, parse
from tlspool_radius.transport import TOO_LATE, Silent

from tlspool_core.api import AaaDecision


def section(*servers: dict[str, Any], **step: Any) -> dict[str, Any]:
    found = [f"s{number}" for number in range(len(servers))]
    return {"server": dict(zip(found, servers, strict=True)), "authorization": {"servers": found, "timeout": 2.0} | step}


# --- names --------------------------------------------------------------------------------------------------------------------


def test_a_name_is_looked_up_once_for_all_who_wait_and_kept() -> None:
    asked: list[str] = []

    def look_up(name: str) -> str:
        asked.append(name)
        time.sleep(0.02)
        return "192.0.2.1"

    async def main() -> None:
        address = Address("radius.example.com", look_up)
        assert await asyncio.gather(*(address.find() for _ in range(20))) == ["192.0.2.1"] * 20
        assert await address.find() == "192.0.2.1"

    asyncio.run(main())
    assert asked == ["radius.example.com"]


def test_an_address_that_is_known_stays_in_use_while_its_name_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_KEPT", 0.0)
    answers: list[object] = [OSError("no such name"), "192.0.2.1", OSError("no such name"), "192.0.2.2"]

    def look_up(name: str) -> str:
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(found, OSError):
            raise found
        return str(found)

    async def main() -> None:
        address = Address("radius.example.com", look_up)
        with pytest.raises(OSError, match="no such name"):
            await address.find()
        found = [await address.find()]
        while found[-1] != "192.0.2.2":
            await asyncio.sleep(0.001)
            found.append(await address.find())
        assert set(found) == {"192.0.2.1", "192.0.2.2"}

    asyncio.run(main())


def test_literal_addresses_are_not_looked_up() -> None:
    async def main() -> list[str]:
        return [await Address(one, lambda name: pytest.fail(name)).find() for one in ("192.0.2.1", "2001:db8::1", "fe80::1%lo")]

    assert asyncio.run(main()) == ["192.0.2.1", "2001:db8::1", "fe80::1%lo"]


def test_a_resolver_that_hangs_costs_the_time_of_its_server_only(server: FreeRadius, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(name: str, *arguments: object, **more: object) -> list[Any]:
        released.wait(60)
        raise OSError("no such name")

    async def main() -> tuple[AaaDecision, float]:
        async with plugin(section(server.section(address="radius.example.com"), server.section(), timeout=0.1)) as started:
            monkeypatch.setattr(names.socket, "getaddrinfo", hang)
            turns, asked = 0, asyncio.ensure_future(started.authorize(request()))
            while not asked.done():
                await asyncio.sleep(0.005)
                turns += 1
            return asked.result(), turns

    try:
        decision, turns = asyncio.run(main())
    finally:
        released.set()
    assert decision.session_timeout == 3600 and turns > 5


def test_a_name_that_does_not_exist_is_told() -> None:
    async def main() -> str:
        servers = Servers(Function((Server("s", "no.such.host.invalid", "udp", 1812, 1813, SECRET),), limit=60, timeout=30))
        with pytest.raises(NoAnswer) as caught:
            await servers.ask(1, [])
        return str(caught.value)

    assert asyncio.run(main()).startswith("no RADIUS server answers (s: ")


# --- troubles of our own ------------------------------------------------------------------------------------------------------


class Stub:
    """A way to a server that fails as it is told."""

    def __init__(self, silent: Silent) -> None:
        self._silent = silent

    async def ask(self, code: int, attributes: object, timeout: float, tries: int, doubts: list[str]) -> Any:
        raise self._silent

    async def close(self) -> None: ...


@pytest.mark.parametrize(("number", "alive"), [(errno.EMFILE, True), (errno.ENOBUFS, True), (errno.EHOSTUNREACH, False)])
def test_a_server_is_not_dead_because_we_lack_descriptors(number: int, alive: bool) -> None:
    async def main() -> bool:
        silent = Silent.because(OSError(number, "trouble"))
        servers = Servers(Function((Server("s", "192.0.2.1", "udp", 1812, 1813, SECRET),)), make=lambda server, port: Stub(silent))
        with pytest.raises(NoAnswer, match="s: trouble") as caught:
            await servers.ask(1, [])
        assert caught.value.silent is not alive, "a server that could not be asked was not silent"
        return servers.peers[0].alive

    assert asyncio.run(main()) is alive


def test_a_server_that_hangs_up_in_the_handshake_is_told(server: FreeRadius) -> None:
    """FreeRADIUS does it to a client with more connections than it permits."""

    def hang_up() -> None:
        with listener.accept()[0] as accepted:
            accepted.recv(65536)

    async def main() -> str:
        servers = Servers(parse(section(server.radsec_section(port=listener.getsockname()[1]), tries=1)).steps["authorization"])
        with pytest.raises(NoAnswer) as caught:
            await servers.ask(1, [])
        await servers.close()
        return str(caught.value)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        thread = threading.Thread(target=hang_up)
        thread.start()
        said = asyncio.run(main())
        thread.join()
    assert len(said) > len("no RADIUS server answers (s0: )")


def test_a_server_that_sends_what_nobody_asked_for_is_left(server: FreeRadius) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.home / "server.pem")
    stray = bytes([2, 0, 0, 20]) + bytes(16)  # an Access-Accept without a signature

    def flood() -> None:
        with suppress(OSError), context.wrap_socket(listener.accept()[0], server_side=True) as connected:
            while connected.recv(4096):
                connected.sendall(stray * 2000)

    async def main() -> None:
        there = section(server.radsec_section(port=listener.getsockname()[1]), timeout=30.0, tries=1, limit=60)
        servers = Servers(parse(there).steps["authorization"])
        with pytest.raises(NoAnswer, match="too many packets that answer nothing"):
            await servers.ask(1, [])
        await servers.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        thread = threading.Thread(target=flood)
        thread.start()
        asyncio.run(main())
        thread.join()


class Mute(Stub):
    """A way to a server that says nothing, or whose answer comes in the moment when nobody waits any more."""

    def __init__(self, answers: bool = False) -> None:
        self._answers = answers

    async def ask(self, code: int, attributes: object, timeout: float, tries: int, doubts: list[str]) -> Any:
        try:
            await asyncio.sleep(60)
        finally:
            doubts += [TOO_LATE] * self._answers


def silences(way: Mute, timeout: float = 0.05) -> list[bool]:
    """Whether two requests met with silence, of which one finds a place."""

    async def main() -> list[bool]:
        function = Function((Server("s", "192.0.2.1", "udp", 1812, 1813, SECRET),), timeout=timeout, limit=0.5)
        servers = Servers(function, make=lambda server, port: way)
        outcomes = await asyncio.gather(servers.ask(1, []), servers.ask(1, []), return_exceptions=True)
        return [isinstance(outcome, NoAnswer) and outcome.silent for outcome in outcomes]

    return asyncio.run(main())


def test_who_finds_no_place_to_ask_did_not_meet_with_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where silence permits, a flood of requests would permit itself."""
    monkeypatch.setattr(servers_module, "_MOST_AT_ONCE", 1)
    assert silences(Mute()) == [True, False]
    assert silences(Mute(), timeout=60) == [False, False], "not even one try had its time"


def test_an_answer_in_the_last_moment_is_no_silence() -> None:
    assert silences(Mute(answers=True)) == [False, False]


def test_an_answer_leaves_its_mark(server: FreeRadius, tmp_path: Any) -> None:
    async def main() -> None:
        sections = {"udp": server.section(), "tls": server.radsec_section()}
        settings = parse({"server": sections, "authorization": {"servers": ["udp", "tls"]}})
        servers = Servers(settings.steps["authorization"])
        for peer in servers.peers:
            doubts: list[str] = []
            await peer.way.ask(1, [(1, b"john@example.com")], 10.0, 1, doubts)
            assert doubts == [TOO_LATE]
        await servers.close()

    asyncio.run(main())


# --- what comes from where ----------------------------------------------------------------------------------------------------


def test_an_answer_from_another_address_is_none(tmp_path: Any) -> None:
    """It is signed and right, and still not from the server that was asked."""
    write_private(tmp_path / "secret", SECRET)
    with socket.socket(type=socket.SOCK_DGRAM) as elsewhere:
        elsewhere.bind(("127.0.0.1", 0))

        def send(raw: bytes, sender: Any) -> list[bytes]:
            elsewhere.sendto(answer(raw), sender)
            return []

        with liar(send) as port:
            false = {"address": "127.0.0.1", "port": port, "secret_file": str(tmp_path / "secret")}

            async def main() -> None:
                async with plugin(section(false, timeout=0.2, without_answer="permit")) as started:
                    assert await started.authorize(request()) == AaaDecision()

            asyncio.run(main())


def test_ports_identifiers_and_authenticators_cannot_be_foreseen(tmp_path: Any) -> None:
    write_private(tmp_path / "secret", SECRET)
    seen: list[tuple[int, int, bytes]] = []

    def note(raw: bytes, sender: Any) -> list[bytes]:
        seen.append((sender[1], raw[1], raw[4:20]))
        return [answer(raw)]

    with liar(note) as port:
        false = {"address": "127.0.0.1", "port": port, "secret_file": str(tmp_path / "secret")}

        async def main() -> None:
            async with plugin(section(false)) as started:
                for _ in range(60):
                    await started.authorize(request())

        asyncio.run(main())
    ports, identifiers, authenticators = map(list, zip(*seen, strict=True))
    assert len(set(authenticators)) == len(seen) >= 60
    assert len(set(ports)) > 40 and len(set(identifiers)) > 30
    assert any(abs(one - next_one) > 8 for one, next_one in pairwise(ports))


def test_a_request_that_is_sent_again_is_the_same_for_the_server(tmp_path: Any) -> None:
    """The same bytes from the same port: by these a server knows a duplicate (RFC 2865 section 2.5 and RFC 5080 section 2.2.2)."""
    write_private(tmp_path / "secret", SECRET)
    seen: list[tuple[bytes, Any]] = []

    def third_time(raw: bytes, sender: Any) -> list[bytes]:
        seen.append((raw, sender))
        return [answer(raw)] if len(seen) >= 3 else []

    with liar(third_time) as port:
        slow = {"address": "127.0.0.1", "port": port, "secret_file": str(tmp_path / "secret")}

        async def main() -> None:
            async with plugin(section(slow, timeout=0.1, tries=10)) as started:
                await started.authorize(request())

        asyncio.run(main())
    assert len(seen) >= 3 and len(set(seen)) == 1


# --- connections over TLS -----------------------------------------------------------------------------------------------------


class Wire:
    """A TCP relay to a server, which can cut its connections, or go on without a word."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        self._open: list[socket.socket] = []
        self._frozen: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._target))
                self.connections += 1
                self._open += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=pair, daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if source not in self._frozen:
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def freeze(self) -> None:
        """Those that are open now deliver nothing any more."""
        self._frozen.update(self._open)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for one in self._open:
            one.close()


@pytest.fixture
def wire(server: FreeRadius) -> Iterator[Wire]:
    made = Wire(server.radsec_port)
    yield made
    made.close()


def over(wire: Wire, server: FreeRadius, **step: Any) -> dict[str, Any]:
    return section(server.radsec_section(port=wire.port), **step)


async def permitted(started: RadiusAaa) -> bool:
    return (await started.authorize(request())).session_timeout == 3600


def test_a_connection_that_was_closed_while_idle_costs_nothing(server: FreeRadius, wire: Wire) -> None:
    async def main() -> None:
        async with plugin(over(wire, server, timeout=10.0)) as started:
            for number in range(1, 4):
                assert await permitted(started)
                assert await permitted(started)
                assert wire.connections == number
                wire.cut()

    asyncio.run(main())


def test_a_connection_whose_other_end_has_gone_without_a_word_is_given_up(server: FreeRadius, wire: Wire) -> None:
    async def main() -> None:
        configured = over(wire, server, timeout=1.0, tries=1, without_answer="permit")
        configured["server"]["s0"]["dead_time"] = 0
        async with plugin(configured) as started:
            async with asyncio.timeout(60):
                while not await permitted(started):  # a busy machine may take longer than the second
                    pass
            opened = wire.connections
            wire.freeze()
            assert not await permitted(started)
            async with asyncio.timeout(60):
                while not await permitted(started):
                    pass
            assert wire.connections > opened

    asyncio.run(main())


def test_many_at_once_share_one_connection_and_all_are_answered(server: FreeRadius, wire: Wire) -> None:
    async def main() -> None:
        async with plugin(over(wire, server, timeout=15.0, limit=60)) as started:
            assert all(await asyncio.gather(*(permitted(started) for _ in range(400))))
            assert wire.connections == 1

    asyncio.run(main())
