"""Accounting: records as attributes, and the courier that brings them to a server.

Theory of operation
-------------------
`describe` turns a record into attributes at the moment when it is taken over; only Acct-Delay-Time is added when it is sent, and says
for how long it has been waiting.  The things that are accounted have an Acct-Session-Id each; Acct-Multi-Session-Id is the TLS session
that they belong to.  What is counted is named by Connect-Info (kind and instance), and the count is in Acct-Output-Octets with its
Gigawords, the one pair of attributes that holds 64 bits; the pool's own sessions have octets there, and in Acct-Input-Octets.

The courier sends one record at a time, the oldest first, and takes the next when a server has acknowledged it.  If none answers, it
tries again after a pause that grows; nothing is dropped, however long that takes.  What was acknowledged is not sent again, even if it
cannot be removed from the disk.

A server may also be well and have no answer to one record, whose User-Name its database cannot hold, say; and who chose that name would
stop the accounting of everybody.  So after some tries in vain the servers are asked for their health, and if one is well (RFC 5997), all
records of that thing go behind those of others, in their order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Final

from tlspool_core.api import AccountingRecord
from tlspool_radius import attributes as a
from tlspool_radius.access import user_name
from tlspool_radius.attributes import Attributes, number, text
from tlspool_radius.ledger import Entry, Ledger, LedgerError
from tlspool_radius.packets import ACCOUNTING_REQUEST, STATUS_SERVER
from tlspool_radius.servers import NoAnswer, Servers

log = logging.getLogger("tlspool.radius")

_EVENTS: Final = {"start": 1, "stop": 2, "interim": 3}  # Acct-Status-Type, RFC 2866 section 5.1
_REMOTE: Final = 3  # Acct-Authentic: not by RADIUS, but by the TLS handshake
_PAUSE: Final = (0.2, 30.0)  # seconds: the first, and the longest
_LAST: Final = 3.0  # seconds for the record that is on its way when we stop; the pool gives plugins five
_LOOK: Final = 1.0  # seconds until we look again for what other processes have added, or whether they have gone
_DEAD: Final = 10.0  # seconds until we look again whether a process has died
_DOUBTFUL: Final = 3  # tries in vain after which it may be for the record
_MOST_DOUBTS: Final = 10_000  # things of which we remember that
_MOST_BYTES: Final = 4096 - 20 - 6  # of attributes: without the header, and Acct-Delay-Time
_CHANGING: Final = 4 * 6 + 3 * 6  # of these: counts; moment, duration, cause


def describe(record: AccountingRecord, nas_identifier: str, anonymous: str, now: float) -> Attributes:
    """All that a server is told of a record, apart from the delay: it fits a packet. Raises Denied if it cannot be told.

    A session without an identity has no User-Name, unless there is one for such (RFC 2866 section 5.13: it is optional).  What the
    server wanted to have back fills what the rest leaves free; for a start and for its stop, made here or by `orphans`, that is the same.
    """
    known = record.attributes
    described: Attributes = [
        (a.ACCT_STATUS_TYPE, number(_EVENTS[record.event])),
        (a.ACCT_SESSION_ID, text(record.record_id)),
        (a.ACCT_MULTI_SESSION_ID, text(str(known.get("session", "")))),
        (a.USER_NAME, user_name(record.remote_identity, anonymous) if record.remote_identity or anonymous else b""),
        (a.NAS_IDENTIFIER, text(nas_identifier)),
        (a.NAS_PORT_TYPE, number(a.VIRTUAL)),
        (a.NAS_PORT_ID, text(str(known.get("service", "")))),
        (a.CALLED_STATION_ID, text(str(record.local_identity or ""))),
        (a.CALLING_STATION_ID, text(str(known.get("peer_address", "")))),
        (a.CONNECT_INFO, text(f"{record.kind} {record.instance}".strip())),
        (a.ACCT_AUTHENTIC, number(_REMOTE)),
    ]
    classes = _classes(record, _MOST_BYTES - _CHANGING - sum(len(value) + 2 for _, value in described))
    happened = record.started if record.event == "start" else now if record.ended is None else record.ended
    described.append((a.EVENT_TIMESTAMP, number(happened)))
    if record.event != "start":
        described.append((a.ACCT_SESSION_TIME, number(happened - record.started)))
    described += _counts(record)
    if record.event == "stop" and "cause" in known:
        described.append((a.ACCT_TERMINATE_CAUSE, number(known["cause"])))
    return a.non_empty([*described, *classes])


def _classes(record: AccountingRecord, left: int) -> Attributes:
    """What the server wanted to have back (RFC 2865 section 5.25), unchanged, as long as there are bytes left for it."""
    kept: Attributes = []
    for value in record.attributes.get("classes", ()):
        left -= len(value) + 2
        if left < 0 or len(value) > a.MAX_VALUE:
            log.warning("attributes Class are left out of an accounting record: they are longer than a packet")
            break
        kept.append((a.CLASS, value))
    return kept


def _counts(record: AccountingRecord) -> Attributes:
    counts: Attributes = []
    if "octets_in" in record.attributes:
        counts += a.octets(record.attributes["octets_in"], a.ACCT_INPUT_OCTETS, a.ACCT_INPUT_GIGAWORDS)
    count = record.attributes.get("octets_out", record.count)
    if count is not None:
        counts += a.octets(count, a.ACCT_OUTPUT_OCTETS, a.ACCT_OUTPUT_GIGAWORDS)
    return counts


class Courier:
    """Delivers what is in the ledger; made on the event loop that it runs on."""

    def __init__(self, ledger: Ledger, servers: Servers) -> None:
        self._ledger = ledger
        self._servers = servers
        self._stopping = asyncio.Event()
        self._looked = -_DEAD  # for processes that have died, by the monotonic clock
        self._in_vain: dict[str, int] = {}  # how often the first record of a thing was sent without an answer
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Take no further record. The one that is on its way is waited for, as it would be sent twice otherwise."""
        self._stopping.set()
        self._ledger.added.set()
        await asyncio.wait([self._task], timeout=_LAST)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than there is work."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _run(self) -> None:
        pause = _PAUSE[0]
        while not self._stopping.is_set():
            try:
                if not await self._ledger.mine():
                    await self._pause(_LOOK)
                    continue
                await self._stop_orphans()
                await self._deliver()
                pause = _PAUSE[0]
            except (NoAnswer, LedgerError) as error:
                log.warning("accounting waits: %s", error)
                await self._pause(pause)
                pause = min(pause * 2, _PAUSE[1])
            except Exception:  # a fault of ours must not end all accounting
                log.exception("accounting waits")
                await self._pause(_PAUSE[1])

    async def _stop_orphans(self) -> None:
        if time.monotonic() < self._looked + _DEAD:
            return
        self._looked = time.monotonic()
        try:
            if stopped := await self._ledger.stop_orphans():
                log.warning("accounting is stopped for %d things that a process of the pool had open when it died", stopped)
        except LedgerError as error:  # the disk may be full, and what is delivered makes space
            log.warning("what processes that died had open is stopped later: %s", error)

    async def _deliver(self) -> None:
        """All that is there, then wait for more. Raises NoAnswer or LedgerError."""
        self._ledger.added.clear()
        entries = await self._ledger.first()
        try:
            for entry in entries:
                if self._stopping.is_set() or not await self._settle(entry):
                    return
        finally:
            await self._remove()
        if not entries and not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._ledger.added.wait()

    async def _settle(self, entry: Entry) -> bool:
        """Send a record, or put it behind others: then what was read ahead is out of order. Raises NoAnswer or LedgerError."""
        try:
            await self._servers.ask(ACCOUNTING_REQUEST, with_delay(entry, time.time()))
        except ValueError as error:  # one that another version of us has taken over; it would hold up all others for ever
            log.error("an accounting record cannot be sent, and is given up: Acct-Session-Id %s: %s", entry.record, error)
        except NoAnswer:
            if await self._put_behind(entry):
                return False
            raise
        self._in_vain.pop(entry.record, None)
        self._ledger.acknowledge(entry)
        return True

    async def _put_behind(self, entry: Entry) -> bool:
        """Whether others are in front now, as a server is well and still does not take this one. Raises NoAnswer or LedgerError."""
        tries = self._in_vain.get(entry.record, 0) + 1
        if len(self._in_vain) >= _MOST_DOUBTS:
            self._in_vain.clear()
        self._in_vain[entry.record] = tries
        if tries < _DOUBTFUL:
            return False
        await self._servers.ask(STATUS_SERVER, [pair for pair in entry.attributes if pair[0] == a.NAS_IDENTIFIER])
        if not await self._ledger.put_behind(entry.record):
            return False
        level = logging.WARNING if tries == _DOUBTFUL else logging.DEBUG
        log.log(level, "a server is well and does not take accounting for Acct-Session-Id %s: others go first", entry.record)
        return True

    async def _remove(self) -> None:
        """Forget what was acknowledged; what cannot be removed now is tried again with the next."""
        try:
            await self._ledger.remove()
        except LedgerError as error:
            log.warning("accounting records that were delivered stay on the disk for now: %s", error)


def with_delay(entry: Entry, now: float) -> Attributes:
    """What is sent for a record that has waited until now."""
    return [*entry.attributes, (a.ACCT_DELAY_TIME, number(now - entry.taken))]
