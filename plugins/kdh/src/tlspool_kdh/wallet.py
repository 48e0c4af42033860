"""Tickets that are held for clients: had when needed, kept while they are good, renewed before they end.

Theory of operation
-------------------
For each `Source` there is a wallet: a ticket-granting ticket, and the tickets that were had by it.  One that lasts longer than the
`margin` is used as it is.  One that ends sooner is still used, while a thread in the background gets another, so no session waits for
a KDC as long as there is something good.  A keeper looks after wallets that were used lately, and after those that only renewal can
keep alive.  A credential cache is its owner's: it is only read, and read again soon, so that what the owner does to it counts.

A password or key that the KDC refused is not sent again for a minute, then for two, and so on up to a day, lest the account be locked: what
sends it may be a stranger who calls at a server that is a user.  If it has been changed, a minute is enough.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tlspool_kdh import mit
from tlspool_kdh.gate import KDC_UNREACHABLE, Gate, KerberosError, turn
from tlspool_kdh.mit import Purse, Source
from tlspool_kdh.strangers import Strangers
from tlspool_kdh.tickets import ClientTicket, Principal

log = logging.getLogger("tlspool.kdh")

SPARE: Final = 60.0  # seconds that a ticket must last to be of use to a handshake
_CACHE_SEEN: Final = 5.0  # seconds for which somebody's own cache is taken to be as it was
_REFUSED_FOR: Final = 60.0  # seconds, at first
_REFUSED_LONGEST: Final = 86_400.0
_LOOK_EVERY: Final = 30.0
_MOST_TICKETS: Final = 256  # of one wallet; applications say for which services
_MOST_WALLETS: Final = 4096

Services = tuple[Principal, ...]


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Of a password or key, which is known again by its hash."""

    when: float
    pause: float  # seconds before the same may be sent again
    secret: bytes
    error: KerberosError

    def again(self, now: float) -> KerberosError:
        age = now - self.when
        text = f"{self.error} (refused {age:.0f} s ago, to be sent again in {self.pause - age:.0f} s, or sooner if it is changed)"
        return KerberosError(text, self.error.code)


@dataclass(slots=True)
class _Wallet:
    source: Source
    lock: threading.Lock = field(default_factory=threading.Lock)  # held by who asks the KDC for the ticket-granting ticket
    state: threading.RLock = field(
        default_factory=threading.RLock
    )  # held by who changes the purse, or looks into the owner's cache
    purse: Purse | None = None
    tickets: dict[tuple[Services, bytes], ClientTicket] = field(default_factory=dict)
    before: Purse | None = None  # the purse that was replaced last: somebody may still be asking by it
    copied: Purse | None = None  # what the owner's cache was when last seen
    seen: float = float("-inf")
    used: bool = False  # since the purse was filled
    refused: _Refusal | None = None


class Tickets:
    """Tickets by source; one for the process, called from worker threads. Times in seconds since the epoch."""

    def __init__(self, margin: float = 300.0, now: Callable[[], float] = time.time) -> None:
        self.margin = margin
        self._now = now
        self._wallets: dict[Source, _Wallet] = {}
        self._lock = threading.Lock()
        self._gate = Gate()
        self.strangers = Strangers()
        self._errands: set[object] = set()
        self._salt = os.urandom(32)
        self._keeper: threading.Thread | None = None

    # --- what clients and servers ask for ----------------------------------------------------------------------------------------

    def granting(self, source: Source) -> ClientTicket:
        """The ticket-granting ticket, good for a minute at least. Blocks. Raises KerberosError."""
        purse = self._purse(self._wallet(source))
        if purse.granting is None:
            raise KerberosError(f"{source.ccache} has no ticket-granting ticket of {purse.client}")
        return purse.granting

    def get(self, source: Source, services: Services, second_ticket: bytes = b"", stranger: str | None = None) -> ClientTicket:
        """A ticket for the first of `services` that is known, if need be in the session key of `second_ticket`, DER; good for a minute.

        `stranger` is the network of a peer on whose account it is, and who has not proven anything yet.
        Blocks. Raises KerberosError.
        """
        wallet = self._wallet(source)
        purse = self._purse(wallet)
        key = (services, hashlib.sha256(second_ticket).digest() if second_ticket else b"")
        held = wallet.tickets.get(key)
        if held is None or not self._lasts(held, SPARE):
            return self._fetch(wallet, purse, key, second_ticket, stranger)
        if not self._lasts(held, self.margin):
            self._in_background((source, key), lambda: self._fetch(wallet, self._purse(wallet), key, second_ticket, stranger))
        return held

    def held(self, source: Source, services: Services) -> ClientTicket | None:
        """What `get` would return without asking anybody, None if it would have to. Does not block."""
        wallet = self._wallets.get(source)
        if wallet is None or (source.ccache and self._now() - wallet.seen > _CACHE_SEEN):
            return None
        found = wallet.tickets.get((services, b""))
        return found if found is not None and self._lasts(found, self.margin) else None

    def renew_due(self) -> None:
        """Renew what ends soon, of wallets that were used or are somebody's cache. Called by the keeper; blocks."""
        with self._lock:
            wallets = list(self._wallets.values())
        for wallet in wallets:
            purse = wallet.purse
            if purse is None or purse.granting is None or self._lasts(purse.granting, self.margin):
                continue
            if wallet.used or wallet.source.ccache:
                self._quietly(lambda wallet=wallet: self._refill(wallet))  # type: ignore[misc]

    # --- ticket-granting tickets -------------------------------------------------------------------------------------------------

    def _purse(self, wallet: _Wallet) -> Purse:
        """A purse whose ticket-granting ticket is good. Raises KerberosError."""
        if wallet.source.ccache:
            self._look_into_cache(wallet)
        purse = wallet.purse
        if purse is None or (purse.granting is not None and not self._lasts(purse.granting, SPARE)):
            purse = self._refill(wallet, unless=purse)
        elif purse.granting is not None and not self._lasts(purse.granting, self.margin):
            self._in_background(wallet.source, lambda: self._refill(wallet))
        wallet.used = True
        return purse

    def _look_into_cache(self, wallet: _Wallet) -> None:
        """Copy the owner's cache if it has changed. Raises KerberosError if it cannot be used any more."""
        with wallet.state:
            if self._now() - wallet.seen <= _CACHE_SEEN:
                return
            try:
                found = mit.copied(wallet.source)
            except KerberosError:
                self._put(wallet, None)
                wallet.copied = None
                raise
            wallet.seen = self._now()
            before, wallet.copied = wallet.copied, found
            if (
                before is not None
                and wallet.purse is not None
                and (before.client, before.granting) == (found.client, found.granting)
            ):
                mit.forget(found)
            else:
                self._put(wallet, found)

    def _refill(self, wallet: _Wallet, unless: Purse | None = None) -> Purse:
        """Renew or ask anew. `unless`: what was found wanting; if another has come meanwhile, that is it."""
        realm = wallet.source.names[0].principal.realm if wallet.source.names else wallet.source.ccache
        with turn(wallet.lock, realm):
            purse = wallet.purse
            if purse is not None and purse is not unless and (purse.granting is None or self._lasts(purse.granting, self.margin)):
                return purse
            filled = self._renewed(wallet, purse, realm) or self._initial(wallet, realm)
            with wallet.state:
                if wallet.purse is purse:
                    self._put(wallet, filled)
                    return filled
                mit.forget(filled)  # the owner of a cache was quicker, and may be somebody else now, or have destroyed it
                if wallet.purse is None:
                    raise KerberosError(f"the tickets in {wallet.source.ccache} have gone meanwhile")
                return wallet.purse

    def _renewed(self, wallet: _Wallet, purse: Purse | None, realm: str) -> Purse | None:
        """The same, lasting longer; None if it cannot be renewed, and there is a way to ask anew."""
        if (
            purse is not None
            and purse.granting is not None
            and self._lasts(purse.granting, 0)
            and purse.renewable > purse.granting.ends
        ):
            try:
                return self._gate.ask(realm, lambda: mit.renewed(purse))
            except KerberosError as error:
                if wallet.source.ccache or error.code == KDC_UNREACHABLE:
                    raise
        return None

    def _initial(self, wallet: _Wallet, realm: str) -> Purse:
        source = wallet.source
        if source.ccache:
            raise KerberosError(f"the ticket of {source or 'its owner'} in {source.ccache} has ended, or will soon: run kinit")
        refused = wallet.refused
        if refused is not None and self._now() - refused.when < _REFUSED_FOR:
            raise refused.again(self._now())
        self._gate.check(realm)
        ready = mit.with_password(source)  # a person may have to type a PIN first, which is not the KDC's fault
        secret = self._hashed(ready)
        again = refused is not None and refused.secret == secret
        if refused is not None and again and self._now() - refused.when < refused.pause:
            raise refused.again(self._now())
        try:
            filled = self._gate.ask(realm, lambda: mit.initial(ready))
        except KerberosError as error:
            if error.code in mit.BAD_PASSWORD:
                pause = min(2 * refused.pause, _REFUSED_LONGEST) if refused is not None and again else _REFUSED_FOR
                wallet.refused = _Refusal(self._now(), pause, secret, error)
            raise
        wallet.refused = None
        return filled

    def _hashed(self, ready: Source) -> bytes:
        """What the KDC is about to see used, so that nothing can be learned from it but whether it is the same as before."""
        return hmac.digest(self._salt, mit.secret_of(ready), "sha256")

    def _put(self, wallet: _Wallet, purse: Purse | None) -> None:
        """Tickets for services stay if they are of the same client; somebody else's go."""
        with wallet.state:
            old, wallet.purse, wallet.used = wallet.purse, purse, False
            if purse is None or old is None or old.client != purse.client:
                wallet.tickets = {}
            if old is None:
                return
            oldest, wallet.before = wallet.before, old
            if oldest is not None:
                mit.forget(oldest)

    # --- tickets for services ----------------------------------------------------------------------------------------------------

    def _fetch(
        self, wallet: _Wallet, purse: Purse, key: tuple[Services, bytes], second_ticket: bytes, stranger: str | None
    ) -> ClientTicket:
        services = key[0]
        realm = services[0].realm if services else purse.client.realm

        def ask() -> ClientTicket:
            return self._gate.ask(realm, lambda: mit.service_ticket(purse, services, second_ticket), stranger=stranger is not None)

        fresh = ask() if stranger is None else self.strangers.ask(stranger, (purse.client, *key), ask)
        with wallet.state:
            if wallet.purse is not None and wallet.purse.client == purse.client:  # still, and not what the owner has destroyed
                kept = {known: ticket for known, ticket in wallet.tickets.items() if self._lasts(ticket, SPARE)}
                wallet.tickets = {**dict(list(kept.items())[-_MOST_TICKETS + 1 :]), key: fresh}
        return fresh

    def _lasts(self, ticket: ClientTicket, seconds: float) -> bool:
        return ticket.ends > self._now() + seconds

    # --- wallets, and who looks after them ---------------------------------------------------------------------------------------

    def _wallet(self, source: Source) -> _Wallet:
        with self._lock:
            wallet = self._wallets.get(source)
            if wallet is None:
                if len(self._wallets) >= _MOST_WALLETS:
                    self._drop(self._wallets.pop(next(iter(self._wallets))))
                wallet = self._wallets[source] = _Wallet(source)
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, name="kdh-keeper", daemon=True)
                self._keeper.start()
        return wallet

    def _drop(self, wallet: _Wallet) -> None:
        for purse in (wallet.purse, wallet.before):
            if purse is not None:
                mit.forget(purse)

    def _keep(self) -> None:
        while True:
            time.sleep(_LOOK_EVERY)
            self._quietly(self.renew_due)

    def _in_background(self, errand: object, work: Callable[[], object]) -> None:
        """Do something that nobody waits for, in a thread of its own, unless it is being done already."""
        with self._lock:
            if errand in self._errands:
                return
            self._errands.add(errand)

        def run() -> None:
            try:
                self._quietly(work)
            finally:
                with self._lock:
                    self._errands.discard(errand)

        threading.Thread(target=run, name="kdh-renewal", daemon=True).start()

    def _quietly(self, work: Callable[[], object]) -> None:
        try:
            work()
        except KerberosError as error:
            log.warning("a ticket was not renewed: %s", error)
        except Exception:
            log.exception("a ticket was not renewed")
