"""What all kinds of plugin share: a refusal, and the roles in which something may be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Flag, auto


class Denied(Exception):
    """A plugin refuses: the text goes to the application and the log, so it names who refused and why, without secrets.

    `final`: it will not do otherwise if it is asked the same again, so nobody need try. Whoever does not know leaves it.
    """

    def __init__(self, reason: str = "", *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number for monitors, shown as `tlspool_PLUGIN_NAME`. It is nobody's secret, and names no identity.

    `name` is of a-z, 0-9 and `_`, and ends with `_total` if it only ever grows; units are seconds, octets, or things. `help` is one sentence.
    `labels` tell several numbers of one name apart; few values, as each is kept for ever by those who ask.
    """

    name: str
    value: float
    help: str
    labels: Mapping[str, str] = field(default_factory=dict)


class Role(Flag):
    """The role in TLS in which a credential or trust record may be used."""

    CLIENT = auto()
    SERVER = auto()
    BOTH = CLIENT | SERVER
