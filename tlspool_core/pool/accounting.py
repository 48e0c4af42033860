"""Accounting: what applications count to the identities of a session, and the pool's own sessions.

Theory of operation
-------------------
The configured plugins take over each record; an application has its answer when all of them have.  Whoever controls a session may
account to the identities that it proved, so accounting can only begin once the handshake is complete.  What a session has open is
its `Book`: one `Item` for each kind and instance, whose events go out one after the other, in the order in which they came.

A plugin that fails or is silent may have taken the record nevertheless.  So an event that failed is remembered, and if the application
asks for it again, the very same record is handed over; plugins know it by its number.  A START of what is open already is
answered like the first one, and counts nothing.

A book outlives its session, as an application reports its final count after the connection has ended.  When the application has gone
too, or has given up control, what is still open is stopped on its behalf with the last count that it told, so that nothing is open
for ever.  Nobody could repeat such a stop, or that of a session of the pool's own; so the desk does, until the plugins have taken it,
say that they never will, or a day has passed, or the pool stops; what is lost then stands in the log.  A start that was refused for good
by the first that was asked was taken by nobody, and needs no stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import Aaa, AccountingRecord, Denied
from tlspool_core.pool.logs import say
from tlspool_core.wire.errors import ErrorCode, WireError
from tlspool_core.wire.messages import Accounting, AccountingInterim, AccountingStart, AccountingStop

if TYPE_CHECKING:
    from tlspool_core.pool.session import Session

log = logging.getLogger("tlspool.accounting")

SESSION_KIND: Final = "session"  # of the pool's own records
LOST_SERVICE: Final = 3  # Acct-Terminate-Cause (RFC 2866 section 5.10), as are the values below
_CAUSES: Final = {
    "closed": 1,
    "idle timeout": 4,
    "session timeout": 5,
    "pool stopped": 6,
    "application gone": LOST_SERVICE,
    "key gone": LOST_SERVICE,
}
_LOST_CARRIER: Final = 2  # any other end of a session is a failure of its connection
_OPEN_ITEMS: Final = 256  # for one session
_LINGERING: Final = 1024  # books without a session, for one client
_PAUSE: Final = (1.0, 60.0)  # seconds until a record that nobody else repeats is handed over again: the first, and the longest
_LONGEST: Final = 86_400.0  # seconds for which that is done
_PUT_OFF: Final = 10_000  # of these at a time; more than that are lost, and the log says so
_FLUSH: Final = 10.0  # seconds to hand over what is to be written when the pool stops


class _NotTaken(Denied):
    """A plugin did not take a record. `takers` are those that have, or may have, taken it nevertheless."""

    def __init__(self, reason: str, takers: Sequence[Aaa], *, final: bool) -> None:
        super().__init__(reason, final=final)
        self.takers = takers


@dataclass(slots=True)
class Item:
    """One thing that is being accounted. Times in microseconds since the epoch."""

    record_id: str
    local: DoNAI
    remote: DoNAI
    started: int
    count: int | None
    attributes: dict[str, Any]  # of the session as it was then
    opened: bool = False
    sequence: int = 0
    unsure: tuple[Accounting, AccountingRecord] | None = None  # a request that failed, and the record that may have been taken


@dataclass(slots=True)
class Book:
    """What is open under one control key, and who may write into it once the session has ended."""

    attributes: dict[str, Any]  # of the session as it is now
    local: DoNAI | None = None  # whom the session proves now; an item keeps whom it proved at its start
    remote: DoNAI | None = None
    owner: object = None  # set when the session ends
    ended: bool = False
    items: dict[tuple[str, str], Item] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


def attributes_of(session: Session) -> dict[str, Any]:
    """What plugins are told about the session that something is accounted to."""
    return {
        "session": session.id,
        "service": session.request.service,
        "role": session.role,
        "credential_type": session.peer_type.name if session.peer_type else "",
        "peer_address": session.peer_address,
        "classes": session.decision.classes,
    }


def _reads_as_a_session(request: Accounting) -> bool:
    """Whether a person or a server that is told kind and instance would take it for one of the pool's own sessions."""
    words = "".join(character if character.isprintable() else " " for character in f"{request.kind} {request.instance}").split()
    return words[:1] == [SESSION_KIND]


def now() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


class AccountingDesk:
    """All accounting of one process."""

    def __init__(self) -> None:
        self._plugins: Sequence[Aaa] = ()
        self._time_limit = 0.0
        self._sessions = False
        self._books: dict[bytes, Book] = {}
        self._lingering: dict[object, set[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()

    def configure(self, plugins: Sequence[Aaa], sessions: bool, time_limit: float) -> None:
        """`plugins` take every record, each within `time_limit` seconds; `sessions`: the pool's own are accounted, too."""
        self._plugins, self._sessions, self._time_limit = plugins, sessions and bool(plugins), time_limit

    # --- what applications ask for -------------------------------------------------------------------------------------------

    async def begin(self, session: Session, request: Accounting) -> Accounting:
        """Serve a request for a session that is running. Raises WireError."""
        book = self._books.get(request.ctlkey)
        if book is not None and book.ended:  # of an earlier session, whose control key was used again
            self._abandon(request.ctlkey, book)
            book = None
        if book is None:
            book = Book({})
            if isinstance(request, AccountingStart):
                self._books[request.ctlkey] = book
        book.attributes = attributes_of(session)
        book.local, book.remote = session.identity(session.local), session.identity(session.remote)
        return await self._serve(book, request)

    async def resume(self, request: Accounting, controller: object) -> Accounting:
        """Serve a request for a session that has ended. Raises WireError; CTLKEY_NOT_FOUND if it left nothing open."""
        book = self._books.get(request.ctlkey)
        if book is None or not book.ended:
            raise WireError(ErrorCode.CTLKEY_NOT_FOUND, "No session has this control key")
        if book.owner != controller:
            raise WireError(ErrorCode.CTLKEY_NOT_YOURS, "This session was not under your control when it ended")
        if isinstance(request, AccountingStart):
            raise WireError(ErrorCode.CTLKEY_NOT_FOUND, "The session has ended: nothing new can be accounted to it")
        answer = await self._serve(book, request)
        if not book.items:
            self._drop(request.ctlkey, book)
        return answer

    async def _serve(self, book: Book, request: Accounting) -> Accounting:
        if not self._plugins:
            raise WireError(ErrorCode.ACCOUNTING_UNAVAILABLE)
        async with book.lock:
            name = (request.kind, request.instance)
            item = self._item(book, name, request)
            if (request.localid, request.remoteid) != (str(item.local), str(item.remote)):
                raise WireError(ErrorCode.ACCOUNTING_IDENTITY)
            ended = None
            if not (isinstance(request, AccountingStart) and item.opened):
                ended = await self._event(book, name, item, request)
            return request.echo(started=item.started, ended=ended)

    def _item(self, book: Book, name: tuple[str, str], request: Accounting) -> Item:
        """The open item that a request means, or the one that it begins. Raises WireError."""
        item = book.items.get(name)
        if item is not None and (item.opened or isinstance(request, AccountingStart)):
            return item
        if not isinstance(request, AccountingStart):
            raise WireError(ErrorCode.ACCOUNTING_UNKNOWN)
        if _reads_as_a_session(request):
            raise WireError(ErrorCode.ACCOUNTING_UNAVAILABLE, f'The kind "{SESSION_KIND}" is for what the TLS Pool itself accounts')
        if len(book.items) >= _OPEN_ITEMS:
            raise WireError(ErrorCode.LIMIT_REACHED, f"A session accounts for at most {_OPEN_ITEMS} things at a time")
        if book.local is None or book.remote is None or (request.localid, request.remoteid) != (str(book.local), str(book.remote)):
            raise WireError(ErrorCode.ACCOUNTING_IDENTITY)
        started = now() if request.started is None else request.started
        item = book.items[name] = Item(os.urandom(12).hex(), book.local, book.remote, started, request.count, book.attributes)
        return item

    async def _event(self, book: Book, name: tuple[str, str], item: Item, request: Accounting) -> int | None:
        """Hand over one event, and note that it was taken; the end, if it is one. Raises WireError if it was not taken."""
        if item.unsure is None or item.unsure[0] != request:
            item.unsure = (request, _record(name, item, request))
        try:
            await self._hand_over(item.unsure[1])
        except _NotTaken as denied:
            if not (item.opened or denied.takers):
                del book.items[name]
            raise WireError(ErrorCode.ACCOUNTING_UNAVAILABLE, str(denied)) from None
        ended = item.unsure[1].ended
        item.unsure = None
        item.opened = True
        item.count = request.count if request.count is not None else item.count
        if isinstance(request, AccountingStop):
            del book.items[name]
        return None if ended is None else round(ended * 1e6)

    # --- the pool's own sessions ---------------------------------------------------------------------------------------------

    async def session_started(self, session: Session) -> SessionAccount | None:
        """Account for the start of a session, if that is configured. Raises WireError if it cannot be."""
        if not self._sessions:
            return None
        account = SessionAccount(self, session)
        try:
            await self._hand_over(account.start())
        except _NotTaken as denied:
            if denied.takers:
                account.end("refused", 0, 0)
            raise WireError(ErrorCode.ACCOUNTING_UNAVAILABLE, str(denied)) from None
        except asyncio.CancelledError:  # the session has no more time; the start may be taken nevertheless
            account.end("refused", 0, 0)
            raise
        return account

    def later(self, record: AccountingRecord) -> None:
        """Hand over a record that nobody waits for."""
        self._run(self._hand_over_at_last(record))

    # --- ends ----------------------------------------------------------------------------------------------------------------

    def session_ended(self, ctlkey: bytes, controller: object | None) -> None:
        """The session is over; its controller, if there is one, may still report final counts."""
        book = self._books.get(ctlkey)
        if book is None or book.ended:  # of an earlier session, which had the same control key
            return
        book.ended, book.owner = True, controller
        lingering = self._lingering.setdefault(controller, set()) if controller is not None else set()
        lingering.add(ctlkey)
        if controller is None or not book.items or len(lingering) > _LINGERING:
            self._abandon(ctlkey, book)

    def release(self, controller: object) -> None:
        """An application has gone: what it left open after the end of sessions is stopped."""
        for ctlkey in list(self._lingering.get(controller, ())):
            self._abandon(ctlkey, self._books[ctlkey])

    async def flush(self) -> None:
        """Stop what is open, and hand over all that is still to be handed over, once; bounded in time."""
        self._stopping.set()
        for ctlkey, book in list(self._books.items()):
            self._abandon(ctlkey, book)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_FLUSH)
            for task in late:
                task.cancel()

    def _drop(self, ctlkey: bytes, book: Book) -> None:
        if self._books.get(ctlkey) is book:
            del self._books[ctlkey]
        lingering = self._lingering.get(book.owner)
        if lingering is not None:
            lingering.discard(ctlkey)
            if not lingering:
                del self._lingering[book.owner]

    def _abandon(self, ctlkey: bytes, book: Book) -> None:
        """Forget the book, and stop what is open in it."""
        self._drop(ctlkey, book)
        if book.items:
            self._run(self._stop_all(book))

    async def _stop_all(self, book: Book) -> None:
        """One that has to wait holds up no other."""
        async with book.lock:
            stops = [_stop(name, item) for name, item in book.items.items()]
            book.items.clear()
        await asyncio.gather(*map(self._hand_over_at_last, stops))

    # --- plugins -------------------------------------------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hand_over_at_last(self, record: AccountingRecord) -> None:
        """As often as it takes, within bounds; a plugin that has taken it is not asked again."""
        waiting, pause, give_up = self._plugins, _PAUSE[0], time.monotonic() + _LONGEST
        told = False
        while True:
            last = self._stopping.is_set() or len(self._tasks) > _PUT_OFF or time.monotonic() > give_up
            refusals = [(plugin, denied) for plugin in waiting if (denied := await self._refusal(plugin, record)) is not None]
            for _, denied in refusals:
                _complain(record, denied, lost=last or denied.final, told=told)
            waiting = [plugin for plugin, denied in refusals if not denied.final]
            if last or not waiting:
                return
            told = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            pause = min(pause * 2, _PAUSE[1])

    async def _hand_over(self, record: AccountingRecord) -> None:
        """Have every plugin take the record. Raises _NotTaken with the name of the one that did not."""
        for number, plugin in enumerate(self._plugins):
            denied = await self._refusal(plugin, record)
            if denied is not None:
                raise _NotTaken(str(denied), self._plugins[: number if denied.final else number + 1], final=denied.final)

    async def _refusal(self, plugin: Aaa, record: AccountingRecord) -> Denied | None:
        """Have a plugin take the record; None if it did, else the reason with its name."""
        final = False
        try:
            async with asyncio.timeout(self._time_limit):
                await plugin.account(record)
        except Denied as denied:
            reason, final = str(denied), denied.final
        except TimeoutError:
            reason = "no answer in time"
        except Exception:
            log.exception("plugin %s failed", plugin.name)
            reason = "the plugin failed"
        else:
            return None
        return Denied(f"accounting by {plugin.name}: {reason}", final=final)


def _complain(record: AccountingRecord, denied: Denied, *, lost: bool, told: bool) -> None:
    """A record is lost, or waits: the latter once, as there may be thousands that wait for the same."""
    what = {"kind": record.kind, "event": record.event, "record": record.record_id, "reason": denied}
    if lost:
        say(log, logging.ERROR, "not accounted", **what)
    elif not told:
        say(log, logging.WARNING, "accounting is put off", **what)


def _record(name: tuple[str, str], item: Item, request: Accounting) -> AccountingRecord:
    """The next record of an item."""
    event = {AccountingStart: "start", AccountingInterim: "interim", AccountingStop: "stop"}[type(request)]
    stop = event == "stop"
    record = AccountingRecord(
        event,
        item.record_id,
        *name,
        item.local,
        item.remote,
        started=item.started / 1e6,
        ended=(now() if request.ended is None else request.ended) / 1e6 if stop else None,
        count=request.count,
        attributes=item.attributes | ({"cause": request.cause} if stop and request.cause else {}),
        sequence=item.sequence,
    )
    item.sequence += 1
    return record


def _stop(name: tuple[str, str], item: Item) -> AccountingRecord:
    """The stop that an application owes: the one that it asked for in vain, or else with the last count that it told."""
    asked, record = item.unsure or (None, None)
    if isinstance(asked, AccountingStop) and record is not None:
        return record
    count = item.count if asked is None or asked.count is None else asked.count
    return _record(name, item, AccountingStop(kind=name[0], instance=name[1], count=count, cause=LOST_SERVICE))


class SessionAccount:
    """One of the pool's own sessions, from its start to its one end."""

    __slots__ = ("_attributes", "_desk", "_ended", "_id", "_local", "_remote", "_started")

    def __init__(self, desk: AccountingDesk, session: Session) -> None:
        self._desk = desk
        self._id = os.urandom(12).hex()
        self._attributes = attributes_of(session)
        self._local, self._remote = session.identity(session.local), session.identity(session.remote)
        self._started = time.time()
        self._ended = False

    def _record(self, event: str, ended: float | None, more: dict[str, Any], sequence: int) -> AccountingRecord:
        session, attributes = self._attributes["session"], self._attributes | more
        identities = (self._local, self._remote)
        return AccountingRecord(
            event, self._id, SESSION_KIND, session, *identities, self._started, ended, None, attributes, sequence
        )

    def start(self) -> AccountingRecord:
        """The record of the start."""
        return self._record("start", None, {}, 0)

    def end(self, reason: str, octets_in: int, octets_out: int) -> None:
        """Account for the end, once: reason as the log has it, octets from and to the peer."""
        if not self._ended:
            self._ended = True
            cause = _CAUSES.get(reason, _LOST_CARRIER)
            more = {"cause": cause, "octets_in": octets_in, "octets_out": octets_out}
            self._desk.later(self._record("stop", time.time(), more, 1))
