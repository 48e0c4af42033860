"""Programs that decide for people: the PIN desk and the desk for local identities.

    with PinDesk() as desk:
        for request in desk:
            with Secret() as pin:
                pin.length = os.readv(pinpad, [pin.view])
                request.answer(pin)

Theory of operation
-------------------
A desk registers on a connection of its own, because it stays registered as long as that connection is open, and one desk of each
kind is served at a time.  The pool then calls back whenever it needs an answer, one request at a time; each is answered or declined
exactly once, and a request that is left behind is declined.  When the pool is restarted the desk registers anew.

A PIN that lies in a `Secret` goes to the pool without a copy that is not wiped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from tlspool_core.client import options
from tlspool_core.client.blocking import connect
from tlspool_core.client.errors import PoolVanished
from tlspool_core.client.facts import unexpected
from tlspool_core.client.link import Deadline, Link, Talk
from tlspool_core.secret import Secret
from tlspool_core.wire.flags import LidentryFlags
from tlspool_core.wire.messages import LidentryCallback, LidentryRegister, Packet, PinEntry


class _Desk:
    """A registration and its connection."""

    def __init__(self, registration: PinEntry | LidentryRegister, path: str | os.PathLike[str] | None, patience: float) -> None:
        self._registration = registration
        self._path = path
        self._patience = patience
        self._link: Link | None = None
        self._talk: Talk | None = None
        self._closed = False

    def _packets(self) -> Iterator[tuple[Talk, Packet]]:
        """Callbacks for ever; registers first, and again after the pool was gone. Raises Refused if another desk is there."""
        patience = self._patience
        while True:
            try:
                talk = self._register(patience)
                while True:
                    yield talk, talk.next(Deadline(None))
            except PoolVanished:
                if self._closed:
                    raise
                self._leave()
                patience = max(self._patience, options.RECONNECT_TIME)

    def _register(self, patience: float) -> Talk:
        if self._talk is None:
            self._link = Link(connect(self._path, patience))
            self._talk = self._link.begin(self._registration)
        return self._talk

    def _leave(self) -> None:
        if self._link is not None:
            self._link.close()
        self._link = self._talk = None

    def register(self) -> None:
        """Register now rather than with the first request that is waited for. Raises PoolUnreachable."""
        self._register(self._patience)

    def close(self) -> None:
        """Make place for another desk. A program that waits in another thread gets PoolVanished."""
        self._closed = True
        self._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class PinRequest:
    """A token wants its PIN."""

    def __init__(self, talk: Talk, packet: Packet, message: PinEntry) -> None:
        self._talk = talk
        self._packet = packet
        self._message = message
        self.answered = False
        self.manufacturer = message.token_manufacturer
        self.model = message.token_model
        self.serial = message.token_serial
        self.label = message.token_label
        self.prompt = message.prompt.removesuffix(": ")
        self.attempt = message.attempt  # 0 for the first; more than that: the PIN before was wrong
        self.deadline = time.monotonic() + message.timeout / 1_000_000 if message.timeout else None

    def answer(self, pin: Secret | str) -> None:
        """Give the PIN; a Secret stays the caller's to wipe, a text cannot be wiped by anybody.

        Raises ValueError if it is empty, too long (127 bytes of UTF-8), or if the request was answered before.
        """
        if not pin:
            raise ValueError("an empty PIN declines: say decline()")
        if isinstance(pin, Secret):
            self._reply(pin)
        else:
            with Secret.of(pin.encode()) as secret:
                self._reply(secret)

    def decline(self) -> None:
        """Give no PIN: what needs the token fails now."""
        self._reply(None)

    def _reply(self, pin: Secret | None) -> None:
        if self.answered:
            raise ValueError("this request was answered before")
        answer = PinEntry(self._message.flags, self._message.attempt, self._message.timeout, self.prompt, pin=pin)
        if pin is None:
            self._talk.reply(self._packet, answer)
        else:
            self._talk.reply_with_pin(self._packet, answer)
        self.answered = True


class PinDesk(_Desk):
    """Iterate over PIN requests; `timeout` in seconds is how long the pool is to wait for each answer."""

    def __init__(self, path: str | os.PathLike[str] | None = None, *, timeout: float = 60.0, patience: float = 0.0) -> None:
        super().__init__(PinEntry(timeout=round(timeout * 1_000_000)), path, patience)

    def __iter__(self) -> Iterator[PinRequest]:
        """One request after the other. Raises PoolUnreachable, or Refused if another program has the desk."""
        for talk, packet in self._packets():
            if not isinstance(packet.message, PinEntry):
                raise unexpected(packet.message)
            request = PinRequest(talk, packet, packet.message)
            yield request
            if not request.answered:
                request.decline()


class IdentityRequest:
    """The pool asks who to be towards a remote identity."""

    def __init__(self, talk: Talk, packet: Packet, message: LidentryCallback, entries: tuple[str, ...]) -> None:
        self._talk = talk
        self._packet = packet
        self._message = message
        self.answered = False
        self.remoteid = message.remoteid
        self.suggested = message.localid  # what the application asked for; may be empty
        self.entries = entries  # what the disclosure database offers, best first
        self.maxlevels = message.maxlevels  # how far up the selector of an answer may be from the remote identity

    def choose(self, localid: str, *, selector: str | None = None, flags: LidentryFlags = LidentryFlags.NONE) -> None:
        """Be `localid`. DBINSERT, DBAPPEND or DBREORDER keep the choice for `selector` (default: this remote identity alone)."""
        if not localid:
            raise ValueError("an empty identity declines: say decline()")
        self._reply(localid, selector, flags)

    def decline(self) -> None:
        """Show no identity: a handshake that needs one fails now."""
        self._reply("", None, LidentryFlags.NONE)

    def _reply(self, localid: str, selector: str | None, flags: LidentryFlags) -> None:
        if self.answered:
            raise ValueError("this request was answered before")
        remoteid = self.remoteid if selector is None else selector
        self._talk.reply(self._packet, self._message.echo(localid=localid, remoteid=remoteid, flags=flags))
        self.answered = True


class IdentityDesk(_Desk):
    """Iterate over requests to choose a local identity; `timeout` in seconds is how long the pool is to wait for each answer."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        flags: LidentryFlags = LidentryFlags.WANT_DBENTRY,
        maxlevels: int = 0,
        timeout: int = 300,
        patience: float = 0.0,
    ) -> None:
        super().__init__(LidentryRegister(flags & LidentryFlags.REGISTRATION_MASK, maxlevels, timeout), path, patience)

    def __iter__(self) -> Iterator[IdentityRequest]:
        """One request after the other. Raises PoolUnreachable, or Refused if another program has the desk."""
        entries: list[str] = []
        for talk, packet in self._packets():
            message = packet.message
            if not isinstance(message, LidentryCallback):
                raise unexpected(message)
            if message.flags & LidentryFlags.DBENTRY:
                entries.append(message.localid)
                talk.reply(packet, message)  # an entry is acknowledged by its echo
                continue
            request = IdentityRequest(talk, packet, message, tuple(entries))
            entries.clear()
            yield request
            if not request.answered:
                request.decline()
