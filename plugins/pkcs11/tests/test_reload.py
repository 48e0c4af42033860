"""Do changed settings hold after a reload, without a restart and without disturbing those who hold keys?"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from tlspool_pkcs11.module import Module

from tlspool_core.api import KeyStoreError, Secret
from tlspool_core.testing.keystore import holds

URI = "pkcs11:token=Web;object=p256"
PIN = b"123456"


async def works(key: Any, content: bytes = b"content") -> bool:
    return holds(key.public_key, 0x0403, content, await key.sign(0x0403, content))


async def reload(store: Any, *rows: dict[str, Any]) -> None:
    """What the daemon does, once it has read these rows."""
    assert store.configure({"modules": [*rows]})
    await store.rescan()


def test_a_pin_file_that_is_named_later_opens_the_token(hsm: Any) -> None:
    async def work(store: Any) -> None:
        with pytest.raises(KeyStoreError, match="no PIN is configured"):
            await store.find(URI)
        await reload(store, hsm.module())
        assert await works(await store.find(URI))

    hsm.use(work, pin_file=None)


def test_a_key_that_is_held_goes_on_in_a_module_that_keeps_its_name(hsm: Any) -> None:
    async def work(store: Any) -> None:
        key = await store.find(URI)
        module, pid = hsm.inner(store), hsm.inner(store).present.pid
        signing = [asyncio.create_task(works(key, bytes([number]))) for number in range(50)]
        await asyncio.sleep(0)
        await reload(store, hsm.module(timeout=77))
        assert all(await asyncio.gather(*signing))
        assert await works(key)
        assert hsm.inner(store) is module
        assert module.present.pid != pid
        assert module.present.settings.timeout == 77

    hsm.use(work)


def test_modules_come_and_go(hsm: Any) -> None:
    async def work(store: Any) -> None:
        old = await store.find(URI)
        leaving, pid = hsm.inner(store), hsm.inner(store).present.pid
        departed = asyncio.create_task(store.departure([URI + "?module-name=soft"]))
        await asyncio.sleep(0)
        await reload(store, hsm.module(name="other"))
        assert await works(await store.find(URI + "?module-name=other"))
        with pytest.raises(KeyStoreError):
            await store.find(URI + "?module-name=soft")
        with pytest.raises(KeyStoreError, match="configured no more"):
            await old.sign(0x0403, b"content")
        # sessions that depend on its keys end
        assert await asyncio.wait_for(departed, 30) == {URI + "?module-name=soft"}
        assert [module["name"] for module in (await store.status())["modules"]] == ["other"]
        assert leaving.present is None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    hsm.use(work)


def test_reloads_may_overtake_each_other(hsm: Any) -> None:
    async def work(store: Any) -> None:
        leaving = hsm.inner(store)
        first = asyncio.create_task(reload(store, hsm.module(name="second")))
        await asyncio.sleep(0)
        await asyncio.gather(first, reload(store, hsm.module(name="second"), hsm.module(name="third")))
        assert [module["state"] for module in (await store.status())["modules"]] == ["up", "up"]
        assert leaving.present is None

    hsm.use(work)


def test_a_module_leaves_although_nobody_waits_until_another_one_starts(hsm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon waits for a plugin no longer than its limit."""
    begun = asyncio.Event()

    async def hang(_: Module) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def work(store: Any) -> None:
        leaving = hsm.inner(store)
        monkeypatch.setattr(Module, "rescan", hang)
        reloading = asyncio.create_task(reload(store, hsm.module(name="other")))
        await begun.wait()
        reloading.cancel()
        async with asyncio.timeout(30):
            while leaving.present is not None:  # noqa: ASYNC110 - a module has no event
                await asyncio.sleep(0.001)

    hsm.use(work)


def test_a_store_that_stops_ends_what_is_leaving(hsm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(*_: Any) -> None:
        await asyncio.Event().wait()

    async def work(store: Any) -> None:
        leaving = hsm.inner(store)
        monkeypatch.setattr(leaving.present, "drained", busy)
        reloading = asyncio.create_task(reload(store, hsm.module(name="other")))
        async with asyncio.timeout(30):
            while not store._leaving:  # noqa: ASYNC110 - a store has no event
                await asyncio.sleep(0.001)
            await store.stop()
            await reloading
        assert leaving.present is None

    hsm.use(work)


@pytest.mark.parametrize("fault", [{"pth": "x"}, {"timeout": -1}, {"login": "perhaps"}])
def test_a_fault_changes_nothing(hsm: Any, fault: dict[str, Any]) -> None:
    async def work(store: Any) -> None:
        with pytest.raises(ValueError, match=next(iter(fault))):
            store.configure({"modules": [hsm.module(**fault)]})
        await store.rescan()
        assert await works(await store.find(URI))

    hsm.use(work)


def test_nothing_changes_before_the_rescan(hsm: Any) -> None:
    async def work(store: Any) -> None:
        key = await store.find(URI)
        pid = hsm.inner(store).present.pid
        store.configure({"modules": [hsm.module(timeout=77)]})
        assert await works(key)
        assert hsm.inner(store).present.pid == pid
        assert hsm.inner(store).settings.timeout != 77

    hsm.use(work)


@pytest.mark.parametrize("remembers", [True, False])
def test_a_pin_that_is_to_be_remembered_no_more_is_asked_for_again(hsm: Any, remembers: bool) -> None:
    asked = []

    async def person(request: Any) -> Secret:
        asked.append(request.label)
        return Secret.of(PIN)

    async def work(store: Any) -> None:
        assert await works(await store.find(URI))
        await reload(store, hsm.module(pin_file=None, remember_pin=remembers, timeout=77))
        assert await works(await store.find(URI))
        assert asked == ["Web"] * (1 if remembers else 2)

    hsm.use(work, ask=person, pin_file=None)
