"""Authentication, authorisation and accounting by rules of the site."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tlspool_core.identity import DoNAI
from tlspool_core.interfaces.common import Denied, Measurement


@dataclass(frozen=True, slots=True)
class AaaRequest:
    """Who wants what: asked once the peer's identity is known, before the application gets plaintext.

    With `proven` false the peer has only claimed `remote_identity`: policy still looks at it, and a session needs both answers. Anybody
    can claim anything, so nothing may follow from such a request but its answer (no locked account, no count).
    """

    session_id: str
    role: str
    service: str
    local_identity: DoNAI | None  # a client's: whom it will be if asked; for another that is chosen then, there is another request
    remote_identity: DoNAI | None
    credential_type: str
    peer_address: str
    local_address: str
    step: str = "authorization"  # or "authentication": which of the configured steps asks
    proven: bool = True


@dataclass(frozen=True, slots=True)
class AaaDecision:
    """Permission, with limits. A refusal is raised as Denied. Raises ValueError for what limits nothing: then there is no permission."""

    session_timeout: float | None = None  # seconds
    idle_timeout: float | None = None
    classes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        for limit in (self.session_timeout, self.idle_timeout):
            if limit is not None and not 0 < limit < math.inf:
                raise ValueError(f"a limit is a number of seconds above 0, or None, not {limit}")


@dataclass(frozen=True, slots=True)
class AccountingRecord:
    """One accounting event, of an application or of the pool's own sessions.

    `record_id` is unique for each thing that is accounted, `sequence` for each event of it.  A record that may not have been taken
    (time-out, Denied) can be handed over again with the same two, and is still to be counted once.  The pool's own sessions have
    the kind "session", and an identity that was not established is None.

    `attributes` that the pool knows: "session", "service", "role", "credential_type", "peer_address" (texts),
    "classes" (tuple of bytes: `AaaDecision.classes`), and in a stop "cause" (Acct-Terminate-Cause, RFC 2866 section 5.10) and, of
    sessions, "octets_in" (from the peer) and "octets_out".
    """

    event: str  # "start", "interim", "stop"
    record_id: str
    kind: str
    instance: str
    local_identity: DoNAI | None
    remote_identity: DoNAI | None
    started: float  # seconds since the epoch
    ended: float | None = None
    count: int | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    sequence: int = 0


class Aaa(ABC):
    """Site rules on top of what the pool demands, and accounting."""

    name: str

    async def start(self, settings: Mapping[str, Any]) -> None:  # noqa: B027 - optional to override
        """Open sockets and queues."""

    @abstractmethod
    async def authorize(self, request: AaaRequest) -> AaaDecision:
        """Permit, or raise Denied. Any other exception, or a time-out, is a denial too."""

    async def account(self, record: AccountingRecord) -> None:
        """Take over responsibility for the record: once this returns, it must survive a restart. Raises Denied if it was not taken.

        A record that nobody else could repeat (a stop) is handed over again for up to a day; if it can never be taken, raise
        Denied with `final`.
        """
        raise Denied(f"{self.name} does no accounting", final=True)

    def measurements(self) -> Sequence[Measurement]:
        """Numbers for monitors, as they are now; must not block."""
        return ()

    async def stop(self) -> None:  # noqa: B027 - optional to override
        """Close."""
