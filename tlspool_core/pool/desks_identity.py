"""The identity desk: a program that chooses whom to be towards a remote, and may have the choice remembered.

Theory of operation
-------------------
A client that names no local identity has it chosen when the remote asks for one: by the desk if one is registered, else by the
disclosure database.  The desk is first shown what the database offers, one callback for each entry, each answered by its echo; then it
is asked, and answers with an identity, or with none to show nothing.  By its SKIP flags a desk leaves to the database what that
decides concretely enough.

The choice may come with a wish to change the database for the remote, or for a selector that covers it and is at most `maxlevels` steps
up.  That is done once the handshake has succeeded, and in TLS 1.3 once the server has shown that it accepts us, so a choice that does not
work is not remembered.

A desk decides for the sessions of its own user; one of root's, or of the user that the pool runs as, decides for everybody's, and only
such a one may change the database, which is everybody's too.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlspool_core.identity import DoNAI, InvalidIdentity, Selector
from tlspool_core.interfaces import ConfigBackend
from tlspool_core.policy.disclosure import disclosed
from tlspool_core.pool.desks import Holder, NobodyThere, person_time
from tlspool_core.pool.logs import say
from tlspool_core.wire.errors import ErrorCode, WireError
from tlspool_core.wire.flags import LidentryFlags
from tlspool_core.wire.messages import LidentryCallback, LidentryRegister

if TYPE_CHECKING:
    from tlspool_core.pool.core import Pool

log = logging.getLogger("tlspool.desks")

_CHANGES = LidentryFlags.DBINSERT | LidentryFlags.DBAPPEND | LidentryFlags.DBREORDER
_MOST_ENTRIES = 64  # that a desk is shown
_LOOK_AGAIN = 0.2  # seconds, while an identity is being created
_LONGEST = 600.0  # seconds for a desk with another worker, and for the creation of an identity

Found = tuple[str, tuple[DoNAI, ...]] | None  # what the disclosure database has: selector and identities


@dataclass(frozen=True, slots=True)
class Choice:
    """What a desk answered: whom to be, and what to remember (`selector` is None: nothing)."""

    identity: DoNAI
    selector: str | None
    flags: LidentryFlags

    @property
    def onthefly(self) -> bool:
        return bool(self.flags & LidentryFlags.ONTHEFLY)


# --- whether to ask ---------------------------------------------------------------------------------------------------------------


def desk_for(pool: Pool, uid: int) -> Holder | None:
    """The desk of this process that decides for the sessions of a user."""
    holder = pool.desks.identities.holder
    if holder is None or not (_for_everybody(holder) or holder.client.process.uid == uid):
        return None
    return holder


def _for_everybody(holder: Holder) -> bool:
    return holder.client.process.uid in (0, os.geteuid())


def may_skip(flags: LidentryFlags, remote: DoNAI, selector: str) -> bool:
    """Whether a desk that registered with `flags` leaves the decision to a database entry under this selector."""
    if not flags & LidentryFlags.SKIP_DBENTRY:
        return False
    found = Selector.parse(selector, user_case_counts=True)
    wants = int(flags) & ~int(LidentryFlags.SKIP_DBENTRY)
    levels = _levels_up(remote, found)
    same, oneup = wants & LidentryFlags.SKIP_DOMAIN_SAME, wants & LidentryFlags.SKIP_DOMAIN_ONEUP
    if (same or oneup) and not ((same and levels == 0) or (oneup and levels == 1)):
        return False
    if wants & LidentryFlags.SKIP_USER and remote.user is not None and not found.user:
        return False
    return not (wants & LidentryFlags.SKIP_NOTROOT and found.domain == ".")


def _levels_up(remote: DoNAI, found: Selector) -> int:
    """How many labels of the remote's domain a selector leaves open."""
    if not found.domain.startswith("."):
        return 0
    kept = found.domain.strip(".")
    return len(remote.domain.split(".")) - (len(kept.split(".")) if kept else 0)


# --- asking -----------------------------------------------------------------------------------------------------------------------


async def choose(pool: Pool, remote: DoNAI, uid: int) -> Choice | None:
    """Whom to be towards a remote in a session of a user; None: nobody.

    Raises NobodyThere if the database is to decide, WireError if the desk does not answer, or not in order.
    """
    with person_time():
        try:
            return await _choose_here(pool, remote, uid)
        except NobodyThere:
            if pool.mesh is None:
                raise
            return await _choose_elsewhere(pool, remote, uid)


async def _choose_elsewhere(pool: Pool, remote: DoNAI, uid: int) -> Choice | None:
    """The same by another worker's desk. The question carries the user in place of a time limit."""
    answer = await pool.desks.elsewhere(LidentryCallback(timeout=uid, remoteid=str(remote)), _LONGEST)
    assert isinstance(answer, LidentryCallback)
    if not answer.localid:
        return None
    return Choice(DoNAI.parse(answer.localid, user_case_counts=True), answer.remoteid or None, answer.flags)


async def choose_for_sibling(pool: Pool, question: LidentryCallback) -> LidentryCallback:
    """What another worker asks. Raises WireError."""
    remote = DoNAI.parse(question.remoteid, user_case_counts=True)
    choice = await _choose_here(pool, remote, question.timeout)
    if choice is None:
        return LidentryCallback()
    return LidentryCallback(choice.flags, localid=str(choice.identity), remoteid=choice.selector or "")


async def _choose_here(pool: Pool, remote: DoNAI, uid: int) -> Choice | None:
    async with pool.desks.identities.lock:
        holder = desk_for(pool, uid)
        if holder is None:
            raise NobodyThere("no program that chooses local identities is registered")
        with pool.backend.read() as databases:
            found = disclosed(databases, remote)
        registration = holder.exchange.request
        assert isinstance(registration, LidentryRegister)
        if found is not None and may_skip(registration.flags, remote, found[0]):
            raise NobodyThere("the disclosure database decides")
        try:
            return await _ask(pool, holder, registration, remote, found)
        except WireError as error:
            if error.code == ErrorCode.CALLBACK_TIMEOUT:
                raise WireError(ErrorCode.LIDENTRY_TIMEOUT) from None
            raise WireError(ErrorCode.LIDENTRY_REFUSED, f"No local identity was chosen: {error.text}") from None


async def _ask(pool: Pool, holder: Holder, registration: LidentryRegister, remote: DoNAI, found: Found) -> Choice | None:
    """Show the entries, then ask. Raises WireError."""
    selectors = remote.selectors()
    flags = registration.flags & LidentryFlags.REGISTRATION_MASK
    seconds = max(1, round(holder.patience))
    if found is not None and registration.flags & LidentryFlags.WANT_DBENTRY:
        selector, identities = found
        entry = LidentryCallback(flags | LidentryFlags.DBENTRY, selectors.index(selector), seconds, "", selector)
        for identity in identities[:_MOST_ENTRIES]:
            await pool.desks.identities.ask(holder, entry.echo(localid=str(identity)))
    levels = min(registration.maxlevels, len(selectors) - 1)
    question = LidentryCallback(flags, levels, seconds, "", str(remote))
    answer = await pool.desks.identities.ask(holder, question)
    assert isinstance(answer, LidentryCallback)
    return _choice(pool, holder, answer, selectors[: levels + 1])


def _choice(pool: Pool, holder: Holder, answer: LidentryCallback, selectors: Sequence[str]) -> Choice | None:
    """What an answer says. Raises WireError if it is out of order."""
    if not answer.localid:
        return None
    case = pool.config.policy.user_case_counts
    try:
        identity = DoNAI.parse(answer.localid, user_case_counts=case)
        if not answer.flags & _CHANGES:
            return Choice(identity, None, answer.flags)
        selector = str(Selector.parse(answer.remoteid, user_case_counts=case))
    except InvalidIdentity as error:
        raise WireError(ErrorCode.BAD_CALLBACK_RESPONSE, str(error)) from None
    if selector not in selectors:
        raise WireError(ErrorCode.BAD_CALLBACK_RESPONSE, f"{selector} was not offered as a selector")
    if not _for_everybody(holder):
        say(log, logging.WARNING, "a desk of this user may not change the database", uid=holder.client.process.uid)
        return Choice(identity, None, answer.flags)
    return Choice(identity, selector, answer.flags)


# --- afterwards -------------------------------------------------------------------------------------------------------------------


async def wait_for(pool: Pool, identity: DoNAI) -> None:
    """Until an identity that is being created is there, or the time for it has passed."""
    with person_time():
        end = pool.loop.time() + _LONGEST
        # the database is changed by another process, which tells nobody
        while pool.credentials.identity(identity) is None and pool.loop.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_AGAIN)


def remember(backend: ConfigBackend, choice: Choice) -> None:
    """Change the disclosure database as the choice says; may block. Raises ConfigError."""
    if choice.selector is None:
        return
    with backend.write() as databases:
        identities = list(databases.disclose(choice.selector) or ())
        if choice.identity in identities:
            if not choice.flags & LidentryFlags.DBREORDER:
                return
            identities.remove(choice.identity)
        if choice.flags & LidentryFlags.DBAPPEND and not choice.flags & LidentryFlags.DBINSERT:
            identities.append(choice.identity)
        elif choice.flags & LidentryFlags.DBINSERT:
            identities.insert(0, choice.identity)
        else:  # an order without a place is no order
            return
        databases.put_disclose(choice.selector, identities)
