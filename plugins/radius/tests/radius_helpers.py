"""The plugin started with a section, and sessions to ask about."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tlspool_radius.aaa import RadiusAaa

from tlspool_core.api import AaaRequest, DoNAI


@asynccontextmanager
async def plugin(section: dict[str, Any]) -> AsyncIterator[RadiusAaa]:
    """The plugin, started."""
    made = RadiusAaa()
    await made.start(section)
    try:
        yield made
    finally:
        await made.stop()


def request(user: str = "john", step: str = "authorization", **more: Any) -> AaaRequest:
    """A session of user@example.com."""
    identity = DoNAI("example.com", user or None)
    values = {
        "session_id": "s-1",
        "role": "server",
        "service": "http",
        "local_identity": DoNAI("www.example.com"),
        "remote_identity": identity,
        "credential_type": "x509",
        "peer_address": "192.0.2.7:4711",
        "local_address": "192.0.2.1:443",
        "step": step,
    }
    return AaaRequest(**(values | more))
