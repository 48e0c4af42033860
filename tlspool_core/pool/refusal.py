"""A decision against a session."""

from __future__ import annotations

from tlspool_core.identity import DoNAI
from tlspool_core.tls.alerts import TlsError
from tlspool_core.wire.errors import WireError
from tlspool_core.wire.messages import MAX_IDENTITY


class Refusal(Exception):
    """`alert` is for the peer, and says little; `error` is for the application, and says why."""

    def __init__(self, alert: TlsError, error: WireError) -> None:
        super().__init__(error.text)
        self.alert = alert
        self.error = error


def too_long(whose: str, identity: DoNAI | None) -> str:
    """Why an identity ("local" or "remote") has no room in a packet; empty if it has. Peers choose names, and databases may hold any."""
    size = len(str(identity or "").encode())
    return (
        f"The {whose} identity has {size} bytes, and no more than {MAX_IDENTITY} can be told to an application"
        if size > MAX_IDENTITY
        else ""
    )
