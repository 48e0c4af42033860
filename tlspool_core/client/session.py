"""A TLS session as the application holds it: the plaintext socket, two identities, and what can be asked of the pool about it.

Theory of operation
-------------------
The plaintext socket is an ordinary one.  Closing it ends the session; so does the end of the connection to the pool that set it
up, unless FORK was asked for.  The 16-byte control key names the session towards the pool and proves the right to control it: keep
it as you keep a password.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from tlspool_core.client import facts
from tlspool_core.client.errors import Refused
from tlspool_core.client.established import Established
from tlspool_core.client.link import Link
from tlspool_core.wire.errors import ErrorCode
from tlspool_core.wire.flags import InfoKind, StartTlsFlags
from tlspool_core.wire.messages import (
    AccountingStart,
    ControlDetach,
    ControlReattach,
    Info,
    StartTls,
    StartTlsData,
)


class Control:
    """What the control key of a session allows, over a link of this process."""

    def __init__(self, link: Link, ctlkey: bytes) -> None:
        self._link = link
        self.ctlkey = ctlkey

    def export(self, label: str | bytes, context: bytes | None = None, length: int = 32) -> bytes:
        """Keying material of the session (RFC 5705, RFC 8446 section 7.5): 1 to 350 bytes for an IANA or EXPERIMENTAL label."""
        return facts.output(self._link.ask(facts.prng(self.ctlkey, label, context, length)), length)

    def info(self, kind: InfoKind | int) -> bytes | None:
        """One fact, or None if the session has none of that kind."""
        try:
            return facts.value(self._link.ask(Info(self.ctlkey, kind)))
        except Refused as refusal:
            if refusal.code == ErrorCode.INFO_NOT_FOUND:
                return None
            raise

    def check(self, kind: InfoKind | int, value: bytes) -> bool:
        """Whether a fact has this value (for alternative names: whether it is among them)."""
        try:
            self._link.ask(Info(self.ctlkey, kind, value))
        except Refused as refusal:
            if refusal.code == ErrorCode.INFO_NOT_FOUND:
                return False
            raise
        return True

    def text(self, kind: InfoKind | int) -> str | None:
        """One fact that is text."""
        fact = self.info(kind)
        return None if fact is None else fact.decode("utf-8")

    def channel_binding(self, name: str = "tls-exporter") -> bytes | None:
        """A channel binding by its IANA name, or None if the session has no such binding."""
        return self.info(facts.binding_kind(name))

    def alpn(self) -> str | None:
        """The application protocol that was agreed (RFC 7301)."""
        return self.text(InfoKind.ALPN)

    def version(self) -> str | None:
        """The protocol version, as "TLSv1.3"."""
        return self.text(InfoKind.VERSION)

    def cipher(self) -> str | None:
        """The cipher suite by its IANA name."""
        return self.text(InfoKind.CIPHER_SUITE)

    def detach(self, name: str = "") -> None:
        """Give up control; whoever has the control key may reattach."""
        self._link.ask(ControlDetach(ctlkey=self.ctlkey, name=name))

    def reattach(self, name: str = "") -> None:
        """Take control of a detached session."""
        self._link.ask(ControlReattach(ctlkey=self.ctlkey, name=name))

    def account(
        self, kind: str, instance: str, localid: str, remoteid: str, *, started: float | None = None, count: int | None = None
    ) -> Account:
        """Begin to account something to the identities of this session; the pool checks that they are."""
        start = AccountingStart(self.ctlkey, kind, instance, localid, remoteid, facts.microseconds(started), None, count)
        taken = facts.stamped(self._link.ask(start))
        return Account(self._link, replace(start, started=taken.started))


@dataclass(slots=True)
class Account:
    """Something that is being accounted. The pool has taken over each report for which no exception was raised."""

    _link: Link = field(repr=False)
    record: AccountingStart

    def interim(self, count: int | None = None) -> None:
        """Report the count so far."""
        self._link.ask(self.record.interim(count))

    def stop(self, count: int | None = None, *, ended: float | None = None, cause: int = 0) -> None:
        """Report the end: final count, moment (default: now), Acct-Terminate-Cause of RFC 2866 section 5.10."""
        self._link.ask(self.record.stop(count, facts.microseconds(ended), cause))


class Session(Control, Established):
    """A session that this process set up. Use it in a `with`, or close it."""

    def __init__(self, link: Link, answer: StartTlsData, plaintext: socket.socket | None) -> None:
        Control.__init__(self, link, answer.ctlkey)
        Established.__init__(self, answer, plaintext)

    def renegotiate(self, *, flags: StartTlsFlags = StartTlsFlags.NONE, remoteid: str = "", timeout: float | None = None) -> None:
        """Ask for the peer's identity anew within the session; `localid` and `remoteid` are up to date afterwards."""
        again = self._again(flags, remoteid, timeout)
        answer = self._link.ask(again.request, again.patience)
        if not isinstance(answer, StartTls):
            raise facts.unexpected(answer)
        self._answer = answer

    def account_this(self, kind: str, instance: str, *, started: float | None = None, count: int | None = None) -> Account:
        """Begin to account something to the two identities of this session."""
        return self.account(kind, instance, self.localid, self.remoteid, started=started, count=count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
