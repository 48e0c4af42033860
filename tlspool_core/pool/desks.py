"""Programs that decide for people: the seats of the PIN desk and of the identity desk, and questions for PINs.

Theory of operation
-------------------
A program that registers (PINENTRY with an empty pin, LIDENTRY_REGISTER) takes a seat and gets no answer: its request stays open,
and every question is a callback of it.  Who may answer for PINs is configured; for identities, see `desks_identity`.  The seat is
free again when the program's connection ends, or once it has let a question pass unanswered and another program wants to sit there.
Each seat is asked one question at a time; others wait in line.  Whatever goes wrong at a desk means that no answer was given, and
never more than that.

Waiting for a person is no fault of whoever waits: limits on handshakes and plugins that are set by the pool itself, and not by an
application, stand still meanwhile (`person_time`); the desk has a limit of its own.

Among several workers the desk may be with another one.  That is asked like for sessions (see `mesh`), in the packets of the desks:
a PinEntry with a prompt or a LidentryCallback is a question, a PinEntry without prompt or a LidentryRegister asks whether a seat is
taken.

A PIN passes through here as a `Secret`, from the packet to the key store, which wipes it.  Only a password that is no PIN becomes a text
(`ask_password`), as those that want one calculate with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tlspool_core.interfaces import PinRequest
from tlspool_core.pool.logs import say
from tlspool_core.secret import Secret
from tlspool_core.wire.connection import CallbackMessage, Exchange
from tlspool_core.wire.errors import ErrorCode, WireError
from tlspool_core.wire.messages import LidentryRegister, Message, PinEntry, clip

if TYPE_CHECKING:
    from tlspool_core.pool.accept import PeerProcess
    from tlspool_core.pool.client import Client
    from tlspool_core.pool.core import Pool

log = logging.getLogger("tlspool.desks")

_LONGEST = 600.0  # seconds for one answer, whatever a desk registers with
_PIN_TIME = 60.0  # unless the desk says otherwise
_IDENTITY_TIME = 300.0
_MOMENT = 5.0  # for what another worker answers without asking a person

pausing: ContextVar[asyncio.Timeout | None] = ContextVar("pausing", default=None)  # the limit that stands still for people


@contextlib.contextmanager
def person_time() -> Iterator[None]:
    """Stop the clock of the limit in `pausing` while a person is asked."""
    limit = pausing.get()
    until = limit.when() if limit is not None else None
    if limit is None or until is None:
        yield
        return
    clock = asyncio.get_running_loop().time
    begun = clock()
    with contextlib.suppress(RuntimeError):  # it has ended or passed already
        limit.reschedule(None)
    try:
        yield
    finally:
        with contextlib.suppress(RuntimeError):
            limit.reschedule(until + clock() - begun)


@dataclass(eq=False, slots=True)
class Holder:
    """The program in a seat."""

    client: Client
    exchange: Exchange
    patience: float  # seconds for each answer
    late: bool = False  # it let the last question pass


class Seat:
    """Room for one desk. Its lock is held by whoever talks to the desk."""

    def __init__(self, taken: ErrorCode) -> None:
        self.taken = taken
        self.lock = asyncio.Lock()
        self._holder: Holder | None = None

    @property
    def holder(self) -> Holder | None:
        """Who sits here; nobody if the program went on to something else."""
        if self._holder is not None and not self._holder.exchange.open:
            self._holder = None
        return self._holder

    def take(self, holder: Holder) -> None:
        """Raises WireError if the seat is taken; one who does not answer loses it."""
        before = self.holder
        if before is not None:
            if not before.late:
                raise WireError(self.taken)
            before.client.dismiss(before.exchange, WireError(self.taken))
        self._holder = holder

    def release(self, client: object) -> None:
        if self._holder is not None and self._holder.client is client:
            self._holder = None

    async def ask(self, holder: Holder, message: CallbackMessage) -> CallbackMessage:
        """One question. Raises WireError if there is no answer, or none that fits."""
        try:
            answer, _ = await holder.client.call_back(holder.exchange, message, holder.patience)
        except WireError as error:
            holder.late = error.code == ErrorCode.CALLBACK_TIMEOUT
            raise
        holder.late = False
        return answer


class Desks:
    """Both seats of one process."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.pins = Seat(ErrorCode.PINENTRY_NOT_VACANT)
        self.identities = Seat(ErrorCode.LIDENTRY_NOT_VACANT)

    # --- seats ---------------------------------------------------------------------------------------------------------------

    def may_give_pins(self, process: PeerProcess) -> bool:
        """Whether the configuration lets a program answer for PINs."""
        return self._pool.config.pin_desk.permits(process.uid, process.groups)

    async def register(self, client: Client, exchange: Exchange) -> None:
        """Have a program take its seat. Raises WireError if another has it, or if this one may not."""
        request = exchange.request
        assert isinstance(request, PinEntry | LidentryRegister)
        process = client.process
        if isinstance(request, PinEntry) and not self.may_give_pins(process):
            raise WireError(ErrorCode.PINENTRY_NOT_YOURS)
        await self._ask_whether_taken(request)
        if not exchange.open:
            return
        if isinstance(request, PinEntry):
            seat, patience = self.pins, request.timeout / 1_000_000 or _PIN_TIME
        else:
            seat, patience = self.identities, request.timeout or _IDENTITY_TIME
        seat.take(Holder(client, exchange, min(patience, _LONGEST)))
        say(log, logging.INFO, "desk registered", command=request.command.name, uid=process.uid, pid=process.pid)

    async def _ask_whether_taken(self, request: PinEntry | LidentryRegister) -> None:
        """Raises WireError if a desk of this kind is registered with another worker."""
        if self._pool.mesh is None:
            return
        question = PinEntry() if isinstance(request, PinEntry) else LidentryRegister()
        with contextlib.suppress(NobodyThere):
            await self.elsewhere(question, _MOMENT)

    def release(self, client: object) -> None:
        """A program has gone."""
        self.pins.release(client)
        self.identities.release(client)

    # --- PINs ----------------------------------------------------------------------------------------------------------------

    async def ask_pin(self, request: PinRequest) -> Secret | None:
        """What key stores call for the PIN of a token, and wipe; None if nobody gives it."""
        question = PinEntry(
            attempt=max(0, request.attempt - 1),
            prompt=clip(request.prompt or f"PIN of token {request.label}", 126) + ": ",  # existing programs show it as it is
            token_manufacturer=clip(request.manufacturer, 36),
            token_model=clip(request.model, 20),
            token_serial=clip(request.serial, 20),
            token_label=clip(request.label, 36),
        )
        try:
            with person_time():
                answer = await self._pin_here_or_elsewhere(question)
        except WireError as error:
            say(log, logging.WARNING, "no PIN was given", reason=error.text, token=request.label, serial=request.serial)
            return None
        return answer.pin

    async def ask_password(self, prompt: str) -> str | None:
        """A password that is no token's PIN, asked of the same person; None if nobody gives it."""
        password = await self.ask_pin(PinRequest("", "", "", "", 1, prompt))
        if password is None:
            return None
        with password:
            return password.text()

    async def _pin_here_or_elsewhere(self, question: PinEntry) -> PinEntry:
        try:
            return await self._pin_here(question)
        except NobodyThere:
            answer = await self.elsewhere(question, _LONGEST)
        assert isinstance(answer, PinEntry)
        return answer

    async def _pin_here(self, question: PinEntry) -> PinEntry:
        """Raises NobodyThere if no desk is registered here, WireError if it does not answer."""
        async with self.pins.lock:
            holder = self.pins.holder
            if holder is None:
                raise NobodyThere("no program that asks people for PINs is registered")
            answer = await self.pins.ask(holder, replace(question, timeout=round(holder.patience * 1_000_000)))
        assert isinstance(answer, PinEntry)
        return PinEntry(pin=answer.pin)

    # --- among workers -------------------------------------------------------------------------------------------------------

    async def elsewhere(self, question: Message, time_limit: float) -> Message:
        """The answer of another worker. Raises NobodyThere, or WireError as it was raised there."""
        mesh = self._pool.mesh
        if mesh is None:
            raise NobodyThere("no program that asks people is registered")
        try:
            return await mesh.ask(mesh.new_token(), question, time_limit)
        except WireError as error:
            if error.code == ErrorCode.CTLKEY_NOT_FOUND:
                raise NobodyThere("no program that asks people is registered") from None
            raise

    async def for_sibling(self, question: PinEntry | LidentryRegister) -> Message:
        """What another worker asks. Raises WireError; CTLKEY_NOT_FOUND is how `mesh` says that it is not here."""
        if isinstance(question, PinEntry) and question.prompt:
            return await self._pin_here(question)
        seat = self.pins if isinstance(question, PinEntry) else self.identities
        if seat.holder is not None and not seat.holder.late:
            raise WireError(seat.taken)
        raise NobodyThere("no desk here")


class NobodyThere(WireError):
    """There is no desk to ask."""

    def __init__(self, text: str) -> None:
        super().__init__(ErrorCode.CTLKEY_NOT_FOUND, text)
