"""Does the pool go on, and refuse, while RADIUS hangs; and do many sessions at once stay within bounds?"""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest
from freeradius import FreeRadius
from radius_helpers import plugin, request
from tlspool_radius.packets import Request

from tlspool_core.api import Denied
from tlspool_core.pool.aaa import SiteRules


def section(server: FreeRadius) -> dict[str, object]:
    return {"server": {"one": server.section()}, "authorization": {"servers": ["one"]}}


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_decoder_that_hangs_refuses_and_stops_nothing_else(server: FreeRadius, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = 0

    async def main() -> None:
        nonlocal turns
        async with plugin(section(server)) as started:
            monkeypatch.setattr(Request, "read", lambda self, data: time.sleep(1))
            rules = SiteRules({"radius": started}, [("authorization", ["radius"])], 0.3)
            asked = asyncio.ensure_future(rules.permit(request()))
            while not asked.done():
                await asyncio.sleep(0.005)
                turns += 1
            with pytest.raises(Denied, match="no answer in time"):
                asked.result()

    asyncio.run(main())
    assert turns > 10


def test_more_sessions_at_once_than_places_all_get_their_answer(server: FreeRadius) -> None:
    async def main() -> int:
        async with plugin(section(server)) as started:
            await asyncio.gather(*(started.authorize(request()) for _ in range(400)))
            await asyncio.sleep(0.05)
            return descriptors()

    assert asyncio.run(main()) < 100


def test_the_thread_ends_with_the_plugin(server: FreeRadius) -> None:
    async def main() -> None:
        async with plugin(section(server)) as started:
            await started.authorize(request())
            assert any(thread.name == "radius" for thread in threading.enumerate())

    asyncio.run(main())
    assert not any(thread.name == "radius" for thread in threading.enumerate())


def test_a_pool_that_gives_up_waiting_leaves_nothing_behind(server: FreeRadius) -> None:
    async def main() -> None:
        async with plugin(section(server)) as started:
            before = descriptors()
            for _ in range(20):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.005):
                        await started.authorize(request("mute"))
            await started.authorize(request())
            await asyncio.sleep(0.05)
            assert descriptors() <= before + 1

    asyncio.run(main())
