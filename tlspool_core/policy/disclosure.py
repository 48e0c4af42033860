"""Which local identities a client may show to a remote.

Theory of operation
-------------------
The disclosure database maps selectors of remote identities to lists of local ones.  The most concrete selector that has an entry
wins, also if its list is empty: "show nothing to these" is an entry.  Without any entry the answer is None, and then it is for the
program that chooses identities, if one is registered; nothing is shown otherwise.
"""

from __future__ import annotations

from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import ConfigReader

__all__ = ["disclosed", "may_disclose"]


def disclosed(reader: ConfigReader, remote: DoNAI, *, for_users: bool = False) -> tuple[str, tuple[DoNAI, ...]] | None:
    """The selector that decides, and the local identities in order of preference; None if there is no entry for this remote.

    `for_users` if the remote is a domain that represents its users: it is then looked up as `@domain`. Raises ConfigError.
    """
    for selector in remote.selectors(for_users=for_users):
        identities = reader.disclose(selector)
        if identities is not None:
            return selector, identities
    return None


def may_disclose(reader: ConfigReader, remote: DoNAI, local: DoNAI, *, for_users: bool = False) -> bool:
    """Whether this local identity may be shown to the remote. Raises ConfigError."""
    found = disclosed(reader, remote, for_users=for_users)
    return found is not None and local in found[1]
