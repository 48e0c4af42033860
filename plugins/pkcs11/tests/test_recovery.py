"""Does the pool recover alone from whatever happens to a worker or a token, and do others notice nothing?"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from tlspool_pkcs11 import client
from tlspool_pkcs11 import module as module_room
from tlspool_pkcs11.module import Module
from tlspool_pkcs11.settings import module_settings

from tlspool_core.api import KeyStoreError
from tlspool_core.testing.keystore import holds

URI = "pkcs11:token=Web;object=p256"


async def works(key: Any, content: bytes = b"content") -> bool:
    return holds(key.public_key, 0x0403, content, await key.sign(0x0403, content))


async def many(key: Any, count: int = 200) -> None:
    """A burst of signatures, each over another content, all right."""
    assert all(await asyncio.gather(*(works(key, number.to_bytes(2, "big")) for number in range(count))))


def test_two_hundred_signatures_at_once(hsm: Any) -> None:
    async def work(store: Any) -> None:
        await many(await store.find(URI))

    hsm.use(work)


def test_a_worker_that_is_killed_in_the_middle_costs_no_signature(hsm: Any) -> None:
    async def work(store: Any) -> None:
        key = await store.find(URI)
        module = hsm.inner(store)
        burst = asyncio.create_task(many(key))
        for _ in range(3):  # until each of them has had its turn
            await asyncio.sleep(0)
        assert module.present.pending == 200
        os.kill(module.present.pid, signal.SIGKILL)
        await burst
        assert module.restarts == 1
        assert (await store.status())["modules"][0]["state"] == "up"

    hsm.use(work)


def test_a_worker_that_hangs_is_replaced_and_others_are_served_meanwhile(hsm: Any) -> None:
    async def work(store: Any) -> None:
        key = await store.find(URI + "?module-name=soft")
        other = await store.find(URI + "?module-name=other")
        stuck = hsm.inner(store).present
        os.kill(stuck.pid, signal.SIGSTOP)
        waiting = asyncio.create_task(works(key))
        # these are done while the first still waits
        await many(other, 50)
        assert not waiting.done()
        assert await waiting
        assert "no answer for 0.3 seconds" in stuck.gone
        assert [module["restarts"] for module in (await store.status())["modules"]] == [1, 0]
        assert [each.value for each in store.measurements() if each.name == "module_restarts_total"] == [1, 0]
        assert {each.value for each in store.measurements() if each.name in ("module_up", "tokens")} == {1}

    hsm.use(work, hsm.module(timeout=0.3), hsm.module(name="other"))


def test_a_service_manager_that_signals_the_whole_group_takes_no_key_away(hsm: Any) -> None:
    async def work(store: Any) -> None:
        key = await store.find(URI)
        # while the daemon drains, its sessions still need keys
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(hsm.inner(store).present.pid, number)
        await many(key, 20)
        assert hsm.inner(store).restarts == 0

    hsm.use(work)


def test_a_hang_while_nothing_is_asked_is_found_by_the_next_request(hsm: Any) -> None:
    async def work(store: Any) -> None:
        key = await store.find(URI)
        os.kill(hsm.inner(store).present.pid, signal.SIGSTOP)
        await asyncio.sleep(0.4)
        assert await works(key)

    hsm.use(work, timeout=0.3)


def test_a_slow_token_with_a_long_queue_is_no_hang(hsm: Any) -> None:
    async def work(store: Any) -> None:
        key = await store.find("pkcs11:token=Web;object=rsa")
        # together much longer than the limit, each one much shorter
        signatures = await asyncio.gather(*(key.sign(0x0806, b"x") for _ in range(400)))
        assert len(signatures) == 400
        assert hsm.inner(store).restarts == 0

    hsm.use(work, timeout=0.1)


def test_a_token_removed_and_back(hsm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Module, "look_interval", 0.0)

    async def work(store: Any) -> None:
        key = await store.find(URI)
        assert await works(key)
        away = hsm.directory / "away"
        hsm.tokens.rename(away)
        hsm.tokens.mkdir()
        with pytest.raises(KeyStoreError, match="Web"):
            await key.sign(0x0403, b"x")
        with pytest.raises(KeyStoreError, match="is not there"):
            await store.find(URI)
        hsm.tokens.rmdir()
        away.rename(hsm.tokens)
        assert await works(key)
        assert await works(await store.find(URI))

    hsm.use(work)


def test_a_token_made_later_is_seen_after_a_rescan_and_the_old_keys_go_on(hsm: Any) -> None:
    async def work(store: Any) -> None:
        key = await store.find(URI)
        with pytest.raises(KeyStoreError, match="is not there"):
            await store.find("pkcs11:token=New;object=p256")
        hsm.new_token("New", filled=True)
        before = hsm.inner(store).present
        burst = asyncio.create_task(many(key))
        await store.rescan()
        await burst
        assert hsm.inner(store).present is not before
        new = await store.find("pkcs11:token=New;object=p256")
        assert await works(new)
        assert await works(key)
        assert new.public_key != key.public_key

    hsm.use(work)


def test_a_token_made_later_is_found_without_being_told(hsm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Module, "look_interval", 0.0)

    async def work(store: Any) -> None:
        hsm.new_token("New", filled=True)
        assert await works(await store.find("pkcs11:token=New;object=p256"))

    hsm.use(work)


def test_a_key_made_later_in_a_known_token_is_found(hsm: Any) -> None:
    async def work(store: Any) -> None:
        await store.find(URI)
        tool = ("pkcs11-tool", "--module", hsm.module()["path"], "--token-label", "Web", "--login", "--pin", "123456")
        await asyncio.to_thread(hsm.run, *tool, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "late", "--id", "77")
        # SoftHSM shows a new object to a session that is open already
        assert await works(await store.find("pkcs11:token=Web;object=late"))

    hsm.use(work)


def test_a_token_initialised_anew_under_the_same_label_is_not_taken_for_the_old_one(
    hsm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Module, "look_interval", 0.0)

    async def work(store: Any) -> None:
        key = await store.find(URI)
        for directory in list(hsm.tokens.iterdir()):
            directory.rename(hsm.directory / directory.name)
        hsm.new_token("Web", filled=True)
        with pytest.raises(KeyStoreError):
            await key.sign(0x0403, b"x")
        # by its label alone, the new one is found
        assert await works(await store.find(URI))

    hsm.use(work)


def test_one_module_that_is_no_library_does_not_stop_the_other(hsm: Any) -> None:
    async def work(store: Any) -> None:
        assert await works(await store.find(URI))
        states = {module["name"]: module for module in (await store.status())["modules"]}
        assert states["soft"]["state"] == "up"
        assert states["broken"]["state"] == "down"
        assert "wrong ELF header" in states["broken"]["last_error"] or "file too short" in states["broken"]["last_error"]
        with pytest.raises(KeyStoreError, match="broken"):
            await store.find(URI + "?module-name=broken")
        assert any(info.kind == "module" and "broken" in info.label for info in await store.list())

    fake = hsm.directory / "broken.so"
    fake.write_text("this is no library")
    hsm.use(work, hsm.module(), {"path": str(fake)})


def test_a_library_that_is_no_pkcs11_module_is_reported(hsm: Any) -> None:
    async def work(store: Any) -> None:
        assert "no PKCS #11 module" in (await store.status())["modules"][0]["last_error"]

    hsm.use(work, path="/lib/x86_64-linux-gnu/libz.so.1", name="zlib")


def test_a_worker_that_dies_each_time_is_started_ever_more_seldom() -> None:
    async def main() -> list[float]:
        module = Module(module_settings("row", {"path": "/nowhere.so"}))
        delays = []
        for _ in range(10):
            module._note_loss("it died")
            delays.append(round(module._delay(), 2))
        return delays

    # the first one is free
    assert asyncio.run(main()) == [0, 0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_module_that_keeps_failing_is_said_to_be_down_at_once(hsm: Any) -> None:
    async def work(store: Any) -> None:
        key = await store.find(URI)
        module = hsm.inner(store)
        module._losses = 8
        os.kill(module.present.pid, signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(KeyStoreError, match="next try is in"):
                await key.sign(0x0403, b"x")
        status = (await store.status())["modules"][0]
        assert status["state"] == "down"
        assert status["next_try_in"] > 1
        # an operator does not wait
        await store.rescan()
        assert await works(key)

    hsm.use(work)


def test_a_caller_that_gives_up_disturbs_nobody(hsm: Any) -> None:
    async def work(store: Any) -> None:
        key = await store.find(URI)
        waiting = [asyncio.create_task(key.sign(0x0403, b"x")) for _ in range(10)]
        await asyncio.sleep(0)
        for task in waiting[::2]:
            task.cancel()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, bytes) for result in results[1::2])
        await many(key, 20)
        assert hsm.inner(store).restarts == 0

    hsm.use(work)


def test_a_worker_that_speaks_nonsense_is_replaced(hsm: Any) -> None:
    async def work(store: Any) -> None:
        key = await store.find(URI)
        worker = hsm.inner(store).present
        # as if the token library had written into the socket
        list(worker._frames.feed(b"\xff" * 8))
        assert await works(key)
        assert "protocol" in worker.gone

    hsm.use(work)


def test_nothing_is_left_behind_after_stop(hsm: Any) -> None:
    pids: list[int] = []
    before = len(list(Path("/proc/self/fd").iterdir()))

    async def work(store: Any) -> None:
        for _ in range(3):
            await store.rescan()
            pids.append(hsm.inner(store).present.pid)

    hsm.use(work)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_after_stop_every_request_is_an_error(hsm: Any) -> None:
    async def work(store: Any) -> None:
        key = await store.find(URI)
        await store.stop()
        with pytest.raises(KeyStoreError):
            await key.sign(0x0403, b"x")
        with pytest.raises(KeyStoreError):
            await store.find(URI)

    hsm.use(work)


class _Hung:
    """A process that takes the socket and does nothing."""

    pid = 0

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel

    def kill(self) -> None:
        self.channel.close()

    def wait(self) -> int:
        return -signal.SIGKILL


def test_a_library_that_hangs_while_it_loads_keeps_neither_the_pool_nor_other_keys_waiting(
    hsm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = client._spawn

    def spawn(settings: Any, channel: socket.socket) -> Any:
        return _Hung(channel.dup()) if settings.name == "hung" else real(settings, channel)

    monkeypatch.setattr(client, "_spawn", spawn)
    monkeypatch.setattr(module_room, "_START_PATIENCE", 0.3)

    async def work(store: Any) -> None:
        async with asyncio.timeout(20):
            states = ["starting", "up"]  # of worker processes, which have no event
            while [module["state"] for module in (await store.status())["modules"]] != states:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert await works(await store.find(URI))
        assert (await store.status())["modules"][0]["state"] == "starting"

    hsm.use(work, hsm.module(name="hung"), hsm.module())
