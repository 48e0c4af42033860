"""A decision against a session."""

from __future__ import annotations

from tlspool_core.tls.alerts import TlsError
from tlspool_core.wire.errors import WireError


class Refusal(Exception):
    """`alert` is for the peer, and says little; `error` is for the application, and says why."""

    def __init__(self, alert: TlsError, error: WireError) -> None:
        super().__init__(error.text)
        self.alert = alert
        self.error = error
