"""Do the desks register, answer what they are asked and nothing else, and come back after the pool was gone?"""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tlspool_core.client import PoolUnreachable, PoolVanished, Refused
from tlspool_core.client.desks import IdentityDesk, PinDesk
from tlspool_core.secret import Secret
from tlspool_core.wire.errors import ErrorCode
from tlspool_core.wire.flags import LidentryFlags
from tlspool_core.wire.messages import Error, LidentryCallback, LidentryRegister, Message, PinEntry, Success

TOKEN = PinEntry(0, 1, 5_000_000, "PIN, please", "maker", "model", "serial", "label")


def test_pin_desk(scripted: Any) -> None:
    answers: list[Message] = []

    def script(connection: Any) -> None:
        packet, _ = connection.read()
        assert packet.message == PinEntry(timeout=60_000_000)
        for cbid in (5, 6, 7):
            connection.send(packet.reqid, TOKEN, cbid)
            answer, _ = connection.read()
            assert (answer.reqid, answer.cbid) == (packet.reqid, cbid)
            answers.append(answer.message)

    scripted.play(script)
    with PinDesk(scripted.path, patience=0) as desk:
        requests = iter(desk)
        first = next(requests)
        assert (first.manufacturer, first.model, first.serial, first.label) == ("maker", "model", "serial", "label")
        assert (first.prompt, first.attempt) == ("PIN, please", 1)
        assert first.deadline is not None
        assert 0 < first.deadline - time.monotonic() <= 5
        with pytest.raises(ValueError, match="decline"):
            first.answer("")
        first.answer("1234")
        with pytest.raises(ValueError, match="before"):
            first.answer("1234")
        next(requests).decline()
        next(requests)  # left behind, which declines it
        desk.close()
        with pytest.raises(PoolVanished):
            next(requests)
    scripted.stop()


def test_pin_answers_on_the_wire(scripted: Any) -> None:
    answers: list[Message] = []

    def script(connection: Any) -> None:
        packet, _ = connection.read()
        for cbid in (5, 6):
            connection.send(packet.reqid, TOKEN, cbid)
            answers.append(connection.read()[0].message)
        connection.send(packet.reqid, Error.of(ErrorCode.POOL_STOPPING))

    scripted.play(script)
    with PinDesk(scripted.path) as desk, pytest.raises(Refused):
        for number, request in enumerate(desk):
            if number == 0:
                request.answer("1234")
    assert [answer.pin for answer in answers if isinstance(answer, PinEntry)] == [Secret.of(b"1234"), None]


def test_another_desk_is_there(scripted: Any) -> None:
    def script(connection: Any) -> None:
        packet, _ = connection.read()
        connection.send(packet.reqid, Error.of(ErrorCode.PINENTRY_NOT_VACANT))

    scripted.play(script)
    with PinDesk(scripted.path) as desk, pytest.raises(Refused) as caught:
        next(iter(desk))
    assert caught.value.code == ErrorCode.PINENTRY_NOT_VACANT


def test_no_pool(no_leak: None, tmp_path: Any) -> None:
    with PinDesk(tmp_path / "none") as desk, pytest.raises(PoolUnreachable):
        desk.register()


def test_a_desk_returns_after_a_restart(scripted: Any) -> None:
    def first(connection: Any) -> None:
        connection.read()

    def second(connection: Any) -> None:
        packet, _ = connection.read()
        connection.send(packet.reqid, TOKEN, 1)
        assert connection.read()[0].message.pin.text() == "1234"
        with pytest.raises(EOFError):
            connection.read()

    scripted.play(first, second)
    with PinDesk(scripted.path) as desk:
        desk.register()
        next(iter(desk)).answer("1234")


def test_closing_a_desk_wakes_it(scripted: Any) -> None:
    registered = threading.Event()

    def script(connection: Any) -> None:
        connection.read()
        registered.set()
        with pytest.raises(EOFError):
            connection.read()

    scripted.play(script)
    desk = PinDesk(scripted.path)
    ended: list[str] = []

    def serve() -> None:
        try:
            next(iter(desk))
        except PoolVanished:
            ended.append("vanished")

    thread = threading.Thread(target=serve)
    thread.start()
    assert registered.wait(10)
    desk.close()
    thread.join(10)
    assert not thread.is_alive()
    assert ended == ["vanished"]


def test_identity_desk(scripted: Any) -> None:
    answers: list[Message] = []
    entry = LidentryCallback(LidentryFlags.DBENTRY, 1, 300, "one@here", "@.example.com")
    question = LidentryCallback(LidentryFlags.NONE, 2, 300, "suggested@here", "www.example.com")

    def script(connection: Any) -> None:
        packet, _ = connection.read()
        assert packet.message == LidentryRegister(LidentryFlags.WANT_DBENTRY, 3, 300)
        offers = [entry, entry.echo(localid="two@here"), question, question, question]
        for cbid, offer in enumerate(offers, start=1):
            connection.send(packet.reqid, offer, cbid)
            answer, _ = connection.read()
            assert (answer.reqid, answer.cbid) == (packet.reqid, cbid)
            answers.append(answer.message)
        connection.send(packet.reqid, Success())

    scripted.play(script)
    with IdentityDesk(scripted.path, maxlevels=3) as desk:
        requests = iter(desk)
        request = next(requests)
        assert request.entries == ("one@here", "two@here")
        assert (request.remoteid, request.suggested, request.maxlevels) == ("www.example.com", "suggested@here", 2)
        with pytest.raises(ValueError, match="decline"):
            request.choose("")
        request.choose("two@here", selector=".example.com", flags=LidentryFlags.DBINSERT)
        with pytest.raises(ValueError, match="before"):
            request.decline()
        second = next(requests)
        assert second.entries == ()
        second.decline()
        next(requests)
        with pytest.raises(PoolVanished, match="does not belong"):
            next(requests)
    assert answers[0] == entry
    assert answers[2] == question.echo(localid="two@here", remoteid=".example.com", flags=LidentryFlags.DBINSERT)
    assert answers[3] == question.echo(localid="")
    assert answers[4] == question.echo(localid="")
