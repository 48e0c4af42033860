"""One STARTTLS session, from the descriptor that an application hands over to the last byte relayed.

Theory of operation
-------------------
A session's life has two parts.  As long as there is a `beginning`, the handshake runs, in a task of its own; see there.  Then the relay
has both descriptors, and the session is a few references: connection, relay, identities; nothing waits.  What the peer asks then (for a
ticket, or who we are) is answered by a task that ends with its answer.

It ends when the relay reports that both directions are closed, when the connection of its maker ends (unless FORK), when a time
limit of site rules is reached, or with the pool.  Whatever ends it comes through `close`, which acts once.  Whoever owns a descriptor
closes it, once: first the beginning, then the relay.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Hashable
from typing import TYPE_CHECKING, Final

from tlspool_core.fdpass import Descriptor
from tlspool_core.identity import DoNAI
from tlspool_core.interfaces import AaaDecision, CredentialType, Role
from tlspool_core.pool.accounting import SessionAccount
from tlspool_core.pool.answers import Answers
from tlspool_core.pool.beginning import Beginning, name_text
from tlspool_core.pool.logs import say, say_cause, session_id
from tlspool_core.pool.peer_roles import with_role
from tlspool_core.pool.relay import Relay
from tlspool_core.pool.renegotiate import renegotiate
from tlspool_core.pool.wishes import wishes_of
from tlspool_core.tls import TlsConnection
from tlspool_core.tls.questions import AnyQuestion, HandshakeFacts, JudgePeer
from tlspool_core.wire.errors import ErrorCode, WireError
from tlspool_core.wire.flags import TIMEOUT_INFINITE
from tlspool_core.wire.messages import StartTls

if TYPE_CHECKING:
    from tlspool_core.pool.client import Client
    from tlspool_core.pool.core import Pool

log = logging.getLogger("tlspool.session")

_GONE: Final = "application gone"


class Session:
    """See above; made by `Pool.admit`, which has checked roles and limits."""

    __slots__ = (
        "account",
        "beginning",
        "connection",
        "decision",
        "id",
        "judged",
        "key_bound",
        "keys",
        "local",
        "maker",
        "own_roles",
        "own_type",
        "peer_address",
        "peer_type",
        "pool",
        "process",
        "relay",
        "remote",
        "request",
        "resumption",
        "role",
        "started",
        "symmetric",
        "wishes",
    )

    def __init__(self, pool: Pool, maker: Client, request: StartTls, role: str, peer_address: str) -> None:
        self.pool = pool
        self.maker: Client | None = maker
        self.process = maker.process
        self.request = request
        self.wishes = wishes_of(request.flags)
        self.key_bound = self.wishes.key_bound or pool.config.policy.key_bound
        self.keys: frozenset[str] = frozenset()  # URIs of those that our proof rests on
        self.role = role  # "peer" until the remote and we have found out, see `peer_roles`
        self.symmetric = self.wishes.symmetric
        self.id: str = pool.new_session_id()
        self.local = ""
        self.remote = ""
        self.own_type: CredentialType | None = None
        self.own_roles: Role | None = None  # that the credential may be shown in which we proved ourselves with
        self.peer_type: CredentialType | None = None
        self.decision = AaaDecision()
        self.resumption: Hashable = None  # key for sessions that a client may resume; None: it may not
        self.peer_address = peer_address
        self.started = time.monotonic()
        self.judged: asyncio.Future[None] | None = None  # a renegotiation waits for the judgement
        self.account: SessionAccount | None = None
        self.connection: TlsConnection
        self.beginning: Beginning | None = None  # there from `Pool.admit` on until the relay starts, or the session ends
        self.relay: Relay | None = None

    # --- the handshake -------------------------------------------------------------------------------------------------------

    def time_limit(self, request: StartTls) -> float:
        """Seconds that a handshake may take: what the application asks for, within what the configuration allows."""
        limits = self.pool.config.limits
        if not request.timeout:
            return limits.handshake_timeout
        if request.timeout == TIMEOUT_INFINITE:
            return limits.handshake_timeout_max
        return min(request.timeout / 1000, limits.handshake_timeout_max)

    def local_address(self) -> str:
        """Our end of the cipher connection as text; empty if it has none, or once the relay has it."""
        return "" if self.beginning is None else name_text(self.beginning.local_name())

    def note(self, answers: Answers) -> None:
        """The handshake is complete: what of it must outlive it."""
        connection = self.connection
        self.local = str(answers.local or "")
        self.remote = str(answers.remote or "")
        own = answers.own_credential(connection.own)
        self.own_type, self.own_roles = (own.type, own.roles) if own is not None else (None, None)
        self.peer_type = answers.peer_type
        self.decision = answers.decision
        self.resumption = answers.resumption
        flags = with_role(self.request.flags, self.role)
        self.request = self.request.echo(flags=flags, localid=self.local, remoteid=self.remote)
        facts = connection.facts
        self.pool.counters.established[self.role] += 1
        self.pool.counters.resumed += facts.resumed
        say(
            log,
            logging.INFO,
            "established",
            role=self.role,
            local=self.local,
            remote=self.remote,
            peer=self.peer_address,
            service=self.request.service,
            version=f"{facts.version:#06x}",
            suite=facts.cipher_suite_name,
            resumed=facts.resumed,
            ms=round((time.monotonic() - self.started) * 1000, 1),
        )

    # --- the relay -----------------------------------------------------------------------------------------------------------

    def relay_between(self, cipher: socket.socket, plain: Descriptor) -> None:
        """Go on by relaying; takes over both. Raises WireError, and closes them, for a plaintext descriptor that cannot be relayed."""
        self.beginning = None
        idle_timeout, session_timeout = self._limits()
        try:
            self.relay = Relay(
                self.pool.loop,
                self.connection,
                cipher,
                plain,
                on_closed=self._relay_closed,
                on_question=self._relay_asks,
                idle_timeout=idle_timeout,
                session_timeout=session_timeout,
                name=self.id,
            )
        except OSError as error:
            raise WireError(ErrorCode.PLAIN_SOCKET_NEEDED, f"The plaintext descriptor cannot be used: {error.strerror}") from None
        if self.wishes.detach:
            self.pool.control.detach(self.request.ctlkey, self.maker)
        self.relay.start()
        if self.relay is not None:
            self._bind_to_keys()

    def _limits(self) -> tuple[float | None, float | None]:
        """For how long a session may be idle, and last: in seconds, by configuration and site rules."""
        decision, idle = self.decision, self.pool.config.limits.idle_timeout or None
        if decision.idle_timeout is not None:
            idle = min(idle, decision.idle_timeout) if idle else decision.idle_timeout
        return idle, decision.session_timeout

    def _bind_to_keys(self) -> None:
        """End with the keys that our proof rests on, if that is wanted."""
        if self.key_bound:
            self.pool.key_watch.add(self, self.keys)

    def store_sessions(self) -> None:
        """Client: keep what may be resumed."""
        if self.resumption is not None and (sessions := self.connection.take_sessions()):
            self.pool.client_sessions.store(self.resumption, sessions, self.local, self.keys)

    def _relay_closed(self, cause: str, octets_in: int, octets_out: int) -> None:
        """The one end of a session that was established."""
        self.pool.counters.end(octets_in, octets_out)
        seconds = round(time.monotonic() - self.started, 3)
        token = session_id.set(self.id)
        say(log, logging.INFO, "ended", cause=cause, octets_in=octets_in, octets_out=octets_out, seconds=seconds)
        if (failed := self.connection.failed) is not None:
            say_cause(log, failed)
        session_id.reset(token)
        self.store_sessions()
        if self.account is not None:
            self.account.end(cause, octets_in, octets_out)
        self.relay = None
        self.close(cause)

    def _relay_asks(self, question: AnyQuestion) -> None:
        """A question after the handshake (tickets, client authentication)."""
        task = self.pool.loop.create_task(self._answer_later())
        self.pool.keep(task)

    async def _answer_later(self) -> None:
        session_id.set(self.id)
        answers = Answers(self.pool, self)
        while self.relay is not None and (question := self.connection.question) is not None:
            await answers.settle(self.connection)
            if isinstance(question, JudgePeer):
                self._judged_again(answers, question.peer is not None)
        if answers.local is not None:
            self.local = str(answers.local)
            self.own_type = answers.type_of_own(self.connection.own)
            self.keys |= answers.keys_behind(self.connection)
        if self.relay is not None:
            self._bind_to_keys()
            self.relay.resume()

    def _judged_again(self, answers: Answers, shown: bool) -> None:
        """The client was asked again who it is; one that declined, and may, stays who it was."""
        if shown and answers.failure is None:
            self.peer_type = answers.peer_type
            self.remote = str(answers.remote or "")
            self.decision = answers.decision
            if self.relay is not None:
                self.relay.limit(*self._limits())
            say(log, logging.INFO, "authenticated again", remote=self.remote)
        if self.judged is not None and not self.judged.done():
            if answers.failure is not None:
                self.judged.set_exception(answers.failure)
            else:
                self.judged.set_result(None)

    # --- commands ------------------------------------------------------------------------------------------------------------

    @property
    def uid(self) -> int:
        """Of the application that made the session."""
        return self.process.uid

    def identity(self, text: str) -> DoNAI | None:
        """`local` or `remote` as an identity; None if it was not established."""
        return self.pool.identity(text)

    @property
    def facts(self) -> HandshakeFacts:
        return self.connection.facts

    def require_running(self, code: ErrorCode) -> None:
        """Raise WireError with `code` unless the handshake is complete."""
        if self.relay is None:
            raise WireError(code, "The handshake of this session is not complete")

    def end_point_binding(self) -> bytes | None:
        """tls-server-end-point (RFC 5929 section 4.1): of our credential as a server, else of the peer's."""
        own = self.role == "server"
        side = self.connection.own if own else self.connection.peer
        kind = self.own_type if own else self.peer_type
        return None if side is None or kind is None else kind.end_point_binding(side)

    async def renegotiate(self, request: StartTls) -> StartTls:
        """RENEGOTIATE. Raises WireError."""
        return await renegotiate(self, request)

    # --- the end -------------------------------------------------------------------------------------------------------------

    def maker_gone(self) -> None:
        """The connection that requested the session has ended, and with it the session, unless it was meant to go on.

        A program that writes its last words and exits has closed everything before they are on their way, so they are sent first.
        """
        self.maker = None
        if self.relay is None:
            self.close(_GONE)
        elif not self.wishes.fork:
            self.pool.control.remove(self.request.ctlkey, self)
            self.relay.leave(_GONE)

    def close(self, reason: str = "closed") -> None:
        """Release everything; harmless if done before."""
        beginning, self.beginning = self.beginning, None
        if beginning is not None:
            beginning.release()
        if self.judged is not None and not self.judged.done():
            self.judged.set_exception(WireError(ErrorCode.RENEGOTIATE_NOT_FOUND, f"The session has ended: {reason}"))
        if self.relay is not None:
            self.relay.close(reason)
        if self.account is not None:
            self.account.end(reason, 0, 0)
        self.pool.ended(self)
