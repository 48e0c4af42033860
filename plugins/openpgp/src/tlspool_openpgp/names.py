"""Identities out of user ids.

Theory of operation
-------------------
A user id is free text, by custom `Name (comment) <user@domain>`.  What stands between angle brackets at its end is the identity; a
server's is `<@domain>`.  A user id that is nothing but an address counts too.  Anything else names nobody: there is no guessing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tlspool_core.api import DoNAI, InvalidIdentity

_BRACKETS = re.compile(r"(?:[^<>]*[^<>\S])?<([^<>\s]*@[^<>\s@]+)>")
_BARE = re.compile(r"[^<>\s\"(),]*@[^<>\s@\"(),]+")


def identity_of(user_id: str, *, user_case_counts: bool = False) -> DoNAI | None:
    """The identity that a user id names, None if it names none."""
    found = _BRACKETS.fullmatch(user_id)
    address = found[1] if found else user_id if _BARE.fullmatch(user_id) else ""
    try:
        return DoNAI.parse(address.removeprefix("@"), user_case_counts=user_case_counts) if address else None
    except InvalidIdentity:
        return None


def identities_of(user_ids: Iterable[str], *, user_case_counts: bool = False) -> tuple[DoNAI, ...]:
    """Users first, then domains; each once."""
    found = [one for text in user_ids if (one := identity_of(text, user_case_counts=user_case_counts)) is not None]
    return tuple(sorted(dict.fromkeys(found), key=lambda one: one.user is None))
