"""What all kinds of plugin share: a refusal, and the roles in which something may be used."""

from __future__ import annotations

from enum import Flag, auto


class Denied(Exception):
    """A plugin refuses: the text goes to the application and the log, so it names who refused and why, without secrets."""


class Role(Flag):
    """The role in TLS in which a credential or trust record may be used."""

    CLIENT = auto()
    SERVER = auto()
    BOTH = CLIENT | SERVER
