"""Do questions for PINs reach a person, and PINs the token, whatever the desk does?"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deskhouse import PIN, SOFTHSM, House, Person, eventually

from tlspool_core.client import ErrorCode, Refused, Session
from tlspool_core.client.desks import PinDesk
from tlspool_core.secret import Secret
from tlspool_core.wire.codec import PACKET_SIZE, decode, encode, seal
from tlspool_core.wire.messages import Error, Packet, PinEntry, Ping

JOHN = "john@example.com"
needs_token = pytest.mark.skipif(not SOFTHSM.exists(), reason="SoftHSM is not installed")
QUESTION = "PIN of token pool"


@pytest.fixture
def house(houses: Callable[..., House]) -> House:
    return houses(token=True)


class Desk:
    """A program at the socket that does as it is told."""

    def __init__(self, house: House, timeout: float = 60.0, reqid: int = 7) -> None:
        self.link = socket.socket(socket.AF_UNIX)
        house.links.append(self.link)
        self.link.settimeout(15)
        self.link.connect(str(house.path))
        self.reqid = reqid
        self.link.sendall(encode(Packet(reqid, 0, PinEntry(timeout=round(timeout * 1e6)))))

    def registered(self, house: House, count: int = 1) -> Desk:
        eventually(lambda: house.daemon.text.count("desk registered") >= count)
        return self

    def read(self) -> Packet:
        data = self.link.recv(PACKET_SIZE, socket.MSG_WAITALL)
        assert len(data) == PACKET_SIZE, "the pool closed the connection"
        return decode(data, answer=True)

    def question(self) -> tuple[int, PinEntry]:
        packet = self.read()
        assert isinstance(packet.message, PinEntry)
        assert packet.reqid == self.reqid
        return packet.cbid, packet.message

    def answer(self, cbid: int, pin: str) -> None:
        with Secret.of(pin.encode()) as secret, seal(Packet(self.reqid, cbid, PinEntry(pin=secret))) as sealed:
            self.link.sendall(sealed.used)


def begin(house: House, outcomes: list[Any], **client: Any) -> threading.Thread:
    """A session whose client end needs the token."""
    thread = threading.Thread(target=lambda: outcomes.extend(house.connect({"localid": JOHN} | client)))
    thread.start()
    return thread


def good(outcomes: list[Any]) -> bool:
    ended = [outcome for outcome in outcomes if not isinstance(outcome, Session)]
    assert not ended, ended
    for session in outcomes:
        session.close()
    return True


@needs_token
def test_a_person_at_a_terminal(house: House, person: Callable[..., Person]) -> None:
    at = person("pin", "--terminal", "--socket", str(house.path))
    at.sees("waiting for questions")
    outcomes: list[Any] = []
    thread = begin(house, outcomes)
    at.sees("pool, SoftHSM")
    at.sees(QUESTION)
    at.types("4711\n")
    at.sees("PIN passed on")
    at.sees("The PIN before was refused")
    at.types("4711\n")  # the same again: never sent to the token
    at.sees("refused before")
    at.types(PIN + "\n")
    at.sees("PIN passed on")
    thread.join(20)
    assert good(outcomes)
    assert PIN not in at.seen
    assert "4711" not in at.seen
    assert at.interrupts() == 0
    assert PIN not in house.daemon.text


@needs_token
def test_an_empty_pin_declines(house: House, person: Callable[..., Person]) -> None:
    at = person("pin", "--terminal", "--once", "--socket", str(house.path))
    at.sees("waiting for questions")
    outcomes: list[Any] = []
    thread = begin(house, outcomes)
    at.sees(QUESTION)
    at.types("\n")
    at.sees("declined")
    thread.join(20)
    assert outcomes[1].code == ErrorCode.CREDENTIAL_UNAVAILABLE


PINENTRY = """#!{python}
import sys
def say(line):
    sys.stdout.write(line + "\\n")
    sys.stdout.flush()
say("OK Pleased to meet you")
for line in sys.stdin:
    open({log!r}, "a").write(line)
    word = line.split()[0]
    if word == "GETPIN":
        {getpin}
    say("ERR 83886355 unknown" if word == "OPTION" else "OK")
"""


def pinentry(house: House, getpin: str) -> tuple[str, Path]:
    """A program that speaks the Assuan protocol, after its fashion; and what it was told."""
    program, log = house.home / "pinentry", house.home / "asked"
    program.write_text(PINENTRY.format(python=sys.executable, log=str(log), getpin=getpin))
    program.chmod(0o700)
    return str(program), log


@needs_token
def test_a_pinentry_program(house: House, person: Callable[..., Person]) -> None:
    # escaped as the protocol may: a digit as %31, and in two lines
    program, log = pinentry(house, f"say('# comment'); say('S status'); say('D %31{PIN[1:3]}'); say('D {PIN[3:]}')")
    at = person("pin", "--pinentry", program, "--socket", str(house.path))
    at.sees("waiting for questions")
    outcomes: list[Any] = []
    thread = begin(house, outcomes)
    at.sees("PIN passed on")
    thread.join(20)
    assert good(outcomes)
    asked = log.read_text()
    assert "SETDESC pool, SoftHSM" in asked
    assert "%0APIN of token pool" in asked
    assert "SETTIMEOUT" in asked


@needs_token
@pytest.mark.skipif(shutil.which("pinentry-tty") is None, reason="GnuPG's own program for a terminal is not installed")
def test_gnupgs_own_program(house: House, person: Callable[..., Person]) -> None:
    at = person("pin", "--pinentry", "pinentry-tty", "--socket", str(house.path), environment={"TERM": "vt100"})
    at.sees("waiting for questions")
    outcomes: list[Any] = []
    thread = begin(house, outcomes)
    at.sees(QUESTION)
    at.sees("PIN:")
    at.types("4711\n")
    at.sees("The PIN before was refused")
    at.sees("PIN:")
    at.types(PIN + "\n")
    at.sees("PIN passed on")
    thread.join(20)
    assert good(outcomes)
    assert PIN not in at.seen


@needs_token
@pytest.mark.parametrize(
    ("getpin", "said"),
    [
        ("say('ERR 83886179 cancelled'); continue", "declined"),
        ("sys.exit()", "ended without an answer"),
        ("say('x' * 5000)", "does not speak the Assuan protocol"),
        ("say('D ' + '9' * 600)", "too long"),
        ("say('D ' + '9' * 200)", "up to 127 bytes"),
        ("say('D 12%003')", "no NUL"),
        ("[say('S') for _ in range(200)]", "does not come to an answer"),
    ],
)
def test_a_pinentry_that_gives_no_pin(house: House, person: Callable[..., Person], getpin: str, said: str) -> None:
    program, _ = pinentry(house, getpin)
    at = person("pin", "--pinentry", program, "--once", "--socket", str(house.path))
    at.sees("waiting for questions")
    outcomes: list[Any] = []
    thread = begin(house, outcomes)
    at.sees(said)
    thread.join(20)
    assert outcomes[1].code == ErrorCode.CREDENTIAL_UNAVAILABLE


@needs_token
def test_the_first_packet_may_register_and_is_not_acknowledged(house: House) -> None:
    desk = Desk(house)
    desk.link.sendall(encode(Packet(9, 0, Ping())))
    assert desk.read().reqid == 9  # and nothing for the registration before it
    outcomes: list[Any] = []
    thread = begin(house, outcomes)
    cbid, question = desk.question()
    assert cbid
    assert (question.pin, question.attempt, question.token_label) == (None, 0, "pool")
    assert question.timeout == 60_000_000
    desk.answer(cbid, "1111")
    cbid, question = desk.question()
    assert question.attempt == 1
    desk.answer(cbid, PIN)
    thread.join(20)
    assert good(outcomes)


@needs_token
def test_two_desks_at_once(house: House) -> None:
    first = Desk(house).registered(house)
    with PinDesk(house.path) as second, pytest.raises(Refused) as caught:
        next(iter(second))
    assert caught.value.code == ErrorCode.PINENTRY_NOT_VACANT
    first.link.close()
    eventually(lambda: Desk(house).registered(house, 2))


@needs_token
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_who_may_answer(houses: Callable[..., House]) -> None:
    """Wrong answers use up a token's tries."""
    daemon, games, nobody = 1, 60, 65534
    house = houses(token=True, extra=f'[pin_desk]\nusers = ["{daemon}"]\ngroups = ["{games}"]\n')

    def serve(path: str) -> None:
        with PinDesk(path) as desk:
            for request in desk:
                request.answer(PIN)
                return

    def register(path: str) -> None:
        with PinDesk(path) as desk:
            desk.register()

    assert house.as_user(nobody, [], serve)() == "PINENTRY_NOT_YOURS"
    ended = house.as_user(daemon, [], serve)
    eventually(lambda: "desk registered" in house.daemon.text)
    assert good(house.connect({"localid": JOHN}))
    assert ended() == ""
    assert house.as_user(nobody, [games], register)() == ""
    eventually(lambda: house.daemon.text.count("desk registered") == 2)


@needs_token
def test_a_desk_that_dies(house: House) -> None:
    desk = Desk(house).registered(house)
    outcomes: list[Any] = []
    thread = begin(house, outcomes)
    desk.question()
    desk.link.close()
    thread.join(20)
    assert outcomes[1].code == ErrorCode.CREDENTIAL_UNAVAILABLE
    follower = Desk(house).registered(house, 2)
    again: list[Any] = []
    thread = begin(house, again)
    follower.answer(follower.question()[0], PIN)
    thread.join(20)
    assert good(again)


@needs_token
def test_a_desk_that_hangs_loses_its_seat_to_another(house: House) -> None:
    desk = Desk(house, timeout=0.3).registered(house)
    outcomes: list[Any] = []
    thread = begin(house, outcomes)
    late, _ = desk.question()
    thread.join(20)
    assert outcomes[1].code == ErrorCode.CREDENTIAL_UNAVAILABLE
    desk.answer(late, PIN)  # nobody waits for it, and nothing is said
    follower = Desk(house).registered(house, 2)
    refusal = desk.read().message
    assert isinstance(refusal, Error)
    assert refusal.tlserrno == ErrorCode.PINENTRY_NOT_VACANT
    again: list[Any] = []
    thread = begin(house, again)
    follower.answer(follower.question()[0], PIN)
    thread.join(20)
    assert good(again)


@needs_token
def test_a_desk_that_lies(house: House) -> None:
    desk = Desk(house).registered(house)
    outcomes: list[Any] = []
    thread = begin(house, outcomes)
    cbid, _ = desk.question()
    desk.answer(cbid ^ 1, PIN)  # to a question that was not asked
    refusal = desk.read().message
    assert isinstance(refusal, Error)
    assert refusal.tlserrno == ErrorCode.BAD_CALLBACK_RESPONSE
    desk.link.sendall(encode(Packet(desk.reqid, cbid, Ping())))  # another kind of answer
    thread.join(20)
    assert outcomes[1].code == ErrorCode.CREDENTIAL_UNAVAILABLE
    house.pool.ping()


@needs_token
def test_time_for_a_person_is_not_the_plugins(houses: Callable[..., House]) -> None:
    house = houses(token=True, extra="[limits]\nplugin_timeout = 1.5\n")
    desk = Desk(house).registered(house)
    outcomes: list[Any] = []
    thread = begin(house, outcomes)
    cbid, _ = desk.question()
    thread.join(2.5)  # longer than a plugin may take
    assert thread.is_alive()
    desk.answer(cbid, PIN)
    thread.join(20)
    assert good(outcomes)


@needs_token
def test_a_desk_in_one_worker_serves_all(houses: Callable[..., House]) -> None:
    house = houses(token=True, extra="workers = 3\n---\n")
    desk = Desk(house).registered(house)
    others = [Desk(house) for _ in range(6)]  # wherever they land
    for other in others:
        refusal = other.read().message
        assert isinstance(refusal, Error)
        assert refusal.tlserrno == ErrorCode.PINENTRY_NOT_VACANT
    stop = threading.Event()
    asked: list[str] = []

    def serve() -> None:
        desk.link.settimeout(0.1)
        while not stop.is_set():
            try:
                cbid, question = desk.question()
            except TimeoutError:
                continue
            asked.append(question.token_label)
            desk.answer(cbid, PIN)

    server = threading.Thread(target=serve)
    server.start()
    for _ in range(4):
        assert good(house.connect({"localid": JOHN}))
    stop.set()
    server.join(10)
    assert set(asked) == {"pool"}


def test_a_registered_desk_does_not_hold_up_the_end(houses: Callable[..., House]) -> None:
    house = houses(extra="[limits]\ndrain_timeout = 600\n")
    Desk(house).registered(house)
    assert house.daemon.stop() == 0
