"""Is a PIN that was refused never sent again, and is every source of PINs read with care?"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from tlspool_pkcs11 import protocol as wire
from tlspool_pkcs11.client import TokenFault, WorkerClient
from tlspool_pkcs11.faults import CKR_PIN_INCORRECT
from tlspool_pkcs11.login import PinKeeper, PinUse
from tlspool_pkcs11.pins import PinSource, read_pin

from tlspool_core.api import KeyStoreError, PinRequest, Secret

URI = "pkcs11:token=Web;object=p256"
GOOD, WRONG = "123456", "654321"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every PIN that goes to any worker, in order."""
    pins: list[str] = []
    original = WorkerClient.send

    def send(self: WorkerClient, request: wire.Message, limit: float | None = None) -> Any:
        if isinstance(request, wire.Login):
            assert request.pin is not None
            pins.append(request.pin.text())
        return original(self, request, limit)

    monkeypatch.setattr(WorkerClient, "send", send)
    return pins


class Desk:
    """Answers questions for PINs one after the other."""

    def __init__(self, *answers: str | None) -> None:
        self.answers = list(answers)
        self.requests: list[PinRequest] = []
        self.given: list[Secret | None] = []

    async def __call__(self, request: PinRequest) -> Secret | None:
        self.requests.append(request)
        answer = self.answers.pop(0)
        self.given.append(None if answer is None else Secret.of(answer.encode()))
        return self.given[-1]


async def refused(store: Any, *words: str) -> None:
    with pytest.raises(KeyStoreError) as caught:
        await store.find(URI)
    for word in words:
        assert word in str(caught.value)
    assert WRONG not in str(caught.value)
    assert GOOD not in str(caught.value)


async def flags(store: Any) -> int:
    """The token's flags as a fresh worker sees them."""
    await store._modules[0].rescan()
    return int(store._modules[0].present.tokens[0].flags)


async def nobody(request: PinRequest) -> Secret | None:
    return None


COUNT_LOW = 0x10000


def test_a_wrong_pin_is_sent_once_whatever_happens_after(hsm: Any, sent: list[str]) -> None:
    hsm.set_pin(WRONG)

    async def work(store: Any) -> None:
        await refused(store, "Web", "CKR_PIN_INCORRECT", str(hsm.pin_file))
        assert await flags(store) & COUNT_LOW
        for _ in range(3):
            await refused(store, "Web")
        await store.rescan()
        await refused(store, "refused this PIN before")
        assert sent == [WRONG]

    hsm.use(work, ask=nobody)


def test_after_a_restart_of_the_daemon_the_tokens_flag_holds_the_pin_back(hsm: Any, sent: list[str]) -> None:
    hsm.set_pin(WRONG)

    async def work(store: Any) -> None:
        await refused(store)

    hsm.use(work, ask=nobody)
    hsm.use(work, ask=nobody)
    assert sent == [WRONG]


def test_a_corrected_pin_is_sent_when_the_operator_asks_for_a_rescan(hsm: Any, sent: list[str]) -> None:
    hsm.set_pin(WRONG)

    async def work(store: Any) -> None:
        await refused(store)
        hsm.set_pin(GOOD)
        await refused(store, "a wrong PIN was entered before", "rescan")
        assert sent == [WRONG]
        await store.rescan()
        assert await (await store.find(URI)).sign(0x0403, b"x")
        assert sent == [WRONG, GOOD]
        assert not await flags(store) & COUNT_LOW

    hsm.use(work, ask=nobody)


def test_a_rescan_permits_one_attempt_only(hsm: Any, sent: list[str]) -> None:
    hsm.set_pin(WRONG)

    async def work(store: Any) -> None:
        await refused(store)
        await store.rescan()
        hsm.set_pin("111111")
        await refused(store)
        hsm.set_pin("222222")
        await refused(store)
        assert sent == [WRONG, "111111"]

    hsm.use(work, ask=nobody)


def test_a_human_is_asked_when_the_configured_pin_does_not_help(hsm: Any, sent: list[str]) -> None:
    hsm.set_pin(WRONG)
    desk = Desk(GOOD)

    async def work(store: Any) -> None:
        await refused(store)
        key = await store.find(URI)
        assert await key.sign(0x0403, b"x")
        assert sent == [WRONG, GOOD]
        assert desk.requests[0].label == "Web"
        assert desk.requests[0].attempt == 2
        assert "wrong PIN was entered" in desk.requests[0].prompt

    hsm.use(work, ask=desk)


def test_a_human_who_errs_is_asked_again_and_the_same_pin_is_not_sent_twice(hsm: Any, sent: list[str]) -> None:
    desk = Desk(WRONG, WRONG, GOOD)

    async def work(store: Any) -> None:
        assert await (await store.find(URI)).sign(0x0403, b"x")
        assert sent == [WRONG, GOOD]
        assert [request.attempt for request in desk.requests] == [1, 2, 2]
        assert "no PIN is configured" in desk.requests[0].prompt
        assert "refused before" in desk.requests[2].prompt
        assert [bool(pin) for pin in desk.given] == [False, False, True], "the right one is remembered, the others are wiped"

    hsm.use(work, ask=desk, pin_file=None)
    assert not any(desk.given)


def test_a_human_may_give_up(hsm: Any, sent: list[str]) -> None:
    async def work(store: Any) -> None:
        await refused(store, "no PIN is configured")
        assert sent == []

    hsm.use(work, ask=Desk(None), pin_file=None)


def test_a_desk_that_fails_is_a_reason(hsm: Any, sent: list[str]) -> None:
    async def broken(request: PinRequest) -> Secret | None:
        raise TimeoutError("nobody answered")

    async def work(store: Any) -> None:
        await refused(store, "asking for its PIN failed", "nobody answered")

    hsm.use(work, ask=broken, pin_file=None)


def test_many_handshakes_at_once_make_one_login_and_one_question(hsm: Any, sent: list[str]) -> None:
    desk = Desk(GOOD)

    async def work(store: Any) -> None:
        keys = await asyncio.gather(*(store.find(URI) for _ in range(20)))
        assert len({key.uri for key in keys}) == 1
        assert sent == [GOOD]

    hsm.use(work, ask=desk, pin_file=None)


def test_a_remembered_pin_logs_a_fresh_worker_in(hsm: Any, sent: list[str]) -> None:
    async def work(store: Any) -> None:
        key = await store.find(URI)
        await store.rescan()
        assert await key.sign(0x0403, b"x")
        assert sent == [GOOD, GOOD]

    hsm.use(work, ask=Desk(GOOD), pin_file=None)


def test_a_pin_that_may_not_be_remembered_is_asked_for_again(hsm: Any, sent: list[str]) -> None:
    desk = Desk(GOOD, GOOD)

    async def work(store: Any) -> None:
        key = await store.find(URI)
        await store.rescan()
        assert await key.sign(0x0403, b"x")
        assert len(desk.requests) == 2
        assert not any(desk.given), "they are wiped though the token is logged in"

    hsm.use(work, ask=desk, pin_file=None, remember_pin=False)


def test_a_remembered_pin_that_is_refused_later_is_forgotten(hsm: Any) -> None:
    desk = Desk(GOOD, None)

    async def work(store: Any) -> None:
        await store.find(URI)
        hsm.run(
            "pkcs11-tool",
            "--module",
            hsm.module()["path"],
            "--token-label",
            "Web",
            "--login",
            "--pin",
            GOOD,
            "--change-pin",
            "--new-pin",
            WRONG,
        )
        await store.rescan()
        with pytest.raises(KeyStoreError):
            await store.find(URI)
        assert not any(desk.given)

    hsm.use(work, ask=desk, pin_file=None)


def test_pins_come_from_a_token_section_the_uri_or_the_environment(hsm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_PIN", GOOD)

    async def work(store: Any) -> None:
        assert await (await store.find(URI)).sign(0x0403, b"x")

    hsm.use(work, pin_file=None, pin_env="WEB_PIN")
    hsm.use(work, pin_file=None, pin_env="OTHER", tokens={"Web": {"pin_file": str(hsm.pin_file)}})

    async def by_uri(store: Any) -> None:
        key = await store.find(f"{URI}?pin-source=file:{hsm.pin_file}")
        await store.rescan()
        assert await key.sign(0x0403, b"x")

    hsm.use(by_uri, pin_file=None)


def test_a_systemd_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = PinSource("credential", "web-pin")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(KeyStoreError, match="LoadCredential"):
        read_pin(source)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "web-pin").write_text(GOOD)
    (tmp_path / "web-pin").chmod(0o400)
    held = read_pin(source)
    assert held.pin.text() == GOOD
    held.close()
    assert not held.pin


@pytest.mark.parametrize(
    ("mode", "good"), [(0o600, True), (0o640, True), (0o644, False), (0o604, False), (0o602, False), (0o660, False)]
)
def test_a_pin_file_that_others_reach_is_refused(tmp_path: Path, mode: int, good: bool) -> None:
    path = tmp_path / "pin"
    path.write_text(GOOD + "\r\n")
    path.chmod(mode)
    if good:
        assert read_pin(PinSource("file", str(path))).pin.text() == GOOD
    else:
        with pytest.raises(KeyStoreError, match="chmod"):
            read_pin(PinSource("file", str(path)))


@pytest.mark.parametrize("content", ["", "\n", "1234\n5678\n", "x" * 256, "x" * 4096, "12\x0034", "1234\udcff"])
def test_a_pin_file_with_something_else_in_it_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "pin"
    path.write_bytes(content.encode(errors="surrogateescape"))
    path.chmod(0o600)
    with pytest.raises(KeyStoreError, match="one line"):
        read_pin(PinSource("file", str(path)))


def test_a_directory_and_a_missing_file_are_no_pin(tmp_path: Path) -> None:
    with pytest.raises(KeyStoreError, match="no regular file"):
        read_pin(PinSource("file", str(tmp_path)))
    with pytest.raises(KeyStoreError, match="No such file"):
        read_pin(PinSource("file", str(tmp_path / "none")))


def test_a_pin_that_nobody_waits_for_any_more_is_wiped_and_its_file_is_free(tmp_path: Path) -> None:
    """A handshake that took too long while another process had the file."""
    path = tmp_path / "pin"
    path.write_text(GOOD)
    path.chmod(0o600)
    source = PinSource("file", str(path))
    first = read_pin(source)

    async def main() -> None:
        second = asyncio.create_task(asyncio.to_thread(read_pin, source))
        await asyncio.sleep(0)
        second.cancel()
        first.close()

    before = len(list(Path("/proc/self/fd").iterdir()))
    asyncio.run(main())  # its end waits for the thread
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 1
    read_pin(source).close()


def test_a_pin_is_wiped_once_sent_and_before_the_token_has_answered() -> None:
    """Unless it is to be remembered, for which it must turn out right."""
    token = wire.TokenRecord(7, "Web", "maker", "model", "1", "", "", 0x404, ())

    async def refresh() -> wire.TokenRecord:
        return token

    async def main(desk: Desk, remember: bool) -> None:
        sent, answered = asyncio.Event(), asyncio.Event()

        async def reply() -> str:
            sent.set()
            await answered.wait()
            return "logged in"

        def attempt(pin: Secret | None) -> Awaitable[str]:
            assert pin is not None
            assert pin.text() == GOOD
            return reply()

        keeper = PinKeeper(desk)
        login = asyncio.create_task(keeper.use(token, PinUse(attempt, refresh, None, remember)))
        await sent.wait()
        assert bool(desk.given[0]) == remember
        answered.set()
        assert await login == "logged in"
        assert bool(desk.given[0]) == remember
        keeper.forget()
        assert not desk.given[0]

    for remember in (False, True):
        asyncio.run(main(Desk(GOOD), remember))


@pytest.mark.parametrize("source", ["desk", "file"])
def test_a_pin_is_refused_although_nobody_waits_for_that_any_more(
    tmp_path: Path, source: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Or clients that hang up at once would have a wrong PIN sent again and again, until it locks: not all tokens tell of wrong ones."""
    token = wire.TokenRecord(7, "Web", "maker", "model", "1", "", "", 0x404, ())
    path = tmp_path / "pin"
    path.write_text(WRONG)
    path.chmod(0o600)
    attempts: list[asyncio.Future[str]] = []
    sent = asyncio.Event()

    async def refresh() -> wire.TokenRecord:
        return token

    def attempt(pin: Secret | None) -> Awaitable[str]:
        attempts.append(asyncio.get_running_loop().create_future())
        sent.set()
        return attempts[-1]

    async def main(use: PinUse[str]) -> None:
        keeper = PinKeeper(Desk(WRONG, WRONG, None) if source == "desk" else nobody)
        hung_up = asyncio.create_task(keeper.use(token, use))
        await sent.wait()
        hung_up.cancel()
        await asyncio.gather(hung_up, return_exceptions=True)
        second = asyncio.create_task(keeper.use(token, use))
        await asyncio.sleep(0.01)
        assert len(attempts) == 1
        attempts[0].set_exception(TokenFault(CKR_PIN_INCORRECT, "C_Login: CKR_PIN_INCORRECT"))
        with pytest.raises(KeyStoreError, match="refused"):
            await second
        assert len(attempts) == 1

    asyncio.run(main(PinUse(attempt, refresh, PinSource("file", str(path)) if source == "file" else None, remember=True)))
    gc.collect()
    assert not caplog.records, "a refusal that nobody waits for is no fault"


def test_a_pin_in_use_locks_its_file_for_other_processes(tmp_path: Path) -> None:
    path = tmp_path / "pin"
    path.write_text(GOOD)
    path.chmod(0o600)
    source = PinSource("file", str(path))
    first = read_pin(source)

    async def main() -> None:
        second = asyncio.create_task(asyncio.to_thread(read_pin, source))
        done, _ = await asyncio.wait([second], timeout=0.2)
        assert not done
        first.close()
        (await second).close()

    asyncio.run(main())
