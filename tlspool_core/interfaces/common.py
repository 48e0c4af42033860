"""What all kinds of plugin share: a refusal, and the roles in which something may be used."""

from __future__ import annotations

from enum import Flag, auto


class Denied(Exception):
    """A plugin refuses: the text goes to the application and the log, so it names who refused and why, without secrets.

    `final`: it will not do otherwise if it is asked the same again, so nobody need try. Whoever does not know leaves it.
    """

    def __init__(self, reason: str = "", *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class Role(Flag):
    """The role in TLS in which a credential or trust record may be used."""

    CLIENT = auto()
    SERVER = auto()
    BOTH = CLIENT | SERVER
