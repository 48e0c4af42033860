"""Does RADIUS do what every AAA plugin has to do?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from freeradius import FreeRadius
from radius_helpers import plugin

from tlspool_core.testing.aaa import AaaConformance, AaaUnderTest, aaa_request


class TestRadius(AaaConformance):
    @pytest.fixture(autouse=True)
    def _keep(self, server: FreeRadius, tmp_path: Path) -> None:
        self.server, self.queue = server, tmp_path / "queue"

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[AaaUnderTest]:
        function = {"servers": ["one"]}
        section = {"queue": str(self.queue), "server": {"one": self.server.section()}}
        async with plugin(section | dict.fromkeys(("authentication", "authorization", "accounting"), function)) as rules:
            yield AaaUnderTest(rules, aaa_request("john@example.com"), aaa_request("eve@example.com"), accounts=True)
